//! A source's commit as rows. What costs time (packing) is done before, on the caller's thread.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;
use turnhook_reducer::{
    event::{EventId, EventType, SessionId, Unattributed},
    source::Gap,
    time::Timestamp,
};

use super::{Fault, Sqlite, int, mem::Mem, nat, rows, state, writer::Job};
use crate::{
    codes::{server, session_key},
    commit::{Commit, Committed, How, Refused},
    delivery::Delivery,
    error::{Error, Result},
    facts,
    ids::{DeliveryId, EndpointId, SourceId},
    user_events::NewUserEvent,
};

impl Sqlite {
    pub(crate) async fn commit(&self, commit: &Commit, how: How<'_>) -> Result<Committed> {
        let ready = Ready::new(commit, how.refused());
        let tried = matches!(how, How::Try).then_some(false);
        self.writer
            .ask(|reply| {
                Box::new(CommitJob {
                    ready,
                    done: Committed::default(),
                    tried,
                    reply,
                })
            })
            .await
    }
}

/// A commit that only has to be written.
struct Ready {
    source: SourceId,
    clock: Timestamp,
    /// Rows of `state_log`; one that is empty carries the time alone.
    changes: Vec<state::Packed>,
    events: Vec<ReadyEvent>,
    unattributed: Vec<Unattributed>,
    gaps: Vec<Gap>,
    refused: Vec<Refused>,
    at_once: bool,
}

struct ReadyEvent {
    id: EventId,
    session: SessionId,
    event_type: EventType,
    sequence: u32,
    at: Timestamp,
    data: Vec<u8>,
    body: Bytes,
    endpoints: Arc<[EndpointId]>,
}

impl Ready {
    fn new(commit: &Commit, refused: &[Refused]) -> Ready {
        let events = commit.events.iter().map(|new| ReadyEvent {
            id: new.event.id,
            session: new.event.session_id,
            event_type: new.event.event_type,
            sequence: new.event.sequence,
            at: new.event.timestamp,
            data: facts::pack_event(&new.event, &new.body),
            body: new.body.clone(),
            endpoints: Arc::clone(&new.endpoints),
        });
        Ready {
            source: commit.source,
            clock: commit.clock,
            changes: state::pack_changes(&commit.changes),
            events: events.collect(),
            unattributed: commit.unattributed.clone(),
            gaps: commit.gaps.clone(),
            refused: refused.to_vec(),
            at_once: commit.at_once,
        }
    }
}

struct CommitJob {
    ready: Ready,
    done: Committed,
    /// Where it is only tried: whether it would have gone through.
    tried: Option<bool>,
    reply: oneshot::Sender<Result<Committed>>,
}

impl Job for CommitJob {
    fn run(&mut self, conn: &Connection, mem: &mut Mem) -> Result<(), Fault> {
        let ready = &self.ready;
        self.done = Committed::default();
        if let Some(through) = &mut self.tried {
            *through = false;
        }
        state::log(conn, &mut mem.log, ready.source, ready.clock, &ready.changes)?;
        let mut inserts = Inserts::prepare(conn)?;
        for event in &ready.events {
            match find_event(conn, mem, event.id)? {
                Some(n) => {
                    self.done.repeated += 1;
                    still_pending(conn, event, n, &mut self.done.deliveries)?;
                }
                None => {
                    inserts.insert(mem, ready.source, event, &mut self.done.deliveries)?;
                }
            }
        }
        for bytes in &ready.unattributed {
            insert_unattributed(conn, ready.source, bytes)?;
        }
        for gap in &ready.gaps {
            conn.prepare_cached("INSERT OR IGNORE INTO gap (source, from_at, to_at, reason, server) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    ready.source.0,
                    int(gap.from.0),
                    int(gap.to.0),
                    gap.reason.as_str(),
                    server(gap.server.as_deref()),
                ])?;
        }
        for one in &ready.refused {
            conn.prepare_cached("INSERT OR IGNORE INTO refused (source, at, kind, name, error, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![ready.source.0, int(ready.clock.0), one.kind, one.name, one.error, one.data])?;
        }
        if self.tried.is_some() {
            // Whatever is said here has the transaction undone, and those that shared it made anew.
            self.tried = Some(true);
            return Err(Error::Closed.into());
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Mem, result: Result<()>) {
        let Self {
            done, tried, reply, ..
        } = *self;
        let result = if tried == Some(true) { Ok(()) } else { result };
        let _ = reply.send(result.map(|()| done));
    }

    fn weight(&self) -> usize {
        1 + self.ready.events.len()
    }

    fn at_once(&self) -> bool {
        self.ready.at_once
    }
}

/// The number of an event that was committed before. Those not in the index yet are in memory, and an id
/// above all that are in the index need not be looked for.
pub(super) fn find_event(conn: &Connection, mem: &Mem, id: EventId) -> rusqlite::Result<Option<i64>> {
    if let Some(n) = mem.recent.get(&id) {
        return Ok(Some(*n));
    }
    if id > mem.newest_key {
        return Ok(None);
    }
    conn.prepare_cached("SELECT event FROM event_key WHERE event_id = ?1")?
        .query_row([id.0], |r| r.get(0))
        .optional()
}

/// The statements that write events, looked up once for all of a commit.
struct Inserts<'c> {
    event: CachedStatement<'c>,
    delivery: CachedStatement<'c>,
}

impl Inserts<'_> {
    fn prepare(conn: &Connection) -> rusqlite::Result<Inserts<'_>> {
        Ok(Inserts {
            event: conn.prepare_cached(
                "INSERT INTO event (id, event_id, session_id, source, type, sequence, at, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?,
            delivery: conn.prepare_cached(
                "INSERT INTO delivery (id, endpoint, session, state, attempts, prior, at, latency_ms) VALUES (?1, ?2, ?3, 0, 0, 0, ?4, ?5)",
            )?,
        })
    }

    fn insert(
        &mut self,
        mem: &mut Mem,
        source: SourceId,
        event: &ReadyEvent,
        deliveries: &mut Vec<Delivery>,
    ) -> rusqlite::Result<i64> {
        let n = mem.new_event(event.id);
        self.event.execute(params![
            n,
            event.id.0,
            event.session.0,
            source.0,
            rows::type_code(event.event_type),
            event.sequence,
            int(event.at.0),
            event.data,
        ])?;
        for endpoint in event.endpoints.iter() {
            let id = DeliveryId::new(n, *endpoint);
            self.delivery.execute(params![
                id.0,
                endpoint.0,
                session_key(event.session),
                int(event.at.0),
                rows::NO_LATENCY
            ])?;
            mem.moves.add(id, None, Some(rows::PENDING));
            deliveries.push(delivery(event, id, 0, None, event.at));
        }
        Ok(n)
    }
}

/// Writes a user's event, which is of no source; its number.
pub(super) fn insert_user_event(
    conn: &Connection,
    mem: &mut Mem,
    new: &NewUserEvent,
    deliveries: &mut Vec<Delivery>,
) -> rusqlite::Result<i64> {
    let event = ReadyEvent {
        id: new.event.id,
        session: new.event.order_key(),
        event_type: new.event.event_type,
        sequence: new.sequence(),
        at: new.event.timestamp,
        data: new.data(),
        body: new.body.clone(),
        endpoints: Arc::clone(&new.endpoints),
    };
    Inserts::prepare(conn)?.insert(mem, SourceId(0), &event, deliveries)
}

/// The pending deliveries of an event that is repeated.
fn still_pending(
    conn: &Connection,
    event: &ReadyEvent,
    n: i64,
    deliveries: &mut Vec<Delivery>,
) -> rusqlite::Result<()> {
    let mut stmt = conn.prepare_cached(
        "SELECT id, attempts - prior, first_attempt_at, at, (SELECT items FROM sent WHERE delivery = delivery.id) \
         FROM delivery WHERE id BETWEEN ?1 AND ?2 AND state = 0",
    )?;
    let mut found = stmt.query([n << 16, (n << 16) | 0xffff])?;
    while let Some(row) = found.next()? {
        let id = DeliveryId(row.get(0)?);
        let mut delivery = delivery(
            event,
            id,
            row.get(1)?,
            rows::maybe_time(row, 2)?,
            rows::time(row, 3)?,
        );
        delivery.sent = row.get::<_, Option<Vec<u8>>>(4)?.map(Into::into);
        deliveries.push(delivery);
    }
    Ok(())
}

fn delivery(
    event: &ReadyEvent,
    id: DeliveryId,
    attempts: u32,
    first: Option<Timestamp>,
    next: Timestamp,
) -> Delivery {
    Delivery {
        id,
        endpoint: id.endpoint(),
        event_id: event.id,
        event_type: event.event_type,
        session_id: event.session,
        sequence: event.sequence,
        timestamp: event.at,
        body: event.body.clone(),
        sent: None,
        attempts,
        first_attempt_at: first,
        next_attempt_at: next,
    }
}

fn insert_unattributed(conn: &Connection, source: SourceId, bytes: &Unattributed) -> rusqlite::Result<()> {
    let [a, b, c, d, e, f, g, h, i] = rows::usage_values(&bytes.usage);
    let sql = format!(
        "INSERT OR IGNORE INTO unattributed (source, at, server, realm, username, allocation, opened_at, reason, {}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        rows::USAGE
    );
    conn.prepare_cached(&sql)?.execute(params![
        source.0,
        int(bytes.at.0),
        server(bytes.server.as_deref()),
        &*bytes.realm,
        &*bytes.username,
        int(bytes.allocation.0),
        int(bytes.opened_at.0),
        bytes.reason.as_str(),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
    ])?;
    Ok(())
}

/// What [`delivery_of`] reads, of a delivery `d` and its event `e`.
pub(super) const DELIVERY: &str = "d.id, e.event_id, e.session_id, e.type, e.sequence, e.at, e.data, d.attempts - d.prior, \
     d.first_attempt_at, d.at, (SELECT s.items FROM sent s WHERE s.delivery = d.id)";

pub(super) fn delivery_of(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let id = DeliveryId(row.get(0)?);
    let data = row.get_ref(6)?.as_blob()?;
    Ok(Delivery {
        id,
        endpoint: id.endpoint(),
        event_id: EventId(row.get(1)?),
        session_id: SessionId(row.get(2)?),
        event_type: rows::event_type(row.get(3)?),
        sequence: row.get(4)?,
        timestamp: Timestamp(nat(row.get(5)?)),
        body: facts::unpack_body(data).ok_or_else(|| rows::damaged("event"))?,
        attempts: row.get(7)?,
        first_attempt_at: rows::maybe_time(row, 8)?,
        next_attempt_at: rows::time(row, 9)?,
        sent: row.get::<_, Option<Vec<u8>>>(10)?.map(Into::into),
    })
}

/// A delivery and its event as they stand in the file; `None` if the row is gone.
pub(super) fn read_delivery(conn: &Connection, id: DeliveryId) -> rusqlite::Result<Option<Delivery>> {
    conn.prepare_cached(&format!(
        "SELECT {DELIVERY} FROM delivery d JOIN event e ON e.id = ?2 WHERE d.id = ?1"
    ))?
    .query_row([id.0, id.event()], delivery_of)
    .optional()
}
