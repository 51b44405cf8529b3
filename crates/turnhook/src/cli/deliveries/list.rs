//! `turnhook deliveries list`.

use clap::{Args, ValueEnum};
use turnhook_store::{DeliveryCursor, DeliveryId, DeliveryState};

use super::{FilterArgs, next_attempt, to_json};
use crate::cli::{
    CliError, ConfigArgs, Format,
    output::{self, Rows, print_json},
    running::Running,
    store,
};

/// List deliveries, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook deliveries list --state dead
  $ turnhook deliveries list --endpoint billing --user cust_42 --since 1d")]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only in this state; any number of them
    #[arg(long, value_enum)]
    state: Vec<StateArg>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
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
        let limit = self.limit as usize;
        // One more than is shown tells whether there is a next page.
        let mut rows = store
            .deliveries(
                self.filter.to_filter(&states),
                self.after,
                limit.saturating_add(1),
            )
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let running = if rows.iter().any(|row| row.next_attempt_at.is_some()) {
            Running::ask(&config, &store).await?
        } else {
            Running::default()
        };
        running.say_if_unanswered();
        match self.format {
            Format::Json => rows
                .iter()
                .try_for_each(|row| print_json(&to_json(row, &running)))?,
            Format::Text => {
                let mut table = Rows::new(&[
                    ("AT", false),
                    ("EVENT", false),
                    ("ENDPOINT", false),
                    ("STATE", false),
                    ("ATTEMPTS", true),
                    ("NEXT", false),
                    ("WEBHOOK-ID", false),
                    ("SESSION", false),
                ]);
                for row in &rows {
                    table.push([
                        output::time(row.timestamp),
                        row.event_type.as_str().to_owned(),
                        row.endpoint.clone(),
                        row.reason.as_ref().map_or_else(
                            || row.state.as_str().to_owned(),
                            |reason| format!("{}: {}", row.state.as_str(), output::name(reason.as_bytes())),
                        ),
                        row.attempts.to_string(),
                        next_attempt(row, &running),
                        row.event_id.to_string(),
                        row.session_id.to_string(),
                    ]);
                }
                table.print("no deliveries")?;
            }
        }
        if let (true, Some(last)) = (more, rows.last()) {
            eprintln!("more: --after {}:{}", last.event_id, last.id.0);
        }
        Ok(())
    }
}
