//! What a source and its controls say to each other.

use tokio::{sync::oneshot, time::Instant};
use turnhook_reducer::block::{AllocationRef, ToEnd};

/// An allocation that is to be ended.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) to_end: ToEnd,
    /// When it opened, if that was heard.
    pub(crate) opened: Option<Instant>,
    /// This control is the only one that can have it: where it answers for another server, that is an alarm.
    pub(crate) alone: bool,
}

/// What a source asks of a control.
#[derive(Debug)]
pub(crate) enum Order {
    End(Job),
    /// An allocation that was to be ended has closed.
    Ended(AllocationRef),
}

/// What a control asks a source.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Whether it may be ended now. If so, its close within the time of `confirm` is that end. Answered once that is on
    /// record, or after a moment.
    May(ToEnd, oneshot::Sender<bool>),
    /// It could not be ended after all.
    Not(ToEnd),
    /// All that is to be ended is to be named again.
    Again,
}
