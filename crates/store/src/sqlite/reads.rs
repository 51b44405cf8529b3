//! The ledger as lists for people.

use std::sync::Arc;

use rusqlite::params_from_iter;
use turnhook_reducer::{
    event::{EventId, SessionId},
    message::AllocationId,
    time::Timestamp,
};

use super::{
    Sqlite,
    admin::read_gap,
    deliveries::DIALECT,
    nat, rows,
    sessions::{COLUMNS, session_row},
};
use crate::{
    codes::FIRST_OF_USERS,
    error::Result,
    reads::{
        Asked, GAP, NumberedGap, REFUSED, RecordFilter, RefusedRow, TOLD, Told, ToldEvent, UnattributedRow,
        ended, unattributed_columns,
    },
    session::{GapRow, SessionFilter, SessionRow},
};

impl Sqlite {
    pub(crate) async fn newest_event(self: &Arc<Self>) -> Result<i64> {
        self.read(|conn| conn.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get(0)))
            .await
    }

    pub(crate) async fn told_events(
        self: &Arc<Self>,
        filter: RecordFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<ToldEvent>> {
        self.read(move |conn| {
            let mut asked = Asked::new(&DIALECT, TOLD, "event");
            asked.and(&format!("t.type < {FIRST_OF_USERS} AND t.id > ?"), after);
            asked.record(filter, "t.at", "t.at");
            let mut stmt = conn.prepare_cached(&asked.ordered("t.id", limit))?;
            let mut found = stmt.query(params_from_iter(asked.values))?;
            let mut events = Vec::new();
            while let Some(row) = found.next()? {
                let told = Told {
                    number: row.get(0)?,
                    id: EventId(row.get(1)?),
                    session: SessionId(row.get(2)?),
                    source: row.get(3)?,
                    event_type: rows::event_type(row.get(4)?),
                    sequence: row.get(5)?,
                    at: row.get(6)?,
                    data: row.get_ref(7)?.as_blob()?,
                };
                events.push(told.read().ok_or_else(|| rows::damaged("event"))?);
            }
            Ok(events)
        })
        .await
    }

    pub(crate) async fn sessions_ended(
        self: &Arc<Self>,
        filter: SessionFilter,
        from: Timestamp,
        to: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        if after.is_none() {
            self.catch_up().await?;
        }
        self.read(move |conn| {
            let mut asked = Asked::named(&DIALECT, &COLUMNS, "session INDEXED BY session_ended", "s");
            ended(&mut asked, filter, from, to, after);
            let mut stmt = conn.prepare_cached(&asked.ordered("s.ended_at, s.id", limit))?;
            stmt.query_map(params_from_iter(asked.values), session_row)?
                .collect()
        })
        .await
    }

    pub(crate) async fn gaps_on_record(
        self: &Arc<Self>,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<NumberedGap>> {
        self.read(move |conn| {
            let (sql, values) = Asked::on_record(
                &DIALECT,
                GAP,
                "gap",
                filter,
                before,
                ["t.to_at", "t.from_at"],
                limit,
            );
            let mut stmt = conn.prepare_cached(&sql)?;
            let mut found = stmt.query(params_from_iter(values))?;
            let mut gaps = Vec::new();
            while let Some(row) = found.next()? {
                if let Some(gap) = read_gap(row, 2)? {
                    let source = row.get(1)?;
                    gaps.push((row.get(0)?, GapRow { source, gap }));
                }
            }
            Ok(gaps)
        })
        .await
    }

    pub(crate) async fn unattributed(
        self: &Arc<Self>,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UnattributedRow>> {
        self.read(move |conn| {
            let (sql, values) = Asked::on_record(
                &DIALECT,
                &unattributed_columns(),
                "unattributed",
                filter,
                before,
                ["t.at"; 2],
                limit,
            );
            let mut stmt = conn.prepare_cached(&sql)?;
            stmt.query_map(params_from_iter(values), |r| {
                let server: Vec<u8> = r.get(3)?;
                Ok(UnattributedRow {
                    number: r.get(0)?,
                    source: r.get(1)?,
                    at: rows::time(r, 2)?,
                    server: (!server.is_empty()).then_some(server),
                    realm: r.get(4)?,
                    username: r.get(5)?,
                    allocation: AllocationId(nat(r.get(6)?)),
                    opened_at: rows::time(r, 7)?,
                    reason: r.get(8)?,
                    usage: rows::usage(r, 9)?,
                })
            })?
            .collect()
        })
        .await
    }

    pub(crate) async fn refused_rows(
        self: &Arc<Self>,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<RefusedRow>> {
        self.read(move |conn| {
            let (sql, values) =
                Asked::on_record(&DIALECT, REFUSED, "refused", filter, before, ["t.at"; 2], limit);
            let mut stmt = conn.prepare_cached(&sql)?;
            stmt.query_map(params_from_iter(values), |r| {
                Ok(RefusedRow {
                    number: r.get(0)?,
                    source: r.get(1)?,
                    at: rows::time(r, 2)?,
                    kind: r.get(3)?,
                    name: r.get(4)?,
                    error: r.get(5)?,
                })
            })?
            .collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::Connection;

    use super::*;
    use crate::sqlite::connection::MIGRATIONS;

    #[test]
    fn ended_sessions_are_walked_by_their_end() {
        let conn = Connection::open_in_memory().unwrap();
        for sql in MIGRATIONS {
            conn.execute_batch(sql).unwrap();
        }
        let mut asked = Asked::named(&DIALECT, &COLUMNS, "session INDEXED BY session_ended", "s");
        let after = Some((Timestamp(5), SessionId([1; 16])));
        ended(
            &mut asked,
            SessionFilter::default(),
            Timestamp(1),
            Timestamp(9),
            after,
        );
        let sql = format!("EXPLAIN QUERY PLAN {}", asked.ordered("s.ended_at, s.id", 10));
        let mut stmt = conn.prepare(&sql).unwrap();
        let lines = stmt
            .query_map(params_from_iter(asked.values), |r| r.get::<_, String>(3))
            .unwrap();
        let plan = lines.map(Result::unwrap).collect::<Vec<_>>().join("\n");
        assert!(
            plan.contains("session_ended (ended_at>? AND ended_at<?)"),
            "{plan}"
        );
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
