//! The ledger as lists for people: events, as they were emitted; sessions by their end; what is on record of gaps, of
//! bytes that no session bills, and of what the database would not take.

use turnhook_reducer::{
    event::{EventId, EventType, SessionEnd, SessionId},
    message::AllocationId,
    time::Timestamp,
    usage::Usage,
};

use crate::{
    Backend, Ledger, View,
    codes::{FIRST_OF_USERS, USAGE},
    error::Result,
    facts,
    query::{Dialect, Query, Value, Values, values},
    record::{Columns, Record},
    session::{self, GapRow, SessionFilter, SessionRow},
};

/// Which of what is on record: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Only of the source of this name.
    pub source: Option<String>,
    /// Only of this time or later; gaps that were not over before it.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
}

/// An event as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedEvent {
    /// Rises with every event of the store.
    pub number: i64,
    /// The `webhook-id`.
    pub id: EventId,
    /// Its session.
    pub session: SessionId,
    /// Its source's name.
    pub source: String,
    /// Its type.
    pub event_type: EventType,
    /// Its place in the session.
    pub sequence: u32,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// The session that this one corrects.
    pub continues: Option<SessionId>,
    /// Empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// When the session started.
    pub started_at: Timestamp,
    /// Only of an end.
    pub end: Option<SessionEnd>,
    /// Since the session's start.
    pub usage: Usage,
    /// Since its previous event.
    pub usage_delta: Usage,
}

/// Bytes that were heard of and are billed in no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnattributedRow {
    /// Rises with every one.
    pub number: i64,
    /// The source's name.
    pub source: String,
    /// When that was decided.
    pub at: Timestamp,
    /// Its server, where that is known.
    pub server: Option<Vec<u8>>,
    /// The allocation's realm.
    pub realm: Vec<u8>,
    /// The allocation's username.
    pub username: Vec<u8>,
    /// The allocation.
    pub allocation: AllocationId,
    /// When it opened.
    pub opened_at: Timestamp,
    /// Why it is not billed, as in the reducer's reasons.
    pub reason: String,
    /// What is billed nowhere else.
    pub usage: Usage,
}

/// What the database would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Rises with every one.
    pub number: i64,
    /// The source's name.
    pub source: String,
    /// When it was tried.
    pub at: Timestamp,
    /// `event`, `state`, `unattributed` or `gap`.
    pub kind: String,
    /// Which.
    pub name: String,
    /// What the database said.
    pub error: String,
}

/// A gap, and its number: it rises with every one.
pub type NumberedGap = (i64, GapRow);

impl Ledger {
    /// The nodes that share the store, and who holds what; `None` on SQLite, where there is but one.
    ///
    /// # Errors
    /// The database's.
    pub async fn nodes(&self) -> Result<Option<View>> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(None),
            Backend::Postgres(db) => db.cluster().view().await.map(Some),
        }
    }

    /// The number of the newest event; 0 where there is none.
    ///
    /// # Errors
    /// The disk's.
    pub async fn newest_event(&self) -> Result<i64> {
        let found = self
            .0
            .ask("SELECT coalesce(max(id), 0) FROM event", values![])
            .await?;
        Ok(found.first().map_or(0, |(newest,)| *newest))
    }

    /// Events of sessions with numbers above `after`, in the order in which they were committed. Retention trims those
    /// that were delivered.
    ///
    /// # Errors
    /// The disk's.
    pub async fn emitted_events(
        &self,
        filter: &RecordFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<EmittedEvent>> {
        let columns = "t.id, t.event_id, t.session_id, c.name, t.type, t.sequence, t.at, t.data";
        let mut asked = Asked::new(self.0.dialect(), columns, "event t", "t");
        asked.and(&format!("t.type < {FIRST_OF_USERS} AND t.id > ?"), after);
        asked.record(filter, ["t.at"; 2]);
        self.0.list(asked.ordered("t.id", limit)).await
    }

    /// Sessions that ended from `from` on and before `to`, by when they ended; the next page is `after` the last of
    /// this. Of the filter, the source, the realm and the user count.
    ///
    /// # Errors
    /// The disk's.
    pub async fn sessions_ended(
        &self,
        filter: &SessionFilter,
        from: Timestamp,
        to: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        if after.is_none() {
            self.0.catch_up().await?;
        }
        self.0
            .list(ended(self.0.dialect(), filter, from, to, after, limit))
            .await
    }

    /// Gaps on record with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn gaps_on_record(
        &self,
        filter: &RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<NumberedGap>> {
        let columns = "t.id, c.name, t.from_at, t.to_at, t.reason, t.server";
        let times = ["t.to_at", "t.from_at"];
        let found: Vec<Option<NumberedGap>> = self
            .on_record(columns, "gap t", filter, before, times, limit)
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// What no session bills, with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn unattributed(
        &self,
        filter: &RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UnattributedRow>> {
        let columns = format!(
            "t.id, c.name, t.at, t.server, t.realm, t.username, t.allocation, t.opened_at, t.reason, {USAGE}"
        );
        self.on_record(&columns, "unattributed t", filter, before, ["t.at"; 2], limit)
            .await
    }

    /// What the database would not take, with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn refused_rows(
        &self,
        filter: &RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<RefusedRow>> {
        let columns = "t.id, c.name, t.at, t.kind, t.name, t.error";
        self.on_record(columns, "refused t", filter, before, ["t.at"; 2], limit)
            .await
    }

    /// What is on record in a table, latest first: below number `before`, and by the filter.
    async fn on_record<T: Record + Send + 'static>(
        &self,
        columns: &str,
        table: &str,
        filter: &RecordFilter,
        before: Option<i64>,
        times: [&str; 2],
        limit: usize,
    ) -> Result<Vec<T>> {
        let mut asked = Asked::new(self.0.dialect(), columns, table, "t");
        asked.and("t.id < ?", before.unwrap_or(i64::MAX));
        asked.record(filter, times);
        self.0.list(asked.ordered("t.id DESC", limit)).await
    }
}

/// A query under construction: conditions and their values.
struct Asked<'d> {
    sql: String,
    values: Values<'d>,
}

impl<'d> Asked<'d> {
    /// Rows of a table by a name, and their source `c`.
    fn new(dialect: &'d Dialect, columns: &str, table: &str, name: &str) -> Asked<'d> {
        let join = dialect.join;
        Asked {
            sql: format!("SELECT {columns} FROM {table} {join} source c ON c.id = {name}.source WHERE TRUE"),
            values: Values::new(dialect),
        }
    }

    /// A condition with a value in the place of `?`.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        let place = self.values.place(value);
        self.sql += " AND ";
        self.sql += &condition.replace('?', &place);
    }

    /// By the filter; the columns are those of when it was over, and of when it was.
    fn record(&mut self, filter: &RecordFilter, [over, was]: [&str; 2]) {
        if let Some(source) = &filter.source {
            self.and("c.name = ?", source.clone());
        }
        if let Some(since) = filter.since {
            self.and(&format!("{over} >= ?"), since);
        }
        if let Some(until) = filter.until {
            self.and(&format!("{was} < ?"), until);
        }
    }

    /// The whole, in an order.
    fn ordered(mut self, order: &str, limit: usize) -> Query {
        let limit = self.values.place(limit as u64);
        (
            format!("{} ORDER BY {order} LIMIT {limit}", self.sql),
            self.values.values,
        )
    }
}

/// Sessions that ended, by their end.
pub(crate) fn ended(
    dialect: &Dialect,
    filter: &SessionFilter,
    from: Timestamp,
    to: Timestamp,
    after: Option<(Timestamp, SessionId)>,
    limit: usize,
) -> Query {
    let table = dialect.by_end.replacen("session", "session s", 1);
    let mut asked = Asked::new(dialect, &session::columns(dialect), &table, "s");
    asked.and("s.ended_at >= ?", from);
    asked.and("s.ended_at < ?", to);
    if let Some((at, id)) = after {
        // Written out: that is what the index is walked by.
        asked.and("s.ended_at >= ?", at);
        let (at, id) = (asked.values.place(at), asked.values.place(id));
        asked.sql += &format!(" AND (s.ended_at, s.id) > ({at}, {id})");
    }
    if let Some(source) = &filter.source {
        asked.and("c.name = ?", source.clone());
    }
    if let Some(realm) = &filter.realm {
        asked.and("s.realm = ?", realm.clone());
    }
    if let Some(user) = &filter.user {
        asked.and(&format!("s.{} = ?", dialect.user), user.clone());
    }
    asked.ordered("s.ended_at, s.id", limit)
}

impl Record for EmittedEvent {
    fn read<R: Columns>(row: &R) -> Result<EmittedEvent, R::Error> {
        let facts = facts::unpack_facts(row.value(7)?).ok_or_else(|| R::damaged("event"))?;
        Ok(EmittedEvent {
            number: row.value(0)?,
            id: row.value(1)?,
            session: row.value(2)?,
            source: row.value(3)?,
            event_type: row.value(4)?,
            sequence: row.value(5)?,
            timestamp: row.value(6)?,
            continues: facts.continues,
            realm: facts.realm,
            user: facts.user,
            started_at: facts.started_at,
            end: facts.end,
            usage: facts.usage,
            usage_delta: facts.usage_delta,
        })
    }
}

/// `None` for a reason that this version does not know.
impl Record for Option<NumberedGap> {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let (number, source) = (row.value(0)?, row.value(1)?);
        Ok(session::gap(row, 2)?.map(|gap| (number, GapRow { source, gap })))
    }
}

impl Record for UnattributedRow {
    fn read<R: Columns>(row: &R) -> Result<UnattributedRow, R::Error> {
        let server: Vec<u8> = row.value(3)?;
        Ok(UnattributedRow {
            number: row.value(0)?,
            source: row.value(1)?,
            at: row.value(2)?,
            server: (!server.is_empty()).then_some(server),
            realm: row.value(4)?,
            username: row.value(5)?,
            allocation: AllocationId(row.value(6)?),
            opened_at: row.value(7)?,
            reason: row.value(8)?,
            usage: row.usage(9)?,
        })
    }
}

impl Record for RefusedRow {
    fn read<R: Columns>(row: &R) -> Result<RefusedRow, R::Error> {
        Ok(RefusedRow {
            number: row.value(0)?,
            source: row.value(1)?,
            at: row.value(2)?,
            kind: row.value(3)?,
            name: row.value(4)?,
            error: row.value(5)?,
        })
    }
}
