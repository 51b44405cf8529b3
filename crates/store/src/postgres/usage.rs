//! Usage by quarters of an hour, and what people did.

use turnhook_reducer::{event::SessionId, time::Timestamp};

use super::rows::{self, Read as _};
use super::{
    Postgres,
    connection::attempt,
    deliveries::{DIALECT, params},
};
use crate::{
    codes::{int, nat},
    error::Result,
    query::{Dialect, Value},
    summed::{self, COLUMNS, Summed, SummedBy},
    usage::{AuditEntry, Listed, Sums, UsageQuarter, add_ended, ended_sql},
};

impl Postgres {
    pub(crate) async fn usage_by_quarter(
        &self,
        ask: impl Fn(&Dialect) -> (String, Vec<Value>),
        _is_first: bool,
    ) -> Result<Vec<UsageQuarter>> {
        let (sql, values) = ask(&DIALECT);
        attempt!(&self.db, client => {
            let mut found = Vec::new();
            for r in client.query(&sql, &params(&values)).await? {
                let listed = Listed {
                    quarter: r.read(0)?,
                    source: r.read(1)?,
                    realm: r.read(2)?,
                    user: r.read(3)?,
                    whole_day: r.read(4)?,
                    sums: [r.read(5)?, r.read(6)?, r.read(7)?, r.read(8)?],
                    usage: rows::usage(&r, 9)?,
                };
                found.push(listed.into());
            }
            Ok(found)
        })
    }

    pub(crate) async fn usage_summed(
        &self,
        ask: impl Fn(&Dialect) -> (String, Vec<Value>),
        by: SummedBy,
    ) -> Result<Vec<Summed>> {
        let (sql, values) = ask(&DIALECT);
        attempt!(&self.db, client => {
            let mut found = Vec::new();
            for r in client.query(&sql, &params(&values)).await? {
                let mut halves = [0; COLUMNS];
                for (i, half) in halves.iter_mut().enumerate() {
                    *half = r.read(4 + i)?;
                }
                let named = (r.read(0)?, r.read(1)?, r.read(2)?, r.read(3)?);
                found.push(summed::row(by, named, halves));
            }
            Ok(found)
        })
    }

    pub(crate) async fn usage_ended(&self, user: Vec<u8>, from: Timestamp, to: Timestamp) -> Result<Sums> {
        let sql = ended_sql(&DIALECT);
        attempt!(&self.db, client => {
            let mut sums = Sums::default();
            for r in client.query(&sql, &[&user, &int(from.0), &int(to.0)]).await? {
                sums = add_ended(sums, r.read(0)?, r.read(1)?, rows::maybe_code(&r, 2)?, rows::usage(&r, 3)?);
            }
            Ok(sums)
        })
    }

    pub(crate) async fn continued_by(&self, session: SessionId) -> Result<Vec<SessionId>> {
        attempt!(&self.db, client => {
            let sql = "SELECT id FROM session WHERE continues = $1 ORDER BY id";
            let found = client.query(sql, &[&&session.0[..]]).await?;
            found.iter().map(|r| rows::session_id(r, 0)).collect()
        })
    }

    pub(crate) async fn note(&self, entry: AuditEntry) -> Result<()> {
        let e = &entry;
        attempt!(&self.db, client => {
            let sql = "INSERT INTO audit (at, who, action, target, detail, count) VALUES ($1, $2, $3, $4, $5, $6)";
            client
                .execute(sql, &[&int(e.at.0), &e.who, &e.action, &e.target, &e.detail, &int(e.count)])
                .await?;
            Ok(())
        })
    }

    pub(crate) async fn audit(&self, before: i64, limit: i64) -> Result<Vec<AuditEntry>> {
        attempt!(&self.db, client => {
            let sql = "SELECT id, at, who, action, target, detail, count FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2";
            let mut entries = Vec::new();
            for r in client.query(sql, &[&before, &limit]).await? {
                entries.push(AuditEntry {
                    id: r.read(0)?,
                    at: rows::time(&r, 1)?,
                    who: r.read(2)?,
                    action: r.read(3)?,
                    target: r.read(4)?,
                    detail: r.read(5)?,
                    count: nat(r.read(6)?),
                });
            }
            Ok(entries)
        })
    }
}
