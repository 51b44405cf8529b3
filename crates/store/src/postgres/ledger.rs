//! The ledger: sessions, and usage by user and time. It follows from the events, and is written with them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use tokio_postgres::types::ToSql;
use turnhook_reducer::{
    event::{Accuracy, EventType, SessionId},
    usage::Usage,
};

use super::pipeline::{Pipeline, ROWS, params};
use crate::{
    codes::{DAY_MS, QUARTER_MS, USAGE, add_to_sums, int, usage_values},
    commit::NewEvent,
    facts,
};

/// `u.a` to `u.i`: the columns of a usage, as [`columns`] gives them.
const UNNESTED: &str = "u.a, u.b, u.c, u.d, u.e, u.f, u.g, u.h, u.i";

/// `$n::bigint[]` for nine columns from `first` on.
fn arrays(first: usize) -> String {
    (first..first + 9)
        .map(|n| format!("${n}::bigint[]"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// `c = <how>` for each column of a usage.
fn each_column(how: impl Fn(&str) -> String) -> String {
    USAGE
        .split(", ")
        .map(|c| format!("{c} = {}", how(c)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The nine columns of usages.
pub(super) fn columns<'a>(usages: impl Iterator<Item = [i64; 9]>) -> Vec<Box<dyn ToSql + Sync + Send + 'a>> {
    let mut columns: [Vec<i64>; 9] = Default::default();
    for usage in usages {
        for (column, value) in columns.iter_mut().zip(usage) {
            column.push(value);
        }
    }
    columns
        .into_iter()
        .map(|c| Box::new(c) as Box<dyn ToSql + Sync + Send>)
        .collect()
}

pub(super) static UNATTRIBUTED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO unattributed (source, at, server, realm, username, allocation, opened_at, reason, {USAGE}) \
         SELECT $1, u.at, u.server, u.realm, u.username, u.allocation, u.opened_at, u.reason, {UNNESTED} FROM \
         unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[], $8::text[], {}) \
         AS u (at, server, realm, username, allocation, opened_at, reason, a, b, c, d, e, f, g, h, i) \
         ON CONFLICT (source, at, server, realm, username, allocation, opened_at, reason) DO NOTHING",
        arrays(9)
    )
});

static SESSIONS: LazyLock<String> = LazyLock::new(|| {
    let plain = [
        "updated_at",
        "ended_at",
        "reason",
        "accuracy",
        "sequence",
        "event",
        "continues",
        "realm",
        "user_name",
        "peer_leg",
        "allocations",
        "names",
    ]
    .map(|c| format!("{c} = excluded.{c}"))
    .join(", ");
    format!(
        "INSERT INTO session AS s (id, source, started_at, updated_at, ended_at, reason, accuracy, sequence, event, continues, \
         realm, user_name, peer_leg, allocations, names, {USAGE}) \
         SELECT u.id, $2, u.started_at, u.updated_at, u.ended_at, u.reason, u.accuracy, u.sequence, c.value - $1 + u.n, \
         u.continues, u.realm, u.user_name, u.peer_leg, u.allocations, u.names, {UNNESTED} FROM counter c, \
         unnest($3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::smallint[], $9::smallint[], \
         $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[], $14::boolean[], $15::bigint[], $16::bytea[], {}) \
         AS u (n, id, started_at, updated_at, ended_at, reason, accuracy, sequence, continues, realm, user_name, peer_leg, \
         allocations, names, a, b, c, d, e, f, g, h, i) WHERE c.name = 'event' \
         ON CONFLICT (id) DO UPDATE SET {plain}, {} WHERE s.sequence < excluded.sequence",
        arrays(17),
        each_column(|c| format!("excluded.{c}"))
    )
});

static DAYS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO usage_day AS o (day, source, realm, user_name, started, ended, lower_bound, duration_ms, {USAGE}) \
         SELECT u.day, $1, u.realm, u.user_name, u.started, u.ended, u.lower_bound, u.duration_ms, {UNNESTED} FROM \
         unnest($2::integer[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], {}) \
         AS u (day, realm, user_name, started, ended, lower_bound, duration_ms, a, b, c, d, e, f, g, h, i) \
         ON CONFLICT (day, source, realm, user_name) DO UPDATE SET {}",
        arrays(9),
        add_to_sums("o.")
    )
});

static QUARTERS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO usage_quarter AS o (user_name, quarter, source, realm, whole_day, started, ended, lower_bound, \
         duration_ms, {USAGE}) \
         SELECT u.user_name, u.quarter, $1, u.realm, 0, u.started, u.ended, u.lower_bound, u.duration_ms, {UNNESTED} FROM \
         unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], {}) \
         AS u (quarter, realm, user_name, started, ended, lower_bound, duration_ms, a, b, c, d, e, f, g, h, i) \
         ON CONFLICT (user_name, quarter, source, realm) DO UPDATE SET {}",
        arrays(9),
        add_to_sums("o.")
    )
});

static ALL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO usage_all AS o (quarter, source, realm, whole_day, started, ended, lower_bound, duration_ms, {USAGE}) \
         SELECT u.quarter, $1, u.realm, 0, u.started, u.ended, u.lower_bound, u.duration_ms, {UNNESTED} FROM \
         unnest($2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], {}) \
         AS u (quarter, realm, started, ended, lower_bound, duration_ms, a, b, c, d, e, f, g, h, i) \
         ON CONFLICT (quarter, source, realm) DO UPDATE SET {}",
        arrays(8),
        add_to_sums("o.")
    )
});

/// What a commit adds to a row of `usage_day`, `usage_quarter` or `usage_all`.
#[derive(Default)]
struct Sum {
    started: i64,
    ended: i64,
    lower_bound: i64,
    duration_ms: u64,
    usage: Usage,
}

/// Adds what follows from new events (with their places among these), of which there are `count`.
pub(super) fn add<'a>(source: i32, count: i64, events: &[(i64, &'a NewEvent, &[u8])], to: &mut Pipeline<'a>) {
    // Each session as its last event has it.
    let mut last: HashMap<SessionId, (i64, &NewEvent)> = HashMap::new();
    let mut days: BTreeMap<(i32, &[u8], &[u8]), Sum> = BTreeMap::new();
    // In the order of the table.
    let mut quarters: BTreeMap<(&[u8], i64, &[u8]), Sum> = BTreeMap::new();
    let mut all: BTreeMap<(i64, &[u8]), Sum> = BTreeMap::new();
    for (n, new, _) in events {
        let event = &new.event;
        let known = last.entry(event.session_id).or_insert((*n, new));
        if known.1.event.sequence <= event.sequence {
            *known = (*n, new);
        }
        // Days later than any that the table can hold are its last: no clock gets there.
        let day = i32::try_from(event.timestamp.0 / DAY_MS).unwrap_or(i32::MAX);
        let user = event.user.as_deref().unwrap_or_default();
        let quarter = int(event.timestamp.0 / QUARTER_MS);
        for sum in [
            days.entry((day, &event.realm, user)).or_default(),
            quarters.entry((user, quarter, &event.realm)).or_default(),
            all.entry((quarter, &event.realm)).or_default(),
        ] {
            sum.usage = sum.usage.plus(event.usage_delta);
            sum.started += i64::from(event.event_type == EventType::Start);
            if let Some(end) = event.end {
                sum.ended += 1;
                sum.lower_bound += i64::from(end.accuracy == Accuracy::LowerBound);
                sum.duration_ms = sum
                    .duration_ms
                    .saturating_add(end.ended_at.since(event.started_at));
            }
        }
    }
    let sessions: Vec<(i64, &NewEvent)> = last.into_values().collect();
    for some in sessions.chunks(ROWS) {
        add_sessions(source, count, some, to);
    }
    let days: Vec<_> = days.into_iter().collect();
    for some in days.chunks(ROWS) {
        let spans: Vec<i32> = some.iter().map(|((day, ..), _)| *day).collect();
        let rows = some.iter().map(|((_, realm, user), sum)| (*realm, *user, sum));
        to.add(&DAYS, sums(source, Box::new(spans), rows));
    }
    let quarters: Vec<_> = quarters.into_iter().collect();
    for some in quarters.chunks(ROWS) {
        let spans: Vec<i64> = some.iter().map(|((_, quarter, _), _)| *quarter).collect();
        let rows = some.iter().map(|((user, _, realm), sum)| (*realm, *user, sum));
        to.add(&QUARTERS, sums(source, Box::new(spans), rows));
    }
    let all: Vec<_> = all.into_iter().collect();
    for some in all.chunks(ROWS) {
        let spans: Vec<i64> = some.iter().map(|((quarter, _), _)| *quarter).collect();
        let rows = some.iter().map(|((_, realm), sum)| (*realm, &[][..], sum));
        to.add(&ALL, sums_but_users(source, Box::new(spans), rows));
    }
}

type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// The values of rows with realm and user.
fn sums<'a, 's>(
    source: i32,
    spans: Param<'a>,
    rows: impl Iterator<Item = (&'a [u8], &'a [u8], &'s Sum)> + Clone,
) -> Vec<Param<'a>> {
    let users: Vec<&[u8]> = rows.clone().map(|(_, user, _)| user).collect();
    let mut values = sums_but_users(source, spans, rows);
    values.insert(USERS, Box::new(users));
    values
}

/// The place of users among the values: after source, span and realm.
const USERS: usize = 3;

/// The same without their users.
fn sums_but_users<'a, 's>(
    source: i32,
    spans: Param<'a>,
    rows: impl Iterator<Item = (&'a [u8], &'a [u8], &'s Sum)> + Clone,
) -> Vec<Param<'a>> {
    let column = |of: fn(&Sum) -> i64| rows.clone().map(|(.., sum)| of(sum)).collect::<Vec<i64>>();
    let mut values: Vec<Param<'a>> = vec![
        Box::new(source),
        spans,
        Box::new(rows.clone().map(|(realm, ..)| realm).collect::<Vec<_>>()),
        Box::new(column(|sum| sum.started)),
        Box::new(column(|sum| sum.ended)),
        Box::new(column(|sum| sum.lower_bound)),
        Box::new(column(|sum| int(sum.duration_ms))),
    ];
    values.extend(columns(rows.map(|(.., sum)| usage_values(&sum.usage))));
    values
}

fn add_sessions<'a>(source: i32, count: i64, some: &[(i64, &'a NewEvent)], to: &mut Pipeline<'a>) {
    let events = || some.iter().map(|(_, new)| &new.event);
    let ends = || events().map(|e| e.end);
    let mut params = params![
        count,
        source,
        some.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        events().map(|e| &e.session_id.0[..]).collect::<Vec<_>>(),
        events().map(|e| int(e.started_at.0)).collect::<Vec<_>>(),
        events().map(|e| int(e.timestamp.0)).collect::<Vec<_>>(),
        ends()
            .map(|end| end.map(|end| int(end.ended_at.0)))
            .collect::<Vec<_>>(),
        ends()
            .map(|end| end.map(|end| i16::from(facts::reason_code(end.reason))))
            .collect::<Vec<_>>(),
        ends()
            .map(|end| end.map(|end| i16::from(facts::accuracy_code(end.accuracy))))
            .collect::<Vec<_>>(),
        events().map(|e| i64::from(e.sequence)).collect::<Vec<_>>(),
        events()
            .map(|e| e.continues.as_ref().map(|id| &id.0[..]))
            .collect::<Vec<_>>(),
        events().map(|e| &*e.realm).collect::<Vec<_>>(),
        events().map(|e| e.user.as_deref()).collect::<Vec<_>>(),
        events().map(|e| e.peer_leg).collect::<Vec<_>>(),
        events()
            .map(|e| int(e.allocations.len() as u64 + u64::from(e.allocations_omitted)))
            .collect::<Vec<_>>(),
        events().map(facts::names).collect::<Vec<_>>(),
    ];
    params.extend(columns(events().map(|e| usage_values(&e.usage))));
    to.add(&SESSIONS, params);
}
