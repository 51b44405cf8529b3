//! What people ask for, as conditions in SQL: the same on every database but for a few words.

use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use crate::{
    codes::{self, int, nat},
    delivery::{Attempt, DeliveryCursor, DeliveryFilter, DeliveryRow, DeliveryState, ReplayId},
    ids::DeliveryId,
    session::SessionFilter,
};

/// Given with a statement, in the place of its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(v: i64) -> Value {
        Value::Int(v)
    }
}

impl From<String> for Value {
    fn from(v: String) -> Value {
        Value::Text(v)
    }
}

impl From<Vec<u8>> for Value {
    fn from(v: Vec<u8>) -> Value {
        Value::Bytes(v)
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
    pub(crate) user: &'static str,
    /// Pending deliveries.
    pub(crate) pending: &'static str,
    /// Dead letters.
    pub(crate) dead: &'static str,
    /// From a delivery to its endpoint `p`, where the walk has not come by it.
    pub(crate) endpoint: &'static str,
    /// The column of `s` that holds the user.
    pub(crate) user_column: &'static str,
    /// Between two tables, the outer one first.
    pub(crate) join: &'static str,
    /// Sessions by when they ended.
    pub(crate) by_end: &'static str,
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
    dialect: &'a Dialect,
    walk: Walk,
    conditions: Vec<String>,
    pub(crate) values: Vec<Value>,
}

impl<'a> Deliveries<'a> {
    /// Walks from where there is least to look at; `few` tells that there are only a few in the state asked for.
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
            dialect,
            walk,
            conditions: Vec::new(),
            values: Vec::new(),
        };
        if walk == Walk::User {
            q.values.extend(filter.user.clone().map(Value::Bytes));
        }
        if !filter.ids.is_empty() {
            let list: Vec<String> = filter.ids.iter().map(|id| q.value(id.0.to_vec())).collect();
            q.add(format!("{} IN ({})", dialect.key, list.join(", ")));
        }
        if let Some(session) = filter.session {
            let v = q.value(session.0.to_vec());
            let column = if walk == Walk::Session {
                dialect.session_id
            } else {
                "e.session_id"
            };
            q.add(format!("{column} = {v}"));
        }
        if let Some(user) = filter.user.as_ref().filter(|_| walk != Walk::User) {
            let v = q.value(user.clone());
            let (column, of_users) = (dialect.user_column, of_users(dialect));
            q.add(format!(
                "(EXISTS (SELECT 1 FROM session s WHERE s.id = e.session_id AND {column} = {v}) \
                 OR EXISTS (SELECT 1 FROM user_event u WHERE u.event = e.id AND {of_users} = {v}))"
            ));
        }
        if let Some(endpoint) = &filter.endpoint {
            let v = q.value(endpoint.clone());
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
                let v = q.value(first_id_at(time));
                q.add(format!("{} {compare} {v}", dialect.key));
            }
            let v = q.value(int(time.0));
            q.add(format!("e.at {compare} {v}"));
        }
        q
    }

    /// Only what is listed after this one, newest first.
    pub(crate) fn after(&mut self, after: DeliveryCursor) {
        let order = self.order();
        let (event, id) = (self.value(after.event_id.0.to_vec()), self.value(after.id.0));
        self.add(format!(
            "{order} <= {event} AND ({order} < {event} OR d.id < {id})"
        ));
    }

    /// The column by which it is ordered: that of the walk, so that nothing is sorted that need not be.
    pub(crate) fn order(&self) -> &'static str {
        match self.walk {
            Walk::Keys => self.dialect.key,
            _ => "e.event_id",
        }
    }

    pub(crate) fn value(&mut self, v: impl Into<Value>) -> String {
        self.values.push(v.into());
        format!("{}{}", self.dialect.mark, self.values.len())
    }

    fn add(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    pub(crate) fn sql(&self, columns: &str, tail: &str) -> String {
        let from = match self.walk {
            Walk::Keys => self.dialect.keys,
            Walk::Session => self.dialect.session,
            Walk::User => self.dialect.user,
            Walk::Pending => self.dialect.pending,
            Walk::Dead => self.dialect.dead,
        };
        // Written out, so that the index of just these is taken.
        let walked = match self.walk {
            Walk::Pending => "d.state = 0",
            Walk::Dead => "d.state = 2",
            _ => "TRUE",
        };
        let endpoint = if columns.contains("p.") {
            self.dialect.endpoint
        } else {
            ""
        };
        let mut sql = format!("SELECT {columns} FROM {from} {endpoint} WHERE {walked}");
        for condition in &self.conditions {
            sql.push_str(" AND ");
            sql.push_str(condition);
        }
        sql.push(' ');
        sql.push_str(tail);
        sql
    }
}

/// What is listed of a delivery, as [`Listed`] takes it.
pub(crate) fn listed(dialect: &Dialect) -> String {
    let (user, of_users) = (dialect.user_column, of_users(dialect));
    format!(
        "{COLUMNS}, coalesce((SELECT {user} FROM session s WHERE s.id = e.session_id), \
         (SELECT {of_users} FROM user_event u WHERE u.event = e.id))"
    )
}

/// The column of `user_event u` that holds the user.
fn of_users(dialect: &Dialect) -> String {
    dialect.user_column.replacen("s.", "u.", 1)
}

const COLUMNS: &str = "d.id, p.name, e.event_id, e.type, e.session_id, e.sequence, e.at, d.state, d.attempts, \
     d.first_attempt_at, d.at, d.latency_ms, d.reason, d.replay";

/// The columns of a listed delivery.
pub(crate) struct Listed {
    pub(crate) id: i64,
    pub(crate) endpoint: String,
    pub(crate) event_id: [u8; 16],
    pub(crate) event_type: i64,
    pub(crate) session_id: [u8; 16],
    pub(crate) sequence: u32,
    pub(crate) timestamp: i64,
    pub(crate) state: i64,
    pub(crate) attempts: u32,
    pub(crate) first_attempt_at: Option<i64>,
    pub(crate) at: i64,
    pub(crate) latency_ms: i64,
    pub(crate) reason: Option<String>,
    pub(crate) replay: Option<i64>,
    pub(crate) user: Option<Vec<u8>>,
}

impl From<Listed> for DeliveryRow {
    fn from(l: Listed) -> DeliveryRow {
        let state = codes::state(l.state);
        let at = Timestamp(nat(l.at));
        // A first attempt that succeeded leaves only when it was over.
        let began =
            (state == DeliveryState::Delivered).then(|| Timestamp(at.0.saturating_sub(nat(l.latency_ms))));
        DeliveryRow {
            id: DeliveryId(l.id),
            endpoint: l.endpoint,
            event_id: EventId(l.event_id),
            event_type: codes::event_type(l.event_type),
            session_id: SessionId(l.session_id),
            user: l.user,
            sequence: l.sequence,
            timestamp: Timestamp(nat(l.timestamp)),
            state,
            attempts: l.attempts,
            first_attempt_at: l.first_attempt_at.map(|ms| Timestamp(nat(ms))).or(began),
            next_attempt_at: (state == DeliveryState::Pending).then_some(at),
            finished_at: (state != DeliveryState::Pending).then_some(at),
            reason: l.reason,
            replay: l.replay.map(ReplayId),
        }
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

/// What follows `FROM` for sessions `s` of sources `c`, and its values.
pub(crate) fn sessions(
    dialect: &Dialect,
    filter: &SessionFilter,
    after: Option<SessionId>,
    limit: usize,
    part: Part,
) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = Vec::new();
    let join = dialect.join;
    let mut sql = format!("session s {join} source c ON c.id = s.source WHERE TRUE");
    let mut value = |value: Value| {
        values.push(value);
        format!("{}{}", dialect.mark, values.len())
    };
    if let (Part::Overlapping, Some(since)) = (part, filter.since) {
        let since = value(int(since.0).into());
        sql = format!(
            "(SELECT id FROM {by_end} WHERE ended_at >= {since} UNION ALL \
             SELECT id FROM {by_end} WHERE ended_at IS NULL) o {join} {sql}",
            by_end = dialect.by_end,
        )
        .replace("session s", "session s ON s.id = o.id");
    }
    let mut add = |condition: &str, of: Value| {
        let of = value(of);
        sql.push_str(&condition.replace('?', &of));
    };
    if let Some(source) = &filter.source {
        add(" AND c.name = ?", source.clone().into());
    }
    if let Some(realm) = &filter.realm {
        add(" AND s.realm = ?", realm.clone().into());
    }
    if let Some(user) = &filter.user {
        add(&format!(" AND {} = ?", dialect.user_column), user.clone().into());
    }
    if let Some(since) = filter.since {
        match part {
            Part::All => {}
            Part::Begun => add(" AND s.id >= ?", first_id_at(since).into()),
            Part::Overlapping => add(" AND s.id < ?", first_id_at(since).into()),
        }
        add(
            " AND coalesce(s.ended_at, 9223372036854775807) >= ?",
            int(since.0).into(),
        );
    }
    if let Some(until) = filter.until {
        // Ids begin with the start: what began later is not even looked at.
        add(" AND s.id < ?", first_id_at(until).into());
        add(" AND s.started_at < ?", int(until.0).into());
    }
    if let Some(after) = after {
        add(" AND s.id < ?", after.0.to_vec().into());
    }
    let open = match filter.open {
        Some(true) => " AND s.ended_at IS NULL",
        Some(false) => " AND s.ended_at IS NOT NULL",
        None => "",
    };
    add(
        &format!("{open} ORDER BY s.id DESC LIMIT ?"),
        int(limit as u64).into(),
    );
    (sql, values)
}

/// The lowest id of an event or session of that time: they begin with their timestamps.
fn first_id_at(time: Timestamp) -> Vec<u8> {
    let mut low = [0u8; 16];
    low[..6].copy_from_slice(&time.0.min((1 << 48) - 1).to_be_bytes()[2..]);
    low.to_vec()
}

fn list(codes: impl Iterator<Item = i64>) -> String {
    codes.map(|c| c.to_string()).collect::<Vec<_>>().join(", ")
}
