//! The real binary against a fake server: what is tested is what a person or a script sees, whole.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test, in its helpers too"
)]

mod account;
mod build;
mod chat;
mod files;
mod login;
mod sandboxes;
mod setup;
mod support;
#[cfg(unix)]
mod terminal;
mod usage;
