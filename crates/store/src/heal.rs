//! Allocations that are to be set right by coturn's log. Whoever asks for it may be another process, or another machine,
//! than the one that leads the source and so numbers what it tells. So they wait here until that one has told them.

use turnhook_reducer::event::SessionId;

use crate::{Admin, Backend, Result, SourceId, on};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealRow {
    /// The session that will tell it.
    pub session: SessionId,
    /// The source that heard the allocation.
    pub source: SourceId,
    /// What is to be told; the store does not look into it.
    pub data: Vec<u8>,
}

impl Admin {
    /// Asks for sessions that set others right, each once: how many of them were not asked for already.
    ///
    /// # Errors
    /// The disk's; then none was.
    pub async fn ask_to_heal(&self, rows: Vec<HealRow>) -> Result<usize> {
        on!(self, db => db.ask_to_heal(rows).await)
    }

    /// What is asked for, in the order of the sessions.
    ///
    /// # Errors
    /// The disk's.
    pub async fn to_heal(&self, limit: usize) -> Result<Vec<HealRow>> {
        on!(self, db => db.to_heal(limit.max(1)).await)
    }

    /// It is told, or cannot be.
    ///
    /// # Errors
    /// The disk's.
    pub async fn healed(&self, session: SessionId) -> Result<()> {
        on!(self, db => db.healed(session).await)
    }
}
