//! What a source's task says of itself: metrics, and its entry in `/status`.

mod servers;

use std::{sync::Arc, time::Duration};

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
    follows: bool,
    levels: (usize, usize),
    servers: servers::Servers,
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
        let allocations = metrics.open_allocations.get_or_create(&labels).clone();
        let sessions = metrics.open_sessions.get_or_create(&labels).clone();
        SourceTelemetry {
            events: metrics.events_of(&name),
            allocations,
            sessions,
            up,
            leads,
            follows: false,
            levels: (usize::MAX, usize::MAX),
            servers: servers::Servers::new(&name, direct, &metrics),
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
        self.servers.gap(gap.to);
        let status = GapStatus {
            from: gap.from,
            to: gap.to,
            reason,
        };
        self.health.update_source(&self.name, |s| s.push_gap(status));
    }

    pub(crate) fn hearing(&self, at: Timestamp, detail: String) {
        self.up.set(1);
        self.nobody_connected(at);
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
            self.forget_servers();
        }
        self.health.update_source(&self.name, |s| {
            s.role = role;
            s.state = match s.state {
                // Nobody speaks to the one that does not lead, and that is in order.
                _ if follows && direct => SourceState::Following,
                SourceState::Connected if follows => SourceState::Following,
                SourceState::Following if direct => SourceState::Starting,
                SourceState::Following => SourceState::Connected,
                state => state,
            };
        });
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

    pub(crate) fn decided(&self, events: &[SessionEvent], unattributed: &[Unattributed]) {
        for end in events.iter().filter_map(|e| e.end) {
            let (reason, accuracy) = (end.reason.as_str(), end.accuracy.as_str());
            let labels = EndLabels {
                source: self.name.clone(),
                reason,
                accuracy,
            };
            self.metrics.sessions_ended.get_or_create(&labels).inc();
        }
        let bytes = unattributed.iter().map(|u| u.usage.billable_bytes).sum();
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

    pub(crate) fn committed(&self, took: Duration) {
        self.metrics.commit_seconds.observe(took.as_secs_f64());
        self.health.update_store(|s| s.writable = true);
    }

    pub(crate) fn commit_failed(&self, error: &turnhook_store::Error, at: Timestamp) {
        self.metrics.commit_errors.inc();
        self.health.update_store(|s| {
            s.writable = false;
            s.last_error = Some(error.to_string());
            s.last_error_at = Some(at);
        });
    }
}
