//! Events of users.

use std::sync::Arc;

use rusqlite::{Connection, params};
use turnhook_reducer::outbox::Delivery;

use super::{Sqlite, commit, int, mem::Mem, nat};
use crate::{
    error::Result,
    user_events::{NewUserEvent, UserEventBatch, pack_endpoints},
};

impl Sqlite {
    pub(crate) async fn record_user_events(
        &self,
        batch: Arc<UserEventBatch>,
    ) -> Result<Option<Vec<Delivery>>> {
        self.write(move |conn, mem| Ok(record(conn, mem, &batch)?)).await
    }
}

fn notified_upto(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT told_change FROM store")?
        .query_row([], |r| r.get(0))
        .map(nat)
}

fn record(
    conn: &Connection,
    mem: &mut Mem,
    batch: &UserEventBatch,
) -> rusqlite::Result<Option<Vec<Delivery>>> {
    if notified_upto(conn)? != batch.from {
        return Ok(None);
    }
    conn.prepare_cached("UPDATE store SET told_change = ?1")?
        .execute([int(batch.upto)])?;
    for (change, endpoints) in &batch.notified {
        conn.prepare_cached("UPDATE block_change SET told = ?2 WHERE id = ?1")?
            .execute(params![int(*change), pack_endpoints(endpoints)])?;
    }
    let mut deliveries = Vec::new();
    for new in &batch.events {
        let n = commit::insert_user_event(conn, mem, new, &mut deliveries)?;
        let NewUserEvent { event, .. } = new;
        conn.prepare_cached("INSERT INTO user_event (event, realm, user) VALUES (?1, ?2, ?3)")?
            .execute(params![n, event.realm, event.user])?;
    }
    Ok(Some(deliveries))
}
