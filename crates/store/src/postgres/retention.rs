//! Removing what is older than `retention`, some rows at a time. Several nodes may do it at once.

use std::{collections::HashSet, time::Instant};

use deadpool_postgres::Client;
use turnhook_reducer::time::Timestamp;

use super::rows::Read as _;
use super::{
    DIALECT, Postgres,
    connection::{Fault, attempt},
    pass::Pass,
    rows,
};
use crate::{
    Trimmed,
    codes::{DAY_MS, DELIVERED, DISCARDED, USAGE_DAYS, int, nat},
    error::Result,
    trim::{TRIM_AUDIT, TRIM_SMALL},
};

/// Of the time that a step takes on the way there and back, and on a server that does other things as well, this part
/// at most is what others could feel.
const SHARE: u32 = 4;

impl Postgres {
    pub(crate) async fn trim(&self, before: Timestamp, limit: usize) -> Result<Trimmed> {
        let from = self.trim.get();
        let (trimmed, pass) = attempt!(&self.db, client => {
            let began = Instant::now();
            let (mut trimmed, pass) = step(client, from, before, limit).await?;
            // Others write meanwhile; what they share with it is the server.
            trimmed.took = began.elapsed() / SHARE;
            Ok((trimmed, pass))
        })?;
        self.trim.set(pass);
        Ok(trimmed)
    }
}

async fn step(
    client: &mut Client,
    mut pass: Pass,
    before: Timestamp,
    limit: usize,
) -> Result<(Trimmed, Pass), Fault> {
    let mut trimmed = Trimmed {
        more: true,
        ..Trimmed::default()
    };
    if !pass.events_done {
        (trimmed.events, pass.events_done) = events(client, &mut pass.event, before, limit).await?;
    } else if !pass.sessions_done {
        (trimmed.sessions, pass.sessions_done) = sessions(client, &mut pass.session, before, limit).await?;
    } else if blocks(client, &mut pass.block, before, limit).await? {
        trimmed.more = rest(client, before, limit).await?;
        if !trimmed.more {
            pass = Pass::default();
        }
    }
    Ok((trimmed, pass))
}

/// How many it removed; true when the pass is through with the events.
async fn events(
    client: &mut Client,
    last: &mut [u8; 16],
    before: Timestamp,
    limit: usize,
) -> Result<(u64, bool), Fault> {
    // By their ids they stand in the order of their timestamps.
    let found = client
        .query(
            "SELECT event_id, id, at FROM event WHERE event_id > $1 ORDER BY event_id LIMIT $2",
            &[&&last[..], &int(limit as u64)],
        )
        .await?;
    let mut through = found.len() < limit;
    let mut old: Vec<i64> = Vec::with_capacity(found.len());
    for row in &found {
        if rows::time(row, 2)? >= before {
            through = true;
            break;
        }
        *last = rows::event_id(row, 0)?.0;
        old.push(row.read(1)?);
    }
    if old.is_empty() {
        return Ok((0, through));
    }
    let tx = client.transaction().await?;
    // Locked, for a replay could queue one of them again meanwhile. Those that stay anyway are left to their work.
    let found = tx
        .query(
            "SELECT d.id, d.state FROM unnest($1::bigint[]) AS e (id) \
             JOIN delivery d ON d.id >= e.id << 16 AND d.id <= (e.id << 16) | 65535 \
             WHERE NOT EXISTS (SELECT 1 FROM delivery o \
                 WHERE o.id >= e.id << 16 AND o.id <= (e.id << 16) | 65535 AND o.state IN (0, 2)) \
             ORDER BY d.id FOR UPDATE OF d",
            &[&old],
        )
        .await?;
    let (mut over, mut stay) = (Vec::new(), HashSet::new());
    for row in &found {
        let id: i64 = row.read(0)?;
        if [DELIVERED, DISCARDED].contains(&rows::code(row, 1)?) {
            over.push(id);
        } else {
            stay.insert(id >> 16);
        }
    }
    over.retain(|id| !stay.contains(&(id >> 16)));
    tx.execute("DELETE FROM attempt WHERE delivery = ANY ($1)", &[&over])
        .await?;
    tx.execute("DELETE FROM sent WHERE delivery = ANY ($1)", &[&over])
        .await?;
    tx.execute("DELETE FROM delivery WHERE id = ANY ($1)", &[&over])
        .await?;
    let removed = tx
        .execute(
            "DELETE FROM event e WHERE e.id = ANY ($1) AND NOT EXISTS (SELECT 1 FROM delivery d \
             WHERE d.id >= e.id << 16 AND d.id <= (e.id << 16) | 65535)",
            &[&old],
        )
        .await?;
    tx.execute(
        "DELETE FROM user_event u WHERE u.event = ANY ($1) AND NOT EXISTS (SELECT 1 FROM event e WHERE e.id = u.event)",
        &[&old],
    )
    .await?;
    tx.commit().await?;
    Ok((removed, through))
}

/// How many it removed; true when the pass is through with the sessions. One that has events left (dead letters) stays.
async fn sessions(
    client: &Client,
    last: &mut [u8; 16],
    before: Timestamp,
    limit: usize,
) -> Result<(u64, bool), Fault> {
    let found = client
        .query(
            "SELECT id, started_at, ended_at FROM session WHERE id > $1 ORDER BY id LIMIT $2",
            &[&&last[..], &int(limit as u64)],
        )
        .await?;
    let mut through = found.len() < limit;
    let mut ended: Vec<[u8; 16]> = Vec::new();
    for row in &found {
        if rows::time(row, 1)? >= before {
            through = true;
            break;
        }
        *last = rows::session_id(row, 0)?.0;
        if rows::maybe_time(row, 2)?.is_some_and(|at| at < before) {
            ended.push(*last);
        }
    }
    let ended: Vec<&[u8]> = ended.iter().map(|id| &id[..]).collect();
    let removed = client
        .execute(
            "DELETE FROM session s WHERE s.id = ANY ($1) AND NOT EXISTS (SELECT 1 FROM event e WHERE e.session_id = s.id)",
            &[&ended],
        )
        .await?;
    Ok((removed, through))
}

/// True when the pass is through with the changes of blocks. Of a user and realm the last one stays, since it holds; so
/// does the last of all, as in a file, where its number must not be given again; and what was meant to last until
/// later, since whoever made it may look for it; and that of which nobody has been notified yet, or which is needed for
/// the event of what came after it.
async fn blocks(client: &Client, done: &mut i64, before: Timestamp, limit: usize) -> Result<bool, Fault> {
    let found = client
        .query(
            "SELECT id, at FROM block_change WHERE id > $1 ORDER BY id LIMIT $2",
            &[&*done, &int(limit as u64)],
        )
        .await?;
    let (mut through, mut last) = (found.len() < limit, None);
    for row in &found {
        if rows::time(row, 1)? >= before {
            through = true;
            break;
        }
        last = Some(row.read::<i64>(0)?);
    }
    let Some(last) = last else { return Ok(true) };
    client
        .execute(
            "DELETE FROM block_change b USING store s WHERE s.id = 1 AND b.id > $1 AND b.id <= $2 \
             AND b.id < (SELECT max(id) FROM block_change) AND b.id <= s.told_change \
             AND (b.until_at IS NULL OR b.until_at < $3) AND (b.user_name IS NULL OR EXISTS \
             (SELECT 1 FROM block_change n WHERE n.user_name = b.user_name AND n.realm IS NOT DISTINCT FROM b.realm \
             AND n.id > b.id AND n.id <= s.told_change))",
            &[&*done, &last, &int(before.0)],
        )
        .await?;
    *done = last;
    Ok(through)
}

/// The small tables; true if there may be more.
async fn rest(client: &Client, before: Timestamp, limit: usize) -> Result<bool, Fault> {
    let (time, most) = (int(before.0), int(limit as u64));
    let mut more = false;
    for sql in TRIM_SMALL {
        more |= client.execute(&DIALECT.say(sql), &[&time, &most]).await? >= limit as u64;
    }
    let day = int(before.0 / DAY_MS) - USAGE_DAYS;
    more |= usage(client, day, limit).await?;
    let since = day.saturating_mul(int(DAY_MS));
    client.execute(&DIALECT.say(TRIM_AUDIT), &[&since, &most]).await?;
    Ok(more)
}

/// Usage before that day, at most about so many rows of it; true if there may be more. A quarter goes as a whole, with
/// its sums over all users, so that they are those of what is there.
async fn usage(client: &Client, day: i64, limit: usize) -> Result<bool, Fault> {
    let days = client
        .execute(
            "DELETE FROM usage_day WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_day WHERE day < $1::bigint LIMIT $2))",
            &[&day, &int(limit as u64)],
        )
        .await?;
    let before = day.saturating_mul(96);
    let mut removed = 0;
    while removed < limit as u64 {
        let one = "WITH oldest AS (SELECT min(quarter) AS q FROM usage_all WHERE quarter < $1), \
             users AS (DELETE FROM usage_quarter u USING oldest o WHERE u.quarter <= o.q RETURNING 1), \
             sums AS (DELETE FROM usage_all a USING oldest o WHERE a.quarter <= o.q RETURNING 1) \
             SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM sums)";
        let rows: i64 = rows::one(client, one, &[&before]).await?.read(0)?;
        if rows == 0 {
            break;
        }
        removed += nat(rows);
    }
    Ok(days >= limit as u64 || removed >= limit as u64)
}
