//! Events of users.

use std::sync::Arc;

use rusqlite::{Connection, params};
use turnhook_reducer::outbox::Delivery;

use super::{Sqlite, commit, int, mem::Mem, nat};
use crate::{
    error::Result,
    user_events::{NewUserEvent, Telling, pack_told},
};

impl Sqlite {
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
