//! Removes what ended long ago and retires signing keys: a reconciler without arguments. It begins at once, because a
//! process may be restarted more often than it would wait.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::app::App;

const INTERVAL: Duration = Duration::from_secs(3600);

pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    loop {
        for outcome in [app.delete_ended_logins().await, app.tokens.retire_old_keys().await] {
            if let Err(error) = outcome {
                tracing::warn!(%error, cause = error.cause_chain(), "clean-up was held up");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
