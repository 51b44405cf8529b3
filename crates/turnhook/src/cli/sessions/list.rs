//! `turnhook sessions list`.

use clap::Args;
use turnhook_admin::Zone;
use turnhook_reducer::event::{Accuracy, SessionId};
use turnhook_store::{SessionFilter, SessionRow};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
    },
    row::to_json,
};
use crate::cli::{
    output::{self, Rows, print_json},
    pages::{Pages, limit},
    store,
    units::{bytes, duration},
    zone::{When, ZoneArgs},
};

/// List sessions, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions list --user cust_42 --since 2026-11-01
  $ turnhook sessions list --open --format json | jq .usage.billable_bytes

  Times are UTC, or those of --tz; 1 kB is 1000 bytes; - : nothing was sent of it yet; ≥ : a lower
  bound. On a narrow terminal columns are left out: `| cat` shows all.")]
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
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only those that started before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// At most so many [default: 50 as text, all as json]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
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
            since: self.since.map(|when| when.of(&self.zone)),
            until: self.until.map(|when| when.of(&self.zone)),
        };
        let mut table = table(&self.zone);
        let mut pages = Pages::new(self.after, limit(self.limit, self.format));
        while let Some((after, most)) = pages.ask() {
            let page = store.ledger().sessions(filter.clone(), after, most).await?;
            for row in pages.wanted(&page, |row| row.id) {
                match self.format {
                    Format::Json => print_json(&to_json(row))?,
                    Format::Text => table.push(cells(row, &self.zone)),
                }
            }
        }
        if self.format == Format::Text {
            table.print("no sessions")?;
        }
        if let Some(last) = pages.more_after() {
            eprintln!("more: --after {last}");
        }
        Ok(())
    }
}

fn table(zone: &Zone) -> Rows {
    Rows::new(&[
        ("STARTED (UTC)", false),
        ("USER", false),
        ("LASTED", true),
        ("RECEIVED", true),
        ("SENT", true),
        ("BILLABLE", true),
        ("END", false),
        ("ACCURACY", false),
        ("SESSION", false),
    ])
    .narrow(&["RECEIVED", "SENT", "LASTED", "END", "ACCURACY"], &["USER"])
    .of_zone(zone)
}

fn cells(row: &SessionRow, zone: &Zone) -> [String; 9] {
    let last = row.end.map_or(row.updated_at, |(at, ..)| at);
    let client = &row.usage.legs.client;
    // Only its start: what it has used is not known here.
    let silent = row.end.is_none() && row.sequence == 0;
    let sent = |text: String| if silent { "-".to_owned() } else { text };
    // Whatever is left out on a narrow terminal, this column stays.
    let at_least = match row.end {
        Some((_, _, Accuracy::LowerBound)) => "≥ ",
        _ => "",
    };
    [
        zone.show(row.started_at),
        output::user(row.user.as_deref()),
        sent(duration(last.since(row.started_at))),
        sent(bytes(client.received_bytes)),
        sent(bytes(client.sent_bytes)),
        sent(format!("{at_least}{}", bytes(row.usage.billable_bytes))),
        row.end
            .map_or("(open)", |(_, reason, _)| reason.as_str())
            .to_owned(),
        row.end
            .map_or("", |(_, _, accuracy)| accuracy.as_str())
            .to_owned(),
        row.id.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use turnhook_reducer::{event::CloseReason, time::Timestamp, usage::Usage};

    use super::*;

    fn shown(accuracy: Accuracy, most: Option<usize>) -> String {
        let zone = Zone::utc();
        let row = SessionRow {
            id: "ses_00000000000000000000000000".parse().unwrap(),
            source: "eu-1".to_owned(),
            realm: Vec::new(),
            user: Some(b"a-user-with-a-long-name".to_vec()),
            usernames: Vec::new(),
            labels: Vec::new(),
            started_at: Timestamp(1_795_327_257_624),
            updated_at: Timestamp(1_795_327_267_624),
            end: Some((
                Timestamp(1_795_327_267_624),
                CloseReason::ServerRestarted,
                accuracy,
            )),
            continues: None,
            sequence: 1,
            peer_leg: true,
            allocations: 1,
            usage: Usage {
                billable_bytes: 540_000,
                ..Usage::default()
            },
        };
        let mut table = table(&zone);
        table.push(cells(&row, &zone));
        table.text("none", most)
    }

    #[test]
    fn a_lower_bound_is_seen_however_narrow_the_terminal_is() {
        for most in [None, Some(200), Some(100), Some(90), Some(80)] {
            let text = shown(Accuracy::LowerBound, most);
            assert!(text.contains("≥ 540.0 kB"), "{most:?}\n{text}");
            let exact = shown(Accuracy::Exact, most);
            assert!(!exact.contains('≥') && exact.contains("540.0 kB"), "{exact}");
            let most = most.unwrap_or(usize::MAX);
            assert!(text.lines().all(|line| line.chars().count() <= most), "{text}");
        }
        // It outlasts what else is left out.
        let text = shown(Accuracy::LowerBound, Some(90));
        assert!(
            text.contains("lower_bound") && !text.contains("server_restarted"),
            "{text}"
        );
    }
}
