//! Following what a running turnhook writes down: by looking again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for the next look; false once somebody has asked for the end.
pub(super) async fn next(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => true,
        () = stop.cancelled() => false,
    }
}
