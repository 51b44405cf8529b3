//! What an endpoint says of itself: how it is doing, its attempts, and its standing still.

use std::sync::Arc;

use tracing::{debug, info, warn};
use turnhook_reducer::{
    outbox::{Next, Outcome},
    time::Timestamp,
};

use super::{Endpoint, EndpointStatus, State};
use crate::{
    body::rfc3339,
    queue::{Standstill, StandstillKind},
};

/// Standing still for less than this, in milliseconds, is not logged: a receiver that spaces requests out by a
/// `Retry-After` of a second would fill the log.
const WORTH_A_LINE: u64 = 10_000;

impl Endpoint {
    pub(crate) fn status(&self) -> EndpointStatus {
        let now = self.clocks.steady();
        let state = self.lock();
        EndpointStatus {
            name: Arc::clone(&self.name),
            standstill: self.standstill(&state, now),
            in_memory: state.queue.in_memory(),
            behind: state.queue.is_behind(),
            in_flight: state.queue.in_flight(),
            breaker: state.queue.breaker(),
            last_error: state.last_error.clone(),
            last_success_at: state.last_success_at,
            waiting_for_customers: state.queue.waiting_for_customers(),
        }
    }

    /// Why nothing is sent, by the wall clock and with the reason of an open breaker.
    fn standstill(&self, state: &State, now: Timestamp) -> Option<Standstill> {
        let mut standstill = state.queue.standstill(now)?;
        standstill.since = self.clocks.to_wall(standstill.since);
        standstill.until = standstill.until.map(|at| self.clocks.to_wall(at));
        if let (StandstillKind::BreakerOpen, Some((_, error))) = (standstill.kind, &state.last_error) {
            standstill.reason = error.as_str().into();
        }
        Some(standstill)
    }

    pub(super) fn log(&self, outcome: &Outcome) {
        debug!(
            endpoint = &*self.name,
            event = %outcome.event_id,
            r#type = outcome.event_type.as_str(),
            session = %outcome.session,
            attempt = outcome.attempt,
            status = outcome.status,
            took_ms = u64::try_from(outcome.latency.as_millis()).unwrap_or(u64::MAX),
            outcome = outcome.label,
            error = outcome.error.as_deref(),
            "attempt"
        );
        if let Next::Dead(reason) = outcome.next {
            warn!(
                endpoint = &*self.name,
                event = %outcome.event_id,
                error = outcome.error.as_deref().unwrap_or_default(),
                reason,
                "dead letter: see `turnhook deliveries list --state dead`"
            );
        }
    }

    /// One line when it begins to stand still, one when a person paused it meanwhile, and one when it moves again.
    pub(super) fn log_standstill(&self, state: &mut State, now: Timestamp) {
        let endpoint = &*self.name;
        let kind = state.queue.standstill(now).map(|standstill| standstill.kind);
        let Some(kind) = kind else {
            if state.logged.take().is_some() {
                info!(endpoint, "endpoint moves again");
            }
            return;
        };
        let paused_since = kind == StandstillKind::Paused && state.logged != Some(kind);
        if state.logged.is_some() && !paused_since {
            return;
        }
        let Some(standstill) = self.standstill(state, now) else {
            return;
        };
        let short = |until: Timestamp| until.since(self.clocks.wall()) < WORTH_A_LINE;
        if kind == StandstillKind::Held && !state.queue.has_a_cause() && standstill.until.is_some_and(short) {
            return;
        }
        state.logged = Some(kind);
        let (reason, until) = (
            &*standstill.reason,
            standstill.until.map(rfc3339).unwrap_or_default(),
        );
        match kind {
            StandstillKind::Paused => warn!(
                endpoint,
                reason, "endpoint stands still: paused until `turnhook endpoints resume`; everything is kept"
            ),
            StandstillKind::Held if state.queue.has_a_cause() => warn!(
                endpoint,
                reason,
                "endpoint stands still: something has to be put right first; it is tried every few seconds, and nothing is lost"
            ),
            StandstillKind::Held => warn!(
                endpoint,
                reason,
                until,
                "endpoint stands still: it asked to be left alone; `turnhook endpoints resume` lets go of that"
            ),
            StandstillKind::BreakerOpen => warn!(
                endpoint,
                reason, "endpoint stands still: it fails again and again, and is tried every few seconds"
            ),
        }
    }
}
