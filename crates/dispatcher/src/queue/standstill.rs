//! Why an endpoint stands still, until when, and why.

use std::sync::Arc;

use turnhook_reducer::time::Timestamp;

/// Why nothing is sent to an endpoint but, perhaps, a request now and then that asks whether it is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// What it is.
    pub kind: StandstillKind,
    /// Since when.
    pub since: Timestamp,
    /// When something is sent again; `None`: nobody knows.
    pub until: Option<Timestamp>,
    /// Why, for people; no secrets.
    pub reason: Arc<str>,
}

/// The ways in which an endpoint stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandstillKind {
    /// By command, or by its own 410; until somebody resumes it.
    Paused,
    /// It asked to be left alone (`Retry-After`).
    Held,
    /// It failed again and again: the circuit breaker is open.
    BreakerOpen,
}

impl StandstillKind {
    /// As in `/status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StandstillKind::Paused => "paused",
            StandstillKind::Held => "held",
            StandstillKind::BreakerOpen => "breaker_open",
        }
    }
}

/// The endpoint asked to be left alone.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    pub(super) reason: Arc<str>,
}
