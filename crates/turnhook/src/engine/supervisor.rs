//! All long-lived parts in one place that watches them. A part that ends before its time, by a panic, an error or a
//! return, ends the process: what it did would stay undone, and nobody would notice.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{error, warn};

use super::{deadline::Deadline, fault};
use crate::logging;

/// A part of the program that is there for as long as the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The store's own threads.
    Store,
    /// The task that owns a source's reducer.
    Source(Arc<str>),
    /// What listens for it.
    Subscriber(Arc<str>),
    /// What has the outcomes of deliveries written down.
    OutcomeWriter,
    Dispatcher,
    Housekeeper,
    LaneKeeper,
    Member,
    Http,
    Admin,
    Recorder,
    BlockKeeper,
    QuotaKeeper,
    Notifier,
    HealKeeper,
    /// What ends allocations of one coturn.
    Control(Arc<str>),
    Gate,
    Reloader,
    Watchdog,
}

impl Part {
    /// The source whose part it is.
    pub(crate) fn source(&self) -> Option<&Arc<str>> {
        match self {
            Part::Source(name) | Part::Subscriber(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Source(name) => write!(f, "source {name:?}"),
            Part::Subscriber(name) => write!(f, "subscriber of source {name:?}"),
            Part::Store => f.write_str("store threads"),
            Part::OutcomeWriter => f.write_str("writer of outcomes"),
            Part::Dispatcher => f.write_str("dispatcher"),
            Part::Housekeeper => f.write_str("housekeeper"),
            Part::LaneKeeper => f.write_str("lane keeper"),
            Part::Member => f.write_str("cluster member"),
            Part::Http => f.write_str("HTTP server"),
            Part::Admin => f.write_str("server of page and JSON API"),
            Part::Recorder => f.write_str("recorder"),
            Part::BlockKeeper => f.write_str("block keeper"),
            Part::QuotaKeeper => f.write_str("quota keeper"),
            Part::Notifier => f.write_str("notifier of users' events"),
            Part::HealKeeper => f.write_str("heal keeper"),
            Part::Gate => f.write_str("gate"),
            Part::Control(name) => write!(f, "control of {name}"),
            Part::Reloader => f.write_str("reloader"),
            Part::Watchdog => f.write_str("watchdog"),
        }
    }
}

/// How a part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Returned,
    Failed(String),
    Panicked(String),
    Aborted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Returned => f.write_str("it returned"),
            Cause::Failed(error) => f.write_str(error),
            Cause::Panicked(words) => write!(f, "it panicked: {words}"),
            Cause::Aborted => f.write_str("it was aborted"),
        }
    }
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// How a task ended, in words.
pub(crate) fn words_of_join(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", words_of(&*panic)),
        Err(_) => "it was aborted".to_owned(),
    }
}

/// A task of a part has ended, which nobody waits for: if it panicked, that is counted and said, and the part goes on.
pub(crate) fn note_panic(ended: Result<(), JoinError>, what: &'static str) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        // Not `internal_error!`, which is an assertion in tests: this part of the program goes on.
        error!(target: logging::INTERNAL_ERROR, cause = words_of(&*panic), "{what} panicked, and was given up");
    }
}

/// What parts give: the cause, if they cannot go on.
pub(crate) type Ended = Result<(), String>;

#[derive(Default)]
pub(crate) struct Supervisor {
    tasks: JoinSet<Ended>,
    parts: HashMap<Id, (Part, AbortHandle)>,
}

impl Supervisor {
    pub(crate) fn start(&mut self, part: Part, work: impl Future<Output = Ended> + Send + 'static) {
        let work = fault::wrap(&part, work);
        let task = self.tasks.spawn(work);
        self.parts.insert(task.id(), (part, task));
    }

    /// The next part that ends; none is left if there is no next.
    async fn next(&mut self) -> Option<(Part, Cause)> {
        loop {
            let (id, cause) = match self.tasks.join_next_with_id().await? {
                Ok((id, Ok(()))) => (id, Cause::Returned),
                Ok((id, Err(error))) => (id, Cause::Failed(error)),
                Err(error) => {
                    let id = error.id();
                    let cause = match error.try_into_panic() {
                        Ok(panic) => Cause::Panicked(words_of(&*panic)),
                        Err(_) => Cause::Aborted,
                    };
                    (id, cause)
                }
            };
            // Those that were given up are nobody's any more.
            if let Some((part, _)) = self.parts.remove(&id) {
                return Some((part, cause));
            }
        }
    }

    /// Waits for the first part that ends. Before a stop none of them should.
    pub(crate) async fn first(&mut self) -> (Part, Cause) {
        match self.next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits until these have ended, as they were asked to; who is late is given up. Whether all of them did well.
    pub(crate) async fn wait_for(&mut self, which: impl Fn(&Part) -> bool, deadline: Deadline) -> bool {
        let mut well = true;
        while self.parts.values().any(|(part, _)| which(part)) {
            match deadline.within(self.next()).await {
                Some(Some((_, Cause::Returned))) => {}
                Some(Some((part, cause))) => {
                    error!(%part, %cause, "did not stop as it should");
                    well = false;
                }
                Some(None) => break,
                None => {
                    self.parts.retain(|_, (part, task)| {
                        let late = which(part);
                        if late {
                            warn!(%part, "has not stopped by the deadline: given up");
                            task.abort();
                        }
                        !late
                    });
                    return false;
                }
            }
        }
        well
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use std::time::Duration;

    use super::*;

    type BoxedWork = std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>;

    #[tokio::test]
    async fn the_first_that_ends_is_named_with_its_cause() {
        let first = async |part: Part, work: BoxedWork| {
            let mut parts = Supervisor::default();
            parts.start(Part::Housekeeper, std::future::pending());
            parts.start(part, work);
            parts.first().await
        };
        let writer = first(Part::OutcomeWriter, Box::pin(async { Ok(()) })).await;
        assert_eq!(writer, (Part::OutcomeWriter, Cause::Returned));
        let http = first(Part::Http, Box::pin(async { Err("it failed".into()) })).await;
        assert_eq!(http, (Part::Http, Cause::Failed("it failed".into())));
        let source = Part::Source("eu-1".into());
        let panicked = first(source.clone(), Box::pin(async { panic!("out of luck") })).await;
        assert_eq!(panicked, (source, Cause::Panicked("out of luck".into())));
    }

    #[tokio::test]
    async fn who_does_not_stop_is_not_waited_for() {
        let mut parts = Supervisor::default();
        parts.start(Part::Housekeeper, std::future::pending());
        parts.start(Part::OutcomeWriter, async { Ok(()) });
        let deadline = Deadline::after(Duration::ZERO);
        assert!(
            parts
                .wait_for(|part| *part == Part::OutcomeWriter, deadline)
                .await
        );
        assert!(!parts.wait_for(|_| true, deadline).await);
        assert!(tokio::time::Instant::now() >= deadline.for_parts());
    }
}
