//! The ledger as it is read.

use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use super::{Sqlite, admin::read_gap, deliveries::DIALECT, int, nat, rows};
use crate::{
    delivery::DeliveryState,
    error::Result,
    facts,
    query::{self, Part},
    session::{SessionDetail, SessionEventRow, SessionFilter, SessionRow, UsageDay},
};

pub(super) static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "s.id, c.name, s.started_at, s.updated_at, s.ended_at, s.reason, s.accuracy, s.sequence, s.continues, s.realm, \
         s.user, s.peer_leg, s.allocations, s.names, {}",
        rows::USAGE
    )
});

pub(super) fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    let end = facts::end(row.get(4)?, row.get(5)?, row.get(6)?);
    let (usernames, labels) =
        facts::unpack_names(row.get_ref(13)?.as_blob()?).ok_or_else(|| rows::damaged("session"))?;
    Ok(SessionRow {
        id: SessionId(row.get(0)?),
        source: row.get(1)?,
        started_at: rows::time(row, 2)?,
        updated_at: rows::time(row, 3)?,
        end,
        sequence: row.get(7)?,
        continues: row.get::<_, Option<[u8; 16]>>(8)?.map(SessionId),
        realm: row.get(9)?,
        user: row.get(10)?,
        peer_leg: row.get(11)?,
        allocations: nat(row.get(12)?),
        usernames,
        labels,
        usage: rows::usage(row, 14)?,
    })
}

impl Sqlite {
    pub(crate) async fn sessions(
        self: &Arc<Self>,
        filter: SessionFilter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        // Only for the first page: a listing should neither change nor slow down under way.
        if after.is_none() {
            self.catch_up().await?;
        }
        self.read(move |conn| {
            let mut found: Vec<SessionRow> = Vec::new();
            for part in Part::of(&filter) {
                let left = limit.saturating_sub(found.len());
                if left == 0 {
                    break;
                }
                let (from, values) = query::sessions(&DIALECT, &filter, after, left, *part);
                let mut stmt = conn.prepare_cached(&format!("SELECT {} FROM {from}", *COLUMNS))?;
                for row in stmt.query_map(params_from_iter(values), session_row)? {
                    found.push(row?);
                }
            }
            Ok(found)
        })
        .await
    }

    pub(crate) async fn session(self: &Arc<Self>, id: SessionId) -> Result<Option<SessionDetail>> {
        self.catch_up().await?;
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let sql = format!("SELECT {}, s.source FROM session s JOIN source c ON c.id = s.source WHERE s.id = ?1", *COLUMNS);
            let found = tx.prepare_cached(&sql)?.query_row([id.0], |r| Ok((session_row(r)?, r.get::<_, u32>(23)?))).optional()?;
            let Some((row, source)) = found else { return Ok(None) };
            let (events, last_body) = events_of(&tx, id)?;
            let mut stmt = tx.prepare_cached(
                "SELECT from_at, to_at, reason, server FROM gap WHERE source = ?1 AND to_at >= ?2 AND from_at <= ?3 ORDER BY from_at",
            )?;
            let until = row.end.map_or(Timestamp::MAX, |(at, ..)| at);
            let mut found = stmt.query(params![source, int(row.started_at.0), int(until.0)])?;
            let mut gaps = Vec::new();
            while let Some(row) = found.next()? {
                gaps.extend(read_gap(row, 0)?);
            }
            Ok(Some(SessionDetail { row, events, last_body, gaps }))
        })
        .await
    }

    pub(crate) async fn usage_by_day(
        self: &Arc<Self>,
        from: u32,
        to: u32,
        after: Option<UsageDay>,
        limit: usize,
    ) -> Result<Vec<UsageDay>> {
        if after.is_none() {
            self.catch_up().await?;
        }
        self.read(move |conn| {
            let sql = format!(
                "SELECT u.day, c.name, u.realm, u.user, u.started, u.ended, u.lower_bound, u.duration_ms, {} \
                 FROM usage_day u CROSS JOIN source c ON c.id = u.source \
                 WHERE u.day BETWEEN ?1 AND ?2 AND (u.day, u.source, u.realm, u.user) > (?3, ?4, ?5, ?6) \
                 ORDER BY u.day, u.source, u.realm, u.user LIMIT ?7",
                rows::USAGE
            );
            let (day, source, realm, user) = match after {
                Some(a) => {
                    let source: i64 =
                        conn.query_row("SELECT id FROM source WHERE name = ?1", [a.source], |r| r.get(0))?;
                    (i64::from(a.day), source, a.realm, a.user.unwrap_or_default())
                }
                None => (-1, -1, Vec::new(), Vec::new()),
            };
            let mut stmt = conn.prepare_cached(&sql)?;
            let first = i64::from(from).max(day);
            stmt.query_map(
                params![first, to, day, source, realm, user, int(limit as u64)],
                |r| {
                    let user: Vec<u8> = r.get(3)?;
                    Ok(UsageDay {
                        day: r.get(0)?,
                        source: r.get(1)?,
                        realm: r.get(2)?,
                        user: (!user.is_empty()).then_some(user),
                        started: nat(r.get(4)?),
                        ended: nat(r.get(5)?),
                        lower_bound: nat(r.get(6)?),
                        duration_ms: nat(r.get(7)?),
                        usage: rows::usage(r, 8)?,
                    })
                },
            )?
            .collect()
        })
        .await
    }
}

type Events = (Vec<SessionEventRow>, Option<bytes::Bytes>);

fn events_of(conn: &Connection, id: SessionId) -> rusqlite::Result<Events> {
    let mut stmt = conn.prepare_cached(
        "SELECT e.id, e.event_id, e.type, e.sequence, e.at, e.data FROM session_event l CROSS JOIN event e ON e.id = l.event \
         WHERE l.session_id = ?1 ORDER BY l.sequence",
    )?;
    let mut to = conn.prepare_cached(
        "SELECT p.name, d.state FROM delivery d CROSS JOIN endpoint p ON p.id = d.endpoint WHERE d.id BETWEEN ?1 AND ?2 ORDER BY d.id",
    )?;
    let mut found = stmt.query([id.0])?;
    let (mut events, mut last_body) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        let n: i64 = row.get(0)?;
        let deliveries = to
            .query_map([n << 16, (n << 16) | 0xffff], |r| {
                Ok((r.get(0)?, rows::state(r.get(1)?)))
            })?
            .collect::<rusqlite::Result<Vec<(String, DeliveryState)>>>()?;
        events.push(SessionEventRow {
            event_id: EventId(row.get(1)?),
            event_type: rows::event_type(row.get(2)?),
            sequence: row.get(3)?,
            timestamp: rows::time(row, 4)?,
            deliveries,
        });
        last_body = facts::unpack_body(row.get_ref(5)?.as_blob()?).map(Into::into);
    }
    Ok((events, last_body))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::{Connection, params_from_iter};

    use super::*;
    use crate::sqlite::connection::MIGRATIONS;

    fn plan(filter: &SessionFilter, part: Part) -> String {
        let conn = Connection::open_in_memory().unwrap();
        for sql in MIGRATIONS {
            conn.execute_batch(sql).unwrap();
        }
        let (from, values) = query::sessions(&DIALECT, filter, None, 50, part);
        let sql = format!("EXPLAIN QUERY PLAN SELECT {} FROM {from}", *COLUMNS);
        let mut stmt = conn.prepare(&sql).unwrap();
        let lines = stmt
            .query_map(params_from_iter(values), |r| r.get::<_, String>(3))
            .unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_listing_reads_no_more_than_it_must() {
        let since = SessionFilter {
            since: Some(Timestamp(1)),
            ..SessionFilter::default()
        };
        let begun = plan(&since, Part::Begun);
        assert!(begun.contains("SEARCH s USING PRIMARY KEY (id>?)"), "{begun}");
        let overlapping = plan(&since, Part::Overlapping);
        assert!(
            overlapping.contains("session_ended (ended_at>?)"),
            "{overlapping}"
        );
        assert!(overlapping.contains("session_ended (ended_at=?"), "{overlapping}");
        assert!(
            overlapping.contains("SEARCH s USING PRIMARY KEY (id=?)"),
            "{overlapping}"
        );
        let until = SessionFilter {
            until: Some(Timestamp(1)),
            ..SessionFilter::default()
        };
        let until = plan(&until, Part::All);
        assert!(until.contains("SEARCH s USING PRIMARY KEY (id<?)"), "{until}");
        let user = SessionFilter {
            user: Some(b"cust_42".to_vec()),
            since: Some(Timestamp(1)),
            ..SessionFilter::default()
        };
        let user = plan(&user, Part::All);
        assert!(user.contains("INDEX session_of_user (user=?"), "{user}");
        assert!(!user.contains("TEMP B-TREE"), "{user}");
    }
}
