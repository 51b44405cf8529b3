//! Recorded histories: the inputs of a reducer, line by line, so that they can be replayed.
//!
//! The first line is the [`History`]: all that the source's reducer was made of. Then its state as rows, what it
//! knows of its source besides (`Heard`), and its inputs, each with the time at which it took effect: messages as
//! `[seconds, channel, payload]` (and the server, in `direct` sources), everything else as an object. Names that are
//! not UTF-8 are given in base64.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use turnhook_reducer::{Reducer, source::Gap, state::Change, time::Timestamp};
use turnhook_subscriber::signal::Signal;

use super::{recording::Sink, settings::History};

/// Bytes of rows in one chunk.
const CHUNK: usize = 64 * 1024;

/// Asks running sources for their history.
#[derive(Debug, Default)]
pub(crate) struct Taps(BTreeMap<String, mpsc::Sender<Sink>>);

impl Taps {
    /// The source's end.
    pub(crate) fn of(&mut self, source: &str, history: History) -> TapRequests {
        let (sender, requests) = mpsc::channel(1);
        self.0.insert(source.to_owned(), sender);
        TapRequests { requests, history }
    }

    /// Has the history of a source written from now on. Whether there is such a source.
    pub(crate) async fn record(&self, source: &str, sink: Sink) -> bool {
        match self.0.get(source) {
            Some(requests) => requests.send(sink).await.is_ok(),
            None => false,
        }
    }
}

pub(crate) struct TapRequests {
    requests: mpsc::Receiver<Sink>,
    history: History,
}

impl TapRequests {
    pub(crate) async fn recv(&mut self) -> Option<(Sink, History)> {
        Some((self.requests.recv().await?, self.history.clone()))
    }
}

/// A recording under way. One that is dropped says that the source stops, if no other reason was given.
pub(crate) struct Tap {
    sink: Sink,
}

/// The state that a recording begins with, in chunks of lines.
pub(crate) struct Rows<I> {
    rows: I,
    chunk: String,
    /// What comes after the rows.
    heard: String,
}

impl<I: Iterator<Item = Change>> Rows<I> {
    /// Adds one row; a chunk, once there is enough of it. `None` at the end.
    pub(crate) fn step(&mut self) -> Option<Option<String>> {
        match self.rows.next() {
            Some(change) => {
                self.chunk += &json(&Line::Row {
                    table: change.table as u8,
                    key: change.key,
                    row: BASE64.encode(change.value.unwrap_or_default()),
                });
                let full = self.chunk.len() >= CHUNK;
                Some(full.then(|| std::mem::take(&mut self.chunk)))
            }
            None => {
                self.chunk += &std::mem::take(&mut self.heard);
                let chunk = std::mem::take(&mut self.chunk);
                (!chunk.is_empty()).then_some(Some(chunk))
            }
        }
    }
}

/// One line of a history, but for messages.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A row of the state that the recording began with.
    Row {
        /// The table's number.
        table: u8,
        /// The row's key.
        key: u64,
        /// The row, in base64.
        row: String,
    },
    /// A message whose names are not UTF-8.
    Message {
        /// The time, in milliseconds since 1970.
        at: u64,
        /// The channel, in base64.
        channel: String,
        /// The payload, in base64.
        payload: String,
        /// The server, in base64.
        server: Option<String>,
    },
    /// The source heard from then on.
    Hearing {
        /// The time, in milliseconds since 1970.
        at: u64,
    },
    /// The source heard nothing from then on.
    Deaf {
        /// The time, in milliseconds since 1970.
        at: u64,
    },
    /// Messages may have been missed.
    Gap {
        /// Its start, in milliseconds.
        from: u64,
        /// The end of the gap, in milliseconds since 1970.
        to: u64,
        /// The reason for the gap.
        reason: String,
        /// Which server's messages, in base64; all of the source's if it is missing.
        server: Option<String>,
    },
    /// A server stopped.
    ServerStopped {
        /// When it was noticed, in milliseconds.
        at: u64,
        /// When it stopped.
        stopped_at: u64,
        /// The server, in base64.
        server: String,
    },
    /// A server was started anew.
    ServerRestarted {
        /// When it was noticed, in milliseconds.
        at: u64,
        /// When its last connection had closed.
        closed_at: u64,
        /// The server, in base64.
        server: String,
    },
    /// A snapshot began.
    SnapshotBegan {
        /// The time, in milliseconds since 1970.
        at: u64,
    },
    /// A key of a snapshot was read.
    SnapshotKey {
        /// The time, in milliseconds since 1970.
        at: u64,
        /// The key, in base64.
        key: String,
        /// The value, in base64.
        value: String,
        /// The seconds that Redis's `OBJECT IDLETIME` gave.
        idle_seconds: Option<u64>,
    },
    /// A snapshot ended.
    SnapshotEnded {
        /// The time, in milliseconds since 1970.
        at: u64,
    },
    /// A relay thread of a server has a connection from then on.
    ThreadConnected {
        /// The time, in milliseconds since 1970.
        at: u64,
        /// The server, in base64.
        server: String,
        /// The first three digits of its allocations' ids.
        thread: u16,
    },
    /// The last connection of a relay thread has closed.
    ThreadDisconnected {
        /// The time, in milliseconds since 1970.
        at: u64,
        /// The server, in base64.
        server: String,
        /// The first three digits of its allocations' ids.
        thread: u16,
    },
    /// The wall clock differs from the time of the inputs from then on.
    WallClock {
        /// The time, in milliseconds since 1970.
        at: u64,
        /// By how much it is ahead (or, negative, behind), in milliseconds.
        ahead: i64,
    },
    /// Everything that was published before a standstill has been heard.
    CaughtUp,
    /// Time passed.
    Time {
        /// Up to then, in milliseconds.
        at: u64,
    },
}

/// What a reducer knows of its source that is not in its rows. A recording begins with it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    hears: bool,
    /// The relay threads that were heard of, and whether they have a connection.
    threads: BTreeMap<(Arc<[u8]>, u16), bool>,
}

impl Heard {
    pub(crate) fn signal(&mut self, signal: &Signal) {
        match signal {
            Signal::Hearing { .. } | Signal::Resumed { .. } => {
                self.hears = true;
                self.threads.clear();
            }
            Signal::Deaf { .. } => self.hears = false,
            Signal::ThreadConnected { server, thread, .. } => {
                self.threads.insert((Arc::clone(server), *thread), true);
            }
            Signal::ThreadDisconnected { server, thread, .. } => {
                self.threads.insert((Arc::clone(server), *thread), false);
            }
            _ => {}
        }
    }

    fn lines(&self, at: Timestamp) -> String {
        let hearing = self.hears.then(|| json(&Line::Hearing { at: at.0 }));
        let threads = self.threads.iter().map(|((server, thread), connected)| {
            let (at, server, thread) = (at.0, BASE64.encode(server), *thread);
            json(&if *connected {
                Line::ThreadConnected { at, server, thread }
            } else {
                Line::ThreadDisconnected { at, server, thread }
            })
        });
        hearing.into_iter().chain(threads).collect()
    }
}

impl Tap {
    pub(crate) fn new(sink: Sink) -> Tap {
        Tap { sink }
    }

    /// The first lines of a history: the rules, then the state.
    pub(crate) fn rows<'a>(
        mut history: History,
        reducer: &'a Reducer,
        heard: &Heard,
    ) -> Rows<impl Iterator<Item = Change> + Send + use<'a>> {
        history.at = seconds(reducer.now());
        if let Some(heard) = reducer.hears_since() {
            history.hearing_since = Some(heard.all.0);
            let servers = heard
                .servers
                .iter()
                .map(|(name, since)| (BASE64.encode(name), since.0));
            history.servers_hearing_since = servers.collect();
        }
        Rows {
            rows: reducer.rows(),
            chunk: json(&history),
            heard: heard.lines(reducer.now()),
        }
    }

    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// An input that is about to take effect. False if nobody listens any more.
    pub(crate) fn signal(&mut self, signal: &Signal, now: Timestamp) -> bool {
        let effective = |at: &Timestamp| (*at).max(now).0;
        let line = match signal {
            Signal::Messages(batch) => {
                let at = batch.at.max(now);
                let mut chunk = String::new();
                for (channel, payload) in batch.iter() {
                    chunk += &message(at, &channel, &payload, batch.server.as_deref());
                }
                return self.send(chunk);
            }
            Signal::Hearing { at, .. } | Signal::Resumed { at, .. } => Line::Hearing { at: effective(at) },
            Signal::Deaf { at, .. } => Line::Deaf { at: effective(at) },
            Signal::ServerStopped { at, server } => Line::ServerStopped {
                at: effective(at),
                stopped_at: at.0,
                server: BASE64.encode(server),
            },
            Signal::ServerRestarted { at, server } => Line::ServerRestarted {
                at: effective(at),
                closed_at: at.0,
                server: BASE64.encode(server),
            },
            Signal::ThreadConnected { at, server, thread } => Line::ThreadConnected {
                at: effective(at),
                server: BASE64.encode(server),
                thread: *thread,
            },
            Signal::ThreadDisconnected {
                at, server, thread, ..
            } => Line::ThreadDisconnected {
                at: effective(at),
                server: BASE64.encode(server),
                thread: *thread,
            },
            Signal::SnapshotBegan { at } => Line::SnapshotBegan { at: effective(at) },
            Signal::SnapshotRead { at, entries } => {
                let entry = |e: &turnhook_subscriber::signal::SnapshotEntry| {
                    json(&Line::SnapshotKey {
                        at: effective(at),
                        key: BASE64.encode(&e.key),
                        value: BASE64.encode(&e.value),
                        idle_seconds: e.idle_seconds,
                    })
                };
                return self.send(entries.iter().map(entry).collect());
            }
            Signal::SnapshotEnded { at, .. } => Line::SnapshotEnded { at: effective(at) },
            // Gaps are recorded by themselves, since not all of them come from the source.
            Signal::Gap(_) => return true,
            Signal::Refused { .. }
            | Signal::ServerConnected { .. }
            | Signal::ServerGone { .. }
            | Signal::ServerReturned { .. }
            | Signal::TurnedAway(_)
            | Signal::Unheard(_)
            | Signal::SnapshotScanned { .. }
            // Said by whoever knows what it means.
            | Signal::Answered { .. }
            | Signal::CaughtUp => return true,
        };
        self.send(json(&line))
    }

    /// A gap is an input too, whoever noticed it.
    pub(crate) fn gap(&mut self, gap: &Gap) -> bool {
        self.send(json(&Line::Gap {
            from: gap.from.0,
            to: gap.to.0,
            reason: gap.reason.as_str().to_owned(),
            server: gap.server.as_ref().map(|s| BASE64.encode(s)),
        }))
    }

    /// The wall clock was set. False if nobody listens any more.
    pub(crate) fn wall_clock(&mut self, at: Timestamp, ahead: i64) -> bool {
        self.send(json(&Line::WallClock { at: at.0, ahead }))
    }

    /// A standstill has been caught up with. False if nobody listens any more.
    pub(crate) fn caught_up(&mut self) -> bool {
        self.send(json(&Line::CaughtUp))
    }

    /// Time passed. False if nobody listens any more.
    pub(crate) fn time(&mut self, at: Timestamp) -> bool {
        self.send(json(&Line::Time { at: at.0 }))
    }

    fn send(&self, chunk: String) -> bool {
        self.sink.try_send(chunk)
    }
}

fn json<T: Serialize>(line: &T) -> String {
    match serde_json::to_string(line) {
        Ok(mut text) => {
            text.push('\n');
            text
        }
        // Plain data with string keys. A history with a line that is none is refused, and not played with a hole in it.
        Err(error) => {
            turnhook_reducer::internal_error!("a line of a recording cannot be written: {error}");
            "{\"lost\":\"a line that could not be written\"}\n".to_owned()
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1000.0
}

fn message(at: Timestamp, channel: &[u8], payload: &[u8], server: Option<&[u8]>) -> String {
    let texts = std::str::from_utf8(channel)
        .ok()
        .zip(std::str::from_utf8(payload).ok());
    let server_text = server.map(std::str::from_utf8).transpose();
    match (texts, server_text) {
        (Some((channel, payload)), Ok(None)) => json(&(seconds(at), channel, payload)),
        (Some((channel, payload)), Ok(Some(server))) => json(&(seconds(at), channel, payload, server)),
        _ => json(&Line::Message {
            at: at.0,
            channel: BASE64.encode(channel),
            payload: BASE64.encode(payload),
            server: server.map(|s| BASE64.encode(s)),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use turnhook_reducer::state::Table;

    use super::*;

    /// So that whoever writes them can stop after any of them.
    #[test]
    fn rows_are_made_one_by_one_and_given_in_chunks() {
        let made = Cell::new(0);
        let rows = (0..3000).map(|key| {
            made.set(made.get() + 1);
            Change {
                table: Table::Allocation,
                key,
                value: Some(vec![7; 100]),
            }
        });
        let mut rows = Rows {
            rows,
            chunk: String::new(),
            heard: "the rest\n".to_owned(),
        };
        let (mut steps, mut lines) = (0, 0);
        while let Some(chunk) = rows.step() {
            steps += 1;
            assert_eq!(made.get(), steps.min(3000));
            let chunk = chunk.unwrap_or_default();
            assert!(chunk.len() < CHUNK + 1000);
            lines += chunk.lines().count();
        }
        assert_eq!(lines, 3001);
    }
}
