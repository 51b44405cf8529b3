//! Events of users.

use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, Row, params};
use turnhook_reducer::{outbox::Delivery, time::Timestamp};

use super::{Sqlite, blocks, commit, int, nat, writer::Mem};
use crate::{
    error::Result,
    user_events::{
        Earlier, NewUserEvent, Telling, Untold, UntoldChange, pack_told, unpack_quota, unpack_told,
    },
};

/// The changes, and of each the last one before it in its place.
static UNTOLD: LazyLock<String> = LazyLock::new(|| {
    let columns = blocks::COLUMNS.replace(", ", ", b.");
    format!(
        "SELECT b.{columns}, b.quota, p.kind, p.until_at, p.told, EXISTS (SELECT 1 FROM block_change s \
         WHERE s.session = b.session AND s.session IS NOT NULL AND s.id < b.id AND s.quota IS NOT NULL) \
         FROM block_change b LEFT JOIN block_change p ON p.id = \
         (SELECT max(x.id) FROM block_change x WHERE x.user = b.user AND x.realm IS b.realm AND x.id < b.id) \
         WHERE b.id > ?1 ORDER BY b.id LIMIT ?2"
    )
});

impl Sqlite {
    pub(crate) async fn untold_changes(self: &Arc<Self>, limit: usize) -> Result<Untold> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let from = told(&tx)?;
            let mut untold = Untold {
                from,
                upto: from,
                changes: Vec::new(),
            };
            let mut stmt = tx.prepare_cached(&UNTOLD)?;
            let mut found = stmt.query([int(from), int(limit as u64)])?;
            while let Some(row) = found.next()? {
                untold.upto = nat(row.get(0)?);
                untold.changes.extend(read(row)?);
            }
            Ok(untold)
        })
        .await
    }

    pub(crate) async fn tell(&self, telling: Arc<Telling>) -> Result<Option<Vec<Delivery>>> {
        self.write(move |conn, mem| Ok(tell(conn, mem, &telling)?)).await
    }
}

fn told(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT told_change FROM store")?
        .query_row([], |r| r.get(0))
        .map(nat)
}

fn tell(conn: &Connection, mem: &mut Mem, telling: &Telling) -> rusqlite::Result<Option<Vec<Delivery>>> {
    if told(conn)? != telling.from {
        return Ok(None);
    }
    conn.prepare_cached("UPDATE store SET told_change = ?1")?
        .execute([int(telling.upto)])?;
    for (change, endpoints) in &telling.told {
        conn.prepare_cached("UPDATE block_change SET told = ?2 WHERE id = ?1")?
            .execute(params![int(*change), pack_told(endpoints)])?;
    }
    let mut deliveries = Vec::new();
    for new in &telling.events {
        let n = commit::insert_user_event(conn, mem, new, &mut deliveries)?;
        let NewUserEvent { event, .. } = new;
        conn.prepare_cached("INSERT INTO user_event (event, realm, user) VALUES (?1, ?2, ?3)")?
            .execute(params![n, event.realm, event.user])?;
    }
    Ok(Some(deliveries))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<UntoldChange>> {
    let Some(change) = blocks::read(row)? else {
        return Ok(None);
    };
    let before = match row.get::<_, Option<i64>>(10)? {
        Some(0) => Some(Earlier {
            until: row.get::<_, Option<i64>>(11)?.map(|ms| Timestamp(nat(ms))),
            told: unpack_told(row.get::<_, Option<Vec<u8>>>(12)?.as_deref()),
        }),
        _ => None,
    };
    let quota: Option<Vec<u8>> = row.get(9)?;
    Ok(Some(UntoldChange {
        row: change,
        quota: quota.as_deref().and_then(unpack_quota),
        before,
        again: row.get(13)?,
    }))
}
