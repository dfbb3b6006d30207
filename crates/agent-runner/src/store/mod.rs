//! The service's SQL, one file per aggregate. Every function takes the sandbox, so that no query can cross tenants; the
//! reconcilers, which act for the system and look at leases only, say so in their names (`expired`, `unfinished`).

pub(crate) mod agent_versions;
pub(crate) mod agents;
pub(crate) mod conversations;
pub(crate) mod frames;
pub(crate) mod leases;
pub(crate) mod run_pages;
pub(crate) mod runs;
pub(crate) mod steps;
pub(crate) mod usage;

use std::str::FromStr;

use copass_errors::{Error, Result};

/// Reads a stored id; one that does not parse means that somebody changed the database by hand.
fn stored<T: FromStr>(text: &str, column: &'static str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::internal(format!("stored {column} {text:?} is malformed")))
}

/// Reads a stored word of a closed set.
fn stored_word<T>(word: Option<T>, text: &str, column: &'static str) -> Result<T> {
    word.ok_or_else(|| Error::internal(format!("stored {column} {text:?} is unknown")))
}

/// A count for the databases' signed integers.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
