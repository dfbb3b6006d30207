//! Waiting for conditions, with a limit; never for a time.

use std::{future::Future, panic::Location, time::Duration};

use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// It does not hold within the limit; the message names the line that waited.
#[track_caller]
pub fn eventually<F, Fut>(limit: Duration, mut condition: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        while !condition().await {
            assert!(
                Instant::now() < deadline,
                "the condition of {caller} does not hold after {limit:?}"
            );
            sleep(PAUSE).await;
        }
    }
}
