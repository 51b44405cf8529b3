//! Usage summed up by the database: by time without its users, from sums that are kept so, or the users with the most.

use turnhook_reducer::usage::Usage;

use crate::{
    Ledger,
    codes::{USAGE, nat},
    error::Result,
    query::{Dialect, Query, Values},
    record::{Columns, Record},
    usage::{Sums, UsageFilter},
};

/// The times that are summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Days of UTC.
    Day,
    /// Quarters of an hour.
    Quarter,
}

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummedBy {
    /// A unit of time, a source and a realm.
    Time,
    /// A user: so many of them, those with the most billable bytes first.
    Users(usize),
}

/// A row of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summed {
    /// The unit's number since 1970-01-01; 0 for a user's.
    pub at: u64,
    /// The source's name; empty for a user's.
    pub source: String,
    /// The realm; empty for a user's.
    pub realm: Vec<u8>,
    /// The user.
    pub user: Option<Vec<u8>>,
    /// Some of it are sums of whole UTC days, of before there were finer ones.
    pub whole_day: bool,
    /// What was used.
    pub sums: Sums,
}

impl Ledger {
    /// What was used in units from `from` on and before `to`. Of the filter, the source and the realm count.
    ///
    /// # Errors
    /// The disk's.
    pub async fn usage_summed(
        &self,
        unit: Unit,
        by: SummedBy,
        filter: &UsageFilter,
        (from, to): (u64, u64),
    ) -> Result<Vec<Summed>> {
        let only = match &filter.source {
            Some(name) => Some(self.source_number(name).await?),
            None => None,
        };
        self.0.catch_up().await?;
        let ask = Ask::new(self.0.dialect(), unit, only, filter.realm.as_deref(), (from, to));
        let most = match by {
            SummedBy::Time => return self.sums(ask.by_time(), by).await,
            SummedBy::Users(most) => most,
        };
        // One more: a database that adds up numbers with a fraction knows sixteen digits.
        let users = self
            .0
            .with_most(ask.bytes_of_users(), most.saturating_add(1))
            .await?;
        let mut rows = Vec::with_capacity(users.len());
        for some in users.chunks(AT_ONCE) {
            rows.append(&mut self.sums(ask.of_users(some), by).await?);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.sums.usage.billable_bytes));
        rows.truncate(most);
        Ok(rows)
    }

    async fn sums(&self, query: Query, by: SummedBy) -> Result<Vec<Summed>> {
        let rows: Vec<Row> = self.0.list(query).await?;
        Ok(rows.into_iter().map(|row| row.of(by)).collect())
    }
}

/// Users whose rows are summed up by one statement.
pub(crate) const AT_ONCE: usize = 500;

/// What is summed up, in the order in which it is read.
const COUNTS: &str = "started, ended, lower_bound, duration_ms";
const COLUMNS: usize = 2 * 13;

/// Each sum in two halves: the sum of large numbers is no error then, on any database.
fn halves() -> String {
    let columns = COUNTS.split(", ").chain(USAGE.split(", "));
    let halves = columns.map(|column| {
        format!("CAST(sum(u.{column} >> 32) AS bigint), CAST(sum(u.{column} & 4294967295) AS bigint)")
    });
    halves.collect::<Vec<_>>().join(", ")
}

/// Quarters of an hour in a day of UTC.
const DAY: u64 = 96;

/// What is asked for: units of time, from a quarter of an hour on and before another one, of a source and a realm.
pub(crate) struct Ask<'d> {
    dialect: &'d Dialect,
    unit: Unit,
    source: Option<i64>,
    realm: Option<&'d [u8]>,
    from: u64,
    to: u64,
}

impl<'d> Ask<'d> {
    pub(crate) fn new(
        dialect: &'d Dialect,
        unit: Unit,
        source: Option<i64>,
        realm: Option<&'d [u8]>,
        (from, to): (u64, u64),
    ) -> Ask<'d> {
        let (from, to) = match unit {
            Unit::Day => (from.saturating_mul(DAY), to.saturating_mul(DAY)),
            Unit::Quarter => (from, to),
        };
        Ask {
            dialect,
            unit,
            source,
            realm,
            from,
            to,
        }
    }

    /// Rows of a table from a time on and before another one, of that source and realm.
    fn within(&self, values: &mut Values<'_>, key: &str, from: u64, to: u64) -> String {
        let (from, to) = (values.place(from), values.place(to));
        let mut within = format!("u.{key} >= CAST({from} AS bigint) AND u.{key} < CAST({to} AS bigint)");
        if let Some(source) = self.source {
            within += &format!(" AND u.source = CAST({} AS bigint)", values.place(source));
        }
        if let Some(realm) = self.realm {
            within += &format!(" AND u.realm = {}", values.place(realm.to_vec()));
        }
        within
    }

    fn by_time(&self) -> Query {
        let mut values = Values::new(self.dialect);
        let within = self.within(&mut values, "quarter", self.from, self.to);
        let (at, whole) = match self.unit {
            Unit::Day => (format!("u.quarter / {DAY}"), "0"),
            Unit::Quarter => ("u.quarter".to_owned(), "u.whole_day"),
        };
        let sql = format!(
            "SELECT {at}, min(c.name), u.realm, CAST(max({whole}) AS bigint), {} FROM usage_all u {} source c \
             ON c.id = u.source WHERE {within} GROUP BY {at}, u.source, u.realm ORDER BY {at}, u.source, u.realm",
            halves(),
            self.dialect.join
        );
        (sql, values.values)
    }

    /// Users and billable bytes, a user's in as many rows as there are: days where they are whole, else quarters.
    pub(crate) fn bytes_of_users(&self) -> Query {
        let user = self.dialect.user;
        let mut values = Values::new(self.dialect);
        let first = self.from.div_ceil(DAY).saturating_mul(DAY).min(self.to);
        let last = (self.to / DAY * DAY).max(first);
        let rows = [
            ("usage_day", "day", first / DAY, last / DAY),
            ("usage_quarter", "quarter", self.from, first),
            ("usage_quarter", "quarter", last, self.to),
        ]
        .map(|(table, key, from, to)| {
            let within = self.within(&mut values, key, from, to);
            format!("SELECT u.{user} AS who, u.billable_bytes AS bytes FROM {table} u WHERE {within}")
        });
        (rows.join(" UNION ALL "), values.values)
    }

    /// All of these users: their rows are ranges of an index.
    pub(crate) fn of_users(&self, users: &[Vec<u8>]) -> Query {
        let user = self.dialect.user;
        let mut values = Values::new(self.dialect);
        let within = self.within(&mut values, "quarter", self.from, self.to);
        let these: Vec<_> = users.iter().map(|user| values.place(user.clone())).collect();
        let sql = format!(
            "SELECT CAST(0 AS bigint), '', u.{user}, CAST(max(u.whole_day) AS bigint), {} FROM usage_quarter u \
             WHERE u.{user} IN ({}) AND {within} GROUP BY u.{user}",
            halves(),
            these.join(", ")
        );
        (sql, values.values)
    }
}

/// What the database gives: time, source, realm or user, whether there are whole days, and the halves.
struct Row {
    at: u64,
    source: String,
    name: Vec<u8>,
    whole_day: bool,
    halves: [i64; COLUMNS],
}

impl Record for Row {
    fn read<R: Columns>(row: &R) -> Result<Row, R::Error> {
        Ok(Row {
            at: row.value(0)?,
            source: row.value(1)?,
            name: row.value(2)?,
            whole_day: row.value(3)?,
            halves: row.ints(4)?,
        })
    }
}

impl Row {
    fn of(self, by: SummedBy) -> Summed {
        let (pairs, _) = self.halves.as_chunks::<2>();
        let mut all = pairs.iter().map(|[high, low]| {
            let sum = (u128::from(nat(*high)) << 32) + u128::from(nat(*low));
            u64::try_from(sum).unwrap_or(u64::MAX)
        });
        let mut next = || all.next().unwrap_or_default();
        let sums = Sums {
            started: next(),
            ended: next(),
            lower_bound: next(),
            duration_ms: next(),
            usage: Usage::from(std::array::from_fn::<u64, 9, _>(|_| next())),
        };
        let (realm, user) = match by {
            SummedBy::Time => (self.name, None),
            SummedBy::Users(_) => (Vec::new(), (!self.name.is_empty()).then_some(self.name)),
        };
        Summed {
            at: self.at,
            source: self.source,
            realm,
            user,
            whole_day: self.whole_day,
            sums,
        }
    }
}
