//! The layer stack over both wirings, and the tools for tests themselves.

mod layers;
mod tools;
