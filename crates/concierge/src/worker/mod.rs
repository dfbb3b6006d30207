//! Consumers and reconcilers.

pub(crate) mod audit;
pub(crate) mod cleanup;
pub(crate) mod key_usage;
