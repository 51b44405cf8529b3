//! Which allocations the status keys name: a walk through the keys that Redis hardly notices.
//!
//! SCAN in small pages with pauses, never KEYS. Only the values that the engine wants are read, and the idle time of
//! a key is asked before its value, since reading sets it back (TRAPS.md, trap 21).

use std::time::Duration;

use bytes::Bytes;
use fred::{
    clients::Pipeline,
    interfaces::ClientLike,
    prelude::Client,
    types::{ClusterHash, CustomCommand, Value},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{rights, subscription::CLIENT_NAME, topology::Connected};
use crate::{
    decode,
    queue::SignalSender,
    signal::{Clock, Signal, SnapshotEntry},
};

/// Keys that SCAN looks at in one go: well below a millisecond of Redis's time.
const PAGE: &str = "500";
/// Values read in one go.
const READ: usize = 200;
/// Redis rests so many times as long as it worked for us.
const REST: u32 = 4;
/// But never longer than this.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Commands on a connection of their own.
pub(super) struct Commands(Connected);

impl Commands {
    pub(super) fn new(connected: Connected) -> Commands {
        Commands(connected)
    }

    /// One command, and its answer.
    pub(super) async fn call(&self, command: &'static str, args: Vec<Value>) -> Result<Value, String> {
        self.0
            .client
            .custom(named(command), args)
            .await
            .map_err(|e| match e.details() {
                refused if rights::are_missing(refused) => rights::of(command, refused),
                _ => e.to_string(),
            })
    }

    /// The same command on each key, all at once; an answer each, in order.
    async fn each(
        &self,
        command: &'static str,
        before: Option<&'static str>,
        keys: &[Bytes],
    ) -> Vec<Result<Value, fred::error::Error>> {
        let pipeline: Pipeline<Client> = self.0.client.pipeline();
        for key in keys {
            let mut args: Vec<Value> = before.into_iter().map(Value::from_static_str).collect();
            args.push(Value::Bytes(key.clone()));
            // Only put in line here; the answer comes below.
            if let Err(e) = pipeline.custom::<(), Value>(named(command), args).await {
                return vec![Err(e)];
            }
        }
        pipeline.try_all().await
    }
}

fn named(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::Random, false)
}

/// Takes one snapshot. The connection is good for another one unless this fails.
pub(super) async fn take(
    commands: &Commands,
    partial: bool,
    clock: &Clock,
    signals: &SignalSender,
) -> Result<(), String> {
    // For people who look at CLIENT LIST; a user may be forbidden to do it.
    let _ = commands
        .call("CLIENT", vec!["SETNAME".into(), CLIENT_NAME.into()])
        .await;
    signals.signal(Signal::SnapshotBegan { at: clock() });
    let result = walk(commands, clock, signals).await;
    // A node of a Cluster has some of the keys only.
    let complete = result.is_ok() && !partial;
    signals.signal(Signal::SnapshotEnded {
        at: clock(),
        complete,
    });
    result
}

async fn walk(commands: &Commands, clock: &Clock, signals: &SignalSender) -> Result<(), String> {
    let mut cursor = Value::from_static_str("0");
    loop {
        let began = Instant::now();
        let args = vec![
            cursor,
            "MATCH".into(),
            "turn/*/status".into(),
            "COUNT".into(),
            PAGE.into(),
        ];
        let (next, found) = page(commands.call("SCAN", args).await?)?;
        pause(began).await;
        let keys: Vec<Bytes> = found
            .into_iter()
            .filter(|k| decode::decode_key(k).is_ok())
            .collect();
        if !keys.is_empty() {
            let (wanted, answer) = oneshot::channel();
            signals.signal(Signal::SnapshotScanned {
                keys: keys.clone(),
                wanted,
            });
            // Nobody may want any more: the walk goes on, and ends as it should.
            let indexes = answer.await.unwrap_or_default();
            let wanted: Vec<Bytes> = indexes.into_iter().filter_map(|i| keys.get(i).cloned()).collect();
            for keys in wanted.chunks(READ) {
                read(commands, keys, clock, signals).await?;
            }
        }
        if next.as_ref() == b"0" {
            return Ok(());
        }
        cursor = Value::Bytes(next);
    }
}

/// The answer to a SCAN: the next cursor, and keys.
fn page(answer: Value) -> Result<(Bytes, Vec<Bytes>), String> {
    let Value::Array(parts) = answer else {
        return Err("SCAN gave no array".to_owned());
    };
    let mut parts = parts.into_iter();
    let (Some(cursor), Some(Value::Array(keys)), None) =
        (parts.next().and_then(bytes), parts.next(), parts.next())
    else {
        return Err("SCAN gave no cursor and keys".to_owned());
    };
    Ok((cursor, keys.into_iter().filter_map(bytes).collect()))
}

async fn read(
    commands: &Commands,
    keys: &[Bytes],
    clock: &Clock,
    signals: &SignalSender,
) -> Result<(), String> {
    // The idle times count from here, so this is the time to give with them.
    let at = clock();
    let began = Instant::now();
    let idle = commands.each("OBJECT", Some("IDLETIME"), keys).await;
    pause(began).await;
    let mut live = Vec::with_capacity(keys.len());
    for (key, answer) in keys.iter().zip(idle) {
        match answer {
            // Gone meanwhile.
            Ok(Value::Null) => {}
            Ok(answer) => live.push((key, answer.as_u64())),
            Err(e) if rights::are_missing(e.details()) => return Err(rights::snapshot(e.details())),
            Err(e) if answered(&e) => live.push((key, None)),
            Err(e) => return Err(e.to_string()),
        }
    }
    let began = Instant::now();
    let names: Vec<Bytes> = live.iter().map(|(key, _)| (*key).clone()).collect();
    let values = commands.each("GET", None, &names).await;
    pause(began).await;
    let mut entries = Vec::with_capacity(live.len());
    for ((key, idle_seconds), answer) in live.into_iter().zip(values) {
        match answer {
            Ok(answer) => {
                if let Some(value) = bytes(answer) {
                    entries.push(SnapshotEntry {
                        key: key.clone(),
                        value,
                        idle_seconds,
                    });
                }
            }
            Err(e) if rights::are_missing(e.details()) => return Err(rights::snapshot(e.details())),
            // Not a string, or moving to another node.
            Err(e) if answered(&e) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    if !entries.is_empty() {
        signals.signal(Signal::SnapshotRead { at, entries });
    }
    Ok(())
}

/// Whether Redis itself said so: then the connection is good. An LFU policy, for one, keeps no idle times.
fn answered(error: &fred::error::Error) -> bool {
    use fred::error::ErrorKind::{Canceled, IO, Timeout};
    !matches!(error.kind(), IO | Timeout | Canceled)
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::String(text) => Some(text.into_inner()),
        _ => None,
    }
}

async fn pause(began: Instant) {
    sleep((began.elapsed() * REST).clamp(Duration::from_millis(1), LONGEST_REST)).await;
}
