//! What a source hears: each signal of its subscriber goes to the reducer, and is counted and recorded on the way.

use std::sync::Arc;

use tracing::{debug, info, warn};
use turnhook_reducer::{
    Reducer, ServerRef, TOGETHER,
    message::Kind,
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_subscriber::{
    decode::{decode, decode_key},
    signal::{Batch, Signal, SnapshotEntry},
};

use super::{LoopState, SourceTask};
use crate::engine::telemetry::MessageCounts;

/// Servers that had not stopped of which it is remembered that their gap is on record.
const RETURNED: usize = 64;

impl SourceTask {
    pub(super) fn apply(&mut self, current: &mut LoopState, signal: Signal) {
        if let Signal::Messages(batch) = &signal
            && self.give_up(current, batch.at)
        {
            return;
        }
        if let Some(tap) = &mut current.tap
            && !matches!(signal, Signal::Gap(_))
            && !tap.signal(&signal, self.reducer.now())
        {
            current.tap = None;
        }
        current.heard.signal(&signal);
        match signal {
            Signal::Messages(batch) => self.messages(current, &batch),
            Signal::Refused { reason, count } => self.telemetry.ignored(reason.as_str(), count),
            Signal::Hearing { at, detail } => {
                info!(source = %self.telemetry.name(), detail, "hearing");
                let unheard = self.reducer.unheard_since();
                self.reducer.hearing(at);
                self.telemetry.hearing(at, detail);
                if let Some(last) = self.last_commit.take() {
                    // Whoever was there before may have been deaf for longer, whatever it committed.
                    let from = unheard.map_or(last, |since| since.min(last));
                    let reason = if self.store_health.was_away(last, at) {
                        GapReason::StoreUnavailable
                    } else {
                        GapReason::Restart
                    };
                    let gap = Gap {
                        from,
                        to: at,
                        reason,
                        server: None,
                    };
                    self.gap(current, gap);
                }
            }
            Signal::Resumed { at, detail } => {
                info!(source = %self.telemetry.name(), detail, "hearing, as if it had not stopped");
                self.reducer.hearing(at);
                if let Some(since) = &self.resumed {
                    self.reducer.heard_since(since);
                }
                self.telemetry.hearing(at, detail);
                self.last_commit = None;
            }
            Signal::CaughtUp => self.resumed = None,
            Signal::Deaf { at, heard, error } => {
                warn!(source = %self.telemetry.name(), error, "deaf: hears nothing until it has connected again");
                self.reducer.deaf(at);
                self.reducer.heard_until(heard);
                self.telemetry.deaf(at, error);
            }
            Signal::Gap(gap) => self.gap(current, gap),
            Signal::Answered { asked } => {
                if current.behind_since.is_some_and(|since| asked > since) {
                    current.behind_since = None;
                    if current.tap.as_mut().is_some_and(|tap| !tap.caught_up()) {
                        current.tap = None;
                    }
                    self.reducer.caught_up();
                }
            }
            Signal::ServerConnected { at, server } => self.telemetry.server_connected(at, &server),
            Signal::ServerGone { at, server } => self.telemetry.server_gone(at, &server),
            Signal::ServerReturned {
                at,
                server,
                stopped_at,
            } => {
                self.telemetry.server_returned(at, &server, stopped_at);
                current.server = None;
                let number = self.reducer.server(&server);
                self.reducer.server_returned(number);
                current.returned.push_back(((*server).into(), stopped_at));
                if current.returned.len() > RETURNED {
                    current.returned.pop_front();
                }
            }
            Signal::ThreadConnected { at, server, thread } => {
                current.server = None; // where there are many servers, numbers change
                let server = self.reducer.server(&server);
                self.reducer.thread_connected(at, server, thread);
            }
            Signal::ThreadDisconnected {
                at, server, thread, ..
            } => {
                let server = self.reducer.server(&server);
                self.reducer.thread_disconnected(at, server, thread);
            }
            Signal::TurnedAway(turned_away) => self.telemetry.turned_away(&turned_away),
            Signal::Unheard(gap) => self.record_gap(gap),
            Signal::ServerStopped { at, server } => {
                self.telemetry.server_over(at, &server, "stopped");
                let server = self.reducer.server(&server);
                self.reducer.server_stopped(at, server, at);
            }
            Signal::ServerRestarted { at, server } => {
                self.telemetry.server_over(at, &server, "restarted");
                let server = self.reducer.server(&server);
                self.reducer.server_restarted(at, server, at);
            }
            Signal::SnapshotBegan { at } => self.reducer.snapshot_began(at),
            Signal::SnapshotScanned { keys, wanted } => {
                let is_wanted = |key: &[u8]| {
                    let names = decode_key(key);
                    names.is_ok_and(|n| self.reducer.snapshot_wants(n.realm, n.username, n.id))
                };
                let indexes = keys
                    .iter()
                    .enumerate()
                    .filter(|(_, key)| is_wanted(key))
                    .map(|(i, _)| i);
                // Who asked may have given up meanwhile.
                let _ = wanted.send(indexes.collect());
            }
            Signal::SnapshotRead { at, entries } => self.snapshot(at, &entries),
            Signal::SnapshotEnded { at, complete } => {
                debug!(source = %self.telemetry.name(), complete, "snapshot of the status keys ended");
                self.reducer.snapshot_ended(at);
            }
        }
    }

    fn messages(&mut self, current: &mut LoopState, batch: &Batch) {
        let server = match (&batch.server, &current.server) {
            (None, _) => ServerRef::UNKNOWN,
            (Some(name), Some((known, server))) if Arc::ptr_eq(name, known) => *server,
            (Some(name), _) => {
                let server = self.reducer.server(name);
                current.server = Some((Arc::clone(name), server));
                server
            }
        };
        let mut counts = MessageCounts::default();
        let mut together = Vec::with_capacity(TOGETHER.min(batch.len()));
        for message in batch.messages() {
            match message {
                Ok(message) => {
                    counts.add(&message.kind);
                    together.push(message);
                }
                Err(refusal) => self.telemetry.ignored(refusal.as_str(), 1),
            }
            if together.len() == TOGETHER {
                self.reducer.messages(batch.at, server, &together);
                together.clear();
            }
        }
        self.reducer.messages(batch.at, server, &together);
        self.telemetry.messages(&counts);
        self.telemetry.heard(batch.at);
    }

    fn snapshot(&mut self, at: Timestamp, entries: &[SnapshotEntry]) {
        for entry in entries {
            if !apply_snapshot_key(
                &mut self.reducer,
                at,
                &entry.key,
                &entry.value,
                entry.idle_seconds,
            ) {
                self.telemetry.ignored("bad_key", 1);
            }
        }
    }
}

/// Hands a key of a snapshot to the reducer; false if it is not one of coturn's.
pub(in crate::engine) fn apply_snapshot_key(
    reducer: &mut Reducer,
    at: Timestamp,
    key: &[u8],
    value: &[u8],
    idle_seconds: Option<u64>,
) -> bool {
    let Ok(message) = decode(key, value) else {
        return false;
    };
    let (Kind::New(status) | Kind::Refreshed(status)) = message.kind else {
        return false;
    };
    reducer.snapshot_key(
        at,
        message.realm,
        message.username,
        message.id,
        status,
        idle_seconds,
    );
    true
}
