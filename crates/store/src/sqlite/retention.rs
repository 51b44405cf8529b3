//! Removing what is older than `retention`, some rows at a time, so that commits wait for a few milliseconds at most.

use std::time::Instant;

use rusqlite::{Connection, params};
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use super::{Fault, counts::Moves, int, ledger, nat, rows};
use crate::{
    Trimmed,
    codes::{DAY_MS, USAGE_DAYS},
    error::Result,
    ids::DeliveryId,
    trim::{TRIM_AUDIT, TRIM_SMALL},
};

/// How far the pass under way has come; what may not be removed is passed over once in a pass.
#[derive(Default)]
pub(super) struct Trim {
    event: Option<EventId>,
    session: Option<SessionId>,
    block: i64,
    events_done: bool,
    sessions_done: bool,
}

pub(super) fn step(
    conn: &Connection,
    pass: &mut Trim,
    moves: &mut Moves,
    before: Timestamp,
    limit: usize,
) -> Result<Trimmed, Fault> {
    let began = Instant::now();
    let mut trimmed = Trimmed {
        more: true,
        ..Trimmed::default()
    };
    // Its changes need no undoing: at worst something is passed over until the next pass.
    let mut trim = std::mem::take(pass);
    if !trim.events_done {
        trim.events_done = events(conn, moves, &mut trim, before, limit, &mut trimmed)?;
    } else if !trim.sessions_done {
        trim.sessions_done = sessions(conn, &mut trim, before, limit, &mut trimmed)?;
    } else if blocks(conn, &mut trim, before, limit)? {
        trimmed.more = rest(conn, before, limit)?;
        if !trimmed.more {
            trim = Trim::default();
        }
    }
    *pass = trim;
    trimmed.took = began.elapsed();
    Ok(trimmed)
}

/// True when the pass is through with the events.
fn events(
    conn: &Connection,
    moves: &mut Moves,
    trim: &mut Trim,
    before: Timestamp,
    limit: usize,
    trimmed: &mut Trimmed,
) -> rusqlite::Result<bool> {
    let in_ledger = ledger::done(conn)?;
    let mut stmt = conn.prepare_cached(
        "SELECT k.event_id, k.event, e.at, e.session_id, e.sequence FROM event_key k CROSS JOIN event e ON e.id = k.event \
         WHERE k.event_id > ?1 ORDER BY k.event_id LIMIT ?2",
    )?;
    // By their ids they stand in the order of their timestamps.
    let after = trim.event.map_or([0; 16], |id| id.0);
    let found = stmt
        .query_map(params![after, int(limit as u64)], |r| {
            Ok((
                EventId(r.get(0)?),
                r.get::<_, i64>(1)?,
                nat(r.get(2)?),
                r.get::<_, [u8; 16]>(3)?,
                r.get::<_, i64>(4)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let through = found.len() < limit;
    for (id, n, at, session, sequence) in found {
        if at >= before.0 {
            return Ok(true);
        }
        trim.event = Some(id);
        if n > in_ledger {
            continue;
        }
        let range = [n << 16, (n << 16) | 0xffff];
        let states = conn
            .prepare_cached("SELECT id, state FROM delivery WHERE id BETWEEN ?1 AND ?2")?
            .query_map(range, |r| Ok((DeliveryId(r.get(0)?), r.get::<_, i64>(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if states
            .iter()
            .any(|(_, state)| ![rows::DELIVERED, rows::DISCARDED].contains(state))
        {
            continue;
        }
        conn.prepare_cached("DELETE FROM attempt WHERE delivery BETWEEN ?1 AND ?2")?
            .execute(range)?;
        conn.prepare_cached("DELETE FROM sent WHERE delivery BETWEEN ?1 AND ?2")?
            .execute(range)?;
        conn.prepare_cached("DELETE FROM delivery WHERE id BETWEEN ?1 AND ?2")?
            .execute(range)?;
        conn.prepare_cached(
            "DELETE FROM session_event WHERE session_id = ?1 AND sequence = ?2 AND event = ?3",
        )?
        .execute(params![session, sequence, n])?;
        conn.prepare_cached("DELETE FROM user_event WHERE event = ?1")?
            .execute([n])?;
        conn.prepare_cached("DELETE FROM event_key WHERE event_id = ?1")?
            .execute([id.0])?;
        conn.prepare_cached("DELETE FROM event WHERE id = ?1")?
            .execute([n])?;
        for (id, state) in states {
            moves.add(id, Some(state), None);
        }
        trimmed.events += 1;
    }
    Ok(through)
}

/// True when the pass is through with the sessions. One that has events left (dead letters) stays.
fn sessions(
    conn: &Connection,
    trim: &mut Trim,
    before: Timestamp,
    limit: usize,
    trimmed: &mut Trimmed,
) -> rusqlite::Result<bool> {
    let mut stmt = conn
        .prepare_cached("SELECT id, started_at, ended_at FROM session WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let after = trim.session.map_or([0; 16], |id| id.0);
    let found = stmt
        .query_map(params![after, int(limit as u64)], |r| {
            Ok((SessionId(r.get(0)?), rows::time(r, 1)?, rows::maybe_time(r, 2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let through = found.len() < limit;
    for (id, started, ended) in found {
        if started >= before {
            return Ok(true);
        }
        trim.session = Some(id);
        if ended.is_some_and(|ended| ended < before) {
            trimmed.sessions += conn
                .prepare_cached("DELETE FROM session WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM session_event WHERE session_id = ?1)")?
                .execute([id.0])? as u64;
        }
    }
    Ok(through)
}

/// True when the pass is through with the changes of blocks. Of a user and realm the last one stays, since it holds; so
/// does the last of all, since its number must not be given again; and what was meant to last until later, since
/// whoever made it may look for it; and that of which nobody has been notified yet, or which is needed for the event of
/// what came after it.
fn blocks(conn: &Connection, trim: &mut Trim, before: Timestamp, limit: usize) -> rusqlite::Result<bool> {
    let mut stmt =
        conn.prepare_cached("SELECT id, at FROM block_change WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let found = stmt
        .query_map(params![trim.block, int(limit as u64)], |r| {
            Ok((r.get::<_, i64>(0)?, rows::time(r, 1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let old = found.iter().take_while(|(_, at)| *at < before).map(|(id, _)| *id);
    let Some(last) = old.clone().last() else {
        return Ok(true);
    };
    let through = found.len() < limit || old.count() < found.len();
    conn.prepare_cached(
        "DELETE FROM block_change AS b WHERE id > ?1 AND id <= ?2 AND id < (SELECT max(id) FROM block_change) \
         AND id <= (SELECT told_change FROM store) AND (until_at IS NULL OR until_at < ?3) AND (user IS NULL OR EXISTS \
         (SELECT 1 FROM block_change n WHERE n.user = b.user AND n.realm IS b.realm AND n.id > b.id \
         AND n.id <= (SELECT told_change FROM store)))",
    )?
    .execute(params![trim.block, last, int(before.0)])?;
    trim.block = last;
    Ok(through)
}

/// The small tables; true if there may be more.
fn rest(conn: &Connection, before: Timestamp, limit: usize) -> rusqlite::Result<bool> {
    let values = params![int(before.0), int(limit as u64)];
    let mut more = false;
    for sql in TRIM_SMALL {
        more |= conn.prepare_cached(sql)?.execute(values)? >= limit;
    }
    let day = int(before.0 / DAY_MS) - USAGE_DAYS;
    more |= usage(conn, day, limit)?;
    conn.prepare_cached(TRIM_AUDIT)?
        .execute(params![day.saturating_mul(int(DAY_MS)), int(limit as u64)])?;
    Ok(more)
}

/// Usage before that day, at most about so many rows of it; true if there may be more. A quarter goes as a whole, with
/// its sums over all users, so that they are those of what is there.
fn usage(conn: &Connection, day: i64, limit: usize) -> rusqlite::Result<bool> {
    let days = conn
        .prepare_cached(
            "DELETE FROM usage_day WHERE (day, source, realm, user) IN \
             (SELECT day, source, realm, user FROM usage_day WHERE day < ?1 ORDER BY day, source, realm, user LIMIT ?2)",
        )?
        .execute(params![day, int(limit as u64)])?;
    let mut removed = 0;
    while removed < limit {
        let oldest: Option<i64> = conn
            .prepare_cached("SELECT min(quarter) FROM usage_all WHERE quarter < ?1")?
            .query_row([day.saturating_mul(96)], |r| r.get(0))?;
        let Some(oldest) = oldest else { break };
        for sql in [
            "DELETE FROM usage_quarter WHERE quarter <= ?1",
            "DELETE FROM usage_all WHERE quarter <= ?1",
        ] {
            removed += conn.prepare_cached(sql)?.execute([oldest])?;
        }
    }
    Ok(days >= limit || removed >= limit)
}
