//! What a service manager is told, where there is one that listens (`NOTIFY_SOCKET`): that the program is ready, reads its
//! configuration again, stops, and still moves.

use sd_notify::NotifyState;
use tracing::debug;

use super::{deadline::Stop, supervisor::Ended};

/// All parts have begun, or the configuration has been read again.
pub(crate) fn ready() {
    say(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the service manager is not told of the reload"),
    }
}

/// The program stops.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Says that the program still moves, as often as is asked for (`WatchdogSec=`): one that is frozen is started anew. That
/// matters beyond what is not heard meanwhile: a coturn that starts and gets no answer serves nobody.
pub(crate) async fn watchdog(stop: Stop) -> Ended {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        stop.begun().await;
        return Ok(());
    };
    loop {
        say(&[NotifyState::Watchdog]);
        tokio::select! {
            () = tokio::time::sleep(limit / 3) => {}
            () = stop.begun() => return Ok(()),
        }
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager cannot be told");
    }
}
