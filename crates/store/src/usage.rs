//! Usage by quarters of an hour, of which the days of every zone are made; what sessions told at their end; and what people
//! did. Read the same way on every database.

use turnhook_reducer::{event::SessionId, time::Timestamp, usage::Usage};

use crate::{
    Backend, Ledger,
    codes::{self, int, nat},
    error::Result,
    on,
    query::{Dialect, Value},
};

/// Whose usage: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only of this user.
    pub user: Option<Vec<u8>>,
    /// Only of the source of this name.
    pub source: Option<String>,
    /// Only in this realm.
    pub realm: Option<Vec<u8>>,
}

/// Sums of some part of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Sessions whose start was told then.
    pub started: u64,
    /// Sessions whose end was told then.
    pub ended: u64,
    /// How many of those ended are `lower_bound`.
    pub lower_bound: u64,
    /// The durations of those ended, in milliseconds.
    pub duration_ms: u64,
    /// The sum of `usage_delta` of all events of that time.
    pub usage: Usage,
}

impl Sums {
    /// Both; what does not fit is the largest number.
    #[must_use]
    pub fn plus(self, other: Sums) -> Sums {
        Sums {
            started: self.started.saturating_add(other.started),
            ended: self.ended.saturating_add(other.ended),
            lower_bound: self.lower_bound.saturating_add(other.lower_bound),
            duration_ms: self.duration_ms.saturating_add(other.duration_ms),
            usage: self.usage.plus(other.usage),
        }
    }
}

/// What a user used in a quarter of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuarter {
    /// Quarters of an hour since 1970-01-01, UTC.
    pub quarter: u64,
    /// The source's name.
    pub source: String,
    /// Empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// The sum of a whole UTC day, put down at its noon: an older version had no finer ones.
    pub whole_day: bool,
    /// What was used.
    pub sums: Sums,
}

/// A quarter of an hour, in milliseconds.
pub const QUARTER_MS: u64 = 900_000;

/// What somebody did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    /// Rises with every one; given by the store.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// `replay`, `discard`, `pause`, `resume`, `block` …
    pub action: String,
    /// To what: an endpoint, a user, a filter in words.
    pub target: String,
    /// Why, in words.
    pub detail: String,
    /// How many of these it changed.
    pub count: u64,
}

/// Longer words are cut: they come from people.
const WORDS: usize = 1000;

impl AuditEntry {
    /// As it is kept.
    pub(crate) fn cut(mut self) -> AuditEntry {
        for text in [
            &mut self.who,
            &mut self.action,
            &mut self.target,
            &mut self.detail,
        ] {
            // One database takes no NUL.
            *text = text
                .chars()
                .take(WORDS)
                .map(|c| if c == '\0' { '\u{fffd}' } else { c })
                .collect();
        }
        self
    }
}

impl Ledger {
    /// What was used in quarters of an hour from `from` on and before `to`: of a user by time, else by time and user; the
    /// next page is `after` the last row of this.
    ///
    /// # Errors
    /// The disk's.
    pub async fn usage_by_quarter(
        &self,
        filter: UsageFilter,
        from: u64,
        to: u64,
        after: Option<UsageQuarter>,
        limit: usize,
    ) -> Result<Vec<UsageQuarter>> {
        let sources = self.sources().await?;
        let number = |name: &String| sources.get(name).map_or(-1, |id| i64::from(id.0));
        let only = filter.source.as_ref().map(number);
        let after = after.map(|after| (number(&after.source), after));
        let is_first = after.is_none();
        let ask =
            move |dialect: &Dialect| by_quarter(dialect, &filter, only, from, to, after.as_ref(), limit);
        on!(self, db => db.usage_by_quarter(ask, is_first).await)
    }

    /// The sum of all that: a user's month, say, without its parts.
    ///
    /// # Errors
    /// The disk's.
    pub async fn usage_total(&self, filter: UsageFilter, from: u64, to: u64) -> Result<Sums> {
        const PAGE: usize = 5000;
        let mut sums = Sums::default();
        let mut after = None;
        loop {
            let page = self
                .usage_by_quarter(filter.clone(), from, to, after, PAGE)
                .await?;
            sums = page.iter().fold(sums, |sums, row| sums.plus(row.sums));
            if page.len() < PAGE {
                return Ok(sums);
            }
            after = page.into_iter().next_back();
        }
    }

    /// What a user's sessions told at their end, of those that ended from `from` on and before `to`: how many, how many of
    /// these are a lower bound, their durations, and the sum of `usage` of their last events.
    ///
    /// # Errors
    /// The disk's.
    pub async fn usage_ended(&self, user: Vec<u8>, from: Timestamp, to: Timestamp) -> Result<Sums> {
        on!(self, db => db.usage_ended(user, from, to).await)
    }

    /// The sessions that correct this one.
    ///
    /// # Errors
    /// The disk's.
    pub async fn continued_by(&self, session: SessionId) -> Result<Vec<SessionId>> {
        on!(self, db => db.continued_by(session).await)
    }

    /// What people did, with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>> {
        on!(self, db => db.audit(before.unwrap_or(i64::MAX), int(limit as u64)).await)
    }
}

/// Columns of a row, its usage last.
fn columns(dialect: &Dialect) -> String {
    let user = user_of(dialect);
    format!(
        "u.quarter, c.name, u.realm, u.{user}, u.whole_day, u.started, u.ended, u.lower_bound, u.duration_ms, {}",
        codes::USAGE
    )
}

pub(crate) fn user_of(dialect: &Dialect) -> &'static str {
    dialect.user_column.trim_start_matches("s.")
}

pub(crate) fn by_quarter(
    dialect: &Dialect,
    filter: &UsageFilter,
    source: Option<i64>,
    from: u64,
    to: u64,
    after: Option<&(i64, UsageQuarter)>,
    limit: usize,
) -> (String, Vec<Value>) {
    let (join, user) = (dialect.join, user_of(dialect));
    let mut values: Vec<Value> = Vec::new();
    let mut place = |value: Value| {
        values.push(value);
        format!("{}{}", dialect.mark, values.len())
    };
    let mut sql = format!(
        "SELECT {} FROM usage_quarter u {join} source c ON c.id = u.source WHERE u.quarter < {}",
        columns(dialect),
        place(int(to).into())
    );
    // Where it goes on is the lower end of the range, too.
    let first = after.map_or(from, |(_, after)| after.quarter.max(from));
    sql += &format!(" AND u.quarter >= {}", place(int(first).into()));
    if let Some(only) = &filter.user {
        sql += &format!(" AND u.{user} = {}", place(only.clone().into()));
    }
    if let Some(source) = source {
        // Else one database takes it for as narrow as the column.
        sql += &format!(" AND u.source = CAST({} AS bigint)", place(source.into()));
    }
    if let Some(realm) = &filter.realm {
        sql += &format!(" AND u.realm = {}", place(realm.clone().into()));
    }
    if let Some((source, after)) = after {
        let quarter = place(int(after.quarter).into());
        let of = place(after.user.clone().unwrap_or_default().into());
        let source = place((*source).into());
        let realm = place(after.realm.clone().into());
        sql += &format!(
            " AND (u.quarter, u.{user}, u.source, u.realm) > ({quarter}, {of}, CAST({source} AS bigint), {realm})"
        );
    }
    let limit = place(int(limit as u64).into());
    sql += &format!(" ORDER BY u.quarter, u.{user}, u.source, u.realm LIMIT {limit}");
    (sql, values)
}

/// From the columns before the usage.
pub(crate) struct Listed {
    pub(crate) quarter: i64,
    pub(crate) source: String,
    pub(crate) realm: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) whole_day: i64,
    pub(crate) sums: [i64; 4],
    pub(crate) usage: Usage,
}

impl From<Listed> for UsageQuarter {
    fn from(l: Listed) -> UsageQuarter {
        let [started, ended, lower_bound, duration_ms] = l.sums.map(nat);
        UsageQuarter {
            quarter: nat(l.quarter),
            source: l.source,
            realm: l.realm,
            user: (!l.user.is_empty()).then_some(l.user),
            whole_day: l.whole_day != 0,
            sums: Sums {
                started,
                ended,
                lower_bound,
                duration_ms,
                usage: l.usage,
            },
        }
    }
}

/// Of the sessions of a user that ended: their start, end, accuracy, and usage.
pub(crate) fn ended_sql(dialect: &Dialect) -> String {
    let (user, mark) = (user_of(dialect), dialect.mark);
    format!(
        "SELECT started_at, ended_at, accuracy, {} FROM session WHERE {user} = {mark}1 AND {user} IS NOT NULL \
         AND ended_at >= {mark}2 AND ended_at < {mark}3",
        codes::USAGE
    )
}

/// One of them added to the sum.
pub(crate) fn add_ended(
    sums: Sums,
    started_at: i64,
    ended_at: i64,
    accuracy: Option<i64>,
    usage: Usage,
) -> Sums {
    let exact = i64::from(crate::facts::accuracy_code(
        turnhook_reducer::event::Accuracy::Exact,
    ));
    sums.plus(Sums {
        started: 0,
        ended: 1,
        lower_bound: u64::from(accuracy.is_some_and(|accuracy| accuracy != exact)),
        duration_ms: nat(ended_at).saturating_sub(nat(started_at)),
        usage,
    })
}
