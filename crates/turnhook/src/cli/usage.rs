//! `turnhook usage`: who used how much.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::civil::Date;
use serde_json::{Map, Value, json};
use turnhook_admin::{By, Period, Row, Zone, report};
use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::time::Timestamp;
use turnhook_store::{Sums, UsageFilter};

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{self, Rows, print_json},
    period::{DAY_MS, check_order, parse_day},
    sessions::row::{base64, usage_json},
    store,
    units::{bytes, duration},
    zone::ZoneArgs,
};

/// Sum up what was used: by user, source, realm, day, hour, month
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook usage                                          # this month, by user
  $ turnhook usage --by day,source --from 2026-11-01 --to 2026-11-30
  $ turnhook usage --by hour --user cust_42 --from 2026-11-22 --to 2026-11-22
  $ turnhook usage --by user --top 10 --format json | jq .usage.billable_bytes

  $ turnhook usage --by day --tz Europe/Berlin

  It is the sum of `usage_delta` of all events of that time, in days and hours of UTC or of the zone:
  what a receiver that adds these up has to have. 1 kB is 1000 bytes.")]
pub(super) struct Usage {
    #[command(flatten)]
    config: ConfigArgs,
    /// What a row is: one of each of these
    #[arg(long, value_parser = by(), value_delimiter = ',', default_value = "user")]
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
    #[command(flatten)]
    tz: ZoneArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn by() -> impl TypedValueParser<Value = By> {
    let names = PossibleValuesParser::new(By::ALL.map(By::as_str));
    names.try_map(|name| {
        let named = By::ALL.into_iter().find(|by| by.as_str() == name);
        named.ok_or("nothing to sum up by")
    })
}

fn heading(by: By, is_utc: bool) -> &'static str {
    match (by, is_utc) {
        (By::Month, true) => "MONTH (UTC)",
        (By::Month, false) => "MONTH",
        (By::Day, true) => "DAY (UTC)",
        (By::Day, false) => "DAY",
        (By::Hour, true) => "HOUR (UTC)",
        (By::Hour, false) => "HOUR",
        (By::Source, _) => "SOURCE",
        (By::Realm, _) => "REALM",
        (By::User, _) => "USER",
    }
}

/// One value of what rows are made by. `None` is a user that nobody knows.
type Key = Vec<Option<Vec<u8>>>;

impl Usage {
    pub(super) async fn run(mut self) -> Result<(), CliError> {
        let today = self.tz.day(wall_clock());
        let given = |day: u32| Zone::utc().day(Timestamp(u64::from(day) * DAY_MS));
        let period = Period {
            from: self.from.map_or_else(|| today.first_of_month(), given),
            to: self.to.map_or(today, given),
            zone: (*self.tz).clone(),
        };
        if let (Some(from), Some(to)) = (self.from, self.to) {
            check_order(from, to)?;
        }
        self.by.sort_unstable();
        self.by.dedup();
        let (_, store) = store::open(&self.config).await?;
        let filter = UsageFilter {
            user: self.user.clone().map(String::into_bytes),
            source: self.source.clone(),
            realm: self.realm.clone().map(String::into_bytes),
        };
        // The same sum as on the page.
        let mut report = report(store.ledger(), &filter, &period, &self.by).await?;
        if let Some(top) = self.top {
            report.keep_top(top);
        }
        match self.format {
            Format::Json => report
                .rows
                .iter()
                .try_for_each(|(key, sums)| print_json(&self.json(key, sums))),
            Format::Text => self.table(&report.rows, period.from, period.to),
        }
    }

    fn json(&self, key: &Key, sum: &Sums) -> Value {
        let mut object = Map::new();
        for (by, value) in self.by.iter().zip(key) {
            let name = by.as_str();
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

    fn table(&self, rows: &[Row], from: Date, to: Date) -> Result<(), CliError> {
        let mut columns: Vec<output::Column> = self
            .by
            .iter()
            .map(|by| (heading(*by, self.tz.is_utc()), false))
            .collect();
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
        table.print(&format!(
            "nothing was used from {from} to {to} ({})",
            self.tz.name()
        ))
    }
}
