//! What is copied: the tables of both sides, column by column.

use crate::codes::USAGE;

/// A table on both sides.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its columns on PostgreSQL, in the order in which SQLite gives them; `USAGE` stands for the nine of a usage.
    columns: &'static str,
    /// What SQLite gives for some of them: all others have the same name there.
    given: &'static [(&'static str, &'static str)],
    /// In this order. `None` for the state: the table under its log.
    pub(crate) order: Option<&'static str>,
}

impl Table {
    /// Its columns on PostgreSQL.
    pub(crate) fn columns(&self) -> String {
        self.columns.replace("USAGE", USAGE)
    }

    /// What gives them on SQLite.
    pub(crate) fn select(&self) -> String {
        let columns = self.columns();
        let given = columns.split(", ").map(|column| match column {
            "user_name" => "user",
            column => {
                let given = self.given.iter().find(|(known, _)| *known == column);
                given.map_or(column, |(_, given)| given)
            }
        });
        given.collect::<Vec<_>>().join(", ")
    }
}

const fn table(name: &'static str, columns: &'static str, order: &'static str) -> Table {
    Table {
        name,
        columns,
        given: &[],
        order: Some(order),
    }
}

/// In the order in which they are copied. Numbers that nobody knows a row by are given anew, in the same order.
pub(crate) const TABLES: &[Table] = &[
    Table {
        given: &[(
            "clock",
            "nullif(max(coalesce((SELECT max(l.clock) FROM state_log l WHERE l.source = source.id), 0), coalesce(clock, 0)), 0)",
        )],
        ..table("source", "id, name, clock", "id")
    },
    table("endpoint", "id, name, created_at, removed_at", "id"),
    table("endpoint_pause", "endpoint, from_at, to_at, reason", "id"),
    Table {
        order: None,
        ..table("state", "source, tbl, key, value", "")
    },
    table(
        "event",
        "id, event_id, session_id, source, type, sequence, at, data",
        "id",
    ),
    Table {
        given: &[("latency_ms", "max(latency_ms, 0)")],
        ..table(
            "delivery",
            "id, endpoint, session, state, attempts, prior, at, latency_ms, status, first_attempt_at, replay, reason",
            "id",
        )
    },
    table(
        "included",
        "endpoint, from_event, allocations, addresses",
        "endpoint, from_event",
    ),
    table("sent", "delivery, items", "delivery"),
    table(
        "attempt",
        "delivery, n, at, latency_ms, status, error, answer",
        "delivery, n",
    ),
    table("replay", "id, at, who, what, total", "id"),
    table(
        "session",
        "id, source, started_at, updated_at, ended_at, reason, accuracy, sequence, event, continues, realm, \
         user_name, peer_leg, allocations, names, USAGE",
        "id",
    ),
    table(
        "usage_day",
        "day, source, realm, user_name, started, ended, lower_bound, duration_ms, USAGE",
        "day, source, realm, user",
    ),
    table(
        "usage_quarter",
        "user_name, quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, USAGE",
        "user, quarter, source, realm",
    ),
    table(
        "usage_all",
        "quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, USAGE",
        "quarter, source, realm",
    ),
    table("audit", "at, who, action, target, detail, count", "id"),
    table(
        "unattributed",
        "source, at, server, realm, username, allocation, opened_at, reason, USAGE",
        "id",
    ),
    table("gap", "source, from_at, to_at, reason, server", "id"),
    table("refused", "source, at, kind, name, error, data", "id"),
    table(
        "block_change",
        "id, at, kind, realm, user_name, session, until_at, reason, who, quota, told",
        "id",
    ),
    table("user_event", "event, realm, user_name", "event"),
    table("heal", "session, source, data", "session"),
];

/// What the reading side sends to the writing side.
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
