//! What a source's task says of itself: metrics, and its entry in `/status`.

mod broken;
mod came_and_went;
mod decided;
mod servers;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use turnhook_reducer::{Broken, Reducer, Stats, message::Kind, source::Gap, time::Timestamp};

pub(crate) use self::decided::Decided;
use crate::{
    health::{GapStatus, Health, Role, SourceState},
    metrics::{MessageKind, Metrics, ReasonLabels, SourceLabels},
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
    waiting: Gauge,
    follows: bool,
    levels: (usize, usize, Option<bool>),
    stats: Stats,
    servers: servers::Servers,
    decided: Decided,
    broken: broken::BrokenInvariants,
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
        metrics.sources.make(&name, direct);
        let of = &metrics.sources;
        let up = of.source_up.get_or_create(&labels).clone();
        up.set(0);
        let leads = of.source_leads.get_or_create(&labels).clone();
        leads.set(1);
        let longest_slice = of.source_longest_slice_seconds.get_or_create(&labels).clone();
        let waiting = of.event_queue_bytes.get_or_create(&labels).clone();
        let allocations = of.open_allocations.get_or_create(&labels).clone();
        let sessions = of.open_sessions.get_or_create(&labels).clone();
        SourceTelemetry {
            events: of.events_of(&name),
            allocations,
            sessions,
            up,
            leads,
            longest_slice,
            waiting,
            follows: false,
            levels: (usize::MAX, usize::MAX, None),
            stats: Stats::default(),
            servers: servers::Servers::new(&name, direct, &metrics),
            decided: Decided::new(&name, &metrics),
            broken: broken::BrokenInvariants::new(&metrics),
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
        self.metrics
            .sources
            .events_ignored
            .get_or_create(&labels)
            .inc_by(count);
    }

    pub(crate) fn gap(&self, gap: &Gap) {
        let reason = gap.reason.as_str();
        let labels = ReasonLabels {
            source: self.name.clone(),
            reason,
        };
        self.metrics.sources.gaps.get_or_create(&labels).inc();
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

    /// How much waits to be looked at.
    pub(crate) fn waiting(&self, bytes: usize) {
        self.waiting.set(i64::try_from(bytes).unwrap_or(i64::MAX));
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

    pub(crate) fn wedged(&self, threads: Vec<u16>) {
        self.health
            .update_source(&self.name, |s| s.wedged_threads = threads);
    }

    pub(crate) fn wedge(&self, what: &'static str) {
        let labels = ReasonLabels {
            source: self.name.clone(),
            reason: what,
        };
        self.metrics.sources.wedged_threads.get_or_create(&labels).inc();
    }

    pub(crate) fn levels(&mut self, reducer: &Reducer) {
        let levels = (
            reducer.open_allocations(),
            reducer.open_sessions(),
            reducer.reports_peer_leg(),
        );
        if levels == self.levels {
            return;
        }
        self.levels = levels;
        self.allocations.set(levels.0 as i64);
        self.sessions.set(levels.1 as i64);
        self.health.update_source(&self.name, |s| {
            s.open_allocations = levels.0 as u64;
            s.open_sessions = levels.1 as u64;
            s.peer_leg = levels.2;
        });
    }

    /// What the reducer has counted since.
    pub(crate) fn stats(&mut self, now: &Stats) {
        let last = std::mem::replace(&mut self.stats, *now);
        if last == *now {
            return;
        }
        let labels = SourceLabels {
            source: self.name.clone(),
        };
        // A reducer that was made anew counts from 0.
        let more = |now: u64, last: u64| if now >= last { now - last } else { now };
        let metrics = &self.metrics.sources;
        for (family, more) in [
            (&metrics.overcounted, more(now.overcounted, last.overcounted)),
            (&metrics.late_reports, more(now.late_reports, last.late_reports)),
            (
                &metrics.switched_realms,
                more(now.switched_realms, last.switched_realms),
            ),
        ] {
            if more > 0 {
                family.get_or_create(&labels).inc_by(more);
            }
        }
        for (reason, more) in [
            ("realm", more(now.refused_realms, last.refused_realms)),
            (
                "too_many_allocations",
                more(now.refused_allocations, last.refused_allocations),
            ),
        ] {
            if more > 0 {
                self.ignored(reason, more);
            }
        }
    }

    /// Invariants of the reducer that did not hold, if any.
    pub(crate) fn broken(&mut self, at: Timestamp, broken: Broken) {
        self.broken.found(at, &self.name, broken);
    }

    pub(crate) fn wall_ahead(&self, millis: i64) {
        let labels = SourceLabels {
            source: self.name.clone(),
        };
        self.metrics
            .sources
            .wall_clock_ahead_seconds
            .get_or_create(&labels)
            .set(millis as f64 / 1000.0);
    }

    /// What counts what was decided, on whatever thread.
    pub(crate) fn counts(&self) -> Decided {
        self.decided.clone()
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.metrics.commit_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn commit_failed(&self) {
        self.metrics.commit_errors.inc();
    }
}
