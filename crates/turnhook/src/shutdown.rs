//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first SIGTERM or SIGINT. A second one does not wait for anything to finish: the store
/// is as good after it as after a power cut.
///
/// # Errors
/// The handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let shutdown = token.clone();
    // Should this end by itself, nobody could stop the program any more: so it stops.
    let guard = token.clone().drop_guard();
    tokio::spawn(async move {
        let _guard = guard;
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let first = next().await;
        tracing::info!("{first}: stopping; a second signal stops at once");
        shutdown.cancel();
        let second = next().await;
        tracing::warn!("{second}: stopping at once");
        std::process::exit(1);
    });
    Ok(token)
}
