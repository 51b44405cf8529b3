//! Who is blocked.

use deadpool_postgres::Transaction;
use turnhook_reducer::time::Timestamp;

use super::rows::{self, Read as _, one};
use super::{DIALECT, Fault, Postgres, attempt};
use crate::{
    block::{New, Whom, last_change, later, made_before},
    codes::{int, nat},
    error::Result,
};

impl Postgres {
    pub(crate) async fn change_block(&self, row: New) -> Result<u64> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            lock(&tx).await?;
            let id = insert(&tx, &row).await?;
            tx.commit().await?;
            Ok(nat(id))
        })
    }

    pub(crate) async fn block_once(&self, row: New) -> Result<bool> {
        let sql = made_before(&DIALECT);
        attempt!(&self.db, client => {
            let (_, realm, user, _, until) = &row.columns;
            let tx = client.transaction().await?;
            lock(&tx).await?;
            let made = tx.query_opt(&sql, &[realm, user, &row.who, until]).await?.is_some();
            if !made {
                insert(&tx, &row).await?;
            }
            tx.commit().await?;
            Ok(!made)
        })
    }

    pub(crate) async fn expire_blocks(&self, whom: Vec<Whom>, now: Timestamp) -> Result<usize> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            lock(&tx).await?;
            let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            let now = now.min(rows::time(&one(&tx, clock, &[]).await?, 0)?);
            let mut over = 0;
            for (realm, user) in &whom {
                over += usize::from(expire(&tx, realm.as_deref(), user, now).await?);
            }
            tx.commit().await?;
            Ok(over)
        })
    }
}

/// Whoever makes another change waits here: numbers rise in the order in which they can be seen, and of two nodes that come
/// to the same at once the second one sees what the first one made.
async fn lock(tx: &Transaction<'_>) -> Result<(), Fault> {
    tx.execute("SELECT 1 FROM counter WHERE name = 'block' FOR UPDATE", &[])
        .await?;
    Ok(())
}

async fn number(tx: &Transaction<'_>) -> Result<i64, Fault> {
    let next = "UPDATE counter SET value = value + 1 WHERE name = 'block' RETURNING value";
    one(tx, next, &[]).await?.read(0)
}

async fn insert(tx: &Transaction<'_>, row: &New) -> Result<i64, Fault> {
    let (kind, realm, user, session, until) = &row.columns;
    let mut at = row.at;
    if let Some(user) = user {
        // A block that this one would take the place of may be over by now, and nobody may have been there to say so.
        expire(tx, realm.as_deref(), user, at).await?;
        let sql = last_change("b.at", &DIALECT);
        let last = tx.query_opt(&sql, &[realm, user]).await?;
        at = later(at, last.map(|row| row.read(0)).transpose()?);
    }
    let id = number(tx).await?;
    tx.execute(
        "INSERT INTO block_change (id, at, kind, realm, user_name, session, until_at, reason, who, quota) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            &id,
            &int(at.0),
            kind,
            realm,
            user,
            session,
            until,
            &row.reason,
            &row.who,
            &row.quota,
        ],
    )
    .await?;
    Ok(id)
}

/// Puts on record that a block is over, if it is the last change there and is; whether it is.
async fn expire(
    tx: &Transaction<'_>,
    realm: Option<&[u8]>,
    user: &[u8],
    now: Timestamp,
) -> Result<bool, Fault> {
    let sql = last_change("b.at", &DIALECT) + " AND b.kind = 0 AND b.until_at <= $3";
    let Some(row) = tx.query_opt(&sql, &[&realm, &user, &int(now.0)]).await? else {
        return Ok(false);
    };
    let at = later(now, Some(row.read(0)?));
    let id = number(tx).await?;
    tx.execute(
        "INSERT INTO block_change (id, at, kind, realm, user_name, reason, who) VALUES ($1, $2, 3, $3, $4, '', '')",
        &[&id, &int(at.0), &realm, &user],
    )
    .await?;
    Ok(true)
}
