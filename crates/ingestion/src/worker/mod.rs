//! Consumers of the service.

pub(crate) mod tenancy;
