//! Usage by quarters of an hour, of which the days of every zone are made; what sessions came to at their end; and what
//! people did. Read the same way on every database.

use turnhook_reducer::{
    event::{Accuracy, SessionId},
    time::Timestamp,
    usage::Usage,
};

use crate::{
    Ledger,
    codes::USAGE,
    error::Result,
    facts,
    query::{Dialect, Query, Values, values},
    record::{Columns, Record},
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
    /// Sessions that started then, by their events.
    pub started: u64,
    /// Sessions that ended then, by their events.
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
    /// What was used in quarters of an hour from `from` on and before `to`: of a user by time, else by time and user;
    /// the next page is `after` the last row of this.
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
        if after.is_none() {
            self.0.catch_up().await?;
        }
        let query = by_quarter(self.0.dialect(), &filter, only, (from, to), after.as_ref(), limit);
        self.0.list(query).await
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

    /// What a user's sessions came to at their end, of those that ended from `from` on and before `to`: how many, how
    /// many of these are a lower bound, their durations, and the sum of `usage` of their last events.
    ///
    /// # Errors
    /// The disk's.
    pub async fn usage_ended(&self, user: Vec<u8>, from: Timestamp, to: Timestamp) -> Result<Sums> {
        self.0.catch_up().await?;
        let sql = ended_sql(self.0.dialect());
        let ended: Vec<Ended> = self.0.ask(&sql, values![user, from, to]).await?;
        Ok(ended
            .into_iter()
            .fold(Sums::default(), |sums, Ended(one)| sums.plus(one)))
    }

    /// The sessions that correct this one.
    ///
    /// # Errors
    /// The disk's.
    pub async fn continued_by(&self, session: SessionId) -> Result<Vec<SessionId>> {
        self.0.catch_up().await?;
        let sql = "SELECT id FROM session WHERE continues = ?1 AND continues IS NOT NULL ORDER BY id";
        let found = self.0.ask(sql, values![session]).await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    /// What people did, with numbers below `before`, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>> {
        let sql = "SELECT id, at, who, action, target, detail, count FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
        self.0
            .ask(sql, values![before.unwrap_or(i64::MAX), limit as u64])
            .await
    }
}

pub(crate) fn by_quarter(
    dialect: &Dialect,
    filter: &UsageFilter,
    source: Option<i64>,
    (from, to): (u64, u64),
    after: Option<&(i64, UsageQuarter)>,
    limit: usize,
) -> Query {
    let Dialect { join, user, .. } = dialect;
    let mut values = Values::new(dialect);
    // Where it goes on is the lower end of the range, too.
    let first = after.map_or(from, |(_, after)| after.quarter.max(from));
    let mut sql = format!(
        "SELECT u.quarter, c.name, u.realm, u.{user}, u.whole_day, u.started, u.ended, u.lower_bound, u.duration_ms, {USAGE} \
         FROM usage_quarter u {join} source c ON c.id = u.source WHERE u.quarter < {} AND u.quarter >= {}",
        values.place(to),
        values.place(first)
    );
    if let Some(only) = &filter.user {
        sql += &format!(" AND u.{user} = {}", values.place(only.clone()));
    }
    if let Some(source) = source {
        sql += &format!(" AND u.source = {}", values.place(source));
    }
    if let Some(realm) = &filter.realm {
        sql += &format!(" AND u.realm = {}", values.place(realm.clone()));
    }
    if let Some((source, after)) = after {
        let quarter = values.place(after.quarter);
        let of = values.place(after.user.clone().unwrap_or_default());
        let (source, realm) = (values.place(*source), values.place(after.realm.clone()));
        sql +=
            &format!(" AND (u.quarter, u.{user}, u.source, u.realm) > ({quarter}, {of}, {source}, {realm})");
    }
    let limit = values.place(limit as u64);
    sql += &format!(" ORDER BY u.quarter, u.{user}, u.source, u.realm LIMIT {limit}");
    (sql, values.values)
}

impl Record for UsageQuarter {
    fn read<R: Columns>(row: &R) -> Result<UsageQuarter, R::Error> {
        let user: Vec<u8> = row.value(3)?;
        Ok(UsageQuarter {
            quarter: row.value(0)?,
            source: row.value(1)?,
            realm: row.value(2)?,
            user: (!user.is_empty()).then_some(user),
            whole_day: row.value(4)?,
            sums: Sums {
                started: row.value(5)?,
                ended: row.value(6)?,
                lower_bound: row.value(7)?,
                duration_ms: row.value(8)?,
                usage: row.usage(9)?,
            },
        })
    }
}

/// Of the sessions of a user that ended: their start, end, accuracy, and usage.
pub(crate) fn ended_sql(dialect: &Dialect) -> String {
    let user = dialect.user;
    format!(
        "SELECT started_at, ended_at, accuracy, {USAGE} FROM session WHERE {user} = ?1 AND {user} IS NOT NULL \
         AND ended_at >= ?2 AND ended_at < ?3"
    )
}

/// The sum of one of them.
struct Ended(Sums);

impl Record for Ended {
    fn read<R: Columns>(row: &R) -> Result<Ended, R::Error> {
        let (started_at, ended_at): (Timestamp, Timestamp) = (row.value(0)?, row.value(1)?);
        let accuracy: Option<u64> = row.maybe(2)?;
        let exact = u64::from(facts::accuracy_code(Accuracy::Exact));
        Ok(Ended(Sums {
            started: 0,
            ended: 1,
            lower_bound: u64::from(accuracy.is_some_and(|accuracy| accuracy != exact)),
            duration_ms: ended_at.since(started_at),
            usage: row.usage(3)?,
        }))
    }
}

impl Record for AuditEntry {
    fn read<R: Columns>(row: &R) -> Result<AuditEntry, R::Error> {
        Ok(AuditEntry {
            id: row.value(0)?,
            at: row.value(1)?,
            who: row.value(2)?,
            action: row.value(3)?,
            target: row.value(4)?,
            detail: row.value(5)?,
            count: row.value(6)?,
        })
    }
}
