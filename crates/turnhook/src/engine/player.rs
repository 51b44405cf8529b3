//! Recorded histories (`tap.rs`), replayed through a reducer.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use turnhook_reducer::{
    HearsSince, Reducer,
    event::SessionEvent,
    source::{Gap, GapReason},
    state::Table,
    time::Timestamp,
};

use super::{settings::History, tap::Line};

/// Replays a recorded history through a reducer, and hands each event that comes of it to `each`.
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
        let hears = matches!(line, Line::Hearing { .. });
        let reducer = self.reducer()?;
        play(reducer, line)?;
        if hears {
            self.heard_since()?;
        }
        Ok(self.reducer()?.drain(true).events)
    }

    /// The first line of its kind in a recording that began in the midst says that the source hears, and its very first
    /// since when.
    fn heard_since(&mut self) -> Result<(), PlayError> {
        let Some(since) = self.history.hearing_since.take() else {
            return Ok(());
        };
        let servers = std::mem::take(&mut self.history.servers_hearing_since);
        let servers = servers
            .into_iter()
            .map(|(name, since)| Ok((decode(&name)?.into(), Timestamp(since))));
        let heard = HearsSince {
            all: Timestamp(since),
            servers: servers.collect::<Result<_, PlayError>>()?,
        };
        self.reducer()?.heard_since(&heard);
        Ok(())
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
        apply(
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
            let rules = self
                .history
                .rules()
                .map_err(|why| PlayError::Value(why.to_string()))?;
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
            apply(
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
            super::source::apply_snapshot_key(reducer, Timestamp(at), &key, &value, idle_seconds);
        }
        Line::SnapshotEnded { at } => reducer.snapshot_ended(Timestamp(at)),
        Line::ThreadConnected { at, server, thread } => {
            let server = reducer.server(&decode(&server)?);
            reducer.thread_connected(Timestamp(at), server, thread);
        }
        Line::ThreadDisconnected { at, server, thread } => {
            let server = reducer.server(&decode(&server)?);
            reducer.thread_disconnected(Timestamp(at), server, thread);
        }
        Line::WallClock { at, ahead } => reducer.wall_clock(Timestamp(at), ahead),
        Line::CaughtUp => reducer.caught_up(),
        Line::Time { at } => reducer.advance(Timestamp(at)),
    }
    Ok(())
}

fn apply(reducer: &mut Reducer, at: Timestamp, channel: &[u8], payload: &[u8], server: Option<&[u8]>) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use turnhook_reducer::Identity;
    use turnhook_subscriber::signal::Signal;

    use super::{super::tap, *};
    use crate::config::{self, Input};

    const STATUS: &str = "turn/realm/example.org/user/ann/allocation/001000000000000001/status";
    const GRANT: &str = "new lifetime=600, type=UDP, local=127.0.0.1:3478, remote=127.0.0.1:40000";

    fn history() -> History {
        let text = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6379\"\n";
        let input = Input {
            file: Some(("test".into(), text.to_owned())),
            env: Vec::new(),
        };
        let config = config::load(&input).unwrap();
        History::new(&config.session, &config.limits, &config.sources[0], [7; 16])
    }

    /// What had been heard before the recording began counts in it: an allocation expires when it does in turnhook.
    #[test]
    fn what_expires_does_so_when_it_did() {
        let gap = |from, to, server: &[u8]| Gap {
            from: Timestamp(from),
            to: Timestamp(to),
            reason: GapReason::Reconnect,
            server: Some(server.into()),
        };
        for (name, missed) in [("heard since long", false), ("one server was not", true)] {
            let history = history();
            let identity = Identity {
                store: [7; 16],
                source: "eu-1".into(),
            };
            let mut live = Reducer::new(identity, history.rules().unwrap());
            let server: &[u8] = b"10.0.0.1/-/0";
            live.hearing(Timestamp(1_000));
            apply(
                &mut live,
                Timestamp(2_000),
                STATUS.as_bytes(),
                GRANT.as_bytes(),
                Some(server),
            );
            if missed {
                live.gap(Timestamp(200_000), &gap(200_000, 250_000, server));
            }
            live.advance(Timestamp(500_000));
            live.drain(true);
            let mut heard = tap::Heard::default();
            heard.signal(&Signal::Hearing {
                at: Timestamp(1_000),
                detail: String::new(),
            });
            let mut rows = tap::Tap::rows(history, &live, &heard);
            let mut recording = String::new();
            while let Some(chunk) = rows.step() {
                recording += &chunk.unwrap_or_default();
            }
            drop(rows);
            let mut player = Player::new(self::history());
            for line in recording.lines() {
                player.line(line).unwrap();
            }
            let emitted = player.settle().unwrap();
            live.advance(Timestamp(100_000_000));
            let right = live.drain(true).events;
            assert_eq!(emitted, right, "{name}: {recording}");
            assert!(!emitted.is_empty());
            // Recordings of before say nothing of it.
            let old = recording.replace("\"hearing_since\":1000,", "");
            let mut player = Player::new(self::history());
            for line in old.lines() {
                player.line(line).unwrap();
            }
            assert_eq!(player.settle().unwrap().len(), right.len());
        }
    }
}
