//! The wall clock, cut to microseconds, because that is what both databases keep.

use chrono::{DateTime, SubsecRound as _, Utc};

/// The present instant, UTC, whole microseconds.
#[must_use]
pub fn now() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = Utc::now();
    now.trunc_subsecs(6)
}
