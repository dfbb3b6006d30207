//! The rules of the service, one aggregate per file; no HTTP, no gRPC.

pub(crate) mod triggers;
