//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use crate::{Failure, Node};

/// Runs until the first signal, then ends in order; a second signal cuts that short.
pub(crate) async fn run_until_signal(node: Node) -> Result<(), Failure> {
    wait().await?;
    tracing::info!("stopping");
    tokio::select! {
        () = node.shut_down() => {}
        second = wait() => {
            second?;
            tracing::warn!("second signal: ending at once");
        }
    }
    Ok(())
}

#[cfg(unix)]
async fn wait() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failure = |error: std::io::Error| Failure {
        message: format!("cannot wait for signals: {error}"),
        hint: None,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn wait() -> Result<(), Failure> {
    tokio::signal::ctrl_c().await.map_err(|error| Failure {
        message: format!("cannot wait for signals: {error}"),
        hint: None,
    })
}
