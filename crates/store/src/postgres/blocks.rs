//! Who is blocked.

use deadpool_postgres::Transaction;
use tokio_postgres::{Row, types::ToSql};
use turnhook_reducer::time::Timestamp;

use super::rows::{self, Read as _, one};
use super::{Fault, Postgres, attempt};
use crate::{
    block::{BlockChange, BlockRow, Columns, from_columns, made_before, to_columns},
    codes::{int, nat},
    error::Result,
};

const COLUMNS: &str = "id, at, kind, realm, user_name, session, until_at, reason, who";

impl Postgres {
    pub(crate) async fn change_block(
        &self,
        at: Timestamp,
        change: BlockChange,
        reason: String,
        who: String,
    ) -> Result<u64> {
        let columns = to_columns(&change);
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let id = insert(&tx, at, &columns, &reason, &who).await?;
            tx.commit().await?;
            Ok(nat(id))
        })
    }

    pub(crate) async fn block_once(
        &self,
        at: Timestamp,
        change: BlockChange,
        reason: String,
        who: String,
    ) -> Result<bool> {
        let columns = to_columns(&change);
        let sql = made_before("user_name", "IS NOT DISTINCT FROM", '$');
        attempt!(&self.db, client => {
            let (_, realm, user, _, until) = &columns;
            let tx = client.transaction().await?;
            // Before it looks: of two nodes that come to it at once the second one sees what the first one made.
            tx.execute("SELECT 1 FROM counter WHERE name = 'block' FOR UPDATE", &[]).await?;
            let made = tx.query_opt(&sql, &[realm, user, &who, until]).await?.is_some();
            if !made {
                insert(&tx, at, &columns, &reason, &who).await?;
            }
            tx.commit().await?;
            Ok(!made)
        })
    }

    pub(crate) async fn block_changes(&self, after: u64, limit: usize) -> Result<Vec<BlockRow>> {
        let sql = format!("SELECT {COLUMNS} FROM block_change WHERE id > $1 ORDER BY id LIMIT $2");
        attempt!(&self.db, client => {
            let found = client.query(&sql, &[&int(after), &int(limit as u64)]).await?;
            all(&found)
        })
    }

    /// Of every user, or of one.
    pub(crate) async fn last_blocks(&self, only: Option<Vec<u8>>) -> Result<Vec<BlockRow>> {
        let of = only.as_ref().map_or("IS NOT NULL", |_| "= $1");
        let sql = format!(
            "SELECT {COLUMNS} FROM block_change WHERE id IN \
             (SELECT max(id) FROM block_change WHERE user_name {of} GROUP BY user_name, realm) \
             ORDER BY user_name, id"
        );
        attempt!(&self.db, client => {
            let user: Vec<&(dyn ToSql + Sync)> = only.iter().map(|user| user as &(dyn ToSql + Sync)).collect();
            let found = client.query(&sql, &user).await?;
            all(&found)
        })
    }
}

async fn insert(
    tx: &Transaction<'_>,
    at: Timestamp,
    (kind, realm, user, session, until): &Columns,
    reason: &str,
    who: &str,
) -> Result<i64, Fault> {
    // Whoever makes another one waits here: numbers rise in the order in which they can be seen.
    let next = "UPDATE counter SET value = value + 1 WHERE name = 'block' RETURNING value";
    let id: i64 = one(tx, next, &[]).await?.read(0)?;
    tx.execute(
        "INSERT INTO block_change (id, at, kind, realm, user_name, session, until_at, reason, who) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[&id, &int(at.0), kind, realm, user, session, until, &reason, &who],
    )
    .await?;
    Ok(id)
}

fn all(found: &[Row]) -> Result<Vec<BlockRow>, Fault> {
    let mut all = Vec::with_capacity(found.len());
    for row in found {
        let columns = (
            row.read(2)?,
            row.read(3)?,
            row.read(4)?,
            row.read(5)?,
            row.read(6)?,
        );
        let Some(change) = from_columns(columns) else {
            continue;
        };
        all.push(BlockRow {
            id: nat(row.read(0)?),
            at: rows::time(row, 1)?,
            change,
            reason: row.read(7)?,
            who: row.read(8)?,
        });
    }
    Ok(all)
}
