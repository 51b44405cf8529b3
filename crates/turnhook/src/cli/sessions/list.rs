//! `turnhook sessions list`.

use clap::Args;
use turnhook_reducer::{event::SessionId, time::Timestamp};
use turnhook_store::{SessionFilter, SessionRow};

use super::to_json;
use crate::cli::{
    CliError, ConfigArgs, Format,
    output::{self, Rows, parse_time, print_json},
    store,
    units::{bytes, duration},
};

/// List sessions, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions list --user cust_42 --since 2026-11-01
  $ turnhook sessions list --open --format json | jq .usage.billable_bytes")]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only in this realm
    #[arg(long)]
    realm: Option<String>,
    /// Only those that have not ended
    #[arg(long, conflicts_with = "ended")]
    open: bool,
    /// Only those that have
    #[arg(long)]
    ended: bool,
    /// Only those that were open at this time or later: 2026-11-22T06:00:00Z, 2026-11-22, or 2h ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only those that started before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Go on after this one, the last of the page before
    #[arg(long, value_name = "SESSION")]
    after: Option<SessionId>,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let filter = SessionFilter {
            source: self.source,
            realm: self.realm.map(String::into_bytes),
            user: self.user.map(String::into_bytes),
            open: if self.open {
                Some(true)
            } else {
                self.ended.then_some(false)
            },
            since: self.since,
            until: self.until,
        };
        let limit = self.limit as usize;
        // One more than is shown tells whether there is a next page.
        let mut rows = store
            .sessions(filter, self.after, limit.saturating_add(1))
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.format == Format::Json {
            return rows.iter().try_for_each(|row| print_json(&to_json(row)));
        }
        let mut table = Rows::new(&[
            ("STARTED", false),
            ("USER", false),
            ("DURATION", true),
            ("RECEIVED", true),
            ("SENT", true),
            ("BILLABLE", true),
            ("END", false),
            ("ACCURACY", false),
            ("SESSION", false),
        ]);
        for row in &rows {
            table.push(cells(row));
        }
        table.print("no sessions")?;
        if let (true, Some(last)) = (more, rows.last()) {
            eprintln!("more: --after {}", last.id);
        }
        Ok(())
    }
}

fn cells(row: &SessionRow) -> [String; 9] {
    let last = row.end.map_or(row.updated_at, |(at, ..)| at);
    let client = &row.usage.legs.client;
    [
        output::time(row.started_at),
        output::user(row.user.as_deref()),
        duration(last.since(row.started_at)),
        bytes(client.received_bytes),
        bytes(client.sent_bytes),
        bytes(row.usage.billable_bytes),
        row.end
            .map_or("(open)", |(_, reason, _)| reason.as_str())
            .to_owned(),
        row.end
            .map_or("", |(_, _, accuracy)| accuracy.as_str())
            .to_owned(),
        row.id.to_string(),
    ]
}
