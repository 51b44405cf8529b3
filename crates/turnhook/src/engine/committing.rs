//! A commit on its way: packed, handed to the store, and its deliveries handed on.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};
use turnhook_reducer::{Output, source::Gap, time::Timestamp};
use turnhook_store::{Commit, Committed, Error, State};

use super::{fan_out::FanOut, fault, supervisor::words_of_join, telemetry::Decided};

/// How often counters that merely moved are saved: their loss would be healed by totals.
const SAVE_PROGRESS: Duration = Duration::from_secs(5);

/// More events, or rows, than this are packed on a thread of their own: it takes longer than others should wait.
const MANY: usize = 512;

/// What is to be written down, and how far that has come.
#[derive(Default)]
pub(crate) struct Committing {
    pub(super) gaps: Vec<Gap>,
    /// Those of the commit that has yet to succeed: whoever loses the lease meanwhile may still have to put them on record.
    pub(super) in_commit: Vec<Gap>,
    /// The commit that failed; kept until the store has it.
    pub(super) commit: Option<Arc<Commit>>,
    pub(super) under_way: Option<Pin<Box<dyn Future<Output = Made> + Send>>>,
    pub(super) again_at: Option<Instant>,
    /// When the next commit can be begun.
    pub(super) commit_at: Option<Instant>,
    /// When everything was saved last; none if it never was.
    pub(super) saved_at: Option<Instant>,
    /// Inputs are given up since then, because the store takes nothing.
    pub(super) deafened: Option<Timestamp>,
}

impl Committing {
    /// Of a source whose committed state was read just now.
    pub(crate) fn saved() -> Committing {
        Committing {
            saved_at: Some(Instant::now()),
            ..Committing::default()
        }
    }

    /// The gaps that are not known to be on record.
    pub(super) fn take_gaps(&mut self) -> Vec<Gap> {
        let mut gaps = std::mem::take(&mut self.in_commit);
        gaps.append(&mut self.gaps);
        gaps
    }

    /// Whether a commit has yet to succeed.
    pub(super) fn has_a_commit(&self) -> bool {
        self.commit.is_some() || self.under_way.is_some()
    }

    /// When a commit that failed is tried again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether it is time to save everything.
    pub(super) fn is_due(&self) -> bool {
        self.saved_at.is_none_or(|at| at.elapsed() >= SAVE_PROGRESS)
    }
}

/// What came of a commit.
pub(crate) struct Made {
    /// As it was tried; none if it could not even be made.
    pub(super) commit: Option<Arc<Commit>>,
    pub(super) result: Result<(), Failure>,
    /// Of the store alone.
    pub(super) took: Duration,
}

pub(super) enum Failure {
    Store(Error),
    /// A panic of our own.
    Own(String),
}

/// What is to be committed.
pub(super) enum Step {
    /// What was decided, and is yet to be packed.
    New(Box<Commit>, Output),
    /// As it was tried before.
    Again(Arc<Commit>),
}

impl Step {
    fn is_large(&self) -> bool {
        let (events, changes) = match self {
            Step::New(_, output) => (output.events.len(), output.changes.len()),
            Step::Again(commit) => (commit.events.len(), commit.changes.len()),
        };
        events.saturating_add(changes) > MANY
    }

    fn pack(self, fan_out: &FanOut, counts: &Decided) -> Arc<Commit> {
        match self {
            Step::Again(commit) => commit,
            Step::New(mut commit, output) => {
                counts.count(&output.events, &output.unattributed);
                commit.changes = output.changes;
                commit.unattributed = output.unattributed;
                commit.events = output
                    .events
                    .into_iter()
                    .map(|event| fan_out.new_event(event))
                    .collect();
                Arc::new(*commit)
            }
        }
    }
}

/// Packs, commits, and hands the deliveries on: in this order, and before the next commit is begun.
pub(super) async fn make(state: State, fan_out: Arc<FanOut>, counts: Decided, step: Step) -> Made {
    let own = |commit, error| Made {
        commit,
        result: Err(Failure::Own(error)),
        took: Duration::ZERO,
    };
    let large = step.is_large();
    let packing = {
        let fan_out = Arc::clone(&fan_out);
        move || {
            fault::step_of_many(large, "packing");
            step.pack(&fan_out, &counts)
        }
    };
    let packed = if large {
        spawn_blocking(packing).await
    } else {
        Ok(packing())
    };
    let commit = match packed {
        Ok(commit) => commit,
        Err(error) => return own(None, words_of_join(error)),
    };
    let start = Instant::now();
    let packed = Arc::clone(&commit);
    let committing = async move {
        fault::step_of_many(large, "committing");
        state.commit(packed).await
    };
    let committed: Result<Committed, Error> = if large {
        // The store packs, too, before it waits.
        let runtime = Handle::current();
        match spawn_blocking(move || runtime.block_on(committing)).await {
            Ok(committed) => committed,
            Err(error) => return own(Some(commit), words_of_join(error)),
        }
    } else {
        committing.await
    };
    let took = start.elapsed();
    if committed.is_ok() {
        fan_out.committed(&commit);
    }
    let result = match committed {
        Ok(committed) => {
            let many = committed.deliveries.len() > MANY;
            let handing_on = move || {
                fault::step_of_many(many, "handing on");
                fan_out.deliver(committed.deliveries);
            };
            if !many {
                handing_on();
            } else if let Err(error) = spawn_blocking(handing_on).await {
                return own(Some(commit), words_of_join(error));
            }
            Ok(())
        }
        Err(error) => Err(Failure::Store(error)),
    };
    Made {
        commit: Some(commit),
        result,
        took,
    }
}

/// The commit that is under way; never ready if there is none.
pub(super) async fn ready(committing: &mut Committing) -> Made {
    match &mut committing.under_way {
        Some(commit) => {
            let made = commit.await;
            committing.under_way = None;
            made
        }
        None => std::future::pending().await,
    }
}
