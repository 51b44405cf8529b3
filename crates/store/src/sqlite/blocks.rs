//! Who is blocked.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::time::Timestamp;

use super::{DIALECT, Sqlite, int, nat};
use crate::{
    block::{New, Whom, last_change, later, made_before},
    error::Result,
};

impl Sqlite {
    pub(crate) async fn change_block(&self, row: New) -> Result<u64> {
        self.write(move |conn, _| Ok(insert(conn, &row)?)).await
    }

    pub(crate) async fn block_once(&self, row: New) -> Result<bool> {
        let sql = made_before(&DIALECT);
        self.write(move |conn, _| {
            let (_, realm, user, _, until) = &row.columns;
            let made = conn
                .prepare_cached(&sql)?
                .exists(params![realm, user, row.who, until])?;
            if !made {
                insert(conn, &row)?;
            }
            Ok(!made)
        })
        .await
    }

    pub(crate) async fn expire_blocks(&self, whom: Vec<Whom>, now: Timestamp) -> Result<usize> {
        self.write(move |conn, _| {
            let mut over = 0;
            for (realm, user) in &whom {
                over += expire(conn, realm.as_deref(), user, now)?;
            }
            Ok(over)
        })
        .await
    }
}

fn insert(conn: &Connection, row: &New) -> rusqlite::Result<u64> {
    let (kind, realm, user, session, until) = &row.columns;
    let mut at = row.at;
    if let Some(user) = user {
        // A block that this one would take the place of may be over by now, and nobody may have been there to say so.
        expire(conn, realm.as_deref(), user, at)?;
        let last: Option<i64> = conn
            .prepare_cached(&last_change("b.at", &DIALECT))?
            .query_row(params![realm, user], |r| r.get(0))
            .optional()?;
        at = later(at, last);
    }
    conn.prepare_cached(
        "INSERT INTO block_change (at, kind, realm, user, session, until_at, reason, who, quota) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        int(at.0),
        kind,
        realm,
        user,
        session,
        until,
        row.reason,
        row.who,
        row.quota
    ])?;
    Ok(nat(conn.last_insert_rowid()))
}

/// Puts on record that a block is over, if it is the last change there and is.
fn expire(conn: &Connection, realm: Option<&[u8]>, user: &[u8], now: Timestamp) -> rusqlite::Result<usize> {
    static EXPIRE: LazyLock<String> = LazyLock::new(|| {
        let over = last_change("max(?3, b.at + 1), 3, b.realm, b.user, '', ''", &DIALECT);
        format!(
            "INSERT INTO block_change (at, kind, realm, user, reason, who) {over} AND b.kind = 0 AND b.until_at <= ?3"
        )
    });
    conn.prepare_cached(&EXPIRE)?
        .execute(params![realm, user, int(now.0)])
}
