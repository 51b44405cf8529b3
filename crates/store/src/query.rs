//! What people ask for, as conditions in SQL: the same on every database but for a few words.

use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use crate::{
    codes::{self, int},
    delivery::{Attempt, DeliveryCursor, DeliveryFilter, DeliveryRow, DeliveryState, ReplayId},
    ids::{DeliveryId, SourceId},
    record::{Columns, Record},
};

/// Given with a statement, in the place of its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// What becomes which kind of value.
macro_rules! values_from {
    ($($of:ty => $kind:ident, $value:expr;)*) => {$(
        impl From<$of> for Value {
            fn from(value: $of) -> Value {
                Value::$kind($value(value))
            }
        }
    )*};
}

values_from! {
    i64 => Int, |v| v;
    u64 => Int, int;
    Timestamp => Int, |t: Timestamp| int(t.0);
    SourceId => Int, |id: SourceId| id.0.into();
    String => Text, |v| v;
    Vec<u8> => Bytes, |v| v;
    EventId => Bytes, |id: EventId| id.0.to_vec();
    SessionId => Bytes, |id: SessionId| id.0.to_vec();
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// The values of a statement.
macro_rules! values {
    ($($value:expr),*) => {
        vec![$($crate::query::Value::from($value)),*]
    };
}
pub(crate) use values;

/// A statement and its values.
pub(crate) type Query = (String, Vec<Value>);

/// The values of a statement that is being written.
pub(crate) struct Values<'d> {
    pub(crate) dialect: &'d Dialect,
    pub(crate) values: Vec<Value>,
}

impl<'d> Values<'d> {
    pub(crate) fn new(dialect: &'d Dialect) -> Values<'d> {
        Values {
            dialect,
            values: Vec::new(),
        }
    }

    /// What stands in the statement in the place of a value.
    pub(crate) fn place(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("{}{}", self.dialect.mark, self.values.len())
    }
}

/// How a database wants it. The walks name the tables `e` (event), `d` (delivery), `l` (session_event) and `s`
/// (session), outermost first.
pub(crate) struct Dialect {
    /// Before a value's number.
    pub(crate) mark: char,
    /// Events by their ids.
    pub(crate) keys: &'static str,
    /// The column of `keys` by which it walks.
    pub(crate) key: &'static str,
    /// Events of a session.
    pub(crate) session: &'static str,
    /// The column of `session` by which it walks.
    pub(crate) session_id: &'static str,
    /// A user's events, and those of his sessions; he is value 1.
    pub(crate) user_events: &'static str,
    /// From any of these three to the deliveries of the events.
    pub(crate) deliveries: &'static str,
    /// Pending deliveries.
    pub(crate) pending: &'static str,
    /// Dead letters.
    pub(crate) dead: &'static str,
    /// From these two to their events.
    pub(crate) event: &'static str,
    /// From a delivery to its endpoint `p`, where the walk has not come by it.
    pub(crate) endpoint: &'static str,
    /// The column that holds a user: the word is one of SQL's own in some databases.
    pub(crate) user: &'static str,
    /// Deliveries by the replay that they were queued by.
    pub(crate) replayed: &'static str,
    /// Between two tables, the outer one first.
    pub(crate) join: &'static str,
    /// Sessions by when they ended.
    pub(crate) by_end: &'static str,
    /// Compares what may be NULL.
    pub(crate) is: &'static str,
}

impl Dialect {
    /// A statement with its values in the places `?1`, `?2` …, as this database wants it.
    pub(crate) fn say(&self, sql: &str) -> String {
        sql.replace('?', &self.mark.to_string())
    }
}

/// Where a search begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    Keys,
    Session,
    User,
    Pending,
    Dead,
}

/// A search for deliveries.
pub(crate) struct Deliveries<'a> {
    values: Values<'a>,
    walk: Walk,
    conditions: Vec<String>,
    joined: &'static str,
}

impl<'a> Deliveries<'a> {
    /// Walks from where there is least to look at; `few` says that there are only a few in the state asked for.
    pub(crate) fn new(dialect: &'a Dialect, filter: &DeliveryFilter, few: bool) -> Deliveries<'a> {
        let walk = if !filter.ids.is_empty() {
            Walk::Keys
        } else if filter.session.is_some() {
            Walk::Session
        } else if filter.user.is_some() {
            Walk::User
        } else if few && filter.states == [DeliveryState::Pending] {
            Walk::Pending
        } else if few && filter.states == [DeliveryState::Dead] {
            Walk::Dead
        } else {
            Walk::Keys
        };
        let mut q = Deliveries {
            values: Values::new(dialect),
            walk,
            conditions: Vec::new(),
            joined: "",
        };
        if let Some(user) = filter.user.clone().filter(|_| walk == Walk::User) {
            q.place(user);
        }
        if !filter.ids.is_empty() {
            let list: Vec<String> = filter.ids.iter().map(|id| q.place(*id)).collect();
            q.add(format!("{} IN ({})", dialect.key, list.join(", ")));
        }
        if let Some(session) = filter.session {
            let v = q.place(session);
            let column = if walk == Walk::Session {
                dialect.session_id
            } else {
                "e.session_id"
            };
            q.add(format!("{column} = {v}"));
        }
        if let Some(user) = filter.user.as_ref().filter(|_| walk != Walk::User) {
            let v = q.place(user.clone());
            let column = dialect.user;
            q.add(format!(
                "(EXISTS (SELECT 1 FROM session s WHERE s.id = e.session_id AND s.{column} = {v}) \
                 OR EXISTS (SELECT 1 FROM user_event u WHERE u.event = e.id AND u.{column} = {v}))"
            ));
        }
        if let Some(endpoint) = &filter.endpoint {
            let v = q.place(endpoint.clone());
            q.add(format!("d.endpoint = (SELECT id FROM endpoint WHERE name = {v})"));
        }
        if !filter.states.is_empty() {
            q.add(format!(
                "d.state IN ({})",
                list(filter.states.iter().map(|s| codes::state_code(*s)))
            ));
        }
        if !filter.event_types.is_empty() {
            q.add(format!(
                "e.type IN ({})",
                list(filter.event_types.iter().map(|t| codes::type_code(*t)))
            ));
        }
        for (time, compare) in [(filter.since, ">="), (filter.until, "<")] {
            let Some(time) = time else { continue };
            if walk == Walk::Keys {
                let v = q.place(first_id_at(time));
                q.add(format!("{} {compare} {v}", dialect.key));
            }
            let v = q.place(time);
            q.add(format!("e.at {compare} {v}"));
        }
        q
    }

    /// Only what is listed after this one, newest first.
    pub(crate) fn after(&mut self, after: DeliveryCursor) {
        let order = self.order();
        let (event, id) = (self.place(after.event_id), self.place(after.id.0));
        self.add(format!(
            "{order} <= {event} AND ({order} < {event} OR d.id < {id})"
        ));
    }

    /// The column by which it is ordered: that of the walk, so that nothing is sorted that need not be.
    pub(crate) fn order(&self) -> &'static str {
        match self.walk {
            Walk::Keys => self.values.dialect.key,
            _ => "e.event_id",
        }
    }

    fn place(&mut self, value: impl Into<Value>) -> String {
        self.values.place(value)
    }

    fn add(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    /// With rows of another table for each of them.
    pub(crate) fn joined(self, joined: &'static str) -> Deliveries<'a> {
        Deliveries { joined, ..self }
    }

    /// A page of them, newest event first.
    pub(crate) fn page(mut self, limit: usize) -> Query {
        let (order, limit) = (self.order(), self.place(limit as u64));
        let columns = listed(self.values.dialect);
        self.query(
            &columns,
            &format!("ORDER BY {order} DESC, d.id DESC LIMIT {limit}"),
        )
    }

    /// These columns of them, with what follows the conditions.
    pub(crate) fn query(self, columns: &str, tail: &str) -> Query {
        let dialect = self.values.dialect;
        // Written out, so that the index of just these is taken.
        let (from, on, walked) = match self.walk {
            Walk::Keys => (dialect.keys, dialect.deliveries, "TRUE"),
            Walk::Session => (dialect.session, dialect.deliveries, "TRUE"),
            Walk::User => (dialect.user_events, dialect.deliveries, "TRUE"),
            Walk::Pending => (dialect.pending, dialect.event, "d.state = 0"),
            Walk::Dead => (dialect.dead, dialect.event, "d.state = 2"),
        };
        let endpoint = if columns.contains("p.") {
            dialect.endpoint
        } else {
            ""
        };
        let mut sql = format!(
            "SELECT {columns} FROM {from} {on} {endpoint} {} WHERE {walked}",
            self.joined
        );
        for condition in &self.conditions {
            sql.push_str(" AND ");
            sql.push_str(condition);
        }
        sql.push(' ');
        sql.push_str(tail);
        (sql, self.values.values)
    }
}

/// What is listed of a delivery.
pub(crate) fn listed(dialect: &Dialect) -> String {
    let user = dialect.user;
    format!(
        "{COLUMNS}, coalesce((SELECT s.{user} FROM session s WHERE s.id = e.session_id), \
         (SELECT u.{user} FROM user_event u WHERE u.event = e.id))"
    )
}

const COLUMNS: &str = "d.id, p.name, e.event_id, e.type, e.session_id, e.sequence, e.at, d.state, d.attempts, \
     d.first_attempt_at, d.at, d.latency_ms, d.reason, d.replay";

/// How many columns [`listed`] are.
pub(crate) const LISTED: usize = 15;

impl Record for DeliveryRow {
    fn read<R: Columns>(row: &R) -> Result<DeliveryRow, R::Error> {
        let (state, at): (DeliveryState, Timestamp) = (row.value(7)?, row.value(10)?);
        // A first attempt that succeeded leaves only when it was over.
        let latency: u64 = row.value(11)?;
        let began = (state == DeliveryState::Delivered).then(|| Timestamp(at.0.saturating_sub(latency)));
        Ok(DeliveryRow {
            id: DeliveryId(row.value(0)?),
            endpoint: row.value(1)?,
            event_id: row.value(2)?,
            event_type: row.value(3)?,
            session_id: row.value(4)?,
            user: row.maybe(14)?,
            sequence: row.value(5)?,
            timestamp: row.value(6)?,
            state,
            attempts: row.value(8)?,
            first_attempt_at: row.maybe(9)?.or(began),
            next_attempt_at: (state == DeliveryState::Pending).then_some(at),
            finished_at: (state != DeliveryState::Pending).then_some(at),
            reason: row.maybe(12)?,
            replay: row.maybe(13)?.map(ReplayId),
        })
    }
}

impl DeliveryRow {
    /// The attempt that succeeded: it leaves no row of its own.
    pub(crate) fn success(&self, status: Option<u16>, latency_ms: u64) -> Attempt {
        let over = self.finished_at.unwrap_or_default();
        Attempt {
            number: self.attempts,
            at: Timestamp(over.0.saturating_sub(latency_ms)),
            latency_ms: u32::try_from(latency_ms).unwrap_or(u32::MAX),
            status: Some(status.unwrap_or(200)),
            error: None,
            answer: None,
        }
    }
}

/// How a replay is spread out.
#[derive(Clone, Copy)]
pub(crate) struct Pace(Option<f64>);

impl Pace {
    /// So many a second.
    pub(crate) fn new(rate: Option<f64>) -> Pace {
        Pace(rate.filter(|r| r.is_finite() && *r > 0.0).map(|r| 1000.0 / r))
    }

    /// How long the `n`th waits.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub(crate) fn wait_ms(self, n: usize) -> u64 {
        self.0.map_or(0, |gap| (n as f64 * gap) as u64)
    }
}

/// The lowest id of an event or session of that time: they begin with their timestamps.
pub(crate) fn first_id_at(time: Timestamp) -> Vec<u8> {
    let mut low = [0u8; 16];
    low[..6].copy_from_slice(&time.0.min((1 << 48) - 1).to_be_bytes()[2..]);
    low.to_vec()
}

fn list(codes: impl Iterator<Item = i64>) -> String {
    codes.map(|c| c.to_string()).collect::<Vec<_>>().join(", ")
}
