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
pub(crate) struct Recorded {
    pub(crate) to_end: ToEnd,
    pub(crate) reply: oneshot::Sender<bool>,
}

impl Recording {
    /// The reducer has it, and the next commit will.
    pub(crate) fn add(&mut self, to_end: ToEnd, reply: oneshot::Sender<bool>) {
        self.waiting.push(Waiting {
            asked: Recorded { to_end, reply },
            until: Instant::now() + PATIENCE,
            in_commit: false,
        });
    }

    /// Whether there are some that no commit has yet: the next need not wait for the time when the store begins one.
    pub(crate) fn waits_for_a_commit(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.in_commit)
    }

    /// A commit of all that the reducer has was put together. Whether there are some that it has first.
    pub(crate) fn commit_begins(&mut self) -> bool {
        let news = self.waits_for_a_commit();
        for waiting in &mut self.waiting {
            waiting.in_commit = true;
        }
        news
    }

    /// It has succeeded: what it had.
    pub(crate) fn recorded(&mut self) -> Vec<Recorded> {
        self.take(|waiting| waiting.in_commit)
    }

    /// Those that have waited long enough.
    pub(crate) fn overdue(&mut self) -> Vec<Recorded> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use turnhook_reducer::{
        Identity, Reducer, ServerRef,
        block::Blocks,
        message::{AllocationId, Kind, Message, Status},
        rules::Rules,
        time::Timestamp,
    };

    use super::*;

    /// An allocation of somebody who is blocked.
    fn to_end() -> ToEnd {
        let identity = Identity {
            store: [7; 16],
            source: "eu-1".into(),
        };
        let mut reducer = Reducer::new(identity, Rules::default());
        reducer.hearing(Timestamp(1));
        let message = Message {
            realm: b"example.org",
            username: b"ann",
            id: AllocationId(1),
            kind: Kind::New(Status {
                lifetime: 600,
                ..Status::default()
            }),
        };
        reducer.message(Timestamp(1), ServerRef::UNKNOWN, &message);
        let mut blocks = Blocks::default();
        blocks.insert(None, b"ann", "balance".into());
        reducer.set_blocks(Timestamp(1), Arc::new(blocks));
        reducer.look_on(usize::MAX);
        reducer.take_to_end().remove(0)
    }

    #[tokio::test]
    async fn what_is_asked_for_waits_for_its_own_commit_and_not_for_long() {
        let mut recording = Recording::default();
        let add = |recording: &mut Recording| recording.add(to_end(), oneshot::channel().0);
        add(&mut recording);
        assert!(
            recording.recorded().is_empty(),
            "the commit that was under way does not have it"
        );
        assert!(recording.commit_begins(), "the next one is made at once");
        add(&mut recording);
        assert!(recording.waits_for_a_commit());
        assert_eq!(recording.recorded().len(), 1, "and this one not the second");

        // The store stands still.
        assert!(recording.commit_begins());
        assert!(!recording.commit_begins(), "nobody waits for another one");
        recording.until_overdue().await;
        assert_eq!(recording.overdue().len(), 1);
        assert!(recording.overdue().is_empty() && recording.recorded().is_empty());
    }
}
