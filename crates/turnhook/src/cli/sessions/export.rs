//! `turnhook sessions export`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use serde::Serialize;
use serde_json::json;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::{time::Timestamp, usage::Usage};
use turnhook_store::{SessionFilter, SessionRow, Store, UsageDay};

use super::{counters, to_json};
use crate::cli::{CliError, ConfigArgs, store};

/// Rows read at once: memory does not grow with the ledger.
const PAGE: usize = 1000;

/// Export what was used, by user and day or by session
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions export --from 2026-11-01 --to 2026-11-30 > november.csv
  $ turnhook sessions export --by session --from 2026-11-22 --format json

  By day (UTC), it is the sum of `usage_delta` of all events of that day: what a receiver that adds
  these up has to have. By session, those that started on the days asked for.")]
pub(super) struct Export {
    #[command(flatten)]
    config: ConfigArgs,
    /// The first day
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    from: Option<u32>,
    /// The last day
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    to: Option<u32>,
    /// What a row is
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// How rows are written; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: RowFormat,
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

const EPOCH: Date = Date::constant(1970, 1, 1);
const DAY_MS: u64 = 86_400_000;

/// Days since 1970-01-01.
fn parse_day(text: &str) -> Result<u32, String> {
    let date: Date = text
        .parse()
        .map_err(|_| "write a day like 2026-11-22".to_owned())?;
    let days = date.since(EPOCH).map_err(|error| error.to_string())?.get_days();
    u32::try_from(days).map_err(|_| "before 1970".to_owned())
}

fn day_text(day: u32) -> String {
    rfc3339(Timestamp(u64::from(day) * DAY_MS))
        .chars()
        .take(10)
        .collect()
}

impl Export {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(u32::MAX));
        let out = io::stdout().lock();
        // Written in blocks: an export can have millions of rows.
        let mut writer = match self.format {
            RowFormat::Csv => Writer::Csv(Box::new(csv::Writer::from_writer(out))),
            RowFormat::Json => Writer::Json(io::BufWriter::new(out)),
        };
        match self.by {
            By::Day => by_day(&store, from, to, &mut writer).await?,
            By::Session => by_session(&store, from, to, &mut writer).await?,
        }
        writer.flush()
    }
}

enum Writer {
    Csv(Box<csv::Writer<io::StdoutLock<'static>>>),
    Json(io::BufWriter<io::StdoutLock<'static>>),
}

impl Writer {
    fn write(
        &mut self,
        row: &impl Serialize,
        object: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), CliError> {
        match self {
            Writer::Csv(csv) => csv.serialize(row).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) => written(&error),
                other => CliError::failed(format!("{other:?}")),
            }),
            Writer::Json(out) => writeln!(out, "{}", object()).map_err(|error| written(&error)),
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

fn written(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::Unread,
        _ => CliError::failed(format!("cannot write to stdout: {error}")),
    }
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn by_day(store: &Store, from: u32, to: u32, writer: &mut Writer) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Row<'a> {
        day: String,
        source: &'a str,
        realm: String,
        user: Option<String>,
        sessions_started: u64,
        sessions_ended: u64,
        sessions_lower_bound: u64,
        duration_ms: u64,
    }
    let mut after: Option<UsageDay> = None;
    loop {
        let page = store.usage_by_day(from, to, after.take(), PAGE).await?;
        for one in &page {
            let row = Row {
                day: day_text(one.day),
                source: &one.source,
                realm: text(&one.realm),
                user: one.user.as_deref().map(text),
                sessions_started: one.started,
                sessions_ended: one.ended,
                sessions_lower_bound: one.lower_bound,
                duration_ms: one.duration_ms,
            };
            writer.write(&(&row, UsageColumns::from(&one.usage)), || {
                let mut object = json!(row);
                object["usage"] = json!({
                    "client": counters(&one.usage.legs.client),
                    "peer": counters(&one.usage.legs.peer),
                    "billable_bytes": one.usage.billable_bytes,
                });
                object
            })?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.into_iter().next_back();
    }
}

async fn by_session(store: &Store, from: u32, to: u32, writer: &mut Writer) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Row<'a> {
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
    let first = Timestamp(u64::from(from) * DAY_MS);
    let filter = SessionFilter {
        since: Some(first),
        until: Some(Timestamp((u64::from(to) + 1) * DAY_MS)),
        ..SessionFilter::default()
    };
    let mut after = None;
    loop {
        let page = store.sessions(filter.clone(), after, PAGE).await?;
        // `since` also finds those that were still open then: they belong to the day on which they started.
        for one in page.iter().filter(|one: &&SessionRow| one.started_at >= first) {
            let row = Row {
                session_id: one.id.to_string(),
                continues: one.continues.map(|id| id.to_string()),
                source: &one.source,
                realm: text(&one.realm),
                user: one.user.as_deref().map(text),
                started_at: rfc3339(one.started_at),
                ended_at: one.end.map(|(at, ..)| rfc3339(at)),
                duration_ms: one.end.map(|(at, ..)| at.since(one.started_at)),
                end_reason: one.end.map(|(_, reason, _)| reason.as_str()),
                accuracy: one.end.map(|(_, _, accuracy)| accuracy.as_str()),
            };
            writer.write(&(&row, UsageColumns::from(&one.usage)), || to_json(one))?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.last().map(|last| last.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(parse_day("1970-01-01"), Ok(0));
        assert_eq!(parse_day("2026-11-22").map(day_text), Ok("2026-11-22".to_owned()));
        assert!(parse_day("today").is_err() && parse_day("1969-12-31").is_err());
    }
}
