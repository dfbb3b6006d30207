//! Writes counted key uses every few seconds and at the end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::app::App;

const INTERVAL: Duration = Duration::from_secs(10);

pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        if let Err(error) = app.flush_key_usage().await {
            tracing::warn!(%error, cause = error.cause_chain(), "key usage could not be written");
        }
        if stopping {
            return;
        }
    }
}
