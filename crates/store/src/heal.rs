//! Allocations that are to be set right by coturn's log. Whoever asks for it may be another process, or another
//! machine, than the one that leads the source and so numbers its events. So they wait here until that one has emitted
//! them.

use turnhook_reducer::event::SessionId;

use crate::{
    Admin, Result, SourceId,
    query::values,
    record::{Columns, Record},
};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealRow {
    /// The session that will bill it.
    pub session: SessionId,
    /// The source that heard the allocation.
    pub source: SourceId,
    /// What is to be billed; the store does not look into it.
    pub data: Vec<u8>,
}

impl Admin {
    /// Asks for sessions that set others right, each once: how many of them were not asked for already.
    ///
    /// # Errors
    /// The disk's; then none was.
    pub async fn ask_to_heal(&self, rows: Vec<HealRow>) -> Result<usize> {
        let values = rows
            .into_iter()
            .map(|row| values![row.session, row.source, row.data])
            .collect();
        let sql =
            "INSERT INTO heal (session, source, data) VALUES (?1, ?2, ?3) ON CONFLICT (session) DO NOTHING";
        let new = self.0.execute(sql, values).await?;
        Ok(usize::try_from(new).unwrap_or(usize::MAX))
    }

    /// What is asked for, in the order of the sessions.
    ///
    /// # Errors
    /// The disk's.
    pub async fn to_heal(&self, limit: usize) -> Result<Vec<HealRow>> {
        let sql = "SELECT session, source, data FROM heal ORDER BY session LIMIT ?1";
        self.0.ask(sql, values![limit.max(1) as u64]).await
    }

    /// It is billed, or cannot be.
    ///
    /// # Errors
    /// The disk's.
    pub async fn healed(&self, session: SessionId) -> Result<()> {
        let sql = "DELETE FROM heal WHERE session = ?1";
        self.0.execute(sql, vec![values![session]]).await.map(drop)
    }
}

impl Record for HealRow {
    fn read<R: Columns>(row: &R) -> Result<HealRow, R::Error> {
        Ok(HealRow {
            session: row.value(0)?,
            source: row.value(1)?,
            data: row.value(2)?,
        })
    }
}
