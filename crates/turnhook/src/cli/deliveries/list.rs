//! `turnhook deliveries list`.

use clap::{Args, ValueEnum};
use turnhook_admin::Zone;
use turnhook_store::{DeliveryCursor, DeliveryId, DeliveryRow, DeliveryState};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
    },
    filter::FilterArgs,
    row::{next_attempt, to_json},
};
use crate::cli::{
    output::{self, Rows, print_json},
    pages::{Pages, limit},
    running::Running,
    store,
};

/// List deliveries, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook deliveries list --state dead
  $ turnhook deliveries list --endpoint billing --user cust_42 --since 1d

  Times are UTC, or those of --tz. On a narrow terminal columns are left out: `| cat` shows all.")]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only in this state; any number of them
    #[arg(long, value_enum)]
    state: Vec<StateArg>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many [default: 50 as text, all as json]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on after this one: what the page before ended with
    #[arg(long, value_name = "CURSOR", value_parser = parse_cursor)]
    after: Option<DeliveryCursor>,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    /// To be made, now or later
    Pending,
    /// The endpoint took it
    Delivered,
    /// Given up: a dead letter
    Dead,
    /// Given up by a person
    Discarded,
}

impl From<StateArg> for DeliveryState {
    fn from(arg: StateArg) -> DeliveryState {
        match arg {
            StateArg::Pending => DeliveryState::Pending,
            StateArg::Delivered => DeliveryState::Delivered,
            StateArg::Dead => DeliveryState::Dead,
            StateArg::Discarded => DeliveryState::Discarded,
        }
    }
}

/// `evt_…:7`.
fn parse_cursor(text: &str) -> Result<DeliveryCursor, String> {
    let wrong = || "a cursor is what the page before ended with".to_owned();
    let (event_id, id) = text.split_once(':').ok_or_else(wrong)?;
    Ok(DeliveryCursor {
        event_id: event_id.parse().map_err(|_| wrong())?,
        id: DeliveryId(id.parse().map_err(|_| wrong())?),
    })
}

impl List {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let states: Vec<DeliveryState> = self.state.iter().map(|state| (*state).into()).collect();
        let filter = self.filter.to_filter(&states);
        let mut table = Rows::new(&[
            ("AT (UTC)", false),
            ("EVENT", false),
            ("ENDPOINT", false),
            ("STATE", false),
            ("ATTEMPTS", true),
            ("NEXT (UTC)", false),
            ("WEBHOOK-ID", false),
            ("SESSION", false),
        ])
        .narrow(
            &["SESSION", "ATTEMPTS", "NEXT (UTC)", "EVENT"],
            &["STATE", "ENDPOINT"],
        )
        .of_zone(self.filter.zone());
        let mut running = None;
        let mut pages = Pages::new(self.after, limit(self.limit, self.format));
        while let Some((after, most)) = pages.ask() {
            let page = store.ledger().deliveries(filter.clone(), after, most).await?;
            if running.is_none() && page.iter().any(|row| row.next_attempt_at.is_some()) {
                let asked = Running::ask(&config, &store).await?;
                asked.say_if_unanswered();
                running = Some(asked);
            }
            let unknown = Running::default();
            let running = running.as_ref().unwrap_or(&unknown);
            let name = |row: &DeliveryRow| DeliveryCursor {
                event_id: row.event_id,
                id: row.id,
            };
            for row in pages.wanted(&page, name) {
                match self.format {
                    Format::Json => print_json(&to_json(row, running))?,
                    Format::Text => table.push(cells(row, running, self.filter.zone())),
                }
            }
        }
        if self.format == Format::Text {
            table.print("no deliveries")?;
        }
        if let Some(last) = pages.more_after() {
            eprintln!("more: --after {}:{}", last.event_id, last.id.0);
        }
        Ok(())
    }
}

/// A delivery's row.
fn cells(row: &DeliveryRow, running: &Running, zone: &Zone) -> [String; 8] {
    [
        zone.show(row.timestamp),
        row.event_type.as_str().to_owned(),
        row.endpoint.clone(),
        state(row),
        row.attempts.to_string(),
        next_attempt(row, running, zone),
        row.event_id.to_string(),
        row.session().map_or_else(|| "-".to_owned(), |id| id.to_string()),
    ]
}

/// Its state, and why it is dead.
pub(super) fn state(row: &DeliveryRow) -> String {
    row.reason.as_ref().map_or_else(
        || row.state.as_str().to_owned(),
        |reason| format!("{}: {}", row.state.as_str(), output::name(reason.as_bytes())),
    )
}
