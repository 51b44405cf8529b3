//! `turnhook usage`: who used how much.

use std::{cmp::Reverse, collections::BTreeMap};

use clap::{Args, ValueEnum};
use jiff::{Timestamp as Instant, tz::TimeZone};
use serde_json::{Map, Value, json};
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::{event::Accuracy, event::EventType, time::Timestamp, usage::Usage as Bytes};
use turnhook_store::{RecordFilter, Store};

use super::{
    CliError, ConfigArgs, Format,
    gaps::PAGE,
    output::{self, Rows, print_json},
    period::{DAY_MS, check_order, day_text, parse_day},
    sessions::{base64, usage_json},
    store,
    units::{bytes, duration},
};

/// Sum up what was used: by user, source, realm, day, hour, month
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook usage                                          # this month, by user
  $ turnhook usage --by day,source --from 2026-11-01 --to 2026-11-30
  $ turnhook usage --by hour --user cust_42 --from 2026-11-22 --to 2026-11-22
  $ turnhook usage --by user --top 10 --format json | jq .usage.billable_bytes

  It is the sum of `usage_delta` of all events of that time, days and hours in UTC: what a receiver that
  adds these up has to have. Hours are summed up from the events, which are kept for `retention`; all
  else from the ledger. 1 kB is 1000 bytes.")]
pub(super) struct Usage {
    #[command(flatten)]
    config: ConfigArgs,
    /// What a row is: one of each of these
    #[arg(long, value_enum, value_delimiter = ',', default_value = "user")]
    by: Vec<By>,
    /// The first day [default: the first of this month]
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    from: Option<u32>,
    /// The last day [default: today]
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    to: Option<u32>,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only in this realm
    #[arg(long)]
    realm: Option<String>,
    /// Only the rows with the most billable bytes, the largest first
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum By {
    Month,
    Day,
    Hour,
    Source,
    Realm,
    User,
}

impl By {
    fn heading(self) -> &'static str {
        match self {
            By::Month => "MONTH (UTC)",
            By::Day => "DAY (UTC)",
            By::Hour => "HOUR (UTC)",
            By::Source => "SOURCE",
            By::Realm => "REALM",
            By::User => "USER",
        }
    }
}

/// One value of what rows are made by. `None` is a user that nobody knows.
type Key = Vec<Option<Vec<u8>>>;

/// What a row adds up to.
#[derive(Clone, Debug, Default)]
struct Sum {
    started: u64,
    ended: u64,
    lower_bound: u64,
    duration_ms: u64,
    usage: Bytes,
}

/// What is added: from a row of the ledger, or an event.
struct Part<'a> {
    at: Timestamp,
    source: &'a str,
    realm: &'a [u8],
    user: Option<&'a [u8]>,
    sum: Sum,
}

impl Usage {
    pub(super) async fn run(mut self) -> Result<(), CliError> {
        let (from, to) = (
            self.from.unwrap_or_else(first_of_month),
            self.to.unwrap_or_else(today),
        );
        check_order(from, to)?;
        self.by.sort_unstable();
        self.by.dedup();
        let (_, store) = store::open(&self.config).await?;
        let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
        if self.by.contains(&By::Hour) {
            self.of_events(&store, from, to, &mut sums).await?;
        } else {
            self.of_days(&store, from, to, &mut sums).await?;
        }
        let mut rows: Vec<(Key, Sum)> = sums.into_iter().collect();
        if let Some(top) = self.top {
            rows.sort_by_key(|(_, sum)| Reverse(sum.usage.billable_bytes));
            rows.truncate(top);
        }
        match self.format {
            Format::Json => rows
                .iter()
                .try_for_each(|(key, sum)| print_json(&self.json(key, sum))),
            Format::Text => self.table(&rows, from, to),
        }
    }

    async fn of_days(
        &self,
        store: &Store,
        from: u32,
        to: u32,
        sums: &mut BTreeMap<Key, Sum>,
    ) -> Result<(), CliError> {
        let mut after = None;
        loop {
            let page = store.usage_by_day(from, to, after.take(), PAGE).await?;
            for row in &page {
                let part = Part {
                    at: Timestamp(u64::from(row.day) * DAY_MS),
                    source: &row.source,
                    realm: &row.realm,
                    user: row.user.as_deref(),
                    sum: Sum {
                        started: row.started,
                        ended: row.ended,
                        lower_bound: row.lower_bound,
                        duration_ms: row.duration_ms,
                        usage: row.usage,
                    },
                };
                self.add(part, sums);
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.into_iter().next_back();
        }
    }

    async fn of_events(
        &self,
        store: &Store,
        from: u32,
        to: u32,
        sums: &mut BTreeMap<Key, Sum>,
    ) -> Result<(), CliError> {
        let filter = RecordFilter {
            source: self.source.clone(),
            since: Some(Timestamp(u64::from(from) * DAY_MS)),
            until: Some(Timestamp((u64::from(to) + 1) * DAY_MS)),
        };
        let mut after = 0;
        loop {
            let page = store.told_events(&filter, after, PAGE).await?;
            for event in &page {
                after = event.number;
                let mut sum = Sum {
                    started: u64::from(event.event_type == EventType::Start),
                    usage: event.usage_delta,
                    ..Sum::default()
                };
                if let Some(end) = event.end {
                    sum.ended = 1;
                    sum.lower_bound = u64::from(end.accuracy == Accuracy::LowerBound);
                    sum.duration_ms = end.ended_at.since(event.started_at);
                }
                let part = Part {
                    at: event.timestamp,
                    source: &event.source,
                    realm: &event.realm,
                    user: event.user.as_deref(),
                    sum,
                };
                self.add(part, sums);
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn add(&self, part: Part<'_>, sums: &mut BTreeMap<Key, Sum>) {
        let is = |wanted: &Option<String>, found: &[u8]| {
            wanted.as_ref().is_none_or(|text| text.as_bytes() == found)
        };
        let user = self
            .user
            .as_ref()
            .is_none_or(|user| part.user == Some(user.as_bytes()));
        if !(user && is(&self.source, part.source.as_bytes()) && is(&self.realm, part.realm)) {
            return;
        }
        let key = self.by.iter().map(|by| key(*by, &part)).collect();
        let sum = sums.entry(key).or_default();
        sum.started = sum.started.saturating_add(part.sum.started);
        sum.ended = sum.ended.saturating_add(part.sum.ended);
        sum.lower_bound = sum.lower_bound.saturating_add(part.sum.lower_bound);
        sum.duration_ms = sum.duration_ms.saturating_add(part.sum.duration_ms);
        sum.usage = sum.usage.plus(part.sum.usage);
    }

    fn json(&self, key: &Key, sum: &Sum) -> Value {
        let mut object = Map::new();
        for (by, value) in self.by.iter().zip(key) {
            let name = match by {
                By::Month => "month",
                By::Day => "day",
                By::Hour => "hour",
                By::Source => "source",
                By::Realm => "realm",
                By::User => "user",
            };
            object.insert(
                name.to_owned(),
                json!(value.as_deref().map(String::from_utf8_lossy)),
            );
            if let (By::Realm | By::User, Some(exact)) = (by, value.as_deref().and_then(base64)) {
                object.insert(format!("{name}_base64"), exact.into());
            }
        }
        let rest = json!({
            "sessions_started": sum.started,
            "sessions_ended": sum.ended,
            "sessions_lower_bound": sum.lower_bound,
            "duration_ms": sum.duration_ms,
            "usage": usage_json(&sum.usage, true),
        });
        object.extend(rest.as_object().cloned().unwrap_or_default());
        object.into()
    }

    fn table(&self, rows: &[(Key, Sum)], from: u32, to: u32) -> Result<(), CliError> {
        let mut columns: Vec<output::Column> = self.by.iter().map(|by| (by.heading(), false)).collect();
        columns.extend([
            ("SESSIONS", true),
            ("LASTED", true),
            ("RECEIVED", true),
            ("SENT", true),
            ("BILLABLE", true),
            ("LOWER BOUND", true),
        ]);
        let mut table = Rows::new(&columns).narrow(
            &["SENT", "RECEIVED", "LOWER BOUND", "LASTED"],
            &["USER", "REALM", "SOURCE"],
        );
        for (key, sum) in rows {
            let mut cells: Vec<String> = key
                .iter()
                .map(|value| value.as_deref().map_or_else(|| "-".to_owned(), output::name))
                .collect();
            let client = &sum.usage.legs.client;
            cells.extend([
                sum.ended.to_string(),
                duration(sum.duration_ms),
                bytes(client.received_bytes),
                bytes(client.sent_bytes),
                bytes(sum.usage.billable_bytes),
                sum.lower_bound.to_string(),
            ]);
            table.push(cells);
        }
        let (from, to) = (day_text(from), day_text(to));
        table.print(&format!("nothing was used from {from} to {to} (UTC)"))
    }
}

fn key(by: By, part: &Part<'_>) -> Option<Vec<u8>> {
    // `2026-11-22T06:00:57.624Z`.
    let time = |most: usize| rfc3339(part.at).bytes().take(most).collect::<Vec<u8>>();
    match by {
        By::Month => Some(time(7)),
        By::Day => Some(time(10)),
        By::Hour => Some([time(13), b":00Z".to_vec()].concat()),
        By::Source => Some(part.source.as_bytes().to_vec()),
        By::Realm => Some(part.realm.to_vec()),
        By::User => part.user.map(<[u8]>::to_vec),
    }
}

fn today() -> u32 {
    u32::try_from(store::now().0 / DAY_MS).unwrap_or(u32::MAX)
}

fn first_of_month() -> u32 {
    let day = Instant::now().to_zoned(TimeZone::UTC).day();
    today().saturating_sub(u32::from(day.unsigned_abs()).saturating_sub(1))
}
