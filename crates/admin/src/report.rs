//! Usage summed up by whatever is asked for: what the page, the API and the command line show is the same sum.

use std::{cmp::Reverse, collections::BTreeMap};

use turnhook_reducer::time::Timestamp;
use turnhook_store::{Ledger, QUARTER_MS, Result, SummedBy, Sums, Unit, UsageDay, UsageFilter};

use crate::zone::Period;

/// What rows are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// A month of the zone.
    Month,
    /// A day of the zone.
    Day,
    /// An hour of the zone.
    Hour,
    /// A source.
    Source,
    /// A realm.
    Realm,
    /// A user.
    User,
}

impl By {
    /// All of them.
    pub const ALL: [By; 6] = [By::Month, By::Day, By::Hour, By::Source, By::Realm, By::User];

    /// As it is asked for.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            By::Month => "month",
            By::Day => "day",
            By::Hour => "hour",
            By::Source => "source",
            By::Realm => "realm",
            By::User => "user",
        }
    }
}

/// A row: its values in the order of what was asked for (`None`: no user), and its sums.
pub type Row = (Vec<Option<Vec<u8>>>, Sums);

/// What was used, by these.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In order of their values.
    pub rows: Vec<Row>,
    /// The sum of all.
    pub total: Sums,
    /// Some of it was summed up by whole UTC days, before there were finer sums.
    pub whole_days: bool,
}

const PAGE: usize = 5000;

/// Sums up what was emitted with timestamps in the period. Whole days of UTC come from the days' sums, all else from
/// those of quarters of an hour.
///
/// # Errors
/// The store's.
pub async fn usage(ledger: &Ledger, filter: &UsageFilter, period: &Period, by: &[By]) -> Result<Report> {
    let mut report = Sum {
        period,
        by,
        rows: BTreeMap::new(),
        total: Sums::default(),
    };
    let mut whole_days = false;
    if filter.user.is_none() && !by.contains(&By::User) {
        let (unit, span) = units(period, by.contains(&By::Hour));
        let length = match unit {
            Unit::Day => 96 * QUARTER_MS,
            Unit::Quarter => QUARTER_MS,
        };
        for row in ledger.usage_summed(unit, SummedBy::Time, filter, span).await? {
            whole_days |= row.whole_day;
            report.add(
                Timestamp(row.at * length),
                &row.source,
                &row.realm,
                None,
                row.sums,
            );
        }
    } else if period.zone.is_utc() && filter.user.is_none() && !by.contains(&By::Hour) {
        let (from, to) = units(period, false).1;
        let (from, to) = (day_number(from), day_number(to));
        let mut after: Option<UsageDay> = None;
        loop {
            let page = ledger
                .usage_by_day(from, to.saturating_sub(1), after, PAGE)
                .await?;
            for row in &page {
                let is_asked_for = filter.source.as_ref().is_none_or(|source| *source == row.source)
                    && filter.realm.as_ref().is_none_or(|realm| *realm == row.realm);
                if is_asked_for {
                    let sums = Sums {
                        started: row.started,
                        ended: row.ended,
                        lower_bound: row.lower_bound,
                        duration_ms: row.duration_ms,
                        usage: row.usage,
                    };
                    let at = Timestamp(u64::from(row.day) * 96 * QUARTER_MS);
                    report.add(at, &row.source, &row.realm, row.user.as_deref(), sums);
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back();
        }
    } else {
        let (from, to) = period.quarters();
        let mut after = None;
        loop {
            let page = ledger
                .usage_by_quarter(filter.clone(), from, to, after, PAGE)
                .await?;
            for row in &page {
                whole_days |= row.whole_day;
                let at = Timestamp(row.quarter * QUARTER_MS);
                report.add(at, &row.source, &row.realm, row.user.as_deref(), row.sums);
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back();
        }
    }
    Ok(Report {
        rows: report.rows.into_iter().collect(),
        total: report.total,
        whole_days,
    })
}

fn day_number(day: u64) -> u32 {
    u32::try_from(day).unwrap_or(u32::MAX)
}

/// Days where they are those of the zone and nothing finer is asked for, else quarters of an hour; from the first of
/// them to the first after them.
fn units(period: &Period, by_hour: bool) -> (Unit, (u64, u64)) {
    if period.zone.is_utc() && !by_hour {
        let (from, to) = period.times();
        let day = |at: Timestamp| at.0 / (96 * QUARTER_MS);
        (Unit::Day, (day(from), day(to)))
    } else {
        (Unit::Quarter, period.quarters())
    }
}

/// The users with the most billable bytes, the largest first.
///
/// # Errors
/// The store's.
pub(crate) async fn top_users(
    ledger: &Ledger,
    filter: &UsageFilter,
    period: &Period,
    most: usize,
) -> Result<Vec<Row>> {
    let (unit, span) = units(period, false);
    let rows = ledger
        .usage_summed(unit, SummedBy::Users(most), filter, span)
        .await?;
    Ok(rows.into_iter().map(|row| (vec![row.user], row.sums)).collect())
}

struct Sum<'a> {
    period: &'a Period,
    by: &'a [By],
    rows: BTreeMap<Vec<Option<Vec<u8>>>, Sums>,
    total: Sums,
}

impl Sum<'_> {
    fn add(&mut self, at: Timestamp, source: &str, realm: &[u8], user: Option<&[u8]>, sums: Sums) {
        let zone = &self.period.zone;
        let value = |by: &By| match by {
            By::Month => Some(zone.day(at).to_string().get(..7).unwrap_or_default().into()),
            By::Day => Some(zone.day(at).to_string().into_bytes()),
            By::Hour => Some(zone.hour(at).into_bytes()),
            By::Source => Some(source.as_bytes().to_vec()),
            By::Realm => Some(realm.to_vec()),
            By::User => user.map(<[u8]>::to_vec),
        };
        let key = self.by.iter().map(value).collect();
        let sum = self.rows.entry(key).or_default();
        *sum = sum.plus(sums);
        self.total = self.total.plus(sums);
    }
}

impl Report {
    /// The same by one of what rows are grouped by, counted from 0.
    #[must_use]
    pub fn by_one(&self, which: usize) -> Vec<Row> {
        let mut rows: BTreeMap<Option<Vec<u8>>, Sums> = BTreeMap::new();
        for (key, sums) in &self.rows {
            let sum = rows.entry(key.get(which).cloned().flatten()).or_default();
            *sum = sum.plus(*sums);
        }
        rows.into_iter().map(|(key, sums)| (vec![key], sums)).collect()
    }

    /// Only the rows with the most billable bytes, the largest first.
    pub fn keep_top(&mut self, most: usize) {
        self.rows
            .sort_by_key(|(_, sums)| Reverse(sums.usage.billable_bytes));
        self.rows.truncate(most);
    }
}
