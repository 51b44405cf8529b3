//! Recorded histories: what a reducer was told, line by line, so that it can be told again.
//!
//! The first line is the [`History`]: all that the source's reducer was made of. Then its state as rows, then
//! its inputs, each with the time at which it took effect: messages as `[seconds, channel, payload]` (and the
//! server, in `direct` sources), everything else as an object. Names that are not UTF-8 are given in base64.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use turnhook_reducer::{
    Reducer,
    event::SessionEvent,
    source::{Gap, GapReason},
    state::{Change, Table},
    time::Timestamp,
};
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
            None if self.chunk.is_empty() => None,
            None => Some(Some(std::mem::take(&mut self.chunk))),
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
        /// When, in milliseconds.
        at: u64,
        /// In base64.
        channel: String,
        /// In base64.
        payload: String,
        /// In base64.
        server: Option<String>,
    },
    /// The source heard from then on.
    Hearing {
        /// When, in milliseconds.
        at: u64,
    },
    /// The source heard nothing from then on.
    Deaf {
        /// When, in milliseconds.
        at: u64,
    },
    /// Messages may have been missed.
    Gap {
        /// Its start, in milliseconds.
        from: u64,
        /// Its end.
        to: u64,
        /// Why.
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
        /// In base64.
        server: String,
    },
    /// A server was started anew.
    ServerRestarted {
        /// When it was noticed, in milliseconds.
        at: u64,
        /// When its last connection had closed.
        closed_at: u64,
        /// In base64.
        server: String,
    },
    /// A snapshot began.
    SnapshotBegan {
        /// When, in milliseconds.
        at: u64,
    },
    /// A key of a snapshot was read.
    SnapshotKey {
        /// When, in milliseconds.
        at: u64,
        /// In base64.
        key: String,
        /// In base64.
        value: String,
        /// `OBJECT IDLETIME`.
        idle_seconds: Option<u64>,
    },
    /// A snapshot ended.
    SnapshotEnded {
        /// When, in milliseconds.
        at: u64,
    },
    /// Time passed.
    Time {
        /// Up to then, in milliseconds.
        at: u64,
    },
}

impl Tap {
    pub(crate) fn new(sink: Sink) -> Tap {
        Tap { sink }
    }

    /// The first lines of a history: the rules, then the state.
    pub(crate) fn rows(
        mut history: History,
        reducer: &Reducer,
    ) -> Rows<impl Iterator<Item = Change> + Send + '_> {
        history.at = seconds(reducer.now());
        Rows {
            rows: reducer.rows(),
            chunk: json(&history),
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
                let mut chunk = String::with_capacity(batch.size() * 2);
                for (channel, payload) in batch.iter() {
                    chunk += &message(at, channel, payload, batch.server.as_deref());
                }
                return self.send(chunk);
            }
            Signal::Hearing { at, .. } => Line::Hearing { at: effective(at) },
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
            // Gaps are told apart, since not all of them come from the source.
            Signal::Gap(_) => return true,
            Signal::Refused { .. }
            | Signal::ServerSeen { .. }
            | Signal::SnapshotScanned { .. }
            | Signal::Answered { .. } => return true,
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

/// Tells a reducer a recorded history again, and hands each event that comes of it to `each`.
pub struct Player {
    reducer: Option<Reducer>,
    history: History,
    rows: Vec<(Table, u64, Vec<u8>)>,
}

/// What is wrong with a line of a history.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Not a line of a history.
    #[error("not a line of a history: {0}")]
    Line(#[from] serde_json::Error),
    /// Something in it is not what it should be.
    #[error("{0}")]
    Value(String),
}

impl Player {
    /// Begins with the rules of `history`; the first line of a recording replaces it.
    #[must_use]
    pub fn new(history: History) -> Player {
        Player {
            reducer: None,
            history,
            rows: Vec::new(),
        }
    }

    /// Plays one line, and returns the events that were decided.
    ///
    /// # Errors
    /// The line is none of a history.
    pub fn line(&mut self, text: &str) -> Result<Vec<SessionEvent>, PlayError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if text.starts_with('[') {
            return self.message(text);
        }
        let value: serde_json::Value = serde_json::from_str(text)?;
        if value.get("turnhook_history").is_some() {
            self.history = serde_json::from_value(value)?;
            if self.history.turnhook_history != History::FORMAT {
                return Err(PlayError::Value(
                    "a history of another version of turnhook".to_owned(),
                ));
            }
            return Ok(Vec::new());
        }
        let line: Line = serde_json::from_value(value)?;
        if let Line::Row { table, key, row } = line {
            let table = Table::from_u8(table).ok_or_else(|| PlayError::Value(format!("no table {table}")))?;
            self.rows.push((table, key, decode(&row)?));
            return Ok(Vec::new());
        }
        let reducer = self.reducer()?;
        play(reducer, line)?;
        Ok(reducer.drain(true).events)
    }

    fn message(&mut self, text: &str) -> Result<Vec<SessionEvent>, PlayError> {
        let parts: Vec<serde_json::Value> = serde_json::from_str(text)?;
        let text = |i: usize| parts.get(i).and_then(serde_json::Value::as_str);
        let at = parts.first().and_then(serde_json::Value::as_f64);
        let (Some(at), Some(channel), Some(payload)) = (at, text(1), text(2)) else {
            return Err(PlayError::Value(
                "a message is [seconds, channel, payload]".to_owned(),
            ));
        };
        let server = text(3).map(str::as_bytes);
        let reducer = self.reducer()?;
        tell(
            reducer,
            Timestamp((at * 1000.0).round() as u64),
            channel.as_bytes(),
            payload.as_bytes(),
            server,
        );
        Ok(reducer.drain(true).events)
    }

    /// Lets time pass until everything that can end has ended, and returns the events of that.
    ///
    /// # Errors
    /// The history's rules cannot be used.
    pub fn settle(&mut self) -> Result<Vec<SessionEvent>, PlayError> {
        /// Longer than any tombstone.
        const LONG: u64 = 48 * 3_600_000;
        let reducer = self.reducer()?;
        reducer.advance(reducer.now().plus(LONG));
        Ok(reducer.drain(true).events)
    }

    fn reducer(&mut self) -> Result<&mut Reducer, PlayError> {
        if self.reducer.is_none() {
            let rules = self.history.rules().map_err(PlayError::Value)?;
            let store = self
                .history
                .store_id()
                .ok_or_else(|| PlayError::Value("store_id: not 32 digits".to_owned()))?;
            let identity = turnhook_reducer::Identity {
                store,
                source: self.history.source.as_str().into(),
            };
            let clock = Timestamp((self.history.at * 1000.0).round() as u64);
            let rows = std::mem::take(&mut self.rows);
            let recorded = !rows.is_empty() || clock.0 > 0;
            let mut reducer = Reducer::restore(identity, rules, clock, rows)
                .map_err(|error| PlayError::Value(error.to_string()))?;
            // A recording says when the source heard; plain messages were heard.
            if !recorded {
                reducer.hearing(clock);
            }
            return Ok(self.reducer.insert(reducer));
        }
        self.reducer
            .as_mut()
            .ok_or_else(|| PlayError::Value("no reducer".to_owned()))
    }
}

fn play(reducer: &mut Reducer, line: Line) -> Result<(), PlayError> {
    match line {
        Line::Row { .. } => {}
        Line::Message {
            at,
            channel,
            payload,
            server,
        } => {
            let server = server.as_deref().map(decode).transpose()?;
            tell(
                reducer,
                Timestamp(at),
                &decode(&channel)?,
                &decode(&payload)?,
                server.as_deref(),
            );
        }
        Line::Hearing { at } => reducer.hearing(Timestamp(at)),
        Line::Deaf { at } => reducer.deaf(Timestamp(at)),
        Line::Gap {
            from,
            to,
            reason,
            server,
        } => {
            let reason = GapReason::from_text(&reason)
                .ok_or_else(|| PlayError::Value(format!("no gap reason {reason:?}")))?;
            let server = server
                .as_deref()
                .map(decode)
                .transpose()?
                .map(Vec::into_boxed_slice);
            let gap = Gap {
                from: Timestamp(from),
                to: Timestamp(to),
                reason,
                server,
            };
            reducer.gap(gap.from, &gap);
        }
        Line::ServerStopped {
            at,
            stopped_at,
            server,
        } => {
            let server = reducer.server(&decode(&server)?);
            reducer.server_stopped(Timestamp(at), server, Timestamp(stopped_at));
        }
        Line::ServerRestarted {
            at,
            closed_at,
            server,
        } => {
            let server = reducer.server(&decode(&server)?);
            reducer.server_restarted(Timestamp(at), server, Timestamp(closed_at));
        }
        Line::SnapshotBegan { at } => reducer.snapshot_began(Timestamp(at)),
        Line::SnapshotKey {
            at,
            key,
            value,
            idle_seconds,
        } => {
            let (key, value) = (decode(&key)?, decode(&value)?);
            super::source::tell_snapshot_key(reducer, Timestamp(at), &key, &value, idle_seconds);
        }
        Line::SnapshotEnded { at } => reducer.snapshot_ended(Timestamp(at)),
        Line::Time { at } => reducer.advance(Timestamp(at)),
    }
    Ok(())
}

fn tell(reducer: &mut Reducer, at: Timestamp, channel: &[u8], payload: &[u8], server: Option<&[u8]>) {
    let server = server.map_or(turnhook_reducer::ServerRef::UNKNOWN, |s| reducer.server(s));
    // What turnhook passes over is passed over here too.
    if let Ok(message) = turnhook_subscriber::decode::decode(channel, payload) {
        reducer.message(at, server, &message);
    }
}

fn decode(text: &str) -> Result<Vec<u8>, PlayError> {
    BASE64
        .decode(text)
        .map_err(|error| PlayError::Value(format!("not base64: {error}")))
}
