//! Usage by quarters of an hour, and what people did.

use std::sync::Arc;

use rusqlite::{params, params_from_iter};
use turnhook_reducer::{event::SessionId, time::Timestamp};

use super::{Sqlite, deliveries::DIALECT, int, nat, rows};
use crate::{
    error::Result,
    query::{Dialect, Value},
    summed::{self, COLUMNS, Summed, SummedBy},
    usage::{AuditEntry, Listed, Sums, UsageQuarter, add_ended, ended_sql},
};

impl Sqlite {
    pub(crate) async fn usage_by_quarter(
        self: &Arc<Self>,
        ask: impl Fn(&Dialect) -> (String, Vec<Value>) + Send + 'static,
        is_first: bool,
    ) -> Result<Vec<UsageQuarter>> {
        if is_first {
            self.catch_up().await?;
        }
        self.read(move |conn| {
            let (sql, values) = ask(&DIALECT);
            conn.prepare_cached(&sql)?
                .query_map(params_from_iter(values), |r| {
                    Ok(Listed {
                        quarter: r.get(0)?,
                        source: r.get(1)?,
                        realm: r.get(2)?,
                        user: r.get(3)?,
                        whole_day: r.get(4)?,
                        sums: [r.get(5)?, r.get(6)?, r.get(7)?, r.get(8)?],
                        usage: rows::usage(r, 9)?,
                    }
                    .into())
                })?
                .collect()
        })
        .await
    }

    pub(crate) async fn usage_summed(
        self: &Arc<Self>,
        ask: impl Fn(&Dialect) -> (String, Vec<Value>) + Send + 'static,
        by: SummedBy,
    ) -> Result<Vec<Summed>> {
        self.catch_up().await?;
        self.read(move |conn| {
            let (sql, values) = ask(&DIALECT);
            conn.prepare_cached(&sql)?
                .query_map(params_from_iter(values), |r| {
                    let mut halves = [0; COLUMNS];
                    for (i, half) in halves.iter_mut().enumerate() {
                        *half = r.get(4 + i)?;
                    }
                    let named = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
                    Ok(summed::row(by, named, halves))
                })?
                .collect()
        })
        .await
    }

    pub(crate) async fn usage_ended(
        self: &Arc<Self>,
        user: Vec<u8>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Sums> {
        self.catch_up().await?;
        self.read(move |conn| {
            let mut stmt = conn.prepare_cached(&ended_sql(&DIALECT))?;
            let mut found = stmt.query(params![user, int(from.0), int(to.0)])?;
            let mut sums = Sums::default();
            while let Some(row) = found.next()? {
                sums = add_ended(sums, row.get(0)?, row.get(1)?, row.get(2)?, rows::usage(row, 3)?);
            }
            Ok(sums)
        })
        .await
    }

    pub(crate) async fn continued_by(self: &Arc<Self>, session: SessionId) -> Result<Vec<SessionId>> {
        self.catch_up().await?;
        self.read(move |conn| {
            conn.prepare_cached(
                "SELECT id FROM session WHERE continues = ?1 AND continues IS NOT NULL ORDER BY id",
            )?
            .query_map([session.0], |r| r.get(0).map(SessionId))?
            .collect()
        })
        .await
    }

    pub(crate) async fn note(&self, entry: AuditEntry) -> Result<()> {
        self.write(move |conn, _| {
            let e = &entry;
            conn.prepare_cached(
                "INSERT INTO audit (at, who, action, target, detail, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                int(e.at.0),
                e.who,
                e.action,
                e.target,
                e.detail,
                int(e.count)
            ])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn audit(self: &Arc<Self>, before: i64, limit: i64) -> Result<Vec<AuditEntry>> {
        self.read(move |conn| {
            conn.prepare_cached(
                "SELECT id, at, who, action, target, detail, count FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?
            .query_map([before, limit], |r| {
                Ok(AuditEntry {
                    id: r.get(0)?,
                    at: rows::time(r, 1)?,
                    who: r.get(2)?,
                    action: r.get(3)?,
                    target: r.get(4)?,
                    detail: r.get(5)?,
                    count: nat(r.get(6)?),
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
    fn a_users_sums_and_ends_are_ranges_of_an_index() {
        let conn = Connection::open_in_memory().unwrap();
        for sql in MIGRATIONS {
            conn.execute_batch(sql).unwrap();
        }
        let plan = |sql: &str| {
            let mut stmt = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            for n in 1..=stmt.parameter_count() {
                stmt.raw_bind_parameter(n, 1).unwrap();
            }
            let mut rows = stmt.raw_query();
            let mut lines = String::new();
            while let Some(row) = rows.next().unwrap() {
                lines += &(row.get::<_, String>(3).unwrap() + "\n");
            }
            lines
        };
        let asked = |user: Option<&[u8]>| {
            let filter = crate::UsageFilter {
                user: user.map(<[u8]>::to_vec),
                ..crate::UsageFilter::default()
            };
            plan(&crate::usage::by_quarter(&DIALECT, &filter, None, 1, 2, None, 10).0)
        };
        let user = asked(Some(b"cust_42"));
        assert!(
            user.contains("USING PRIMARY KEY (user=? AND quarter>? AND quarter<?)"),
            "{user}"
        );
        assert!(!user.contains("TEMP B-TREE"), "{user}");
        let all = asked(None);
        assert!(
            all.contains("usage_quarter_time (quarter>? AND quarter<?)"),
            "{all}"
        );
        assert!(!all.contains("TEMP B-TREE"), "{all}");
        let ended = plan(&ended_sql(&DIALECT));
        assert!(
            ended.contains("session_of_user_ended (user=? AND ended_at>? AND ended_at<?)"),
            "{ended}"
        );
    }
}
