//! Events of users.

use std::sync::Arc;

use deadpool_postgres::Transaction;
use turnhook_reducer::outbox::Delivery;

use super::rows::{Read as _, one};
use super::{Fault, Postgres, attempt, commit::NUMBER, moves::Moves};
use crate::{
    codes::{PENDING, int, session_key, type_code},
    error::Result,
    ids::DeliveryId,
    user_events::{NewUserEvent, UserEventBatch, pack_endpoints},
};

impl Postgres {
    pub(crate) async fn record_user_events(
        &self,
        batch: Arc<UserEventBatch>,
    ) -> Result<Option<Vec<Delivery>>> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let written = record(&tx, &batch).await?;
            tx.commit().await?;
            Ok(written)
        })
    }
}

async fn record(tx: &Transaction<'_>, batch: &UserEventBatch) -> Result<Option<Vec<Delivery>>, Fault> {
    // Of two nodes the second one waits here, and finds that there is nothing left for it.
    let moved = "UPDATE store SET told_change = $2 WHERE id = 1 AND told_change = $1";
    if tx.execute(moved, &[&int(batch.from), &int(batch.upto)]).await? == 0 {
        return Ok(None);
    }
    for (change, endpoints) in &batch.notified {
        let sql = "UPDATE block_change SET told = $2 WHERE id = $1";
        tx.execute(sql, &[&int(*change), &pack_endpoints(endpoints)])
            .await?;
    }
    let mut deliveries = Vec::new();
    if batch.events.is_empty() {
        return Ok(Some(deliveries));
    }
    let mut moves = Moves::default();
    let count = int(batch.events.len() as u64);
    let last: i64 = one(tx, NUMBER, &[&count]).await?.read(0)?;
    for (n, new) in (last - count + 1..).zip(&batch.events) {
        insert(tx, n, new).await?;
        let session = session_key(new.event.order_key());
        for endpoint in new.endpoints.iter() {
            let id = DeliveryId::new(n, *endpoint);
            tx.execute(
                "INSERT INTO delivery (id, endpoint, session, state, attempts, prior, at, latency_ms) \
                 VALUES ($1, $2, $3, 0, 0, 0, $4, 0)",
                &[
                    &id.0,
                    &i32::from(endpoint.0),
                    &session,
                    &int(new.event.timestamp.0),
                ],
            )
            .await?;
            moves.add(*endpoint, session, None, Some(PENDING));
            deliveries.push(new.delivery(id));
        }
    }
    moves.write(tx).await?;
    Ok(Some(deliveries))
}

async fn insert(tx: &Transaction<'_>, n: i64, new: &NewUserEvent) -> Result<(), Fault> {
    let event = &new.event;
    #[allow(clippy::cast_possible_truncation)]
    let kind = type_code(event.event_type) as i16;
    tx.execute(
        "INSERT INTO event (id, event_id, session_id, source, type, sequence, at, data) \
         VALUES ($1, $2, $3, 0, $4, $5, $6, $7)",
        &[
            &n,
            &&event.id.0[..],
            &&event.order_key().0[..],
            &kind,
            &i64::from(new.sequence()),
            &int(event.timestamp.0),
            &new.data(),
        ],
    )
    .await?;
    tx.execute(
        "INSERT INTO user_event (event, realm, user_name) VALUES ($1, $2, $3)",
        &[&n, &event.realm.as_deref(), &&*event.user],
    )
    .await?;
    Ok(())
}
