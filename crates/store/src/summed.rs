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
        let query = summed(
            self.0.dialect(),
            unit,
            by,
            only,
            filter.realm.as_deref(),
            (from, to),
        );
        let rows: Vec<Row> = self.0.list(query).await?;
        let mut rows: Vec<Summed> = rows.into_iter().map(|row| row.of(by)).collect();
        if let SummedBy::Users(most) = by {
            // The database sorted by what is exact to sixteen digits.
            rows.sort_by_key(|row| std::cmp::Reverse(row.sums.usage.billable_bytes));
            rows.truncate(most);
        }
        Ok(rows)
    }
}

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

fn summed(
    dialect: &Dialect,
    unit: Unit,
    by: SummedBy,
    source: Option<i64>,
    realm: Option<&[u8]>,
    span: (u64, u64),
) -> Query {
    let (from, to) = match unit {
        Unit::Day => (span.0.saturating_mul(DAY), span.1.saturating_mul(DAY)),
        Unit::Quarter => span,
    };
    let mut ask = Ask {
        values: Values::new(dialect),
        only: String::new(),
    };
    ask.only(source, realm);
    let sql = match by {
        SummedBy::Time => ask.by_time(unit, from, to),
        SummedBy::Users(most) => ask.by_user(most.saturating_add(1), from, to),
    };
    (sql, ask.values.values)
}

/// Quarters of an hour in a day of UTC.
const DAY: u64 = 96;

struct Ask<'d> {
    values: Values<'d>,
    /// Which source and realm.
    only: String,
}

impl Ask<'_> {
    fn only(&mut self, source: Option<i64>, realm: Option<&[u8]>) {
        if let Some(source) = source {
            let source = self.values.place(source);
            self.only += &format!(" AND u.source = CAST({source} AS bigint)");
        }
        if let Some(realm) = realm {
            let realm = self.values.place(realm.to_vec());
            self.only += &format!(" AND u.realm = {realm}");
        }
    }

    /// Rows of a table from a time on and before another one, of that source and realm.
    fn within(&mut self, key: &str, from: u64, to: u64) -> String {
        let (from, to) = (self.values.place(from), self.values.place(to));
        format!(
            "u.{key} >= CAST({from} AS bigint) AND u.{key} < CAST({to} AS bigint){}",
            self.only
        )
    }

    fn by_time(&mut self, unit: Unit, from: u64, to: u64) -> String {
        let within = self.within("quarter", from, to);
        let (at, whole) = match unit {
            Unit::Day => (format!("u.quarter / {DAY}"), "0"),
            Unit::Quarter => ("u.quarter".to_owned(), "u.whole_day"),
        };
        format!(
            "SELECT {at}, min(c.name), u.realm, CAST(max({whole}) AS bigint), {} FROM usage_all u {} source c \
             ON c.id = u.source WHERE {within} GROUP BY {at}, u.source, u.realm ORDER BY {at}, u.source, u.realm",
            halves(),
            self.values.dialect.join
        )
    }

    /// Who has the most is found by one column of all rows, and only those are summed up: their rows are ranges of an index.
    fn by_user(&mut self, most: usize, from: u64, to: u64) -> String {
        let Dialect { join, user, .. } = self.values.dialect;
        // Whole days have a row for each user and day; what is left at both ends of them has finer ones.
        let first = from.div_ceil(DAY).saturating_mul(DAY).min(to);
        let last = (to / DAY * DAY).max(first);
        let days = self.within("day", first / DAY, last / DAY);
        let [before, after] = [(from, first), (last, to)].map(|(from, to)| self.within("quarter", from, to));
        let within = self.within("quarter", from, to);
        let rows = [
            ("usage_day", days),
            ("usage_quarter", before),
            ("usage_quarter", after),
        ]
        .map(|(table, within)| {
            format!("SELECT u.{user} AS who, u.billable_bytes AS bytes FROM {table} u WHERE {within}")
        })
        .join(" UNION ALL ");
        format!(
            "WITH most AS (SELECT p.who AS who, sum(CAST(p.bytes AS double precision)) AS bytes FROM ({rows}) p GROUP BY p.who \
             ORDER BY 2 DESC LIMIT {most}) \
             SELECT CAST(0 AS bigint), '', u.{user}, CAST(max(u.whole_day) AS bigint), {} FROM most m {join} usage_quarter u \
             ON u.{user} = m.who WHERE {within} GROUP BY u.{user}",
            halves()
        )
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
