//! What is to be set right by coturn's log.

use turnhook_reducer::event::SessionId;

use super::rows::{self, Read as _, id32};
use super::{Fault, Postgres, attempt};
use crate::{codes::int, error::Result, heal::HealRow, ids::SourceId};

impl Postgres {
    pub(crate) async fn ask_to_heal(&self, rows: Vec<HealRow>) -> Result<usize> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let sql = "INSERT INTO heal (session, source, data) VALUES ($1, $2, $3) ON CONFLICT (session) DO NOTHING";
            let mut new = 0;
            for row in &rows {
                let done = tx.execute(sql, &[&&row.session.0[..], &id32(row.source.0)?, &row.data]).await?;
                new += usize::try_from(done).unwrap_or_default();
            }
            tx.commit().await?;
            Ok(new)
        })
    }

    pub(crate) async fn to_heal(&self, limit: usize) -> Result<Vec<HealRow>> {
        attempt!(&self.db, client => {
            let sql = "SELECT session, source, data FROM heal ORDER BY session LIMIT $1";
            let mut all = Vec::new();
            for row in client.query(sql, &[&int(limit as u64)]).await? {
                let source: i32 = row.read(1)?;
                all.push(HealRow {
                    session: rows::session_id(&row, 0)?,
                    source: SourceId(u32::try_from(source).map_err(|_| Fault::damaged("source"))?),
                    data: row.read(2)?,
                });
            }
            Ok(all)
        })
    }

    pub(crate) async fn healed(&self, session: SessionId) -> Result<()> {
        attempt!(&self.db, client => {
            client.execute("DELETE FROM heal WHERE session = $1", &[&&session.0[..]]).await?;
            Ok(())
        })
    }
}
