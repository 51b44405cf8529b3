//! `turnhook gaps`.

use clap::{Args, Subcommand};
use serde_json::json;
use turnhook_dispatcher::body::rfc3339;
use turnhook_store::RecordFilter;

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{self, Rows, print_json},
    pages::{Pages, limit},
    store,
    units::duration,
    zone::{When, ZoneArgs},
};

/// Look at when something may have been missed
#[derive(Debug, Args)]
pub(super) struct Gaps {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
}

impl Gaps {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
        }
    }
}

/// List gaps, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook gaps list --since 1d
  $ turnhook gaps list --source eu-1 --format json | jq -r .reason | sort | uniq -c

  A gap lowers the accuracy of the sessions whose totals it swallowed, and of no others. Times are UTC, or those of --tz.")]
struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    which: RecordArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which of what is on record.
#[derive(Clone, Debug, Args)]
pub(super) struct RecordArgs {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only of this time or later: 2026-11-22T06:00:00Z, 2026-11-22, or 2h ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    #[command(flatten)]
    pub(super) zone: ZoneArgs,
    /// At most so many [default: 50 as text, all as json]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Go on after this one: what the page before ended with
    #[arg(long, value_name = "NUMBER")]
    pub(super) after: Option<i64>,
}

impl RecordArgs {
    pub(super) fn to_filter(&self) -> RecordFilter {
        RecordFilter {
            source: self.source.clone(),
            since: self.since.map(|when| when.of(&self.zone)),
            until: self.until.map(|when| when.of(&self.zone)),
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let mut table = Rows::new(&[
            ("FROM (UTC)", false),
            ("TO (UTC)", false),
            ("LASTED", true),
            ("SOURCE", false),
            ("REASON", false),
            ("SERVER", false),
        ])
        .narrow(&["LASTED"], &["SERVER", "SOURCE"])
        .of_zone(&self.which.zone);
        let (filter, zone) = (self.which.to_filter(), &self.which.zone);
        let mut pages = Pages::new(self.which.after, limit(self.which.limit, self.format));
        while let Some((after, most)) = pages.ask() {
            let page = store.ledger().gaps_on_record(&filter, after, most).await?;
            for (number, row) in pages.wanted(&page, |(number, _)| *number) {
                let gap = &row.gap;
                match self.format {
                    Format::Json => print_json(&json!({
                        "number": number,
                        "source": row.source,
                        "from": rfc3339(gap.from),
                        "to": rfc3339(gap.to),
                        "duration_ms": gap.to.since(gap.from),
                        "reason": gap.reason.as_str(),
                        "server": gap.server.as_deref().map(String::from_utf8_lossy),
                    }))?,
                    Format::Text => table.push([
                        zone.show(gap.from),
                        zone.show(gap.to),
                        duration(gap.to.since(gap.from)),
                        output::name(row.source.as_bytes()),
                        gap.reason.as_str().to_owned(),
                        gap.server
                            .as_deref()
                            .map_or_else(|| "all".to_owned(), output::name),
                    ]),
                }
            }
        }
        if self.format == Format::Text {
            table.print("no gaps")?;
        }
        if let Some(last) = pages.more_after() {
            eprintln!("more: --after {last}");
        }
        Ok(())
    }
}
