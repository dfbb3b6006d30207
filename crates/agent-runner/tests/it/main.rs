//! The service through its gRPC interface: both databases, both wirings, a concierge that is a fake behind a real,
//! signed call.

mod agents;
mod cancel;
mod loss;
mod misbehaviour;
mod reading;
mod sessions;
mod support;
mod tenancy;
mod tools;
mod turns;
