//! The ledger: sessions, their events, and usage by user and time. All of it follows from the events, so it is
//! not written with each of them, here and there, but in sorted batches: when many have come, and before it
//! is asked for. A process that dies on the way, or two that do it at once, do no harm: every step says
//! in its own transaction how far it got.

use std::{collections::BTreeMap, sync::LazyLock};

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::{
    event::{Accuracy, EventId, EventType, SessionId},
    usage::Usage,
};

use super::{int, rows};
use crate::{
    codec::Writer,
    codes::{DAY_MS, FIRST_OF_USERS, QUARTER_MS, add_to_sums},
    facts::{self, Facts},
};

/// Rows that one step writes.
const STEP: usize = 500;
/// Up to which event it is complete.
pub(super) fn done(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT ledger_event FROM store")?
        .query_row([], |r| r.get(0))
}

struct Session {
    id: SessionId,
    source: u32,
    at: i64,
    /// The last event's.
    facts: Facts,
    /// Sequence and number of each event, in order.
    events: Vec<(u32, i64)>,
}

/// What a batch adds to a row of `usage_day`, `usage_quarter` or `usage_all`.
#[derive(Clone, Copy)]
enum Span {
    Day(i64),
    Quarter(i64),
    /// A quarter of all users.
    All(i64),
}

/// What is added.
struct Sum {
    span: Span,
    source: u32,
    realm: Vec<u8>,
    user: Vec<u8>,
    started: i64,
    ended: i64,
    lower_bound: i64,
    duration_ms: u64,
    usage: Usage,
}

impl Sum {
    fn new(span: Span, source: u32, realm: &[u8], user: &[u8]) -> Sum {
        Sum {
            span,
            source,
            realm: realm.to_vec(),
            user: user.to_vec(),
            started: 0,
            ended: 0,
            lower_bound: 0,
            duration_ms: 0,
            usage: Usage::default(),
        }
    }

    fn add(&mut self, other: &Sum) {
        self.started += other.started;
        self.ended += other.ended;
        self.lower_bound += other.lower_bound;
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
        self.usage = self.usage.plus(other.usage);
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Keys(usize),
    Sessions(usize),
    Sums(usize),
    Over,
}

/// A batch of events on its way into the ledger.
pub(super) struct Fold {
    /// The batch: events after this one, up to that one.
    from: i64,
    upto: i64,
    /// Up to which event the ledger is complete, as the last step saw it.
    done: i64,
    keys: Vec<(EventId, i64)>,
    sessions: Vec<Session>,
    sums: Vec<(Vec<u8>, Sum)>,
    phase: Phase,
    next: Phase,
}

impl Fold {
    /// Reads the next batch; `None` if the ledger is complete.
    pub(super) fn begin(conn: &Connection, limit: usize) -> rusqlite::Result<Option<Fold>> {
        let (done, under_way): (i64, Option<i64>) =
            conn.query_row("SELECT ledger_event, usage_event FROM store", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })?;
        // A batch that has begun to add to usage_day keeps its end, so that it is known what is added already.
        let mut stmt = conn.prepare_cached(
            "SELECT id, event_id, session_id, source, type, sequence, at, data FROM event \
             WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let limit = if under_way.is_some() {
            i64::MAX
        } else {
            i64::try_from(limit).unwrap_or(i64::MAX)
        };
        let mut found = stmt.query(params![done, under_way.unwrap_or(i64::MAX), limit])?;
        let mut fold = Fold {
            from: done,
            upto: under_way.unwrap_or(0),
            done,
            keys: Vec::new(),
            sessions: Vec::new(),
            sums: Vec::new(),
            phase: Phase::Keys(0),
            next: Phase::Keys(0),
        };
        let mut sessions: BTreeMap<SessionId, Session> = BTreeMap::new();
        let mut sums: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
        while let Some(row) = found.next()? {
            let n: i64 = row.get(0)?;
            fold.upto = fold.upto.max(n);
            fold.keys.push((EventId(row.get(1)?), n));
            if row.get::<_, i64>(4)? >= FIRST_OF_USERS {
                // It has an id, by which it is found, and no session.
                continue;
            }
            let (id, source, sequence) = (SessionId(row.get(2)?), row.get(3)?, row.get(5)?);
            let (event_type, at) = (rows::event_type(row.get(4)?), row.get(6)?);
            let facts =
                facts::unpack_facts(row.get_ref(7)?.as_blob()?).ok_or_else(|| rows::damaged("event"))?;
            add_to_sums_of(&mut sums, source, event_type, at, &facts);
            match sessions.get_mut(&id) {
                Some(session) => {
                    session.events.push((sequence, n));
                    (session.at, session.facts) = (at, facts);
                }
                None => {
                    sessions.insert(
                        id,
                        Session {
                            id,
                            source,
                            at,
                            facts,
                            events: vec![(sequence, n)],
                        },
                    );
                }
            }
        }
        if fold.upto == 0 {
            return Ok(None);
        }
        fold.keys.sort_unstable();
        fold.sessions = sessions.into_values().collect();
        fold.sums = sums.into_iter().collect();
        Ok(Some(fold))
    }

    /// Writes some of it.
    pub(super) fn step(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.done = done(conn)?;
        if self.done != self.from {
            // Another process has been at it: the rest of this batch is read anew.
            self.next = Phase::Over;
            return Ok(());
        }
        self.next = match self.phase {
            Phase::Keys(from) => {
                let mut stmt =
                    conn.prepare_cached("INSERT OR IGNORE INTO event_key (event_id, event) VALUES (?1, ?2)")?;
                for (id, n) in self.keys.iter().skip(from).take(STEP) {
                    stmt.execute(params![id.0, n])?;
                }
                if from + STEP < self.keys.len() {
                    Phase::Keys(from + STEP)
                } else {
                    Phase::Sessions(0)
                }
            }
            Phase::Sessions(from) => {
                let mut to = from;
                let mut events = 0;
                while let Some(session) = self.sessions.get(to).filter(|_| events < STEP) {
                    write_session(conn, session)?;
                    events += session.events.len();
                    to += 1;
                }
                if to < self.sessions.len() {
                    Phase::Sessions(to)
                } else {
                    Phase::Sums(0)
                }
            }
            Phase::Sums(from) => self.add_sums(conn, from)?,
            Phase::Over => Phase::Over,
        };
        Ok(())
    }

    fn add_sums(&mut self, conn: &Connection, from: usize) -> rusqlite::Result<Phase> {
        let (under_way, key): (Option<i64>, Option<Vec<u8>>) = conn
            .prepare_cached("SELECT usage_event, usage_key FROM store")?
            .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        if under_way.is_some_and(|upto| upto != self.upto) {
            // Another process has begun to add another batch: this one would add some events again.
            return Ok(Phase::Over);
        }
        let from = match &key {
            Some(key) => from.max(self.sums.partition_point(|(k, _)| k <= key)),
            None => from,
        };
        let mut last = None;
        // Sums over all users go with these users' into one transaction.
        let mut all: BTreeMap<(i64, u32, &[u8]), Sum> = BTreeMap::new();
        for (key, sum) in self.sums.iter().skip(from).take(STEP) {
            add_sum(conn, sum)?;
            if let Span::Quarter(quarter) = sum.span {
                let of_all = all
                    .entry((quarter, sum.source, &sum.realm))
                    .or_insert_with(|| Sum::new(Span::All(quarter), sum.source, &sum.realm, &[]));
                of_all.add(sum);
            }
            last = Some(key);
        }
        for sum in all.values() {
            add_sum(conn, sum)?;
        }
        if from + STEP < self.sums.len() {
            conn.prepare_cached("UPDATE store SET usage_event = ?1, usage_key = ?2")?
                .execute(params![self.upto, last])?;
            Ok(Phase::Sums(from + STEP))
        } else {
            conn.prepare_cached("UPDATE store SET ledger_event = ?1, usage_event = NULL, usage_key = NULL")?
                .execute([self.upto])?;
            self.done = self.upto;
            Ok(Phase::Over)
        }
    }

    /// The step is on the disk; if it was the last, up to which event the ledger is complete.
    pub(super) fn advance(&mut self) -> Option<i64> {
        self.phase = self.next;
        matches!(self.phase, Phase::Over).then_some(self.done)
    }
}

/// Keys of quarters come after those of days, whose first byte is 0: where another version left off among the days is
/// the same place.
const AFTER_DAYS: u8 = 1;

fn add_to_sums_of(
    sums: &mut BTreeMap<Vec<u8>, Sum>,
    source: u32,
    event_type: EventType,
    at: i64,
    facts: &Facts,
) {
    let user = facts.user.as_deref().unwrap_or_default();
    let (day, quarter) = (super::nat(at) / DAY_MS, super::nat(at) / QUARTER_MS);
    let mut of_day = Writer(Vec::with_capacity(16 + facts.realm.len() + user.len()));
    of_day.raw(&day.to_be_bytes());
    of_day.raw(&source.to_be_bytes());
    of_day.bytes(&facts.realm);
    of_day.raw(user);
    // In the order of its table.
    let mut of_quarter = Writer(Vec::with_capacity(20 + facts.realm.len() + user.len()));
    of_quarter.raw(&[AFTER_DAYS]);
    of_quarter.bytes(user);
    of_quarter.raw(&quarter.to_be_bytes());
    of_quarter.raw(&source.to_be_bytes());
    of_quarter.raw(&facts.realm);
    for (key, span) in [
        (of_day, Span::Day(int(day))),
        (of_quarter, Span::Quarter(int(quarter))),
    ] {
        let sum = sums
            .entry(key.0)
            .or_insert_with(|| Sum::new(span, source, &facts.realm, user));
        sum.usage = sum.usage.plus(facts.usage_delta);
        sum.started += i64::from(event_type == EventType::Start);
        if let Some(end) = facts.end {
            sum.ended += 1;
            sum.lower_bound += i64::from(end.accuracy == Accuracy::LowerBound);
            sum.duration_ms = sum
                .duration_ms
                .saturating_add(end.ended_at.since(facts.started_at));
        }
    }
}

/// Into a table with these columns before the sums: their names, and their values from `?1` to `?4`.
fn adding(table: &str, columns: &str, values: &str) -> String {
    format!(
        "INSERT INTO {table} ({columns}, started, ended, lower_bound, duration_ms, {}) \
         VALUES ({values}, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         ON CONFLICT DO UPDATE SET {}",
        rows::USAGE,
        add_to_sums("")
    )
}

static ADD_DAY: LazyLock<String> =
    LazyLock::new(|| adding("usage_day", "day, source, realm, user", "?1, ?2, ?3, ?4"));
static ADD_QUARTER: LazyLock<String> = LazyLock::new(|| {
    let columns = "quarter, whole_day, source, realm, user";
    adding("usage_quarter", columns, "?1, 0, ?2, ?3, ?4")
});
static ADD_ALL: LazyLock<String> = LazyLock::new(|| {
    // `?4`, the user, is bound as for the others, and not used.
    adding("usage_all", "quarter, source, realm, whole_day", "?1, ?2, ?3, 0")
});

static PUT_SESSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT OR REPLACE INTO session (id, source, started_at, updated_at, ended_at, reason, accuracy, sequence, event, \
         continues, realm, user, peer_leg, allocations, names, {}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
        rows::USAGE
    )
});

fn add_sum(conn: &Connection, sum: &Sum) -> rusqlite::Result<()> {
    let [a, b, c, d, e, f, g, h, i] = rows::usage_values(&sum.usage);
    let (sql, span) = match sum.span {
        Span::Day(day) => (&ADD_DAY, day),
        Span::Quarter(quarter) => (&ADD_QUARTER, quarter),
        Span::All(quarter) => (&ADD_ALL, quarter),
    };
    conn.prepare_cached(sql)?.execute(params![
        span,
        sum.source,
        sum.realm,
        sum.user,
        sum.started,
        sum.ended,
        sum.lower_bound,
        int(sum.duration_ms),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
    ])?;
    Ok(())
}

fn write_session(conn: &Connection, session: &Session) -> rusqlite::Result<()> {
    let known: Option<u32> = conn
        .prepare_cached("SELECT sequence FROM session WHERE id = ?1")?
        .query_row([session.id.0], |r| r.get(0))
        .optional()?;
    let mut link = conn.prepare_cached(
        "INSERT OR IGNORE INTO session_event (session_id, sequence, event) VALUES (?1, ?2, ?3)",
    )?;
    for (sequence, n) in session
        .events
        .iter()
        .filter(|(sequence, _)| known.is_none_or(|known| *sequence > known))
    {
        link.execute(params![session.id.0, sequence, n])?;
    }
    let Some((sequence, n)) = session
        .events
        .last()
        .filter(|(sequence, _)| known.is_none_or(|known| *sequence > known))
    else {
        return Ok(());
    };
    let facts = &session.facts;
    let [a, b, c, d, e, f, g, h, i] = rows::usage_values(&facts.usage);
    conn.prepare_cached(&PUT_SESSION)?.execute(params![
        session.id.0,
        session.source,
        int(facts.started_at.0),
        session.at,
        facts.end.map(|end| int(end.ended_at.0)),
        facts.end.map(|end| facts::reason_code(end.reason)),
        facts.end.map(|end| facts::accuracy_code(end.accuracy)),
        sequence,
        n,
        facts.continues.map(|id| id.0),
        facts.realm,
        facts.user,
        facts.peer_leg,
        int(facts.allocations),
        facts.names,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
    ])?;
    Ok(())
}
