//! The ledger as lists for people.

use turnhook_reducer::{event::SessionId, message::AllocationId, time::Timestamp};

use super::{
    Postgres, attempt,
    connection::Fault,
    deliveries::{DIALECT, params},
    rows::{self, Read as _, one},
    sessions::{COLUMNS, read_gap, session_row},
};
use crate::{
    codes::{self, FIRST_OF_USERS, nat},
    error::Result,
    reads::{
        Asked, GAP, NumberedGap, REFUSED, RecordFilter, RefusedRow, TOLD, Told, ToldEvent, UnattributedRow,
        ended, unattributed_columns,
    },
    session::{GapRow, SessionFilter, SessionRow},
};

impl Postgres {
    pub(crate) async fn newest_event(&self) -> Result<i64> {
        attempt!(&self.db, client => {
            one(client, "SELECT coalesce(max(id), 0) FROM event", &[]).await?.read(0)
        })
    }

    pub(crate) async fn told_events(
        &self,
        filter: RecordFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<ToldEvent>> {
        let mut asked = Asked::new(&DIALECT, TOLD, "event");
        asked.and(&format!("t.type < {FIRST_OF_USERS} AND t.id > ?"), after);
        asked.record(filter, "t.at", "t.at");
        let sql = asked.ordered("t.id", limit);
        attempt!(&self.db, client => {
            let mut events = Vec::new();
            for row in client.query(&sql, &params(&asked.values)).await? {
                let told = Told {
                    number: row.read(0)?,
                    id: rows::event_id(&row, 1)?,
                    session: rows::session_id(&row, 2)?,
                    source: row.read(3)?,
                    event_type: codes::event_type(rows::code(&row, 4)?),
                    sequence: rows::number(&row, 5)?,
                    at: row.read(6)?,
                    data: row.read(7)?,
                };
                events.push(told.read().ok_or_else(|| Fault::damaged("event"))?);
            }
            Ok(events)
        })
    }

    pub(crate) async fn sessions_ended(
        &self,
        filter: SessionFilter,
        from: Timestamp,
        to: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        let mut asked = Asked::named(&DIALECT, &COLUMNS, "session", "s");
        ended(&mut asked, filter, from, to, after);
        let sql = asked.ordered("s.ended_at, s.id", limit);
        attempt!(&self.db, client => {
            let found = client.query(&sql, &params(&asked.values)).await?;
            found.iter().map(session_row).collect()
        })
    }

    pub(crate) async fn gaps_on_record(
        &self,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<NumberedGap>> {
        let (sql, values) = Asked::on_record(
            &DIALECT,
            GAP,
            "gap",
            filter,
            before,
            ["t.to_at", "t.from_at"],
            limit,
        );
        attempt!(&self.db, client => {
            let mut gaps = Vec::new();
            for row in client.query(&sql, &params(&values)).await? {
                if let Some(gap) = read_gap(&row, 2)? {
                    let source = row.read(1)?;
                    gaps.push((row.read(0)?, GapRow { source, gap }));
                }
            }
            Ok(gaps)
        })
    }

    pub(crate) async fn unattributed(
        &self,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UnattributedRow>> {
        let (sql, values) = Asked::on_record(
            &DIALECT,
            &unattributed_columns(),
            "unattributed",
            filter,
            before,
            ["t.at"; 2],
            limit,
        );
        attempt!(&self.db, client => {
            let mut found = Vec::new();
            for row in client.query(&sql, &params(&values)).await? {
                let server: Vec<u8> = row.read(3)?;
                found.push(UnattributedRow {
                    number: row.read(0)?,
                    source: row.read(1)?,
                    at: rows::time(&row, 2)?,
                    server: (!server.is_empty()).then_some(server),
                    realm: row.read(4)?,
                    username: row.read(5)?,
                    allocation: AllocationId(nat(row.read(6)?)),
                    opened_at: rows::time(&row, 7)?,
                    reason: row.read(8)?,
                    usage: rows::usage(&row, 9)?,
                });
            }
            Ok(found)
        })
    }

    pub(crate) async fn refused_rows(
        &self,
        filter: RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<RefusedRow>> {
        let (sql, values) =
            Asked::on_record(&DIALECT, REFUSED, "refused", filter, before, ["t.at"; 2], limit);
        attempt!(&self.db, client => {
            let mut found = Vec::new();
            for row in client.query(&sql, &params(&values)).await? {
                found.push(RefusedRow {
                    number: row.read(0)?,
                    source: row.read(1)?,
                    at: rows::time(&row, 2)?,
                    kind: row.read(3)?,
                    name: row.read(4)?,
                    error: row.read(5)?,
                });
            }
            Ok(found)
        })
    }

    /// The server's version, and its clock in milliseconds since the epoch.
    pub(crate) async fn about(&self) -> Result<(String, u64)> {
        let sql = format!(
            "SELECT current_setting('server_version'), {}",
            super::cluster::NOW
        );
        attempt!(&self.db, client => {
            let row = one(client, &sql, &[]).await?;
            Ok((row.read(0)?, nat(row.read(1)?)))
        })
    }
}
