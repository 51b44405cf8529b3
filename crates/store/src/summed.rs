//! Usage summed up by the database: by time without its users, or the users with the most. A million rows of users are read
//! there in a fraction of the time that it takes to carry them out.

use turnhook_reducer::usage::Usage;

use crate::{
    Backend, Store,
    codes::{USAGE, int, nat},
    error::Result,
    on,
    query::{Dialect, Value},
    usage::{Sums, UsageFilter, user_of},
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

impl Store {
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
            Some(name) => {
                let sources = self.sources().await?;
                Some(sources.get(name).map_or(-1, |id| i64::from(id.0)))
            }
            None => None,
        };
        let realm = filter.realm.clone();
        let ask = move |dialect: &Dialect| summed(dialect, unit, by, only, realm.as_deref(), (from, to));
        let mut rows: Vec<Summed> = on!(self, db => db.usage_summed(ask, by).await)?;
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
pub(crate) const COLUMNS: usize = 2 * 13;

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
    (from, to): (u64, u64),
) -> (String, Vec<Value>) {
    let (table, key, whole) = match unit {
        Unit::Day => ("usage_day", "day", "0"),
        Unit::Quarter => ("usage_quarter", "quarter", "u.whole_day"),
    };
    let (join, user, mark) = (dialect.join, user_of(dialect), dialect.mark);
    let named = match by {
        SummedBy::Time => format!("CAST(u.{key} AS bigint), min(c.name), u.realm"),
        SummedBy::Users(_) => format!("CAST(0 AS bigint), '', u.{user}"),
    };
    let mut values: Vec<Value> = vec![int(from).into(), int(to).into()];
    let mut sql = format!(
        "SELECT {named}, CAST(max({whole}) AS bigint), {} FROM {table} u {join} source c ON c.id = u.source \
         WHERE u.{key} >= CAST({mark}1 AS bigint) AND u.{key} < CAST({mark}2 AS bigint)",
        halves()
    );
    if let Some(source) = source {
        values.push(source.into());
        sql += &format!(" AND u.source = CAST({mark}{} AS bigint)", values.len());
    }
    if let Some(realm) = realm {
        values.push(realm.to_vec().into());
        sql += &format!(" AND u.realm = {mark}{}", values.len());
    }
    sql += &match by {
        SummedBy::Time => format!(" GROUP BY u.{key}, u.source, u.realm ORDER BY u.{key}, u.source, u.realm"),
        SummedBy::Users(most) => format!(
            " GROUP BY u.{user} ORDER BY sum(CAST(u.billable_bytes AS double precision)) DESC LIMIT {}",
            most.saturating_add(1)
        ),
    };
    (sql, values)
}

/// From what the database gave: time, source, realm or user, whether there are whole days, and the halves.
pub(crate) fn row(
    by: SummedBy,
    (at, source, name, whole_day): (i64, String, Vec<u8>, i64),
    halves: [i64; COLUMNS],
) -> Summed {
    let (pairs, _) = halves.as_chunks::<2>();
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
        SummedBy::Time => (name, None),
        SummedBy::Users(_) => (Vec::new(), (!name.is_empty()).then_some(name)),
    };
    Summed {
        at: nat(at),
        source,
        realm,
        user,
        whole_day: whole_day != 0,
        sums,
    }
}
