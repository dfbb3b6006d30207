//! Writing while the database is away.
//!
//! Every write of a run may be made twice: it is fenced, and it says how things are and not what changed. So a restart of
//! the database costs a run some time and nothing else.

use std::time::Duration;

use copass_errors::ErrorCode;
use copass_types::RunId;

use super::journal::JournalError;

/// How often one write is tried; with the pauses between them six seconds, which is more than a restart takes.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The tries of one write.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failed: u32,
}

impl Patience {
    /// Whether a try before this one failed: it may have been written, with its answer lost.
    pub(super) fn is_tried(&self) -> bool {
        self.failed > 0
    }

    /// Whether the write is to be tried again; waits before it says so.
    pub(super) async fn outlasts(&mut self, run_id: &RunId, error: &JournalError) -> bool {
        let JournalError::Store(error) = error else {
            return false;
        };
        self.failed += 1;
        tracing::warn!(
            run.id = %run_id, %error, cause = error.cause_chain(), attempt = self.failed, "the run is not written yet"
        );
        if error.code() != ErrorCode::Unavailable || self.failed == ATTEMPTS {
            return false;
        }
        tokio::time::sleep(FIRST_PAUSE * 3_u32.pow(self.failed - 1)).await;
        true
    }
}
