//! `turnhook sessions export`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use ::base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use turnhook_admin::{By as Of, Period, report};
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::{time::Timestamp, usage::Usage};
use turnhook_store::{QUARTER_MS, SessionFilter, SessionRow, Store, SummedBy, Unit, UsageDay, UsageFilter};

use super::{
    super::{args::ConfigArgs, error::CliError},
    row::{base64, to_json, usage_json},
};
use crate::{
    cli::{
        pages::PAGE,
        period::{check_order, date, day_text, number, parse_day},
        store,
        zone::ZoneArgs,
    },
    text::{Untrusted, harmless_json},
};

/// Export what was used, by user and day or by session
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions export --from 2026-11-01 --to 2026-11-30 > november.csv
  $ turnhook sessions export --by session --from 2026-11-22 --to 2026-11-22 --format json
  $ turnhook sessions export --user cust_42 --from 2026-11-01
  $ turnhook sessions export --tz Europe/Berlin --from 2026-11-01 --to 2026-11-30

  By day (of UTC, or of --tz), it is the sum of `usage_delta` of all events of that day: what a receiver that adds
  these up has to have. By session, those that ended on the days asked for: what a receiver that bills by
  `session.end` has to have; `--open` adds those that have not ended.

  In CSV, what a spreadsheet would take for a formula has an apostrophe before it, and control characters
  are escaped; `user_base64` and `realm_base64` then have the exact bytes. `--raw` leaves names as they are.")]
pub(super) struct Export {
    #[command(flatten)]
    config: ConfigArgs,
    /// The first day
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    from: Option<u32>,
    /// The last day
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    to: Option<u32>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only in this realm
    #[arg(long)]
    realm: Option<String>,
    /// What a row is
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// By session: those that have not ended, too
    #[arg(long)]
    open: bool,
    /// How rows are written; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: RowFormat,
    /// CSV: names as they are, for programs. Do not open it in a spreadsheet
    #[arg(long)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// A user on a day
    #[default]
    Day,
    /// A session
    Session,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    /// With a line of headings
    #[default]
    Csv,
    /// One object a line
    Json,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(u32::MAX));
        check_order(from, to)?;
        let (_, store) = store::open(&self.config).await?;
        let out = io::stdout().lock();
        // Written in blocks: an export can have millions of rows.
        let mut writer = match self.format {
            RowFormat::Csv => Writer::csv(
                out,
                match self.by {
                    By::Day => DAY_COLUMNS,
                    By::Session => SESSION_COLUMNS,
                },
            )?,
            RowFormat::Json => Writer::Json(io::BufWriter::new(out)),
        };
        match self.by {
            By::Day if !self.zone.is_utc() => self.by_day_of_zone(&store, &mut writer).await?,
            By::Day => self.by_day(&store, from, to, &mut writer).await?,
            By::Session => self.by_session(&store, from, to, &mut writer).await?,
        }
        writer.flush()
    }
}

enum Writer {
    Csv(Box<csv::Writer<io::StdoutLock<'static>>>),
    Json(io::BufWriter<io::StdoutLock<'static>>),
}

impl Writer {
    /// The headings stand there, rows or not.
    fn csv(out: io::StdoutLock<'static>, columns: &str) -> Result<Writer, CliError> {
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
        csv.write_record(
            columns
                .split(',')
                .chain(USAGE_COLUMNS.split(','))
                .chain(EXACT_COLUMNS.split(',')),
        )
        .map_err(unwritten)?;
        Ok(Writer::Csv(Box::new(csv)))
    }

    fn write(
        &mut self,
        row: &impl Serialize,
        object: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), CliError> {
        match self {
            Writer::Csv(csv) => csv.serialize(row).map_err(unwritten),
            Writer::Json(out) => {
                writeln!(out, "{}", harmless_json(&object().to_string())).map_err(|error| written(&error))
            }
        }
    }

    fn flush(&mut self) -> Result<(), CliError> {
        match self {
            Writer::Csv(csv) => csv.flush(),
            Writer::Json(out) => out.flush(),
        }
        .map_err(|error| written(&error))
    }
}

fn unwritten(error: csv::Error) -> CliError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => written(&error),
        other => CliError::failed(format!("{other:?}")),
    }
}

fn written(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::Unread,
        _ => CliError::failed(format!("cannot write to stdout: {error}")),
    }
}

/// The names of the fields below, in their order.
const DAY_COLUMNS: &str =
    "day,source,realm,user,sessions_started,sessions_ended,sessions_lower_bound,duration_ms";
const SESSION_COLUMNS: &str =
    "session_id,continues,source,realm,user,started_at,ended_at,duration_ms,end_reason,accuracy";
const USAGE_COLUMNS: &str = "client_received_packets,client_received_bytes,client_sent_packets,client_sent_bytes,\
peer_received_packets,peer_received_bytes,peer_sent_packets,peer_sent_bytes,billable_bytes";
const EXACT_COLUMNS: &str = "realm_base64,user_base64";

#[derive(Serialize)]
struct DayRow<'a> {
    day: String,
    source: &'a str,
    realm: String,
    user: Option<String>,
    sessions_started: u64,
    sessions_ended: u64,
    sessions_lower_bound: u64,
    duration_ms: u64,
}

#[derive(Serialize)]
struct EndRow<'a> {
    session_id: String,
    continues: Option<String>,
    source: &'a str,
    realm: String,
    user: Option<String>,
    started_at: String,
    ended_at: Option<String>,
    duration_ms: Option<u64>,
    end_reason: Option<&'static str>,
    accuracy: Option<&'static str>,
}

/// The counters in a row of a spreadsheet.
#[derive(Serialize)]
struct UsageColumns {
    client_received_packets: u64,
    client_received_bytes: u64,
    client_sent_packets: u64,
    client_sent_bytes: u64,
    peer_received_packets: u64,
    peer_received_bytes: u64,
    peer_sent_packets: u64,
    peer_sent_bytes: u64,
    billable_bytes: u64,
}

impl From<&Usage> for UsageColumns {
    fn from(usage: &Usage) -> UsageColumns {
        let (client, peer) = (&usage.legs.client, &usage.legs.peer);
        UsageColumns {
            client_received_packets: client.received_packets,
            client_received_bytes: client.received_bytes,
            client_sent_packets: client.sent_packets,
            client_sent_bytes: client.sent_bytes,
            peer_received_packets: peer.received_packets,
            peer_received_bytes: peer.received_bytes,
            peer_sent_packets: peer.sent_packets,
            peer_sent_bytes: peer.sent_bytes,
            billable_bytes: usage.billable_bytes,
        }
    }
}

/// The bytes of names whose cells are not just them: without these, two users could be one row.
#[derive(Serialize)]
struct ExactColumns {
    realm_base64: Option<String>,
    user_base64: Option<String>,
}

impl Export {
    fn cell(&self, name: &[u8]) -> String {
        Untrusted::from(name).cell(self.raw).into_owned()
    }

    fn exact(&self, realm: &[u8], user: Option<&[u8]>) -> ExactColumns {
        let of = |name: &[u8]| (self.cell(name).as_bytes() != name).then(|| STANDARD.encode(name));
        ExactColumns {
            realm_base64: of(realm),
            user_base64: user.and_then(of),
        }
    }

    fn wants(&self, source: &str, realm: &[u8], user: Option<&[u8]>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&[u8]>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| found == Some(wanted.as_bytes()))
        };
        is(&self.source, Some(source.as_bytes())) && is(&self.realm, Some(realm)) && is(&self.user, user)
    }

    async fn by_day(&self, store: &Store, from: u32, to: u32, writer: &mut Writer) -> Result<(), CliError> {
        let mut after: Option<UsageDay> = None;
        loop {
            let page = store.ledger().usage_by_day(from, to, after.take(), PAGE).await?;
            let wanted = |one: &&UsageDay| self.wants(&one.source, &one.realm, one.user.as_deref());
            page.iter()
                .filter(wanted)
                .try_for_each(|one| self.day(one, writer))?;
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.into_iter().next_back();
        }
    }

    fn day(&self, one: &UsageDay, writer: &mut Writer) -> Result<(), CliError> {
        let row = DayRow {
            day: day_text(one.day),
            source: &one.source,
            realm: self.cell(&one.realm),
            user: one.user.as_deref().map(|user| self.cell(user)),
            sessions_started: one.started,
            sessions_ended: one.ended,
            sessions_lower_bound: one.lower_bound,
            duration_ms: one.duration_ms,
        };
        let exact = self.exact(&one.realm, one.user.as_deref());
        writer.write(&(&row, UsageColumns::from(&one.usage), exact), || day_json(one))
    }

    /// The same by days of a zone, one after the other: their sums are made of those of quarters of an hour.
    async fn by_day_of_zone(&self, store: &Store, writer: &mut Writer) -> Result<(), CliError> {
        let everything = UsageFilter::default();
        let all = store
            .ledger()
            .usage_summed(Unit::Quarter, SummedBy::Time, &everything, (0, u64::MAX))
            .await?;
        let asked = self.from.unwrap_or(0)..=self.to.unwrap_or(u32::MAX);
        let days: BTreeSet<u32> = all
            .iter()
            .map(|row| number(self.zone.day(Timestamp(row.at.saturating_mul(QUARTER_MS)))))
            .filter(|day| asked.contains(day))
            .collect();
        let filter = UsageFilter {
            user: self.user.clone().map(String::into_bytes),
            source: self.source.clone(),
            realm: self.realm.clone().map(String::into_bytes),
        };
        for day in days {
            let period = Period {
                zone: (*self.zone).clone(),
                from: date(day),
                to: date(day),
            };
            let report = report(
                store.ledger(),
                &filter,
                &period,
                &[Of::Source, Of::Realm, Of::User],
            )
            .await?;
            for (key, sums) in report.rows {
                let mut key = key.into_iter();
                let mut next = || key.next().flatten();
                let (source, realm, user) = (next(), next(), next());
                let one = UsageDay {
                    day,
                    source: String::from_utf8_lossy(&source.unwrap_or_default()).into_owned(),
                    realm: realm.unwrap_or_default(),
                    user,
                    started: sums.started,
                    ended: sums.ended,
                    lower_bound: sums.lower_bound,
                    duration_ms: sums.duration_ms,
                    usage: sums.usage,
                };
                self.day(&one, writer)?;
            }
        }
        Ok(())
    }

    async fn by_session(
        &self,
        store: &Store,
        from: u32,
        to: u32,
        writer: &mut Writer,
    ) -> Result<(), CliError> {
        let filter = SessionFilter {
            source: self.source.clone(),
            realm: self.realm.clone().map(String::into_bytes),
            user: self.user.clone().map(String::into_bytes),
            ..SessionFilter::default()
        };
        let first = self.zone.begin(date(from));
        let end = to
            .checked_add(1)
            .map_or(Timestamp::MAX, |after| self.zone.begin(date(after)));
        let mut after = None;
        loop {
            let page = store
                .ledger()
                .sessions_ended(&filter, first, end, after, PAGE)
                .await?;
            page.iter().try_for_each(|one| self.session(one, writer))?;
            if page.len() < PAGE {
                break;
            }
            after = page.last().and_then(|last| Some((last.end?.0, last.id)));
        }
        if !self.open {
            return Ok(());
        }
        let filter = SessionFilter {
            open: Some(true),
            ..filter
        };
        let mut after = None;
        loop {
            let page = store.ledger().sessions(filter.clone(), after, PAGE).await?;
            page.iter().try_for_each(|one| self.session(one, writer))?;
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|last| last.id);
        }
    }

    fn session(&self, one: &SessionRow, writer: &mut Writer) -> Result<(), CliError> {
        let row = EndRow {
            session_id: one.id.to_string(),
            continues: one.continues.map(|id| id.to_string()),
            source: &one.source,
            realm: self.cell(&one.realm),
            user: one.user.as_deref().map(|user| self.cell(user)),
            started_at: rfc3339(one.started_at),
            ended_at: one.end.map(|(at, ..)| rfc3339(at)),
            duration_ms: one.end.map(|(at, ..)| at.since(one.started_at)),
            end_reason: one.end.map(|(_, reason, _)| reason.as_str()),
            accuracy: one.end.map(|(_, _, accuracy)| accuracy.as_str()),
        };
        let exact = self.exact(&one.realm, one.user.as_deref());
        writer.write(&(&row, UsageColumns::from(&one.usage), exact), || to_json(one))
    }
}

fn day_json(one: &UsageDay) -> serde_json::Value {
    json!({
        "day": day_text(one.day),
        "source": one.source,
        "realm": String::from_utf8_lossy(&one.realm),
        "realm_base64": base64(&one.realm),
        "user": one.user.as_deref().map(String::from_utf8_lossy),
        "user_base64": one.user.as_deref().and_then(base64),
        "sessions_started": one.started,
        "sessions_ended": one.ended,
        "sessions_lower_bound": one.lower_bound,
        "duration_ms": one.duration_ms,
        "usage": usage_json(&one.usage, true),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What the CSV says of its columns is what stands in them.
    #[test]
    fn headings_are_the_names_of_the_fields() {
        let heads = |row: &dyn Fn(&mut csv::Writer<Vec<u8>>)| {
            let mut csv = csv::Writer::from_writer(Vec::new());
            row(&mut csv);
            let text = String::from_utf8(csv.into_inner().unwrap()).unwrap();
            text.lines().next().unwrap().to_owned()
        };
        let usage = || UsageColumns::from(&Usage::default());
        let exact = || ExactColumns {
            realm_base64: None,
            user_base64: None,
        };
        let day = || DayRow {
            day: String::new(),
            source: "",
            realm: String::new(),
            user: None,
            sessions_started: 0,
            sessions_ended: 0,
            sessions_lower_bound: 0,
            duration_ms: 0,
        };
        let session = || EndRow {
            session_id: String::new(),
            continues: None,
            source: "",
            realm: String::new(),
            user: None,
            started_at: String::new(),
            ended_at: None,
            duration_ms: None,
            end_reason: None,
            accuracy: None,
        };
        assert_eq!(
            heads(&|csv| csv.serialize((day(), usage(), exact())).unwrap()),
            format!("{DAY_COLUMNS},{USAGE_COLUMNS},{EXACT_COLUMNS}")
        );
        assert_eq!(
            heads(&|csv| csv.serialize((session(), usage(), exact())).unwrap()),
            format!("{SESSION_COLUMNS},{USAGE_COLUMNS},{EXACT_COLUMNS}")
        );
    }
}
