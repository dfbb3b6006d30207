//! Starts the real thing and talks to it.

pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod rows;
pub(crate) mod stream;
pub(crate) mod tenant;

pub(crate) use api::{Answer, Api};
pub(crate) use cluster::{Cluster, Settings, Shape};
pub(crate) use tenant::{Tenant, agent_body, new_email, sandbox_path};

/// Makes a test per shape out of each `async fn case(shape: Shape)` of the module.
macro_rules! on_both_shapes {
    ($($case:ident)*) => {
        mod dev {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::harness::Shape::Dev).await;
            })*
        }
        mod separate {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::harness::Shape::Separate).await;
            })*
        }
    };
}

pub(crate) use on_both_shapes;
