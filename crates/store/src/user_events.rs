//! Events of users: made of the changes of the blocks, in their order, whichever process made these. How far they have
//! been sent is kept in the store, and moves in the transaction that writes the events down: so each is made exactly
//! once.

use std::sync::Arc;

use bytes::Bytes;
use turnhook_reducer::{
    outbox::Delivery,
    time::Timestamp,
    user_event::{QuotaReached, UserEvent},
};

use crate::{
    Admin, Outbox,
    block::{self, BlockRow, Whom},
    error::Result,
    facts,
    ids::{DeliveryId, EndpointId},
    on,
    query::{Dialect, values},
    quota::unpack_quota,
    record::{Columns, Record},
};

/// Changes of which nobody has been notified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingChanges {
    /// The last change of which everybody has been notified.
    pub from: u64,
    /// Up to which these are.
    pub upto: u64,
    /// In order.
    pub changes: Vec<PendingChange>,
}

/// A change of which nobody has been notified, and what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// The change.
    pub row: BlockRow,
    /// What a quota said that made it.
    pub quota: Option<QuotaReached>,
    /// The block that it ends, or takes the place of.
    pub before: Option<Earlier>,
    /// Whether a quota had the same session ended before.
    pub again: bool,
}

/// A block of the same user and realm that was the last change there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Until when it was to hold.
    pub until: Option<Timestamp>,
    /// Who was notified of it, as far as that was decided when this was read.
    pub notified: Vec<EndpointId>,
}

/// The events of changes, written down in one transaction.
#[derive(Clone, Debug, Default)]
pub struct UserEventBatch {
    /// As in [`PendingChanges`].
    pub from: u64,
    /// As in [`PendingChanges`].
    pub upto: u64,
    /// In order.
    pub events: Vec<NewUserEvent>,
    /// Who is notified of a block, by the number of its change.
    pub notified: Vec<(u64, Vec<EndpointId>)>,
}

/// A user's event to be sent.
#[derive(Clone, Debug)]
pub struct NewUserEvent {
    /// What happened.
    pub event: UserEvent,
    /// The number of its change.
    pub change: u64,
    /// The bytes to send, on every attempt the same.
    pub body: Bytes,
    /// Whom it goes to, each at most once.
    pub endpoints: Arc<[EndpointId]>,
}

impl NewUserEvent {
    /// What stands in the place of a sequence number: deliveries go out by it.
    pub(crate) fn sequence(&self) -> u32 {
        u32::try_from(self.change).unwrap_or(u32::MAX)
    }

    pub(crate) fn data(&self) -> Vec<u8> {
        facts::pack_user_event(&self.body)
    }

    /// One of its deliveries, which nobody has tried.
    pub(crate) fn delivery(&self, id: DeliveryId) -> Delivery {
        Delivery {
            id,
            endpoint: id.endpoint(),
            event_id: self.event.id,
            event_type: self.event.event_type,
            session_id: self.event.order_key(),
            sequence: self.sequence(),
            timestamp: self.event.timestamp,
            body: self.body.clone(),
            sent: None,
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: self.event.timestamp,
        }
    }
}

impl Outbox {
    /// Changes of the blocks of which nobody has been notified, in order.
    ///
    /// # Errors
    /// The disk's.
    pub async fn pending_changes(&self, limit: usize) -> Result<PendingChanges> {
        let upto = self.0.ask("SELECT told_change FROM store", values![]).await?;
        let from = upto.first().map_or(0, |(upto,)| *upto);
        let sql = select_pending(self.0.dialect());
        let found: Vec<Change> = self.0.ask(&sql, values![from, limit.max(1) as u64]).await?;
        Ok(PendingChanges {
            from,
            upto: found.last().map_or(from, |Change(id, _)| *id),
            changes: found.into_iter().filter_map(|Change(_, change)| change).collect(),
        })
    }

    /// Writes down the events of changes, and how far that has come. `None` if another node has done so meanwhile:
    /// nothing is written then. Else the deliveries, to be handed on from memory.
    ///
    /// # Errors
    /// The disk's. An answer may be lost on the way: asked again, it says `None` then.
    pub async fn record_user_events(&self, batch: UserEventBatch) -> Result<Option<Vec<Delivery>>> {
        on!(self, db => db.record_user_events(Arc::new(batch)).await)
    }
}

impl Admin {
    /// Puts on record that the time of blocks is over: of those among these (realm and user) that are the last change
    /// there, and over at `now`. On PostgreSQL they must be over by the database's clock as well, since a node's may be
    /// ahead. How many that are.
    ///
    /// # Errors
    /// The disk's.
    pub async fn expire_blocks(&self, whom: Vec<Whom>, now: Timestamp) -> Result<usize> {
        on!(self, db => db.expire_blocks(whom, now).await)
    }
}

/// The changes, and of each the last one before it in its place.
fn select_pending(dialect: &Dialect) -> String {
    let (columns, Dialect { user, is, .. }) = (block::columns(dialect), dialect);
    format!(
        "SELECT {columns}, b.quota, p.kind, p.until_at, p.told, EXISTS (SELECT 1 FROM block_change s \
         WHERE s.session = b.session AND s.session IS NOT NULL AND s.id < b.id AND s.quota IS NOT NULL) \
         FROM block_change b LEFT JOIN block_change p ON p.id = (SELECT max(x.id) FROM block_change x \
         WHERE x.{user} = b.{user} AND x.realm {is} b.realm AND x.id < b.id) \
         WHERE b.id > ?1 ORDER BY b.id LIMIT ?2"
    )
}

/// The number of a change, and the change, if this version knows what it is.
struct Change(u64, Option<PendingChange>);

impl Record for Change {
    fn read<R: Columns>(row: &R) -> Result<Change, R::Error> {
        let before = match row.maybe::<i64>(10)? {
            Some(0) => Some(Earlier {
                until: row.maybe(11)?,
                notified: unpack_endpoints(row.maybe(12)?),
            }),
            _ => None,
        };
        let (quota, again) = (row.maybe(9)?.and_then(unpack_quota), row.value(13)?);
        let change = Option::<BlockRow>::read(row)?.map(|row| PendingChange {
            row,
            quota,
            before,
            again,
        });
        Ok(Change(row.value(0)?, change))
    }
}

/// Endpoints, two bytes each.
pub(crate) fn pack_endpoints(endpoints: &[EndpointId]) -> Vec<u8> {
    endpoints.iter().flat_map(|id| id.0.to_be_bytes()).collect()
}

fn unpack_endpoints(packed: Option<&[u8]>) -> Vec<EndpointId> {
    let (pairs, _) = packed.unwrap_or_default().as_chunks::<2>();
    pairs
        .iter()
        .map(|id| EndpointId(u16::from_be_bytes(*id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_were_written() {
        let ids = [EndpointId(1), EndpointId(65_535)];
        assert_eq!(unpack_endpoints(Some(&pack_endpoints(&ids))), ids);
        assert_eq!(unpack_endpoints(None), []);
    }
}
