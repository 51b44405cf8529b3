//! A source's commit: what can be written at once first, under the locks of its lease and its source; then the
//! events, under the lock of the counter that numbers them, with all that follows from them.
//!
//! Two exchanges with the server, whatever there is to write; the counter, which all sources share, is locked
//! for the second alone.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Client;
use turnhook_reducer::{event::EventId, time::Timestamp};

use super::rows::{Read as _, id32};
use super::{
    Fault, Postgres, attempt, ledger,
    moves::{self, Moves},
    pipeline::{Pipeline, ROWS, params, undo},
    rows, text,
};
use crate::{
    cluster::LeaseName,
    codes::{PENDING, int, nat, server, session_key, type_code, usage_values},
    commit::{Commit, Committed, How, NewEvent},
    delivery::Delivery,
    error::{Error, Result},
    facts,
    ids::DeliveryId,
};

/// Shared with the beats that renew it (`FOR KEY SHARE`), and not with the taking of it (`FOR UPDATE`).
const FENCE: &str = "SELECT 1 FROM lease WHERE name = $1 AND holder = $2 AND epoch = $3 FOR KEY SHARE";

const CLOCK: &str = "UPDATE source SET clock = $2 WHERE id = $1";

const REMOVE: &str = "DELETE FROM state s USING unnest($2::smallint[], $3::bigint[]) AS u (tbl, key) \
     WHERE s.source = $1 AND s.tbl = u.tbl AND s.key = u.key";

const PUT: &str = "INSERT INTO state (source, tbl, key, value) SELECT $1, u.tbl, u.key, u.value \
     FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) AS u (tbl, key, value) \
     ON CONFLICT (source, tbl, key) DO UPDATE SET value = excluded.value";

const GAPS: &str = "INSERT INTO gap (source, from_at, to_at, reason, server) SELECT $1, u.from_at, u.to_at, u.reason, u.server \
     FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bytea[]) AS u (from_at, to_at, reason, server) \
     ON CONFLICT (source, from_at, to_at, reason, server) DO NOTHING";

const REFUSED: &str = "INSERT INTO refused (source, at, kind, name, error, data) SELECT $1, $2, u.kind, u.name, u.error, u.data \
     FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[]) AS u (kind, name, error, data) \
     ON CONFLICT (source, at, kind, name) DO NOTHING";

const KNOWN: &str = "SELECT event_id, id FROM event WHERE event_id = ANY ($1)";

const STILL_PENDING: &str = "SELECT d.id, d.attempts - d.prior, d.first_attempt_at, d.at, s.items FROM delivery d \
     LEFT JOIN sent s ON s.delivery = d.id WHERE d.id = ANY ($1) AND d.state = 0";

pub(super) const NUMBER: &str = "UPDATE counter SET value = value + $1 WHERE name = 'event' RETURNING value";

/// `$1`: how many events the commit numbers; `u.n`: which of these, from 1.
const EVENTS: &str = "INSERT INTO event (id, event_id, session_id, source, type, sequence, at, data) \
     SELECT c.value - $1 + u.n, u.event_id, u.session_id, $2, u.type, u.sequence, u.at, u.data FROM counter c, \
     unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::smallint[], $7::bigint[], $8::bigint[], $9::bytea[]) \
     AS u (n, event_id, session_id, type, sequence, at, data) WHERE c.name = 'event'";

const DELIVERIES: &str = "INSERT INTO delivery (id, endpoint, session, state, attempts, prior, at, latency_ms) \
     SELECT (c.value - $1 + u.n) << 16 | u.endpoint, u.endpoint, u.session, 0, 0, 0, u.at, 0 FROM counter c, \
     unnest($2::bigint[], $3::integer[], $4::bigint[], $5::bigint[]) AS u (n, endpoint, session, at) WHERE c.name = 'event'";

/// A commit that only has to be written: what costs time is done before anything is locked.
struct Ready<'a> {
    commit: &'a Commit,
    how: How<'a>,
    source: i32,
    node: i64,
    lease: LeaseName,
    /// Of each event.
    data: Vec<Vec<u8>>,
}

impl Postgres {
    pub(crate) async fn commit(&self, commit: &Commit, how: How<'_>) -> Result<Committed> {
        let ready = Ready {
            commit,
            how,
            source: id32(commit.source.0).map_err(|fault| fault.at(self.db.describe()))?,
            node: self.cluster.node().0,
            lease: LeaseName::Source(commit.source),
            data: commit
                .events
                .iter()
                .map(|new| facts::pack_event(&new.event, &new.body))
                .collect(),
        };
        // In the order of the calls, whichever connection is free first.
        let one_at_a_time = self.commit_lock(commit.source);
        let _locked = one_at_a_time.lock().await;
        let rows = commit.changes.len() + 4 * commit.events.len();
        attempt!(&self.db, client for rows => {
            let client = &*client;
            undo(client, ready.write(client).await).await
        })
    }
}

impl Ready<'_> {
    async fn write(&self, client: &Client) -> Result<Committed, Fault> {
        let known = self.first(client).await?;
        let mut second = Pipeline::default();
        let events = self.commit.events.iter().zip(&self.data);
        let mut new: Vec<(&NewEvent, &[u8])> = Vec::new();
        // Each one's place among the new ones, or its number.
        let mut places: HashMap<EventId, Place> =
            known.iter().map(|(id, n)| (*id, Place::Known(*n))).collect();
        for (event, data) in events {
            places.entry(event.event.id).or_insert_with(|| {
                new.push((event, data));
                Place::New(int(new.len() as u64))
            });
        }
        let numbered = (!new.is_empty()).then(|| second.add(NUMBER, params![int(new.len() as u64)]));
        let old: Vec<i64> = self
            .commit
            .events
            .iter()
            .filter_map(|event| known.get(&event.event.id).map(|n| (n, event)))
            .flat_map(|(n, event)| event.endpoints.iter().map(|e| DeliveryId::new(*n, *e).0))
            .collect();
        let has_old = !old.is_empty();
        let still = has_old.then(|| second.add(STILL_PENDING, params![old]));
        self.add_events(&new, &mut second);
        second.add(
            match self.how {
                How::Keep(_) => "COMMIT",
                How::Try => "ROLLBACK",
            },
            params![],
        );
        let answers = second.run(client).await?;

        let last: i64 = match numbered.and_then(|i| answers[i].first()) {
            Some(row) => row.read(0)?,
            None => 0,
        };
        let mut pending: HashMap<DeliveryId, StillPending> = HashMap::new();
        for row in still.iter().flat_map(|i| &answers[*i]) {
            pending.insert(
                DeliveryId(row.read(0)?),
                (
                    rows::number(row, 1)?,
                    rows::maybe_time(row, 2)?,
                    rows::time(row, 3)?,
                    row.read(4)?,
                ),
            );
        }
        let mut done = Committed::default();
        for new_event in &self.commit.events {
            let event = &new_event.event;
            match places.insert(event.id, Place::Answered) {
                Some(Place::New(place)) => {
                    let n = last - int(new.len() as u64) + place;
                    let to = new_event.endpoints.iter();
                    done.deliveries.extend(
                        to.map(|e| delivery(new_event, DeliveryId::new(n, *e), 0, None, event.timestamp)),
                    );
                }
                Some(Place::Known(n)) => {
                    done.repeated += 1;
                    for endpoint in new_event.endpoints.iter() {
                        let id = DeliveryId::new(n, *endpoint);
                        if let Some((attempts, first, next, sent)) = pending.remove(&id) {
                            let mut delivery = delivery(new_event, id, attempts, first, next);
                            delivery.sent = sent.map(Into::into);
                            done.deliveries.push(delivery);
                        }
                    }
                }
                // Twice in one commit.
                Some(Place::Answered) | None => done.repeated += 1,
            }
        }
        Ok(done)
    }

    /// Begins the transaction, and writes all that needs no number; the events that were committed before.
    async fn first(&self, client: &Client) -> Result<BTreeMap<EventId, i64>, Fault> {
        let commit = self.commit;
        let mut first = Pipeline::default();
        first.add("BEGIN", params![]);
        let fence = commit
            .epoch
            .map(|epoch| first.add(FENCE, params![self.lease.to_string(), self.node, epoch.0]));
        // Whoever else writes for this source waits here, so that what is known is still so at the end.
        first.add(CLOCK, params![self.source, int(commit.clock.0)]);
        let (put, remove): (Vec<_>, Vec<_>) = commit.changes.iter().partition(|c| c.value.is_some());
        for some in remove.chunks(ROWS) {
            let tables: Vec<i16> = some.iter().map(|c| c.table as i16).collect();
            let keys: Vec<i64> = some.iter().map(|c| c.key.cast_signed()).collect();
            first.add(REMOVE, params![self.source, tables, keys]);
        }
        for some in put.chunks(ROWS) {
            let tables: Vec<i16> = some.iter().map(|c| c.table as i16).collect();
            let keys: Vec<i64> = some.iter().map(|c| c.key.cast_signed()).collect();
            let values: Vec<&[u8]> = some
                .iter()
                .map(|c| c.value.as_deref().unwrap_or_default())
                .collect();
            first.add(PUT, params![self.source, tables, keys, values]);
        }
        if !commit.gaps.is_empty() {
            let gaps = &commit.gaps;
            first.add(
                GAPS,
                params![
                    self.source,
                    gaps.iter().map(|g| int(g.from.0)).collect::<Vec<_>>(),
                    gaps.iter().map(|g| int(g.to.0)).collect::<Vec<_>>(),
                    gaps.iter().map(|g| g.reason.as_str()).collect::<Vec<_>>(),
                    gaps.iter()
                        .map(|g| server(g.server.as_deref()))
                        .collect::<Vec<_>>(),
                ],
            );
        }
        self.add_unattributed(&mut first);
        let refused = self.how.refused();
        if !refused.is_empty() {
            first.add(
                REFUSED,
                params![
                    self.source,
                    int(commit.clock.0),
                    refused.iter().map(|r| r.kind).collect::<Vec<_>>(),
                    refused.iter().map(|r| text(&r.name)).collect::<Vec<_>>(),
                    refused.iter().map(|r| text(&r.error)).collect::<Vec<_>>(),
                    refused.iter().map(|r| r.data.as_deref()).collect::<Vec<_>>(),
                ],
            );
        }
        let ids: Vec<&[u8]> = commit.events.iter().map(|e| &e.event.id.0[..]).collect();
        let known = (!ids.is_empty()).then(|| first.add(KNOWN, params![ids]));
        let answers = first.run(client).await?;
        if fence.is_some_and(|i| answers[i].is_empty()) {
            return Err(Error::LeaseLost { lease: self.lease }.into());
        }
        let mut found = BTreeMap::new();
        for row in known.iter().flat_map(|i| &answers[*i]) {
            found.insert(rows::event_id(row, 0)?, row.read(1)?);
        }
        Ok(found)
    }

    fn add_unattributed<'a>(&'a self, to: &mut Pipeline<'a>) {
        let all = &self.commit.unattributed;
        if all.is_empty() {
            return;
        }
        let mut params = params![
            self.source,
            all.iter().map(|u| int(u.at.0)).collect::<Vec<_>>(),
            all.iter()
                .map(|u| server(u.server.as_deref()))
                .collect::<Vec<_>>(),
            all.iter().map(|u| &*u.realm).collect::<Vec<_>>(),
            all.iter().map(|u| &*u.username).collect::<Vec<_>>(),
            all.iter().map(|u| int(u.allocation.0)).collect::<Vec<_>>(),
            all.iter().map(|u| int(u.opened_at.0)).collect::<Vec<_>>(),
            all.iter().map(|u| u.reason.as_str()).collect::<Vec<_>>(),
        ];
        params.extend(ledger::columns(all.iter().map(|u| usage_values(&u.usage))));
        to.add(&ledger::UNATTRIBUTED, params);
    }

    fn add_events<'a>(&'a self, new: &[(&'a NewEvent, &'a [u8])], to: &mut Pipeline<'a>) {
        if new.is_empty() {
            return;
        }
        let count = int(new.len() as u64);
        let numbered: Vec<(i64, &NewEvent, &[u8])> = (1..)
            .zip(new)
            .map(|(n, (event, data))| (n, *event, *data))
            .collect();
        for some in numbered.chunks(ROWS) {
            #[allow(clippy::cast_possible_truncation)]
            let types: Vec<i16> = some
                .iter()
                .map(|(_, e, _)| type_code(e.event.event_type) as i16)
                .collect();
            to.add(
                EVENTS,
                params![
                    count,
                    self.source,
                    some.iter().map(|(n, ..)| *n).collect::<Vec<_>>(),
                    some.iter().map(|(_, e, _)| &e.event.id.0[..]).collect::<Vec<_>>(),
                    some.iter()
                        .map(|(_, e, _)| &e.event.session_id.0[..])
                        .collect::<Vec<_>>(),
                    types,
                    some.iter()
                        .map(|(_, e, _)| i64::from(e.event.sequence))
                        .collect::<Vec<_>>(),
                    some.iter()
                        .map(|(_, e, _)| int(e.event.timestamp.0))
                        .collect::<Vec<_>>(),
                    some.iter().map(|(.., data)| *data).collect::<Vec<_>>(),
                ],
            );
        }
        let mut moves = Moves::default();
        let mut deliveries: Vec<(i64, i32, i64, i64)> = Vec::new();
        for (n, event, _) in &numbered {
            let (session, at) = (session_key(event.event.session_id), int(event.event.timestamp.0));
            for endpoint in event.endpoints.iter() {
                deliveries.push((*n, i32::from(endpoint.0), session, at));
                moves.add(*endpoint, session, None, Some(PENDING));
            }
        }
        for some in deliveries.chunks(ROWS) {
            to.add(
                DELIVERIES,
                params![
                    count,
                    some.iter().map(|d| d.0).collect::<Vec<_>>(),
                    some.iter().map(|d| d.1).collect::<Vec<_>>(),
                    some.iter().map(|d| d.2).collect::<Vec<_>>(),
                    some.iter().map(|d| d.3).collect::<Vec<_>>(),
                ],
            );
        }
        ledger::add(self.source, count, &numbered, to);
        let (endpoints, lanes, pending, dead) = moves.columns();
        if !endpoints.is_empty() {
            to.add(moves::ADD, params![endpoints, lanes, pending, dead]);
        }
    }
}

/// Attempts, the first of them, the next, and what was sent.
type StillPending = (u32, Option<Timestamp>, Timestamp, Option<Vec<u8>>);

/// Of an event of the commit.
#[derive(Clone, Copy)]
enum Place {
    /// Among the new ones, from 1.
    New(i64),
    /// The number that it has had before.
    Known(i64),
    /// Its deliveries are among the answer's already.
    Answered,
}

fn delivery(
    new: &NewEvent,
    id: DeliveryId,
    attempts: u32,
    first: Option<Timestamp>,
    next: Timestamp,
) -> Delivery {
    Delivery {
        id,
        endpoint: id.endpoint(),
        event_id: new.event.id,
        event_type: new.event.event_type,
        session_id: new.event.session_id,
        sequence: new.event.sequence,
        timestamp: new.event.timestamp,
        body: new.body.clone(),
        sent: None,
        attempts,
        first_attempt_at: first,
        next_attempt_at: Timestamp(nat(int(next.0))),
    }
}
