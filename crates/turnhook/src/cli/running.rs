//! What the running program says of its endpoints. Pauses are in the store; who is held back by a `Retry-After` or by
//! a circuit breaker is known to the process that holds it back, and shown by its `/status`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::time::Timestamp;
use turnhook_store::{DeliveryRow, Endpoint, Store};

use super::{ask, error::CliError, output};
use crate::config::Config;

/// It is on this machine, and answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// What endpoints are doing, by name.
#[derive(Debug, Default)]
pub(super) struct Running {
    endpoints: BTreeMap<String, Standing>,
    /// Where a program that runs was asked in vain.
    unanswered: Option<String>,
}

/// What an endpoint is doing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Standing {
    /// As in `/status`: `active`, `failing`, `held`, `breaker_open` or `paused`.
    pub(super) state: String,
    /// Since when it stands still.
    pub(super) since: Option<String>,
    /// Until when, if that is known.
    pub(super) until: Option<String>,
    /// The reason.
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Status {
    endpoints: BTreeMap<String, Standing>,
}

impl Running {
    /// Pauses by the store, the rest by the running process, where there is one that answers.
    pub(super) async fn ask(config: &Config, store: &Store) -> Result<Running, CliError> {
        let (mut endpoints, mut unanswered) = (BTreeMap::new(), None);
        if store.is_run_on().await? {
            let url = ask::base(config.http) + "/status";
            match status(&url).await {
                Some(status) => endpoints = status.endpoints,
                None => unanswered = Some(url),
            }
        }
        for endpoint in store.outbox().endpoints().await? {
            if let Some(standing) = paused(&endpoint) {
                endpoints.insert(endpoint.name, standing);
            } else if endpoints
                .get(&endpoint.name)
                .is_some_and(|standing| standing.state == "paused")
            {
                // Resumed a moment ago, and not noticed yet.
                endpoints.remove(&endpoint.name);
            }
        }
        Ok(Running {
            endpoints,
            unanswered,
        })
    }

    /// Says on stderr if a program that runs did not answer: then not all is known here.
    pub(super) fn say_if_unanswered(&self) {
        if let Some(url) = &self.unanswered {
            eprintln!(
                "turnhook runs, but does not answer at {url}: what holds endpoints back is not known here"
            );
        }
    }

    pub(super) fn of(&self, endpoint: &str) -> Standing {
        self.endpoints
            .get(endpoint)
            .cloned()
            .unwrap_or_else(Standing::active)
    }

    /// When a pending delivery is tried next: never before now, and not while its endpoint stands still. `None`: when
    /// somebody resumes it.
    pub(super) fn next_attempt(&self, row: &DeliveryRow, now: Timestamp) -> Option<Timestamp> {
        let due = row.next_attempt_at?.max(now);
        let standing = self.endpoints.get(&row.endpoint);
        if standing.is_some_and(|standing| standing.state == "paused") {
            return None;
        }
        let until = standing.and_then(|standing| standing.until.as_deref());
        Some(until.and_then(timestamp).map_or(due, |until| due.max(until)))
    }
}

impl Standing {
    fn active() -> Standing {
        Standing {
            state: "active".to_owned(),
            since: None,
            until: None,
            reason: None,
        }
    }

    /// Whether nothing is sent to it but, perhaps, a probe.
    pub(super) fn is_still(&self) -> bool {
        !matches!(self.state.as_str(), "active" | "failing")
    }

    /// `held until 2026-11-26 18:00:00: it answered 503 …`.
    pub(super) fn describe(&self, zone: &Zone) -> String {
        let mut text = self.state.replace('_', " ");
        if let Some(until) = self.until.as_deref().and_then(timestamp) {
            let word = if self.state == "held" {
                " until"
            } else {
                ", tried again"
            };
            text += &format!("{word} {}", zone.show(until));
        }
        if let Some(reason) = self.reason.as_ref().filter(|reason| !reason.is_empty()) {
            text += &format!(": {}", output::name(reason.as_bytes()));
        }
        text
    }
}

fn paused(endpoint: &Endpoint) -> Option<Standing> {
    let pause = endpoint.paused()?;
    Some(Standing {
        state: "paused".to_owned(),
        since: Some(rfc3339(pause.from)),
        until: None,
        reason: Some(pause.reason.to_string()),
    })
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

async fn status(url: &str) -> Option<Status> {
    let answer = ask::get(url, PATIENCE).await.ok()?;
    serde_json::from_str(&answer.body).ok()
}

#[cfg(test)]
mod tests {
    use turnhook_reducer::event::{EventId, EventType, SessionId};
    use turnhook_store::{DeliveryId, DeliveryState};

    use super::*;

    fn row(next: u64) -> DeliveryRow {
        DeliveryRow {
            id: DeliveryId(1),
            endpoint: "billing".to_owned(),
            event_id: EventId([0; 16]),
            event_type: EventType::Start,
            session_id: SessionId([0; 16]),
            user: None,
            sequence: 0,
            timestamp: Timestamp(0),
            state: DeliveryState::Pending,
            attempts: 1,
            first_attempt_at: None,
            next_attempt_at: Some(Timestamp(next)),
            finished_at: None,
            reason: None,
            replay: None,
        }
    }

    fn running(state: &str, until: Option<u64>) -> Running {
        let standing = Standing {
            state: state.to_owned(),
            since: None,
            until: until.map(|at| rfc3339(Timestamp(at))),
            reason: Some("it answered 503".to_owned()),
        };
        Running {
            endpoints: [("billing".to_owned(), standing)].into(),
            unanswered: None,
        }
    }

    #[test]
    fn the_next_attempt_never_lies_in_the_past() {
        let now = Timestamp(10_000);
        let next = |running: Running, due| running.next_attempt(&row(due), now);
        assert_eq!(next(Running::default(), 5_000), Some(now));
        assert_eq!(next(Running::default(), 15_000), Some(Timestamp(15_000)));
        assert_eq!(next(running("active", None), 5_000), Some(now));
        assert_eq!(
            next(running("held", Some(60_000)), 5_000),
            Some(Timestamp(60_000))
        );
        assert_eq!(next(running("paused", None), 15_000), None);
    }

    #[test]
    fn what_stands_still_is_described_with_until_when_and_why() {
        assert_eq!(
            running("held", Some(60_000)).of("billing").describe(&Zone::utc()),
            "held until 1970-01-01 00:01:00: it answered 503"
        );
        assert_eq!(
            running("breaker_open", Some(60_000))
                .of("billing")
                .describe(&Zone::utc()),
            "breaker open, tried again 1970-01-01 00:01:00: it answered 503"
        );
        assert_eq!(Running::default().of("billing").describe(&Zone::utc()), "active");
    }
}
