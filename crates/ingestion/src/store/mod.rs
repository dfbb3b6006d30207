//! The service's SQL, one aggregate per file. Every function takes the sandbox: scope is in the signature.

pub(crate) mod sources;
