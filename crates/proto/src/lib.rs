//! Generated gRPC code, conversions and the transport that makes a client local or remote.
//!
//! Contracts depend on types and tonic only; they know nothing of the runtime. See [`transport`] for how one client
//! type serves both wirings (`design.md` 3).

pub mod convert;
pub mod transport;

pub use transport::{Transport, TransportError};

/// The encoded descriptors of every proto, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/copass_descriptor.bin"));

// Nested as the packages are nested, because generated code names its neighbours by relative path.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod packages {
    pub mod copass {
        pub mod agent {
            pub mod v1 {
                tonic::include_proto!("copass.agent.v1");
            }
        }
        pub mod concierge {
            pub mod v1 {
                tonic::include_proto!("copass.concierge.v1");
            }
        }
        pub mod identity {
            pub mod v1 {
                tonic::include_proto!("copass.identity.v1");
            }
        }
        pub mod run {
            pub mod v1 {
                tonic::include_proto!("copass.run.v1");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                tonic::include_proto!("copass.sandbox.v1");
            }
        }
        pub mod source {
            pub mod v1 {
                tonic::include_proto!("copass.source.v1");
            }
        }
        pub mod trigger {
            pub mod v1 {
                tonic::include_proto!("copass.trigger.v1");
            }
        }
    }
}

/// In the head of an answer to `RunService.FollowRun`: the run is over, the follower has its last frame, and the stream is
/// empty.
pub const NOTHING_FOLLOWS: &str = "copass-nothing-follows";

pub use packages::copass::{
    agent::v1 as agent, concierge::v1 as concierge, identity::v1 as identity, run::v1 as run, sandbox::v1 as sandbox,
    source::v1 as source, trigger::v1 as trigger,
};
