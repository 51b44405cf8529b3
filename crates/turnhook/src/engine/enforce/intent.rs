//! Ends that are to be asked for of coturn: on record first, so that they are known for what they are whoever is killed
//! meanwhile. Nobody is let go on for long because of that: where the store takes its time, the end is asked for without.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use turnhook_reducer::block::ToEnd;

/// How long the record is waited for: many times what a commit takes.
const PATIENCE: Duration = Duration::from_millis(100);

/// Those that wait for a commit.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// In the order in which they were asked.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    asked: Recorded,
    until: Instant,
    /// The commit that is under way has it.
    in_commit: bool,
}

/// One that need not wait any longer.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) to_end: ToEnd,
    pub(super) reply: oneshot::Sender<bool>,
}

impl Recording {
    /// The reducer has it, and the next commit will.
    pub(super) fn add(&mut self, to_end: ToEnd, reply: oneshot::Sender<bool>) {
        self.waiting.push(Waiting {
            asked: Recorded { to_end, reply },
            until: Instant::now() + PATIENCE,
            in_commit: false,
        });
    }

    /// A commit of all that the reducer has was put together.
    pub(crate) fn commit_begins(&mut self) {
        for waiting in &mut self.waiting {
            waiting.in_commit = true;
        }
    }

    /// It has succeeded: what it had.
    pub(super) fn recorded(&mut self) -> Vec<Recorded> {
        self.take(|waiting| waiting.in_commit)
    }

    /// Those that have waited long enough.
    pub(super) fn overdue(&mut self) -> Vec<Recorded> {
        let now = Instant::now();
        self.take(|waiting| waiting.until <= now)
    }

    /// Until there is one.
    pub(super) async fn until_overdue(&self) {
        match self.waiting.first() {
            Some(first) => sleep_until(first.until).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Recorded> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let (taken, kept) = std::mem::take(&mut self.waiting).into_iter().partition(which);
        self.waiting = kept;
        let taken: Vec<Waiting> = taken;
        taken.into_iter().map(|waiting| waiting.asked).collect()
    }
}
