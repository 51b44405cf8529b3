//! The ledger as it is read.

use std::{collections::HashMap, sync::LazyLock};

use deadpool_postgres::Transaction;
use tokio_postgres::{IsolationLevel, Row};
use turnhook_reducer::{
    event::SessionId,
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::rows::{Read as _, one};
use super::{
    Postgres,
    connection::{Fault, attempt},
    deliveries::{DIALECT, params},
    rows,
};
use crate::{
    codes::{self, USAGE, int, nat},
    delivery::DeliveryState,
    error::Result,
    facts,
    query::{self, Part},
    session::{GapRow, SessionDetail, SessionEventRow, SessionFilter, SessionRow, UsageDay},
};

pub(super) static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "s.id, c.name, s.started_at, s.updated_at, s.ended_at, s.reason, s.accuracy, s.sequence, s.continues, s.realm, \
         s.user_name, s.peer_leg, s.allocations, s.names, {USAGE}"
    )
});

pub(super) fn session_row(row: &Row) -> Result<SessionRow, Fault> {
    let (usernames, labels) = facts::unpack_names(row.read(13)?).ok_or_else(|| Fault::damaged("session"))?;
    Ok(SessionRow {
        id: rows::session_id(row, 0)?,
        source: row.read(1)?,
        started_at: rows::time(row, 2)?,
        updated_at: rows::time(row, 3)?,
        end: facts::end(row.read(4)?, rows::maybe_code(row, 5)?, rows::maybe_code(row, 6)?),
        sequence: rows::number(row, 7)?,
        continues: rows::maybe_session_id(row, 8)?,
        realm: row.read(9)?,
        user: row.read(10)?,
        peer_leg: row.read(11)?,
        allocations: nat(row.read(12)?),
        usernames,
        labels,
        usage: rows::usage(row, 14)?,
    })
}

/// From four columns: from, to, reason, server. `None` for a reason that this version does not know.
pub(super) fn read_gap(row: &Row, first: usize) -> Result<Option<Gap>, Fault> {
    let server: Vec<u8> = row.read(first + 3)?;
    let Some(reason) = GapReason::from_text(row.read(first + 2)?) else {
        return Ok(None);
    };
    Ok(Some(Gap {
        from: rows::time(row, first)?,
        to: rows::time(row, first + 1)?,
        reason,
        server: (!server.is_empty()).then(|| server.into_boxed_slice()),
    }))
}

impl Postgres {
    pub(crate) async fn sessions(
        &self,
        filter: SessionFilter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        attempt!(&self.db, client => {
            let mut found: Vec<SessionRow> = Vec::new();
            for part in Part::of(&filter) {
                let left = limit.saturating_sub(found.len());
                if left == 0 {
                    break;
                }
                let (from, values) = query::sessions(&DIALECT, &filter, after, left, *part);
                let sql = format!("SELECT {} FROM {from}", *COLUMNS);
                for row in client.query(&sql, &params(&values)).await? {
                    found.push(session_row(&row)?);
                }
            }
            Ok(found)
        })
    }

    pub(crate) async fn session(&self, id: SessionId) -> Result<Option<SessionDetail>> {
        attempt!(&self.db, client => {
            let tx = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            let detail = detail(&tx, id).await?;
            tx.commit().await?;
            Ok(detail)
        })
    }

    pub(crate) async fn usage_by_day(
        &self,
        from: u32,
        to: u32,
        after: Option<UsageDay>,
        limit: usize,
    ) -> Result<Vec<UsageDay>> {
        // Those beyond any day that the table can hold.
        let day = |day: u32| i32::try_from(day).unwrap_or(i32::MAX);
        let sql = format!(
            "SELECT u.day, c.name, u.realm, u.user_name, u.started, u.ended, u.lower_bound, u.duration_ms, {USAGE} \
             FROM usage_day u JOIN source c ON c.id = u.source \
             WHERE u.day BETWEEN $1 AND $2 AND (u.day, u.source, u.realm, u.user_name) > ($3, $4, $5, $6) \
             ORDER BY u.day, u.source, u.realm, u.user_name LIMIT $7"
        );
        attempt!(&self.db, client => {
            let (last, source, realm, user) = match &after {
                Some(a) => {
                    let source: i32 =
                        one(client, "SELECT id FROM source WHERE name = $1", &[&a.source]).await?.read(0)?;
                    (day(a.day), source, a.realm.clone(), a.user.clone().unwrap_or_default())
                }
                None => (-1, -1, Vec::new(), Vec::new()),
            };
            let first = day(from).max(last);
            let found = client
                .query(&sql, &[&first, &day(to), &last, &source, &realm, &user, &int(limit as u64)])
                .await?;
            found.iter().map(usage_day).collect()
        })
    }

    pub(crate) async fn gaps(&self, since: Option<Timestamp>, limit: usize) -> Result<Vec<GapRow>> {
        let since = int(since.unwrap_or_default().0);
        attempt!(&self.db, client => {
            let found = client
                .query(
                    "SELECT s.name, g.from_at, g.to_at, g.reason, g.server FROM gap g JOIN source s ON s.id = g.source \
                     WHERE g.to_at >= $1 ORDER BY g.id DESC LIMIT $2",
                    &[&since, &int(limit as u64)],
                )
                .await?;
            let mut gaps = Vec::new();
            for row in &found {
                if let Some(gap) = read_gap(row, 1)? {
                    gaps.push(GapRow {
                        source: row.read(0)?,
                        gap,
                    });
                }
            }
            Ok(gaps)
        })
    }
}

fn usage_day(row: &Row) -> Result<UsageDay, Fault> {
    let user: Vec<u8> = row.read(3)?;
    Ok(UsageDay {
        day: u32::try_from(row.read::<i32>(0)?).map_err(|_| Fault::damaged("day"))?,
        source: row.read(1)?,
        realm: row.read(2)?,
        user: (!user.is_empty()).then_some(user),
        started: nat(row.read(4)?),
        ended: nat(row.read(5)?),
        lower_bound: nat(row.read(6)?),
        duration_ms: nat(row.read(7)?),
        usage: rows::usage(row, 8)?,
    })
}

async fn detail(tx: &Transaction<'_>, id: SessionId) -> Result<Option<SessionDetail>, Fault> {
    let sql = format!(
        "SELECT {}, s.source FROM session s JOIN source c ON c.id = s.source WHERE s.id = $1",
        *COLUMNS
    );
    let Some(found) = tx.query_opt(&sql, &[&&id.0[..]]).await? else {
        return Ok(None);
    };
    let row = session_row(&found)?;
    let source: i32 = found.read(23)?;
    let (events, last_body) = events_of(tx, id).await?;
    let until = row.end.map_or(Timestamp::MAX, |(at, ..)| at);
    let found = tx
        .query(
            "SELECT from_at, to_at, reason, server FROM gap WHERE source = $1 AND to_at >= $2 AND from_at <= $3 ORDER BY from_at",
            &[&source, &int(row.started_at.0), &int(until.0)],
        )
        .await?;
    let mut gaps = Vec::new();
    for row in &found {
        gaps.extend(read_gap(row, 0)?);
    }
    Ok(Some(SessionDetail {
        row,
        events,
        last_body,
        gaps,
    }))
}

type Events = (Vec<SessionEventRow>, Option<bytes::Bytes>);

async fn events_of(tx: &Transaction<'_>, id: SessionId) -> Result<Events, Fault> {
    let found = tx
        .query(
            "SELECT id, event_id, type, sequence, at FROM event WHERE session_id = $1 ORDER BY sequence",
            &[&&id.0[..]],
        )
        .await?;
    let mut deliveries: HashMap<i64, Vec<(String, DeliveryState)>> = HashMap::new();
    let to = tx
        .query(
            "SELECT e.id, p.name, d.state FROM event e CROSS JOIN endpoint p JOIN delivery d ON d.id = (e.id << 16) | p.id \
             WHERE e.session_id = $1 ORDER BY d.id",
            &[&&id.0[..]],
        )
        .await?;
    for row in &to {
        let told = (row.read(1)?, codes::state(rows::code(row, 2)?));
        deliveries.entry(row.read(0)?).or_default().push(told);
    }
    let mut events = Vec::with_capacity(found.len());
    let mut last_body = None;
    for (i, row) in found.iter().enumerate() {
        let n: i64 = row.read(0)?;
        events.push(SessionEventRow {
            event_id: rows::event_id(row, 1)?,
            event_type: codes::event_type(rows::code(row, 2)?),
            sequence: rows::number(row, 3)?,
            timestamp: rows::time(row, 4)?,
            deliveries: deliveries.remove(&n).unwrap_or_default(),
        });
        if i + 1 == found.len() {
            let row = one(tx, "SELECT data FROM event WHERE id = $1", &[&n]).await?;
            last_body = facts::unpack_body(row.read(0)?).map(Into::into);
        }
    }
    Ok((events, last_body))
}
