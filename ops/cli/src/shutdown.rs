//! When a role is told to go.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Returns a future that is done at SIGTERM or Ctrl-C. From now on neither ends the process by itself.
pub fn requested() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let failed = "signals cannot be received";
    let mut terminate = signal(SignalKind::terminate()).context(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(failed)?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
    })
}
