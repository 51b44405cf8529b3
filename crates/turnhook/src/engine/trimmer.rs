//! Removing what is past its retention.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{Admin, Store};

/// How long after a pass over what is old the next one begins.
const TRIM: Duration = Duration::from_secs(15);

pub(super) struct Trimmer {
    admin: Admin,
    retention: Duration,
}

impl Trimmer {
    pub(super) fn new(store: &Store, retention: Duration) -> Trimmer {
        Trimmer {
            admin: store.admin().clone(),
            retention,
        }
    }

    pub(super) async fn run(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TRIM) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.trim(stop).await {
                warn!(%error, "what is past its retention cannot be removed");
            }
        }
    }

    async fn trim(&self, stop: &CancellationToken) -> turnhook_store::Result<()> {
        let retention = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        // By the horizon, which no clock that is ahead can move: what is removed does not come back.
        let before = Timestamp(self.admin.horizon().0.saturating_sub(retention));
        let removed = self.admin.trim_all(before, || !stop.is_cancelled()).await?;
        if (removed.events, removed.sessions) != (0, 0) {
            info!(
                events = removed.events,
                sessions = removed.sessions,
                "removed what is past its retention"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use turnhook_dispatcher::clock::wall_clock;
    use turnhook_reducer::source::{Gap, GapReason};
    use turnhook_store::{Commit, Mode};

    use super::*;

    const HOUR: u64 = 3_600_000;

    /// A gap of two hours ago, by the machine's clock, of which an hour is kept.
    async fn is_kept(horizon: impl Fn(Timestamp) -> Timestamp) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("turnhook.db"), Mode::Run)
            .await
            .unwrap();
        let now = wall_clock();
        let source = store.state().source("eu-1").await.unwrap();
        let mut commit = Commit::new(source, now);
        commit.gaps.push(Gap {
            from: Timestamp(now.0 - 2 * HOUR),
            to: Timestamp(now.0 - 2 * HOUR),
            reason: GapReason::Reconnect,
            server: None,
        });
        store.state().commit(commit).await.unwrap();
        store.admin().advance_horizon(horizon(now)).await.unwrap();
        let trimmer = Trimmer::new(&store, Duration::from_millis(HOUR));
        trimmer.trim(&CancellationToken::new()).await.unwrap();
        let kept = store.ledger().gaps(None, 10).await.unwrap().len();
        store.close().await;
        kept == 1
    }

    /// What a clock says that is ahead removes nothing.
    #[tokio::test]
    async fn what_is_old_is_so_by_the_horizon() {
        assert!(!is_kept(|now| now).await);
        assert!(is_kept(|now| Timestamp(now.0 - HOUR - HOUR / 2)).await);
    }
}
