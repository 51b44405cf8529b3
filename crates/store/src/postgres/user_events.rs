//! Events of users.

use std::sync::{Arc, LazyLock};

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use turnhook_reducer::outbox::Delivery;

use super::rows::{self, Read as _, one};
use super::{Fault, Postgres, attempt, blocks, commit::NUMBER, moves::Moves};
use crate::{
    codes::{PENDING, int, nat, type_code},
    error::Result,
    ids::DeliveryId,
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
         FROM block_change b LEFT JOIN block_change p ON p.id = (SELECT max(x.id) FROM block_change x \
         WHERE x.user_name = b.user_name AND x.realm IS NOT DISTINCT FROM b.realm AND x.id < b.id) \
         WHERE b.id > $1 ORDER BY b.id LIMIT $2"
    )
});

impl Postgres {
    pub(crate) async fn untold_changes(&self, limit: usize) -> Result<Untold> {
        attempt!(&self.db, client => {
            let from = nat(one(client, "SELECT told_change FROM store WHERE id = 1", &[]).await?.read(0)?);
            let mut untold = Untold {
                from,
                upto: from,
                changes: Vec::new(),
            };
            for row in client.query(&*UNTOLD, &[&int(from), &int(limit as u64)]).await? {
                untold.upto = nat(row.read(0)?);
                untold.changes.extend(read(&row)?);
            }
            Ok(untold)
        })
    }

    pub(crate) async fn tell(&self, telling: Arc<Telling>) -> Result<Option<Vec<Delivery>>> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let told = tell(&tx, &telling).await?;
            tx.commit().await?;
            Ok(told)
        })
    }
}

async fn tell(tx: &Transaction<'_>, telling: &Telling) -> Result<Option<Vec<Delivery>>, Fault> {
    // Of two nodes the second one waits here, and finds that there is nothing left for it.
    let moved = "UPDATE store SET told_change = $2 WHERE id = 1 AND told_change = $1";
    if tx
        .execute(moved, &[&int(telling.from), &int(telling.upto)])
        .await?
        == 0
    {
        return Ok(None);
    }
    for (change, endpoints) in &telling.told {
        let sql = "UPDATE block_change SET told = $2 WHERE id = $1";
        tx.execute(sql, &[&int(*change), &pack_told(endpoints)]).await?;
    }
    let mut deliveries = Vec::new();
    if telling.events.is_empty() {
        return Ok(Some(deliveries));
    }
    let mut moves = Moves::default();
    let count = int(telling.events.len() as u64);
    let last: i64 = one(tx, NUMBER, &[&count]).await?.read(0)?;
    for (n, new) in (last - count + 1..).zip(&telling.events) {
        insert(tx, n, new).await?;
        let session = new.session_column();
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

fn read(row: &Row) -> Result<Option<UntoldChange>, Fault> {
    let Some(change) = blocks::read(row)? else {
        return Ok(None);
    };
    let before = match rows::maybe_code(row, 10)? {
        Some(0) => Some(Earlier {
            until: rows::maybe_time(row, 11)?,
            told: unpack_told(row.read(12)?),
        }),
        _ => None,
    };
    let quota: Option<&[u8]> = row.read(9)?;
    Ok(Some(UntoldChange {
        row: change,
        quota: quota.and_then(unpack_quota),
        before,
        again: row.read(13)?,
    }))
}
