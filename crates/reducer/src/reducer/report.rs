//! The events of sessions, made when they are decided.

use super::Reducer;
use crate::{
    allocation::{Details, Dirty},
    event::{Accuracy, AllocationReport, CloseReason, EventType, SessionEnd, SessionEvent},
    flags::Flags,
    identity::event_id,
    session::{LISTED, Session},
    time::{Moment, Timestamp},
    usage::Legs,
};

impl Reducer {
    /// Emits an event of a session: it goes into the next commit, together with the counters it rests on.
    pub(crate) fn emit(&mut self, session: u32, event_type: EventType) {
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to emit an event of");
        };
        if self.outgoing.is_muted() {
            let (now, usage) = (self.now, s.usage());
            let Some(s) = self.sessions.get_mut(session as usize) else {
                return self.broken("no session to emit an event of");
            };
            s.sequence += 1;
            s.last_event_at = Moment::from(now.max(s.last_event_at.get()));
            s.set_billed(usage);
            return;
        }
        let last_event_at = self.now.max(s.last_event_at.get());
        let event = self.event(s, event_type, last_event_at);
        let members = s.members().clone();
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to emit an event of");
        };
        s.sequence += 1;
        s.last_event_at = Moment::from(last_event_at);
        s.set_billed(s.usage());
        for slot in members {
            if self
                .allocations
                .get(slot as usize)
                .is_some_and(|a| a.dirty == Dirty::Soft)
            {
                self.mark(slot, Dirty::Hard);
            }
        }
        self.mark_session(session);
        self.outgoing.event(event);
    }

    fn event(&self, s: &Session, event_type: EventType, now: Timestamp) -> SessionEvent {
        let first = self.names.username(s.first_name);
        let started_at = s.started_at.get();
        let (ended_at, reason) = s.end(now);
        let accuracy = if s.inexact {
            Accuracy::LowerBound
        } else {
            Accuracy::Exact
        };
        let lasts_until = match event_type {
            EventType::Start => None,
            EventType::End => Some(ended_at),
            // Those that are left wait for their totals: as in its end.
            EventType::Usage if s.open() == 0 && s.former().last_close.is_some() => Some(ended_at.min(now)),
            // A reducer makes no others.
            _ => Some(now),
        };
        let allocations = self.reports(s);
        SessionEvent {
            id: event_id(s.id, s.sequence, now),
            event_type,
            timestamp: self.wall.not_back(started_at, now),
            session_id: s.id,
            sequence: s.sequence,
            continues: s.former().continues,
            source: self.identity.source.clone(),
            realm: self.names.realm(s.first_name).into(),
            user: self.rules.user(first).map(Into::into),
            usernames: s
                .usernames
                .iter()
                .map(|name| self.names.username(*name).into())
                .collect(),
            labels: self.rules.user_pattern.labels(first),
            started_at: self.wall.at(started_at),
            end: (event_type == EventType::End).then_some(SessionEnd {
                ended_at: self.wall.not_back(started_at, ended_at),
                reason,
                accuracy,
            }),
            block_reason: (event_type == EventType::End && reason == CloseReason::Cancelled)
                .then(|| self.block_reason(s))
                .flatten(),
            duration_ms: lasts_until.map(|until| until.since(started_at)),
            peer_leg: self.peer_leg(),
            billable: self.rules.billable,
            usage: s.usage(),
            usage_delta: self.unbilled(s),
            allocations_omitted: (s.allocations() - allocations.len()) as u32,
            allocations,
        }
    }

    /// The first 50 allocations that the session counts, in the order in which they opened.
    fn reports(&self, s: &Session) -> Vec<AllocationReport> {
        // By what they are, not by where they stand in memory: the same after a restart.
        let key = |opened_at, id, server, name| {
            (opened_at, id, self.servers.get(server), self.names.username(name))
        };
        let past = s
            .former()
            .past
            .iter()
            .enumerate()
            .map(|(i, p)| (key(p.opened_at, p.id, p.server, p.name), true, i));
        let present = s.members().iter().filter_map(|slot| {
            let Some(a) = self.allocations.get(*slot as usize) else {
                self.broken("a session's member that is gone");
                return None;
            };
            Some((
                key(a.opened_at.get(), a.id, a.server, a.name),
                false,
                *slot as usize,
            ))
        });
        let mut order: Vec<_> = past.chain(present).collect();
        if order.len() > LISTED {
            order.select_nth_unstable(LISTED);
            order.truncate(LISTED);
        }
        order.sort_unstable();
        order
            .into_iter()
            .filter_map(|(.., past, i)| {
                if past {
                    self.past_report(s, i)
                } else {
                    self.report(i)
                }
            })
            .collect()
    }

    fn past_report(&self, s: &Session, i: usize) -> Option<AllocationReport> {
        let p = s.former().past.get(i)?;
        let base = AllocationReport {
            id: p.id,
            username: self.names.username(p.name).into(),
            opened_at: self.wall.at(p.opened_at),
            opened_seen: p.opened_seen,
            closed: self.emitted_close(p.opened_at, p.closed),
            totals_seen: p.totals_seen,
            ..self.described(p.server, &p.details, p.part)
        };
        Some(base)
    }

    fn report(&self, slot: usize) -> Option<AllocationReport> {
        let a = self.allocations.get(slot)?;
        let (client, peer) = a.totals();
        Some(AllocationReport {
            id: a.id,
            username: self.names.username(a.name).into(),
            opened_at: self.wall.at(a.opened_at.get()),
            opened_seen: a.flags.contains(Flags::OPENED_SEEN),
            closed: self.emitted_close(a.opened_at.get(), a.rare.as_ref().and_then(|r| r.closed)),
            totals_seen: client.is_some() && (peer.is_some() || !self.peer_leg()),
            ..self.described(a.server, &a.details(), a.legs().minus(a.base()))
        })
    }

    fn emitted_close(
        &self,
        opened_at: Timestamp,
        closed: Option<(Timestamp, CloseReason)>,
    ) -> Option<(Timestamp, CloseReason)> {
        closed.map(|(at, reason)| (self.wall.not_back(opened_at, at), reason))
    }

    fn described(&self, server: u32, details: &Details, usage: Legs) -> AllocationReport {
        let labels = self.labels.texts(details.labels);
        AllocationReport {
            id: crate::message::AllocationId(0),
            username: Box::default(),
            opened_at: crate::time::Timestamp(0),
            opened_seen: false,
            closed: None,
            totals_seen: false,
            server: self.servers.owned(server),
            transport: labels.transport.map(Into::into),
            server_address: labels.local.map(Into::into),
            client_address: details.remote.to_text(),
            tls_version: labels.tls_version.map(Into::into),
            tls_cipher: labels.tls_cipher.map(Into::into),
            usage,
        }
    }
}
