//! The rules of the service, one aggregate per file; no HTTP, no gRPC.

pub(crate) mod sources;
mod words;

pub(crate) use words::{IngestionMode, SourceKind, SourceStatus};
