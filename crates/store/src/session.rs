//! The ledger as it is read: sessions, usage by user and day, gaps, and bytes billed in no session.

use std::collections::HashMap;

use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventId, EventType, SessionId},
    source::{Gap, GapReason},
    time::Timestamp,
    usage::Usage,
};

use crate::{
    codes::USAGE,
    delivery::DeliveryState,
    facts,
    ids::DeliveryId,
    query::{Dialect, Query, Value, Values, first_id_at, values},
    record::{Columns, Record},
};

/// Which sessions: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of the source of this name.
    pub source: Option<String>,
    /// Only in this realm.
    pub realm: Option<Vec<u8>>,
    /// Only of this user.
    pub user: Option<Vec<u8>>,
    /// Only open (`true`) or only ended ones (`false`).
    pub open: Option<bool>,
    /// Only those that were open at this time or later.
    pub since: Option<Timestamp>,
    /// Only those that started before this time.
    pub until: Option<Timestamp>,
}

/// A session in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Its source's name.
    pub source: String,
    /// The realm; empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// The usernames of its allocations, at most 50.
    pub usernames: Vec<Vec<u8>>,
    /// Its labels, by name.
    pub labels: Vec<(String, Vec<u8>)>,
    /// When it started.
    pub started_at: Timestamp,
    /// The timestamp of its last event so far.
    pub updated_at: Timestamp,
    /// When it ended, why, and whether its usage is exact; `None` while it is open.
    pub end: Option<(Timestamp, CloseReason, Accuracy)>,
    /// The session that it corrects.
    pub continues: Option<SessionId>,
    /// The sequence number of its last event.
    pub sequence: u32,
    /// False where coturn reports no peer leg.
    pub peer_leg: bool,
    /// How many allocations it counted.
    pub allocations: u64,
    /// The usage in its last event.
    pub usage: Usage,
}

/// An event of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEventRow {
    /// The `webhook-id`.
    pub event_id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// Its place in the session.
    pub sequence: u32,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// What became of it at each endpoint, by name.
    pub deliveries: Vec<(String, DeliveryState)>,
}

/// A session with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDetail {
    /// The session, as a list shows it.
    pub row: SessionRow,
    /// Its events that retention has not trimmed, in sequence.
    pub events: Vec<SessionEventRow>,
    /// The body of the last of them, which lists the allocations.
    pub last_body: Option<bytes::Bytes>,
    /// The gaps of its source while it was open.
    pub gaps: Vec<Gap>,
}

/// What a user used on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDay {
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// The source's name.
    pub source: String,
    /// The realm; empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// Sessions that started on that day, by their events.
    pub started: u64,
    /// Sessions that ended on that day, by their events.
    pub ended: u64,
    /// How many of those ended are `lower_bound`.
    pub lower_bound: u64,
    /// The durations of those ended, in milliseconds.
    pub duration_ms: u64,
    /// The sum of `usage_delta` of all events whose timestamp is on that day.
    pub usage: Usage,
}

/// A gap on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// The source's name.
    pub source: String,
    /// From when to when, and why.
    pub gap: Gap,
}

/// What is listed of sessions `s` of sources `c`.
pub(crate) fn columns(dialect: &Dialect) -> String {
    format!(
        "s.id, c.name, s.started_at, s.updated_at, s.ended_at, s.reason, s.accuracy, s.sequence, s.continues, s.realm, \
         s.{}, s.peer_leg, s.allocations, s.names, {USAGE}",
        dialect.user
    )
}

impl Record for SessionRow {
    fn read<R: Columns>(row: &R) -> Result<SessionRow, R::Error> {
        let (usernames, labels) = facts::unpack_names(row.value(13)?).ok_or_else(|| R::damaged("session"))?;
        Ok(SessionRow {
            id: row.value(0)?,
            source: row.value(1)?,
            started_at: row.value(2)?,
            updated_at: row.value(3)?,
            end: facts::end(row.maybe(4)?, row.maybe(5)?, row.maybe(6)?),
            sequence: row.value(7)?,
            continues: row.maybe(8)?,
            realm: row.value(9)?,
            user: row.maybe(10)?,
            peer_leg: row.value(11)?,
            allocations: row.value(12)?,
            usernames,
            labels,
            usage: row.usage(14)?,
        })
    }
}

/// From four columns: from, to, reason, server. `None` for a reason that this version does not know.
pub(crate) fn gap<R: Columns>(row: &R, first: usize) -> Result<Option<Gap>, R::Error> {
    let server: &[u8] = row.value(first + 3)?;
    let Some(reason) = GapReason::from_text(row.value(first + 2)?) else {
        return Ok(None);
    };
    Ok(Some(Gap {
        from: row.value(first)?,
        to: row.value(first + 1)?,
        reason,
        server: (!server.is_empty()).then(|| server.into()),
    }))
}

impl Record for Option<Gap> {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        gap(row, 0)
    }
}

/// Which of the sessions that are asked for: a listing since some time is made of two, so that neither looks at those
/// that were long over by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All at once.
    All,
    /// Those that began at that time or later: the newest, by their ids.
    Begun,
    /// Those that had begun before, and were not over: found by when they ended.
    Overlapping,
}

impl Part {
    /// Those that a listing is made of, in order.
    pub(crate) fn of(filter: &SessionFilter) -> &'static [Part] {
        // A user's sessions have an index of their own, and are few.
        if filter.since.is_some() && filter.user.is_none() {
            &[Part::Begun, Part::Overlapping]
        } else {
            &[Part::All]
        }
    }
}

/// A page of sessions `s` of sources `c`.
pub(crate) fn page(
    dialect: &Dialect,
    filter: &SessionFilter,
    after: Option<SessionId>,
    limit: usize,
    part: Part,
) -> Query {
    let mut values = Values::new(dialect);
    let (join, user) = (dialect.join, dialect.user);
    let mut from = format!("session s {join} source c ON c.id = s.source");
    if let (Part::Overlapping, Some(since)) = (part, filter.since) {
        let since = values.place(since);
        from = format!(
            "(SELECT id FROM {by_end} WHERE ended_at >= {since} UNION ALL \
             SELECT id FROM {by_end} WHERE ended_at IS NULL) o {join} session s ON s.id = o.id \
             {join} source c ON c.id = s.source",
            by_end = dialect.by_end,
        );
    }
    let mut sql = format!("SELECT {} FROM {from} WHERE TRUE", columns(dialect));
    let mut add = |condition: &str, of: Value| {
        sql.push_str(&condition.replace('?', &values.place(of)));
    };
    if let Some(source) = &filter.source {
        add(" AND c.name = ?", source.clone().into());
    }
    if let Some(realm) = &filter.realm {
        add(" AND s.realm = ?", realm.clone().into());
    }
    if let Some(of) = &filter.user {
        add(&format!(" AND s.{user} = ?"), of.clone().into());
    }
    if let Some(since) = filter.since {
        match part {
            Part::All => {}
            Part::Begun => add(" AND s.id >= ?", first_id_at(since).into()),
            Part::Overlapping => add(" AND s.id < ?", first_id_at(since).into()),
        }
        add(
            " AND coalesce(s.ended_at, 9223372036854775807) >= ?",
            since.into(),
        );
    }
    if let Some(until) = filter.until {
        // Ids begin with the start: what began later is not even looked at.
        add(" AND s.id < ?", first_id_at(until).into());
        add(" AND s.started_at < ?", until.into());
    }
    if let Some(after) = after {
        add(" AND s.id < ?", after.into());
    }
    let open = match filter.open {
        Some(true) => " AND s.ended_at IS NULL",
        Some(false) => " AND s.ended_at IS NOT NULL",
        None => "",
    };
    add(
        &format!("{open} ORDER BY s.id DESC LIMIT ?"),
        (limit as u64).into(),
    );
    (sql, values.values)
}

/// What a session is shown by: itself with its last event, its events, their deliveries, its gaps.
pub(crate) fn shown(dialect: &Dialect, id: SessionId) -> [Query; 4] {
    let (of, columns) = (dialect.session_id, columns(dialect));
    let Dialect {
        session,
        deliveries,
        endpoint,
        ..
    } = dialect;
    [
        format!(
            "SELECT {columns}, (SELECT e.data FROM {session} WHERE {of} = ?1 ORDER BY e.sequence DESC LIMIT 1) \
             FROM session s JOIN source c ON c.id = s.source WHERE s.id = ?1"
        ),
        format!(
            "SELECT e.id, e.event_id, e.type, e.sequence, e.at FROM {session} WHERE {of} = ?1 ORDER BY e.sequence"
        ),
        format!(
            "SELECT d.id, p.name, d.state FROM {session} {deliveries} {endpoint} WHERE {of} = ?1 ORDER BY d.id"
        ),
        "SELECT g.from_at, g.to_at, g.reason, g.server FROM session s JOIN gap g ON g.source = s.source \
         WHERE s.id = ?1 AND g.to_at >= s.started_at AND g.from_at <= coalesce(s.ended_at, 9223372036854775807) \
         ORDER BY g.from_at"
            .to_owned(),
    ]
    .map(|sql| (dialect.say(&sql), values![id]))
}

/// What these queries give.
pub(crate) type Shown = (Vec<WithBody>, Vec<Event>, Vec<EventDelivery>, Vec<Option<Gap>>);

pub(crate) struct WithBody(SessionRow, Option<bytes::Bytes>);
pub(crate) struct Event(i64, SessionEventRow);
pub(crate) struct EventDelivery(DeliveryId, String, DeliveryState);

impl Record for WithBody {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let body = row.maybe(23)?.and_then(facts::unpack_body);
        Ok(WithBody(SessionRow::read(row)?, body))
    }
}

impl Record for Event {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let event = SessionEventRow {
            event_id: row.value(1)?,
            event_type: row.value(2)?,
            sequence: row.value(3)?,
            timestamp: row.value(4)?,
            deliveries: Vec::new(),
        };
        Ok(Event(row.value(0)?, event))
    }
}

impl Record for EventDelivery {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(EventDelivery(
            DeliveryId(row.value(0)?),
            row.value(1)?,
            row.value(2)?,
        ))
    }
}

/// `None` if there is no such session.
pub(crate) fn detail((found, events, deliveries, gaps): Shown) -> Option<SessionDetail> {
    let WithBody(row, last_body) = found.into_iter().next()?;
    let mut of: HashMap<i64, Vec<(String, DeliveryState)>> = HashMap::new();
    for EventDelivery(id, endpoint, state) in deliveries {
        of.entry(id.event()).or_default().push((endpoint, state));
    }
    let with_deliveries = |Event(n, mut event)| {
        event.deliveries = of.remove(&n).unwrap_or_default();
        event
    };
    Some(SessionDetail {
        row,
        events: events.into_iter().map(with_deliveries).collect(),
        last_body,
        gaps: gaps.into_iter().flatten().collect(),
    })
}

impl Record for UsageDay {
    fn read<R: Columns>(row: &R) -> Result<UsageDay, R::Error> {
        let user: Vec<u8> = row.value(3)?;
        Ok(UsageDay {
            day: row.value(0)?,
            source: row.value(1)?,
            realm: row.value(2)?,
            user: (!user.is_empty()).then_some(user),
            started: row.value(4)?,
            ended: row.value(5)?,
            lower_bound: row.value(6)?,
            duration_ms: row.value(7)?,
            usage: row.usage(8)?,
        })
    }
}
