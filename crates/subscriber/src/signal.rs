//! What a source says to the engine, in the order in which it happened.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use turnhook_reducer::{source::Gap, time::Timestamp};

pub use crate::batch::Batch;
use crate::decode::Refusal;

/// Asks for the time. The caller's clock, so that all parts of the program agree on it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One thing that a source has to say.
#[derive(Debug)]
pub enum Signal {
    /// What one connection brought in one go.
    Messages(Batch),
    /// Frames that were passed over without being kept, so that they are counted. (What is in a batch and
    /// is not coturn's shows when it is decoded.)
    Refused {
        /// The reason why they were refused.
        reason: Refusal,
        /// The number of messages.
        count: u64,
    },
    /// The source hears from now on: subscribed, or listening.
    Hearing {
        /// The time at which this happened.
        at: Timestamp,
        /// Whom or where, for people; no secrets.
        detail: String,
    },
    /// The source hears again, on the connections that an earlier program left to it (`direct` sources): nothing was
    /// missed. What had waited in them to be read comes next, as of `at`.
    Resumed {
        /// When the earlier program had stopped reading.
        at: Timestamp,
        /// Where, for people; no secrets.
        detail: String,
    },
    /// All that had waited to be read after [`Signal::Resumed`] was sent on: time goes on.
    CaughtUp,
    /// The source hears nothing from now on.
    Deaf {
        /// When this was noticed.
        at: Timestamp,
        /// Up to when all was surely heard, if it heard at all.
        heard: Timestamp,
        /// Why, for people; no secrets.
        error: String,
    },
    /// Messages may have been missed. Sent when the gap is over, just after [`Signal::Hearing`] where
    /// the source was deaf.
    Gap(Gap),
    /// All that was published before `asked` has been sent on: a `PING` of that time was answered (`redis` sources).
    Answered {
        /// When it was asked.
        asked: Timestamp,
    },
    /// A server has a connection open, and had none (`direct` sources).
    ServerConnected {
        /// The time at which this happened.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
    },
    /// A server has had no connection for some seconds (`direct` sources). Whether it has stopped is another question.
    ServerGone {
        /// When the last one closed.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
    },
    /// A connection carries messages of this relay thread, and no open one of the server did. Stands before the
    /// first of these messages.
    ThreadConnected {
        /// The time at which this happened.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
        /// The first three digits of its allocations' ids.
        thread: u16,
    },
    /// The last open connection that carried messages of this relay thread has closed.
    ThreadDisconnected {
        /// The time at which this happened.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
        /// The first three digits of its allocations' ids.
        thread: u16,
        /// Until when all that was sent on it has surely been received.
        heard: Timestamp,
    },
    /// A server has stopped: its open allocations are over (`direct` sources).
    ServerStopped {
        /// When its connections closed.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
    },
    /// A server was started anew: allocations heard of on its connections that closed before `at` are over.
    ServerRestarted {
        /// When the last of those connections closed.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
    },
    /// A server that was reported as stopped is connected again and has not said that it was started: it had not
    /// stopped.
    ServerReturned {
        /// When it connected.
        at: Timestamp,
        /// The name of the server.
        server: Arc<[u8]>,
        /// What [`Signal::ServerStopped`] gave as `at`.
        stopped_at: Timestamp,
    },
    /// Connections were turned away (`direct` sources). At most one a second for each reason.
    TurnedAway(TurnedAway),
    /// Somebody unknown was turned away for want of a place: one of ours may have been among them. It is on record, but
    /// no server that is known is concerned, so that strangers cannot make anything of the metering wait.
    Unheard(Gap),
    /// A snapshot of the status keys begins.
    SnapshotBegan {
        /// The time at which this happened.
        at: Timestamp,
    },
    /// Keys found by the snapshot. The answer names those whose value is wanted, by index.
    SnapshotScanned {
        /// The keys, whole.
        keys: Vec<Bytes>,
        /// Where the answer goes.
        wanted: tokio::sync::oneshot::Sender<Vec<usize>>,
    },
    /// The values of wanted keys.
    SnapshotRead {
        /// When they were read.
        at: Timestamp,
        /// Key, value, and the idle time in seconds, asked for before the value; `None` where the server keeps none.
        entries: Vec<SnapshotEntry>,
    },
    /// The snapshot is complete, or was given up.
    SnapshotEnded {
        /// The time at which this happened.
        at: Timestamp,
        /// Whether all keys were seen.
        complete: bool,
    },
}

/// Connections that were turned away for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// The reason why they were turned away.
    pub reason: TurnAwayReason,
    /// How many, since this was last reported.
    pub count: u64,
    /// The time of the first of them.
    pub from: Timestamp,
    /// The time of the last of them.
    pub to: Timestamp,
    /// Where the last one came from.
    pub peer: IpAddr,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum TurnAwayReason {
    /// It gave a wrong user or password.
    WrongPassword,
    /// It gave no password.
    NoPassword,
    /// It said nothing of a login in the time that there is for it.
    TooSlow,
    /// There was no place for it, or its place was needed for another.
    NoPlace,
    /// It does not speak Redis's protocol, or says what no coturn says.
    NotRedis,
    /// The TLS handshake failed.
    Tls,
    /// Its address has named more servers than are kept.
    TooManyServers,
}

impl TurnAwayReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [TurnAwayReason; 7] = [
        TurnAwayReason::WrongPassword,
        TurnAwayReason::NoPassword,
        TurnAwayReason::TooSlow,
        TurnAwayReason::NoPlace,
        TurnAwayReason::NotRedis,
        TurnAwayReason::Tls,
        TurnAwayReason::TooManyServers,
    ];

    /// As in the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TurnAwayReason::WrongPassword => "wrong_password",
            TurnAwayReason::NoPassword => "no_password",
            TurnAwayReason::TooSlow => "too_slow",
            TurnAwayReason::NoPlace => "no_place",
            TurnAwayReason::NotRedis => "not_redis",
            TurnAwayReason::Tls => "tls",
            TurnAwayReason::TooManyServers => "too_many_servers",
        }
    }

    /// What happened, and what to do, for people.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            TurnAwayReason::WrongPassword => {
                "gave a wrong user or password: compare those of this source with redis-statsdb in turnserver.conf"
            }
            TurnAwayReason::NoPassword => {
                "gave no password: add password=... to redis-statsdb in turnserver.conf"
            }
            TurnAwayReason::TooSlow => "did not log in in time",
            TurnAwayReason::NoPlace => "found no place: the listener has as many connections as it allows",
            TurnAwayReason::NotRedis => {
                "does not speak Redis's protocol as coturn does (where this source has TLS, coturn needs tls=true)"
            }
            TurnAwayReason::Tls => {
                "failed in the TLS handshake: coturn 4.17 and later does TLS with tls=true in redis-statsdb"
            }
            TurnAwayReason::TooManyServers => {
                "named one more server (user or dbname) than one address may have connected"
            }
        }
    }
}

/// One status key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The key: the same words as a status channel.
    pub key: Bytes,
    /// Its value: the same words as a status payload.
    pub value: Bytes,
    /// Seconds since anybody last touched it, asked for before the value was.
    pub idle_seconds: Option<u64>,
}
