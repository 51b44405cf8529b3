//! `turnhook unattributed`.

use clap::{Args, Subcommand};
use serde_json::json;
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_store::{RefusedRow, UnattributedRow};

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    gaps::RecordArgs,
    output::{self, Rows, print, print_json},
    pages::{PAGE, Pages, limit},
    sessions::row::{base64, usage_json},
    store,
    units::bytes,
};

/// Look at bytes that are billed in no session
#[derive(Debug, Args)]
pub(super) struct Unattributed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
}

impl Unattributed {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
        }
    }
}

/// List what was heard of and is billed in no session, newest first, and what the database would not take
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook unattributed list --since 30d
  $ turnhook unattributed list --source eu-1 --format json | jq .usage.billable_bytes

  Reasons:
    residue        too little to be worth a session, and nobody came for it within a day
    never_relayed  an allocation that never relayed, with start_on = \"relay\"
    evicted        [limits] tombstones was too low: this may have been billed before
  What the database would not take (a value beyond its bounds) is listed below, or in json as an object
  with `refused` in it. Everything else of that moment was committed. Times are UTC, or
  those of --tz; 1 kB is 1000 bytes.")]
struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    which: RecordArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let filter = self.which.to_filter();
        let wanted = limit(self.which.limit, self.format);
        let mut table = Rows::new(&[
            ("AT (UTC)", false),
            ("SOURCE", false),
            ("REALM", false),
            ("USERNAME", false),
            ("ALLOCATION", false),
            ("BILLABLE", true),
            ("REASON", false),
        ])
        .narrow(&["ALLOCATION", "SOURCE"], &["REALM", "USERNAME"])
        .of_zone(&self.which.zone);
        let mut sum = 0u64;
        let mut pages = Pages::new(self.which.after, wanted);
        while let Some((after, most)) = pages.ask() {
            let page = store.ledger().unattributed(&filter, after, most).await?;
            for row in pages.wanted(&page, |row| row.number) {
                sum = sum.saturating_add(row.usage.billable_bytes);
                match self.format {
                    Format::Json => print_json(&json(row))?,
                    Format::Text => table.push(cells(row, &self.which.zone)),
                }
            }
        }
        // Beside them, since there are few, if any.
        let refused = if self.which.after.is_none() {
            store
                .ledger()
                .refused_rows(&filter, None, wanted.min(PAGE))
                .await?
        } else {
            Vec::new()
        };
        match self.format {
            Format::Json => refused
                .iter()
                .try_for_each(|row| print_json(&refused_json(row)))?,
            Format::Text => {
                table.print("nothing: all that was heard of is billed in a session")?;
                if sum > 0 {
                    print(&format!("\nsum: {sum} B ({}) billable\n", bytes(sum)))?;
                }
                self::refused(&refused, &self.which.zone)?;
            }
        }
        if let Some(last) = pages.more_after() {
            eprintln!("more: --after {last}");
        }
        Ok(())
    }
}

fn cells(row: &UnattributedRow, zone: &Zone) -> [String; 7] {
    [
        zone.show(row.at),
        output::name(row.source.as_bytes()),
        output::name(&row.realm),
        output::name(&row.username),
        row.allocation.to_string(),
        bytes(row.usage.billable_bytes),
        output::name(row.reason.as_bytes()),
    ]
}

fn json(row: &UnattributedRow) -> serde_json::Value {
    json!({
        "number": row.number,
        "source": row.source,
        "at": rfc3339(row.at),
        "reason": row.reason,
        "server": row.server.as_deref().map(String::from_utf8_lossy),
        "realm": String::from_utf8_lossy(&row.realm),
        "realm_base64": base64(&row.realm),
        "username": String::from_utf8_lossy(&row.username),
        "username_base64": base64(&row.username),
        "allocation": row.allocation.to_string(),
        "opened_at": rfc3339(row.opened_at),
        "usage": usage_json(&row.usage, true),
    })
}

fn refused_json(row: &RefusedRow) -> serde_json::Value {
    json!({
        "number": row.number,
        "source": row.source,
        "at": rfc3339(row.at),
        "refused": row.kind,
        "name": row.name,
        "error": row.error,
    })
}

fn refused(rows: &[RefusedRow], zone: &Zone) -> Result<(), CliError> {
    if rows.is_empty() {
        return Ok(());
    }
    print("\nWhat the database would not take:\n")?;
    let mut table = Rows::new(&[
        ("AT (UTC)", false),
        ("SOURCE", false),
        ("WHAT", false),
        ("NAME", false),
        ("ERROR", false),
    ])
    .narrow(&["SOURCE"], &["ERROR", "NAME"])
    .of_zone(zone);
    for row in rows {
        table.push([
            zone.show(row.at),
            output::name(row.source.as_bytes()),
            output::name(row.kind.as_bytes()),
            output::name(row.name.as_bytes()),
            output::name(row.error.as_bytes()),
        ]);
    }
    table.print("")
}
