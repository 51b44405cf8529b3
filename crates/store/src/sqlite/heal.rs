//! What is to be set right by coturn's log.

use std::sync::Arc;

use rusqlite::params;
use turnhook_reducer::event::SessionId;

use super::{Sqlite, int};
use crate::{error::Result, heal::HealRow, ids::SourceId};

impl Sqlite {
    pub(crate) async fn ask_to_heal(&self, rows: Vec<HealRow>) -> Result<usize> {
        self.write(move |conn, _| {
            let mut insert = conn
                .prepare_cached("INSERT OR IGNORE INTO heal (session, source, data) VALUES (?1, ?2, ?3)")?;
            let mut new = 0;
            for row in &rows {
                new += insert.execute(params![row.session.0, row.source.0, row.data])?;
            }
            Ok(new)
        })
        .await
    }

    pub(crate) async fn to_heal(self: &Arc<Self>, limit: usize) -> Result<Vec<HealRow>> {
        self.read(move |conn| {
            let row = |r: &rusqlite::Row<'_>| {
                Ok(HealRow {
                    session: SessionId(r.get(0)?),
                    source: SourceId(r.get(1)?),
                    data: r.get(2)?,
                })
            };
            conn.prepare_cached("SELECT session, source, data FROM heal ORDER BY session LIMIT ?1")?
                .query_map([int(limit as u64)], row)?
                .collect()
        })
        .await
    }

    pub(crate) async fn healed(&self, session: SessionId) -> Result<()> {
        self.write(move |conn, _| {
            conn.prepare_cached("DELETE FROM heal WHERE session = ?1")?
                .execute([session.0])?;
            Ok(())
        })
        .await
    }
}
