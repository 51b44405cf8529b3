//! Deliveries as the dispatcher looks for them. All are read through indexes of what is pending, by ranges of ids.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use turnhook_reducer::time::Timestamp;

use super::rows::{Read as _, one};
use super::{Fault, Postgres, attempt, rows};
use crate::{
    codes::{event_type, int, nat},
    delivery::Delivery,
    endpoint::Backlog,
    error::Result,
    facts,
    ids::{DeliveryId, EndpointId},
};

/// For each delivery that is wanted of the newest, so many pending ones are looked at.
const LOOK: usize = 16;
/// Or so many, where few are wanted.
const LOOK_LEAST: usize = 4096;
/// And no more than the newest so many events.
const NEWEST: i64 = 100_000;

/// Of a delivery `d` and its event `e`.
const COLUMNS: &str = "d.id, e.event_id, e.session_id, e.type, e.sequence, e.at, e.data, d.attempts - d.prior, \
     d.first_attempt_at, d.at, (SELECT s.items FROM sent s WHERE s.delivery = d.id)";

impl Postgres {
    pub(crate) async fn pending_after(
        &self,
        endpoint: EndpointId,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let (endpoint, limit, lanes) = (i32::from(endpoint.0), int(limit as u64), self.lanes());
        let sql = format!(
            "SELECT {COLUMNS} FROM (SELECT * FROM delivery WHERE endpoint = $1 AND state = 0 AND id > $2 \
             AND ($4::bigint[] IS NULL OR session & 63 = ANY ($4)) ORDER BY id LIMIT $3) d \
             JOIN event e ON e.id = d.id >> 16 ORDER BY d.id"
        );
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(&sql).await?;
            let found = client.query(&statement, &[&endpoint, &after.0, &limit, &lanes]).await?;
            found.iter().map(delivery).collect()
        })
    }

    pub(crate) async fn pending_since(&self, after: DeliveryId, limit: usize) -> Result<Vec<DeliveryId>> {
        let (limit, lanes) = (int(limit as u64), self.lanes());
        // Endpoint by endpoint, each through its index of what is pending: nothing that was delivered is passed by.
        let sql = "SELECT f.id FROM endpoint p CROSS JOIN LATERAL (SELECT id FROM delivery \
             WHERE endpoint = p.id AND state = 0 AND id > $1 AND ($3::bigint[] IS NULL OR session & 63 = ANY ($3)) \
             ORDER BY endpoint, id LIMIT $2) f ORDER BY f.id LIMIT $2";
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(sql).await?;
            let found = client.query(&statement, &[&after.0, &limit, &lanes]).await?;
            found.iter().map(|row| Ok(DeliveryId(row.read(0)?))).collect()
        })
    }

    pub(crate) async fn newest_delivery(&self) -> Result<DeliveryId> {
        attempt!(&self.db, client => {
            let row = one(client, "SELECT value FROM counter WHERE name = 'event'", &[]).await?;
            Ok(DeliveryId::last_of(row.read(0)?))
        })
    }

    pub(crate) async fn newest_due(
        &self,
        endpoint: EndpointId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let (endpoint, lanes) = (i32::from(endpoint.0), self.lanes());
        let look = int((limit * LOOK).max(LOOK_LEAST) as u64);
        let (limit, now) = (int(limit as u64), int(now.0));
        // A subquery for each that is looked at, and no join: this way what is pending is never read as a whole.
        let sql = format!(
            "SELECT {COLUMNS} FROM (SELECT l.id FROM (SELECT id, session, at FROM delivery WHERE endpoint = $1 AND state = 0 \
             AND id >= ((SELECT value FROM counter WHERE name = 'event') - $5) << 16 \
             AND ($6::bigint[] IS NULL OR session & 63 = ANY ($6)) ORDER BY id DESC LIMIT $4) l \
             WHERE l.at <= $2 AND l.id = (SELECT f.id FROM delivery f WHERE f.endpoint = $1 AND f.session = l.session \
             AND f.state = 0 ORDER BY f.endpoint, f.session, f.id LIMIT 1) ORDER BY l.id DESC LIMIT $3) n \
             JOIN delivery d ON d.id = n.id JOIN event e ON e.id = d.id >> 16 ORDER BY d.id DESC"
        );
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(&sql).await?;
            let found = client.query(&statement, &[&endpoint, &now, &limit, &look, &NEWEST, &lanes]).await?;
            found.iter().map(delivery).collect()
        })
    }

    pub(crate) async fn pending_rows(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>> {
        let (ids, lanes) = (numbers(&ids), self.lanes());
        let sql = format!(
            "SELECT {COLUMNS} FROM unnest($1::bigint[]) WITH ORDINALITY AS q (id, n) JOIN delivery d ON d.id = q.id \
             JOIN event e ON e.id = d.id >> 16 \
             WHERE d.state = 0 AND ($2::bigint[] IS NULL OR d.session & 63 = ANY ($2)) ORDER BY q.n"
        );
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(&sql).await?;
            let found = client.query(&statement, &[&ids, &lanes]).await?;
            found.iter().map(delivery).collect()
        })
    }

    pub(crate) async fn still_pending(&self, ids: Vec<DeliveryId>) -> Result<Vec<DeliveryId>> {
        let (ids, lanes) = (numbers(&ids), self.lanes());
        let sql = "SELECT d.id FROM unnest($1::bigint[]) WITH ORDINALITY AS q (id, n) JOIN delivery d ON d.id = q.id \
             WHERE d.state = 0 AND ($2::bigint[] IS NULL OR d.session & 63 = ANY ($2)) ORDER BY q.n";
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(sql).await?;
            let found = client.query(&statement, &[&ids, &lanes]).await?;
            found.iter().map(|row| Ok(DeliveryId(row.read(0)?))).collect()
        })
    }

    pub(crate) async fn backlog(&self) -> Result<BTreeMap<EndpointId, Backlog>> {
        let sql = "SELECT b.endpoint, b.pending, b.dead, CASE WHEN b.pending > 0 THEN \
             (SELECT e.at FROM event e WHERE e.id = (SELECT d.id FROM delivery d \
             WHERE d.endpoint = b.endpoint AND d.state = 0 ORDER BY d.endpoint, d.id LIMIT 1) >> 16) END \
             FROM (SELECT endpoint, sum(pending)::bigint AS pending, sum(dead)::bigint AS dead FROM backlog GROUP BY endpoint) b";
        attempt!(&self.db, client => {
            let statement = client.prepare_cached(sql).await?;
            let mut backlog = BTreeMap::new();
            for row in client.query(&statement, &[]).await? {
                let endpoint: i32 = row.read(0)?;
                backlog.insert(
                    EndpointId(u16::try_from(endpoint).map_err(|_| Fault::damaged("endpoint"))?),
                    Backlog {
                        pending: nat(row.read(1)?),
                        dead: nat(row.read(2)?),
                        oldest: rows::maybe_time(&row, 3)?,
                    },
                );
            }
            Ok(backlog)
        })
    }
}

fn numbers(ids: &[DeliveryId]) -> Vec<i64> {
    ids.iter().map(|id| id.0).collect()
}

/// From [`COLUMNS`].
fn delivery(row: &Row) -> Result<Delivery, Fault> {
    let id = DeliveryId(row.read(0)?);
    Ok(Delivery {
        id,
        endpoint: id.endpoint(),
        event_id: rows::event_id(row, 1)?,
        session_id: rows::session_id(row, 2)?,
        event_type: event_type(rows::code(row, 3)?),
        sequence: rows::number(row, 4)?,
        timestamp: rows::time(row, 5)?,
        body: facts::unpack_body(row.read(6)?).ok_or_else(|| Fault::damaged("event"))?,
        sent: row.read::<Option<Vec<u8>>>(10)?.map(Into::into),
        attempts: rows::number(row, 7)?,
        first_attempt_at: rows::maybe_time(row, 8)?,
        next_attempt_at: rows::time(row, 9)?,
    })
}
