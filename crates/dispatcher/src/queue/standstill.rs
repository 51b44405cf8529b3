//! Why an endpoint stands still, until when, and why.

use std::sync::Arc;

use turnhook_reducer::{outbox::Pause, time::Timestamp};

use super::Queue;
use crate::breaker::Breaker;

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

/// Pauses that are remembered.
const PAUSES: usize = 64;

impl Queue {
    /// Stops sending. What is under way goes on.
    pub fn pause(&mut self, reason: &str, now: Timestamp) {
        if self.paused().is_some() {
            return;
        }
        self.pauses.push(Pause {
            from: now,
            to: None,
            reason: reason.into(),
        });
        if self.pauses.len() > PAUSES {
            // One long pause in place of the two oldest: nothing is given up too early.
            let oldest = self.pauses.remove(0);
            if let Some(next) = self.pauses.first_mut() {
                next.from = oldest.from;
            }
        }
    }

    /// Sends again, at once, whatever held it back: a pause, a `Retry-After`, the circuit breaker, an earlier failure.
    pub fn resume(&mut self, now: Timestamp) {
        if let Some(pause @ Pause { to: None, .. }) = self.pauses.last_mut() {
            pause.to = Some(now.max(pause.from));
        }
        self.hold = None;
        self.batches.cause = None;
        self.breaker = Breaker::default();
        self.lines.hasten_all(now);
    }

    /// The pause that holds.
    #[must_use]
    pub fn paused(&self) -> Option<&Pause> {
        self.pauses.last().filter(|pause| pause.to.is_none())
    }

    /// Why nothing is sent but, perhaps, a probe. Of several reasons the one that lasts longest; an open breaker has
    /// none here, since it is the last error.
    #[must_use]
    pub fn standstill(&self, now: Timestamp) -> Option<Standstill> {
        if let Some(pause) = self.paused() {
            return Some(Standstill {
                kind: StandstillKind::Paused,
                since: pause.from,
                until: None,
                reason: Arc::clone(&pause.reason),
            });
        }
        let probe = Some(self.breaker.gate(now)).filter(|at| *at < Timestamp::MAX);
        if let Some(hold) = self.hold.as_ref().filter(|hold| hold.until > now)
            && probe.is_some_and(|probe| probe <= hold.until)
        {
            return Some(Standstill {
                kind: StandstillKind::Held,
                since: hold.since,
                until: Some(hold.until),
                reason: Arc::clone(&hold.reason),
            });
        }
        if let (Some(since), Some(cause)) = (self.breaker.open_since(), &self.batches.cause) {
            return Some(Standstill {
                kind: StandstillKind::Held,
                since,
                until: probe,
                reason: Arc::clone(cause),
            });
        }
        self.breaker.open_since().map(|since| Standstill {
            kind: StandstillKind::BreakerOpen,
            since,
            until: probe,
            reason: Arc::from(""),
        })
    }
}
