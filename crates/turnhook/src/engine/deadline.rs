//! One deadline for a stop: computed once, when the stop begins, and handed to every stage of it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The least that a stop has: a last commit must be possible whatever `shutdown_grace` is.
const LEAST: Duration = Duration::from_secs(1);

/// What is kept of it for writing down what came of requests, at most.
const RESERVE: Duration = Duration::from_secs(1);

/// How long before the deadline a part looks at what it has not done.
const PART: Duration = Duration::from_millis(200);

/// How far past the deadline a process is ended that stands still. What kills from outside waits longer: `deploy/`.
const OVERDUE: Duration = Duration::from_secs(1);

/// Until when a stop may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    requests: Instant,
}

impl Deadline {
    /// Of a stop that begins now.
    pub(crate) fn after(grace: Duration) -> Deadline {
        Deadline::of(Instant::now(), grace)
    }

    fn of(now: Instant, grace: Duration) -> Deadline {
        // A grace of centuries is as good as one of a year, and can be added to a clock.
        let whole = grace.clamp(LEAST, Duration::from_secs(365 * 86_400));
        let requests = grace.min(whole.saturating_sub(RESERVE.min(whole / 5)));
        Deadline {
            at: now + whole,
            requests: now + requests,
        }
    }

    /// Until when a part may take that is to say itself what it could not do.
    pub(crate) fn for_parts(self) -> Instant {
        self.at - PART
    }

    /// For how long requests under way may go on: what comes of them has to be written down after that.
    pub(crate) fn for_requests(self) -> Duration {
        self.requests.saturating_duration_since(Instant::now())
    }

    /// What a stage gives; `None` if it is not through in time.
    pub(crate) async fn within<T>(self, stage: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.at, stage).await.ok()
    }

    /// Ends the process should it be there long after the deadline: on a thread of its own, since what stands still may
    /// be the runtime. All that was committed is on the disk.
    pub(crate) fn enforce(self) {
        let left = (self.at + OVERDUE).saturating_duration_since(Instant::now());
        let overdue = move || {
            std::thread::sleep(left);
            error!("the stop is past its deadline, and something still stands in its way: ended as it is");
            std::process::exit(1);
        };
        if let Err(error) = std::thread::Builder::new().name("deadline".into()).spawn(overdue) {
            error!(%error, "nothing watches over the deadline of this stop");
        }
    }
}

/// Asks parts to stop, and until when they may take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    deadline: Arc<OnceLock<Deadline>>,
}

impl Stop {
    pub(crate) fn begin(&self, deadline: Deadline) {
        // Only the first one counts.
        let _ = self.deadline.set(deadline);
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// One that has not begun has no deadline yet: its least.
    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
            .get()
            .copied()
            .unwrap_or_else(|| Deadline::after(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_before_the_deadline() {
        let now = Instant::now();
        for (grace, whole, requests) in [
            (20, 20_000, 19_000),
            (5, 5_000, 4_000),
            (1, 1_000, 800),
            (0, 1_000, 0),
        ] {
            let deadline = Deadline::of(now, Duration::from_secs(grace));
            assert_eq!(deadline.at - now, Duration::from_millis(whole));
            assert_eq!(deadline.requests - now, Duration::from_millis(requests));
        }
        assert!(Deadline::of(now, Duration::MAX).at > now);
    }
}
