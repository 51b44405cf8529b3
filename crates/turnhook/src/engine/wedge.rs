//! Relay threads of coturn that fell silent (TRAPS.md, trap 11): said aloud, and healed where that is
//! configured.

use std::{collections::BTreeMap, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tracing::{info, warn};
use turnhook_reducer::{
    Reducer, SilenceLook, SilentThread,
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_subscriber::redis::{self, Healing, RedisControl};

use super::{slices::Slice, supervisor::words_of_join, telemetry::SourceTelemetry};

/// How often all allocations are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How far past its time, in milliseconds, a refresh or an end must be: coturn's timers and the way through
/// Redis take some.
const SLACK: u64 = 5_000;

/// Allocations looked at before the clock is.
const STEP: usize = 4096;

type Key = (Option<Box<[u8]>>, u16);

type Healed = (Key, Healing);

pub(crate) struct Wedges {
    on: bool,
    control: Option<RedisControl>,
    looked_at: Instant,
    /// Those that are silent, and when they were heard last.
    silent: BTreeMap<Key, Timestamp>,
    /// A look under way, and what the one just before it found.
    look: Option<SilenceLook>,
    suspected: Option<BTreeMap<Key, Timestamp>>,
    healing: JoinSet<Healed>,
}

impl Wedges {
    /// Looks; heals if it is given the means.
    pub(crate) fn new(control: Option<RedisControl>) -> Wedges {
        Wedges {
            on: true,
            control,
            looked_at: Instant::now(),
            silent: BTreeMap::new(),
            look: None,
            suspected: None,
            healing: JoinSet::new(),
        }
    }

    /// The reducer is another one from now on.
    pub(crate) fn begin_anew(&mut self) {
        (self.look, self.suspected) = (None, None);
    }

    /// `direct` sources see connections close.
    pub(crate) fn off() -> Wedges {
        Wedges {
            on: false,
            ..Wedges::new(None)
        }
    }

    pub(crate) fn look(
        &mut self,
        reducer: &Reducer,
        now: Timestamp,
        telemetry: &SourceTelemetry,
        gaps: &mut Vec<Gap>,
        slice: &Slice,
    ) {
        while let Some(healed) = self.healing.try_join_next() {
            match healed {
                Ok((key, healing)) => self.say(&key, &healing, telemetry),
                Err(error) => {
                    let how = words_of_join(error);
                    turnhook_reducer::internal_error!("the healing of a silent relay thread: {how}");
                }
            }
        }
        if !self.on || (self.look.is_none() && self.looked_at.elapsed() < LOOK) {
            return;
        }
        let look = self.look.get_or_insert_with(|| SilenceLook::new(SLACK));
        let threads = loop {
            if let Some(threads) = reducer.look_for_silence(look, STEP) {
                break threads;
            }
            if slice.is_over() {
                return;
            }
        };
        self.look = None;
        let mut found: BTreeMap<Key, SilentThread> = threads
            .into_iter()
            .map(|t| ((t.server_address.clone(), t.thread), t))
            .collect();
        // One that was heard while its allocations were looked at was found wrongly: a second look, at once, shows it.
        let suspects: BTreeMap<Key, Timestamp> =
            found.iter().map(|(key, t)| (key.clone(), t.heard_at)).collect();
        let suspected = self.suspected.take();
        match suspected {
            None if suspects.keys().any(|key| !self.silent.contains_key(key)) => {
                self.suspected = Some(suspects);
                self.look = Some(SilenceLook::new(SLACK));
                return;
            }
            None => {}
            Some(suspected) => found.retain(|key, t| {
                self.silent.contains_key(key)
                    || suspected.get(key).is_some_and(|heard_at| *heard_at == t.heard_at)
            }),
        }
        self.looked_at = Instant::now();
        for (key, thread) in &found {
            if !self.silent.contains_key(key) {
                // Where it is healed, what came of that is said next.
                let cure = if self.control.is_some() {
                    ""
                } else {
                    "; restart that coturn, or set `heal = true`"
                };
                warn!(source = telemetry.name(), thread = thread.thread, server = %server(key), overdue = thread.overdue,
                    "a relay thread of coturn has fallen silent: what its allocations carry is not heard{cure}");
                telemetry.wedge("silent");
                gaps.push(Gap {
                    from: thread.heard_at,
                    to: now,
                    reason: GapReason::Wedged,
                    server: None,
                });
                telemetry.gap(&Gap {
                    from: thread.heard_at,
                    to: now,
                    reason: GapReason::Wedged,
                    server: None,
                });
            }
            self.heal(key, now.since(thread.heard_at));
        }
        for key in self.silent.keys().filter(|key| !found.contains_key(*key)) {
            info!(source = telemetry.name(), thread = key.1, server = %server(key), "the relay thread is silent no more");
        }
        if self.silent.keys().ne(found.keys()) {
            telemetry.wedged(found.keys().map(|(_, thread)| *thread).collect());
        }
        self.silent = found.into_iter().map(|(key, t)| (key, t.heard_at)).collect();
    }

    /// Asks for the connection to be closed; how often that is done at most is the source's business.
    fn heal(&mut self, key: &Key, silent: u64) {
        let Some(control) = self.control.clone() else {
            return;
        };
        let thread = redis::SilentThread {
            server_address: key.0.as_deref().map(<[u8]>::to_vec),
            silent: Duration::from_millis(silent),
        };
        let key = key.clone();
        self.healing.spawn(async move {
            let healing = control.close_relay_connection(thread).await;
            (key, healing)
        });
    }

    fn say(&self, key: &Key, healing: &Healing, telemetry: &SourceTelemetry) {
        let (source, thread, server) = (telemetry.name(), key.1, server(key));
        match healing {
            Healing::Closed { connection } => {
                telemetry.wedge("closed");
                warn!(source, thread, %server, connection, "closed coturn's connection of the silent relay thread");
            }
            Healing::TooSoon => {}
            Healing::NoneFits { looked_at } => {
                telemetry.wedge("none_fits");
                warn!(source, thread, %server, looked_at, "no connection to Redis has been idle for as long as the thread: restart that coturn if it stays silent");
            }
            Healing::Ambiguous { candidates } => {
                telemetry.wedge("ambiguous");
                warn!(source, thread, %server, candidates,
                    "several machines have connections that have been idle for as long: none is closed; restart that coturn");
            }
            Healing::Unavailable { error } => {
                telemetry.wedge("unavailable");
                warn!(source, thread, %server, error, "cannot heal the silent relay thread: restart that coturn, or let turnhook do it");
            }
        }
    }
}

fn server(key: &Key) -> String {
    key.0.as_deref().map_or_else(
        || "unknown".to_owned(),
        |s| crate::text::Untrusted::from(s).to_string(),
    )
}
