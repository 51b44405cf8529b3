//! The ledger as lists for people: what was told, as it was told; sessions by their end; what is on record of gaps, of bytes
//! that no session tells, and of what the database would not take.

use turnhook_reducer::{
    event::{EventId, EventType, SessionEnd, SessionId},
    message::AllocationId,
    time::Timestamp,
    usage::Usage,
};

use crate::{
    Backend, Ledger, View,
    codes::{self, int, nat},
    error::Result,
    facts, on,
    query::{Dialect, Value},
    session::{GapRow, SessionFilter, SessionRow},
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
pub struct ToldEvent {
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

/// Bytes that were heard of and are told in no session.
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
    /// Why it is not told, as in the reducer's reasons.
    pub reason: String,
    /// What is told nowhere else.
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
        on!(self, db => db.newest_event().await)
    }

    /// Events of sessions with numbers above `after`, in the order in which they were committed. Retention trims those that were
    /// delivered.
    ///
    /// # Errors
    /// The disk's.
    pub async fn told_events(
        &self,
        filter: &RecordFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<ToldEvent>> {
        on!(self, db => db.told_events(filter.clone(), after, limit).await)
    }

    /// Sessions that ended from `from` on and before `to`, by when they ended; the next page is `after` the last of this. Of
    /// the filter, the source, the realm and the user count.
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
        on!(self, db => db.sessions_ended(filter.clone(), from, to, after, limit).await)
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
        on!(self, db => db.gaps_on_record(filter.clone(), before, limit).await)
    }

    /// What no session tells, with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn unattributed(
        &self,
        filter: &RecordFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UnattributedRow>> {
        on!(self, db => db.unattributed(filter.clone(), before, limit).await)
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
        on!(self, db => db.refused_rows(filter.clone(), before, limit).await)
    }
}

pub(crate) const TOLD: &str = "t.id, t.event_id, t.session_id, c.name, t.type, t.sequence, t.at, t.data";
pub(crate) const GAP: &str = "t.id, c.name, t.from_at, t.to_at, t.reason, t.server";
pub(crate) const REFUSED: &str = "t.id, c.name, t.at, t.kind, t.name, t.error";

/// Columns of `unattributed`, its usage last.
pub(crate) fn unattributed_columns() -> String {
    let usage = codes::USAGE;
    format!("t.id, c.name, t.at, t.server, t.realm, t.username, t.allocation, t.opened_at, t.reason, {usage}")
}

/// A query under construction: conditions and their values.
pub(crate) struct Asked<'d> {
    dialect: &'d Dialect,
    sql: String,
    pub(crate) values: Vec<Value>,
}

impl<'d> Asked<'d> {
    /// Rows `t` of a table, and their source `c`.
    pub(crate) fn new(dialect: &'d Dialect, columns: &str, table: &str) -> Asked<'d> {
        Asked::named(dialect, columns, table, "t")
    }

    /// The same of a table by another name.
    pub(crate) fn named(dialect: &'d Dialect, columns: &str, table: &str, name: &str) -> Asked<'d> {
        let join = dialect.join;
        let from = table.replacen(' ', &format!(" {name} "), 1);
        let from = if table.contains(' ') {
            from
        } else {
            format!("{table} {name}")
        };
        Asked {
            dialect,
            sql: format!("SELECT {columns} FROM {from} {join} source c ON c.id = {name}.source WHERE TRUE"),
            values: Vec::new(),
        }
    }

    /// What is on record in a table, latest first: below number `before`, and by the filter. `over` and `was` name the
    /// columns of when it was over, and of when it was.
    pub(crate) fn on_record(
        dialect: &'d Dialect,
        columns: &str,
        table: &str,
        filter: RecordFilter,
        before: Option<i64>,
        [over, was]: [&str; 2],
        limit: usize,
    ) -> (String, Vec<Value>) {
        let mut asked = Asked::new(dialect, columns, table);
        asked.and("t.id < ?", before.unwrap_or(i64::MAX));
        asked.record(filter, over, was);
        (asked.ordered("t.id DESC", limit), asked.values)
    }

    /// A condition with a value in the place of `?`.
    pub(crate) fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        let number = format!("{}{}", self.dialect.mark, self.values.len());
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace('?', &number));
    }

    /// The same with two values, one after the other.
    pub(crate) fn and_both(&mut self, condition: &str, one: impl Into<Value>, other: impl Into<Value>) {
        // Not one by one: where `?` is also the mark before a number, the second would be put into the first.
        let mut parts = condition.splitn(3, '?');
        self.sql.push_str(" AND ");
        self.sql.push_str(parts.next().unwrap_or_default());
        for (value, rest) in [one.into(), other.into()].into_iter().zip(parts) {
            self.values.push(value);
            let number = format!("{}{}{rest}", self.dialect.mark, self.values.len());
            self.sql.push_str(&number);
        }
    }

    /// By the filter; `from` and `to` name the columns of when it was over, and of when it was.
    pub(crate) fn record(&mut self, filter: RecordFilter, from: &str, to: &str) {
        if let Some(source) = filter.source {
            self.and("c.name = ?", source);
        }
        if let Some(since) = filter.since {
            self.and(&format!("{from} >= ?"), int(since.0));
        }
        if let Some(until) = filter.until {
            self.and(&format!("{to} < ?"), int(until.0));
        }
    }

    /// The whole, in an order.
    pub(crate) fn ordered(&mut self, order: &str, limit: usize) -> String {
        self.values.push(int(limit as u64).into());
        let number = format!("{}{}", self.dialect.mark, self.values.len());
        format!("{} ORDER BY {order} LIMIT {number}", self.sql)
    }
}

/// What follows from the columns of [`TOLD`].
pub(crate) struct Told<'r> {
    pub(crate) number: i64,
    pub(crate) id: EventId,
    pub(crate) session: SessionId,
    pub(crate) source: String,
    pub(crate) event_type: EventType,
    pub(crate) sequence: u32,
    pub(crate) at: i64,
    pub(crate) data: &'r [u8],
}

impl Told<'_> {
    /// `None` if it is damaged.
    pub(crate) fn read(self) -> Option<ToldEvent> {
        let facts = facts::unpack_facts(self.data)?;
        Some(ToldEvent {
            number: self.number,
            id: self.id,
            session: self.session,
            source: self.source,
            event_type: self.event_type,
            sequence: self.sequence,
            timestamp: Timestamp(nat(self.at)),
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

/// Ended sessions: the conditions that both databases share.
pub(crate) fn ended(
    asked: &mut Asked<'_>,
    filter: SessionFilter,
    from: Timestamp,
    to: Timestamp,
    after: Option<(Timestamp, SessionId)>,
) {
    let user_column = asked.dialect.user_column;
    asked.and("s.ended_at >= ?", int(from.0));
    asked.and("s.ended_at < ?", int(to.0));
    if let Some((at, id)) = after {
        // Written out: that is what the index is walked by.
        asked.and("s.ended_at >= ?", int(at.0));
        asked.and_both("(s.ended_at, s.id) > (?, ?)", int(at.0), id.0.to_vec());
    }
    if let Some(source) = filter.source {
        asked.and("c.name = ?", source);
    }
    if let Some(realm) = filter.realm {
        asked.and("s.realm = ?", realm);
    }
    if let Some(user) = filter.user {
        asked.and(&format!("{user_column} = ?"), user);
    }
}
