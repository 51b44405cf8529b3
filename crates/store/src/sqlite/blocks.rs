//! Who is blocked.

use std::sync::Arc;

use rusqlite::{Connection, Row, params, params_from_iter};
use turnhook_reducer::time::Timestamp;

use super::{Sqlite, int, nat, rows};
use crate::{
    block::{BlockChange, BlockRow, Columns, from_columns, made_before, to_columns},
    error::Result,
};

const COLUMNS: &str = "id, at, kind, realm, user, session, until_at, reason, who";

impl Sqlite {
    pub(crate) async fn change_block(
        &self,
        at: Timestamp,
        change: BlockChange,
        reason: String,
        who: String,
    ) -> Result<u64> {
        let columns = to_columns(&change);
        self.write(move |conn, _| Ok(insert(conn, at, &columns, &reason, &who)?))
            .await
    }

    pub(crate) async fn block_once(
        &self,
        at: Timestamp,
        change: BlockChange,
        reason: String,
        who: String,
    ) -> Result<bool> {
        let columns = to_columns(&change);
        let sql = made_before("user", "IS", '?');
        self.write(move |conn, _| {
            let (_, realm, user, _, until) = &columns;
            let made = conn
                .prepare_cached(&sql)?
                .exists(params![realm, user, who, until])?;
            if !made {
                insert(conn, at, &columns, &reason, &who)?;
            }
            Ok(!made)
        })
        .await
    }

    pub(crate) async fn block_changes(self: &Arc<Self>, after: u64, limit: usize) -> Result<Vec<BlockRow>> {
        let sql = format!("SELECT {COLUMNS} FROM block_change WHERE id > ?1 ORDER BY id LIMIT ?2");
        self.read(move |conn| {
            let mut stmt = conn.prepare_cached(&sql)?;
            let mut found = stmt.query([int(after), int(limit as u64)])?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                all.extend(read(row)?);
            }
            Ok(all)
        })
        .await
    }

    /// Of every user, or of one.
    pub(crate) async fn last_blocks(self: &Arc<Self>, only: Option<Vec<u8>>) -> Result<Vec<BlockRow>> {
        let of = only.as_ref().map_or("IS NOT NULL", |_| "= ?1");
        let sql = format!(
            "SELECT {COLUMNS} FROM block_change WHERE id IN \
             (SELECT max(id) FROM block_change WHERE user {of} GROUP BY user, realm) ORDER BY user, id"
        );
        self.read(move |conn| {
            let mut stmt = conn.prepare_cached(&sql)?;
            let mut found = stmt.query(params_from_iter(only))?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                all.extend(read(row)?);
            }
            Ok(all)
        })
        .await
    }
}

fn insert(
    conn: &Connection,
    at: Timestamp,
    (kind, realm, user, session, until): &Columns,
    reason: &str,
    who: &str,
) -> rusqlite::Result<u64> {
    conn.prepare_cached(
        "INSERT INTO block_change (at, kind, realm, user, session, until_at, reason, who) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![int(at.0), kind, realm, user, session, until, reason, who])?;
    Ok(nat(conn.last_insert_rowid()))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<BlockRow>> {
    let columns = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
    let Some(change) = from_columns(columns) else {
        return Ok(None);
    };
    Ok(Some(BlockRow {
        id: nat(row.get(0)?),
        at: rows::time(row, 1)?,
        change,
        reason: row.get(7)?,
        who: row.get(8)?,
    }))
}
