//! What a source's task says of itself: metrics, and its entry in `/status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use turnhook_reducer::{
    Reducer,
    event::{SessionEvent, Unattributed},
    message::Kind,
    source::Gap,
    time::Timestamp,
};

use crate::{
    health::{GapStatus, Health, Role, SourceState},
    metrics::{EndLabels, MessageKind, Metrics, ReasonLabels, SourceLabels},
};

pub(crate) struct SourceTelemetry {
    name: String,
    direct: bool,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// Looked up once: this is counted for each message.
    events: [Counter; MessageKind::ALL.len()],
    allocations: Gauge,
    sessions: Gauge,
    up: Gauge,
    leads: Gauge,
    longest_slice: Gauge<f64, AtomicU64>,
    follows: bool,
    levels: (usize, usize),
}

/// Messages of a batch by kind: counters are shared, and touched once for all of it.
#[derive(Default)]
pub(crate) struct MessageCounts([u64; MessageKind::ALL.len()]);

impl MessageCounts {
    pub(crate) fn add(&mut self, kind: &Kind<'_>) {
        if let Some(count) = self.0.get_mut(MessageKind::from(kind) as usize) {
            *count += 1;
        }
    }
}

impl SourceTelemetry {
    pub(crate) fn new(
        name: String,
        direct: bool,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> SourceTelemetry {
        let labels = SourceLabels { source: name.clone() };
        let up = metrics.source_up.get_or_create(&labels).clone();
        up.set(0);
        let leads = metrics.source_leads.get_or_create(&labels).clone();
        leads.set(1);
        // So that rates can be computed from the first byte on.
        let _ = metrics.unattributed_bytes.get_or_create(&labels);
        let longest_slice = metrics
            .source_longest_slice_seconds
            .get_or_create(&labels)
            .clone();
        let allocations = metrics.open_allocations.get_or_create(&labels).clone();
        let sessions = metrics.open_sessions.get_or_create(&labels).clone();
        SourceTelemetry {
            events: metrics.events_of(&name),
            allocations,
            sessions,
            up,
            leads,
            longest_slice,
            follows: false,
            levels: (usize::MAX, usize::MAX),
            name,
            direct,
            metrics,
            health,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn messages(&self, counts: &MessageCounts) {
        for (counter, count) in self.events.iter().zip(counts.0) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    pub(crate) fn ignored(&self, reason: &'static str, count: u64) {
        let labels = ReasonLabels {
            source: self.name.clone(),
            reason,
        };
        self.metrics.events_ignored.get_or_create(&labels).inc_by(count);
    }

    pub(crate) fn gap(&self, gap: &Gap) {
        let reason = gap.reason.as_str();
        let labels = ReasonLabels {
            source: self.name.clone(),
            reason,
        };
        self.metrics.gaps.get_or_create(&labels).inc();
        let status = GapStatus {
            from: gap.from,
            to: gap.to,
            reason,
        };
        self.health.update_source(&self.name, |s| s.push_gap(status));
    }

    pub(crate) fn hearing(&self, at: Timestamp, detail: String) {
        self.up.set(1);
        let state = if self.follows {
            SourceState::Following
        } else if self.direct {
            SourceState::Listening
        } else {
            SourceState::Connected
        };
        self.health.update_source(&self.name, |s| {
            s.state = state;
            s.since = Some(at);
            s.detail = Some(detail);
        });
    }

    /// This node leads the source from now on, or follows it.
    pub(crate) fn role(&mut self, role: Role) {
        self.follows = role == Role::Follower;
        self.leads.set(i64::from(!self.follows));
        let (follows, direct) = (self.follows, self.direct);
        if follows && direct {
            // Nobody speaks to the one that does not lead.
            self.up.set(0);
        }
        self.health.update_source(&self.name, |s| {
            s.role = role;
            s.state = match s.state {
                // And that is in order.
                _ if follows && direct => SourceState::Following,
                SourceState::Connected | SourceState::Following if follows => SourceState::Following,
                SourceState::Following if direct => SourceState::Starting,
                SourceState::Following => SourceState::Connected,
                state => state,
            };
            if direct {
                s.detail = None;
            }
        });
    }

    /// A follower of a source of which nobody can lead, as far as it knows, since the store is away.
    pub(crate) fn nobody_leads(&self, at: Timestamp) {
        if self.direct {
            let error = "the store cannot be reached: no node leads the source, and nobody listens";
            self.deaf(at, error.to_owned());
        }
    }

    /// Nobody listens any more: the program stops.
    pub(crate) fn stopped(&self) {
        self.up.set(0);
    }

    /// How long the task worked without giving others their turn.
    pub(crate) fn slice(&self, took: Duration) {
        let took = took.as_secs_f64();
        if took > self.longest_slice.get() {
            self.longest_slice.set(took);
        }
    }

    pub(crate) fn deaf(&self, at: Timestamp, error: String) {
        self.up.set(0);
        self.health.update_source(&self.name, |s| {
            if s.state != SourceState::Deaf {
                s.since = Some(at);
            }
            s.state = SourceState::Deaf;
            s.last_error = Some(error);
        });
    }

    pub(crate) fn server_seen(&self, server: &[u8]) {
        /// More than any fleet on one listener, and less than a stranger could make it hold.
        const MOST: usize = 256;
        let server = String::from_utf8_lossy(server).into_owned();
        self.health.update_source(&self.name, |s| {
            if s.servers.len() < MOST && !s.servers.contains(&server) {
                s.servers.push(server);
            }
        });
    }

    pub(crate) fn wedged(&self, threads: Vec<u16>) {
        self.health
            .update_source(&self.name, |s| s.wedged_threads = threads);
    }

    pub(crate) fn wedge(&self, what: &'static str) {
        let labels = ReasonLabels {
            source: self.name.clone(),
            reason: what,
        };
        self.metrics.wedged_threads.get_or_create(&labels).inc();
    }

    pub(crate) fn levels(&mut self, reducer: &Reducer) {
        let levels = (reducer.open_allocations(), reducer.open_sessions());
        if levels == self.levels {
            return;
        }
        self.levels = levels;
        self.allocations.set(levels.0 as i64);
        self.sessions.set(levels.1 as i64);
        self.health.update_source(&self.name, |s| {
            s.open_allocations = levels.0 as u64;
            s.open_sessions = levels.1 as u64;
        });
    }

    /// What counts what was decided, on whatever thread.
    pub(crate) fn counts(&self) -> Decided {
        Decided {
            name: self.name.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.metrics.commit_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn commit_failed(&self) {
        self.metrics.commit_errors.inc();
    }
}

/// Counts decisions when they are packed: there may be very many.
pub(crate) struct Decided {
    name: String,
    metrics: Arc<Metrics>,
}

impl Decided {
    pub(crate) fn count(&self, events: &[SessionEvent], unattributed: &[Unattributed]) {
        let mut ends: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for end in events.iter().filter_map(|e| e.end) {
            *ends
                .entry((end.reason.as_str(), end.accuracy.as_str()))
                .or_default() += 1;
        }
        for ((reason, accuracy), count) in ends {
            let labels = EndLabels {
                source: self.name.clone(),
                reason,
                accuracy,
            };
            self.metrics.sessions_ended.get_or_create(&labels).inc_by(count);
        }
        // A metric that stands at its end is better than one that begins anew.
        let bytes = unattributed
            .iter()
            .fold(0u64, |sum, u| sum.saturating_add(u.usage.billable_bytes));
        if bytes > 0 {
            let labels = SourceLabels {
                source: self.name.clone(),
            };
            self.metrics
                .unattributed_bytes
                .get_or_create(&labels)
                .inc_by(bytes);
        }
    }
}
