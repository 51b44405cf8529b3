//! Moving a store from SQLite to PostgreSQL: as it is, with all ids and bytes, in one transaction.

use tokio::sync::mpsc;

use crate::{
    Backend, Error, Result, Store,
    sqlite::{self, export},
};

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being copied.
    pub table: &'static str,
    /// Rows that the database has taken.
    pub done: u64,
    /// All rows there are.
    pub total: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Sources, with their state.
    pub sources: u64,
    /// Endpoints, with their pauses.
    pub endpoints: u64,
    /// Events.
    pub events: u64,
    /// Deliveries of these, in whatever state.
    pub deliveries: u64,
    /// Sessions in the ledger.
    pub sessions: u64,
    /// Rows of any kind.
    pub rows: u64,
}

/// A table on both sides.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its columns on PostgreSQL.
    pub(crate) columns: &'static str,
    /// What gives them on SQLite, in the same order.
    pub(crate) select: Select,
}

pub(crate) enum Select {
    /// These columns, or expressions, in the order of the second.
    Rows(&'static str, &'static str),
    /// The state: the table under its log.
    State,
}

/// In the order in which they are copied. Numbers that nobody knows a row by are given anew, in the same order.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "source",
        columns: "id, name, clock",
        select: Select::Rows(
            "id, name, nullif(max(coalesce((SELECT max(l.clock) FROM state_log l WHERE l.source = source.id), 0), coalesce(clock, 0)), 0)",
            "id",
        ),
    },
    Table {
        name: "endpoint",
        columns: "id, name, created_at, removed_at",
        select: Select::Rows("id, name, created_at, removed_at", "id"),
    },
    Table {
        name: "endpoint_pause",
        columns: "endpoint, from_at, to_at, reason",
        select: Select::Rows("endpoint, from_at, to_at, reason", "id"),
    },
    Table {
        name: "state",
        columns: "source, tbl, key, value",
        select: Select::State,
    },
    Table {
        name: "event",
        columns: "id, event_id, session_id, source, type, sequence, at, data",
        select: Select::Rows("id, event_id, session_id, source, type, sequence, at, data", "id"),
    },
    Table {
        name: "delivery",
        columns: "id, endpoint, session, state, attempts, prior, at, latency_ms, status, first_attempt_at, replay, reason",
        select: Select::Rows(
            "id, endpoint, session, state, attempts, prior, at, max(latency_ms, 0), status, first_attempt_at, replay, reason",
            "id",
        ),
    },
    Table {
        name: "included",
        columns: "endpoint, from_event, allocations, addresses",
        select: Select::Rows(
            "endpoint, from_event, allocations, addresses",
            "endpoint, from_event",
        ),
    },
    Table {
        name: "sent",
        columns: "delivery, items",
        select: Select::Rows("delivery, items", "delivery"),
    },
    Table {
        name: "attempt",
        columns: "delivery, n, at, latency_ms, status, error, answer",
        select: Select::Rows(
            "delivery, n, at, latency_ms, status, error, answer",
            "delivery, n",
        ),
    },
    Table {
        name: "replay",
        columns: "id, at, who, what, total",
        select: Select::Rows("id, at, who, what, total", "id"),
    },
    Table {
        name: "session",
        columns: "id, source, started_at, updated_at, ended_at, reason, accuracy, sequence, event, continues, realm, \
             user_name, peer_leg, allocations, names, client_received_packets, client_received_bytes, client_sent_packets, \
             client_sent_bytes, peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
        select: Select::Rows(
            "id, source, started_at, updated_at, ended_at, reason, accuracy, sequence, event, continues, realm, \
             user, peer_leg, allocations, names, client_received_packets, client_received_bytes, client_sent_packets, \
             client_sent_bytes, peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
            "id",
        ),
    },
    Table {
        name: "usage_day",
        columns: "day, source, realm, user_name, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
        select: Select::Rows(
            "day, source, realm, user, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
            "day, source, realm, user",
        ),
    },
    Table {
        name: "usage_quarter",
        columns: "user_name, quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
        select: Select::Rows(
            "user, quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
            "user, quarter, source, realm",
        ),
    },
    Table {
        name: "usage_all",
        columns: "quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
        select: Select::Rows(
            "quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
            "quarter, source, realm",
        ),
    },
    Table {
        name: "audit",
        columns: "at, who, action, target, detail, count",
        select: Select::Rows("at, who, action, target, detail, count", "id"),
    },
    Table {
        name: "unattributed",
        columns: "source, at, server, realm, username, allocation, opened_at, reason, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
        select: Select::Rows(
            "source, at, server, realm, username, allocation, opened_at, reason, \
             client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
             peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes",
            "id",
        ),
    },
    Table {
        name: "gap",
        columns: "source, from_at, to_at, reason, server",
        select: Select::Rows("source, from_at, to_at, reason, server", "id"),
    },
    Table {
        name: "refused",
        columns: "source, at, kind, name, error, data",
        select: Select::Rows("source, at, kind, name, error, data", "id"),
    },
    Table {
        name: "block_change",
        columns: "id, at, kind, realm, user_name, session, until_at, reason, who, quota, told",
        select: Select::Rows(
            "id, at, kind, realm, user, session, until_at, reason, who, quota, told",
            "id",
        ),
    },
    Table {
        name: "user_event",
        columns: "event, realm, user_name",
        select: Select::Rows("event, realm, user", "event"),
    },
    Table {
        name: "heal",
        columns: "session, source, data",
        select: Select::Rows("session, source, data", "session"),
    },
];

/// What the reading side tells the writing side.
pub(crate) enum Part {
    /// First of all: how many rows there are, at least, and the numbers given so far.
    Begin {
        total: u64,
        store_id: [u8; 16],
        last_event: i64,
        horizon: Option<i64>,
        told_change: i64,
    },
    /// Some rows of a table, as `COPY` takes them.
    Rows {
        table: &'static Table,
        rows: u64,
        text: bytes::Bytes,
    },
    /// There is no more.
    End,
}

/// Parts on their way: this and what a part holds bound the memory.
const PARTS: usize = 4;

/// Copies a store that nobody runs on from SQLite into PostgreSQL, where there must be an empty one: all of it, with
/// the same ids and bytes, pending deliveries pending. It is one transaction: if it fails, or is interrupted, nothing is
/// there, and it can be begun again. `progress` is called after each part. The copy has the id of the original, which
/// [`Store::store_id`] of `to` tells when it is opened again; the original is left as it is, and a file beside it keeps it
/// from being run on ([`Error::Copied`]).
///
/// # Errors
/// [`Error::InUse`] where a turnhook runs on the original, [`Error::NotEmpty`], [`Error::AlreadyCopied`],
/// [`Error::Copied`] where it went to another place already,
/// [`Error::Unsupported`] for any other kinds of stores, or what the disk or the database say.
pub async fn copy(from: &Store, to: &Store, mut progress: impl FnMut(Progress)) -> Result<Copied> {
    let (Backend::Sqlite(file), Backend::Postgres(database)) = (from.backend(), to.backend()) else {
        return Err(Error::Unsupported {
            store: from.describe(),
            advice: format!(
                "a copy goes from a SQLite file to PostgreSQL, not to {}",
                to.describe()
            ),
        });
    };
    let (parts, queue) = mpsc::channel(PARTS);
    let reading = export::start(file, parts).await?;
    // Before it can be there: whatever happens to this process, nobody runs on both.
    let (path, place) = (file.path(), to.describe());
    let was_marked = sqlite::refuse_copied(path, Some(&place))?;
    sqlite::mark_copied(path, &place)?;
    let written = database.import(queue, &mut progress).await;
    let copied = match reading.finish().await {
        // The other side has gone first, and knows why.
        Err(Error::Closed) | Ok(()) => written,
        Err(error) => Err(error),
    };
    // Where the database went away, it may have committed.
    match &copied {
        Ok(_) | Err(Error::AlreadyCopied { .. } | Error::Unavailable { .. }) => {}
        Err(_) if was_marked => {}
        Err(_) => sqlite::unmark_copied(path)?,
    }
    copied
}
