//! `turnhook replay`.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use turnhook_admin::Zone;
use turnhook_dispatcher::{body::rfc3339, clock::wall_clock};
use turnhook_store::{
    DeliveryCursor, DeliveryFilter, DeliveryState, Replay as OnRecord, ReplayRequest, Store,
};

use super::{
    args::{ConfigArgs, Format},
    deliveries::filter::FilterArgs,
    error::CliError,
    output::{self, Rows, print, print_json},
    pages::PAGE,
    running::Running,
    store,
};
use crate::config::Config;

/// Send events again, with their first ids and bytes: dead letters, if nothing else is said
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook replay --endpoint billing --dry-run
  $ turnhook replay --endpoint billing --rate 50 --wait --timeout 10m
  $ turnhook replay --session ses_06epcj2hhm0000000000000001 --state all
  $ turnhook replay --history

  A receiver that has counted an event knows it again by its webhook-id. If it passes events on to a
  billing provider with an idempotency window of its own (a day, often), replay within that window.
  What may have been counted by a billing product longer ago than it remembers ends as a dead letter
  (uncertain) again, unless --may-repeat is said.
  With no turnhook running, what is replayed is queued, and the next `turnhook run` delivers it.")]
pub(super) struct Replay {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to send again
    #[arg(long, value_enum, default_value_t)]
    state: StateArg,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only say how many
    #[arg(long)]
    dry_run: bool,
    /// Send also what a billing product may have counted already, and may count twice: look there first
    #[arg(long)]
    may_repeat: bool,
    /// At most so many a second, besides the endpoint's own limit
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Wait until each is delivered or given up again; the exit status is 1 if not all were delivered
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this; the exit status is 1 if something is still pending then
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// List the replays on record instead: who asked, when, what
    #[arg(long, exclusive = false, conflicts_with_all = ["dry_run", "rate", "wait"])]
    history: bool,
    /// How to print the history; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum StateArg {
    /// Dead letters
    #[default]
    Dead,
    /// What the endpoint had taken
    Delivered,
    /// Both, and what was discarded
    All,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a number above 0".to_owned()),
    }
}

impl Replay {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        if self.history {
            return history(&store, self.format, self.filter.zone()).await;
        }
        if self.state != StateArg::Dead && self.filter.is_empty() {
            return Err(CliError::failed(
                "say which: everything that was ever delivered is more than anybody wants again",
            ));
        }
        let filter = self.filter.to_filter(match self.state {
            StateArg::Dead => &[DeliveryState::Dead],
            StateArg::Delivered => &[DeliveryState::Delivered],
            StateArg::All => &[
                DeliveryState::Dead,
                DeliveryState::Delivered,
                DeliveryState::Discarded,
            ],
        });
        if self.dry_run {
            let count = store.ledger().count_deliveries(filter).await?;
            return print(&format!("{count} deliveries would be sent again\n"));
        }
        let state = self
            .state
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        let request = ReplayRequest {
            filter,
            at: wall_clock(),
            who: who(),
            what: format!("--state {state} {}", self.filter.to_words())
                .trim_end()
                .to_owned(),
            rate: self.rate,
            may_repeat: self.may_repeat,
        };
        let replay = store.admin().replay(request).await?;
        store::note(&store, "replay", replay.what.clone(), "", replay.total).await?;
        print(&format!(
            "replay {}: {} deliveries queued\n",
            replay.id.0, replay.total
        ))?;
        if replay.total == 0 {
            return Ok(());
        }
        let running = store.is_run_on().await?;
        if !running {
            print("no turnhook is running on this store: the next `turnhook run` delivers them\n")?;
        }
        if self.wait {
            self.wait(&config, &store, &replay).await
        } else {
            Ok(())
        }
    }
}

/// For the record: whoever is logged in, also behind sudo.
fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    user.unwrap_or_else(|| "(unknown)".to_owned())
}

impl Replay {
    async fn wait(&self, config: &Config, store: &Store, replay: &OnRecord) -> Result<(), CliError> {
        // Without a terminal nothing is drawn: the last line says what came of it.
        let bar = if stderr().is_terminal() {
            ProgressBar::new(replay.total)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} eta {eta}") {
            bar.set_style(style);
        }
        let mut shown = BTreeMap::new();
        let deadline = self.timeout.and_then(|most| Instant::now().checked_add(most));
        for look in 0u32.. {
            let pending = store
                .ledger()
                .replays(Some(replay.id), 1)
                .await?
                .first()
                .map_or(0, |replay| replay.pending);
            bar.set_position(replay.total.saturating_sub(pending));
            if pending == 0 {
                break;
            }
            if look % 8 == 0 {
                let running = Running::ask(config, store).await?;
                if look == 0 {
                    running.say_if_unanswered();
                }
                let lines = self.what_waits(&running, store, &mut shown).await?;
                // The bar is drawn again below them.
                bar.suspend(|| lines.iter().for_each(|line| eprintln!("{line}")));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                bar.finish_and_clear();
                return Err(CliError::failed(format!(
                    "{pending} of {} deliveries are still pending; they go on, and `turnhook deliveries list --state pending` shows them",
                    replay.total
                )));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bar.finish_and_clear();
        let failed = self.failed(store, replay).await?;
        let delivered = replay.total.saturating_sub(failed);
        print(&format!("{delivered} of {} deliveries done\n", replay.total))?;
        if failed == 0 {
            return Ok(());
        }
        Err(CliError::failed(format!(
            "{failed} of them were not taken: `turnhook deliveries list --state dead` says why"
        )))
    }

    /// Who stands still, and until when: once for each state that it comes to.
    async fn what_waits(
        &self,
        running: &Running,
        store: &Store,
        shown: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, CliError> {
        let mut lines = Vec::new();
        let backlog = store.outbox().backlog().await?;
        for endpoint in store.outbox().endpoints().await? {
            let asked = self.filter.endpoint().is_none_or(|name| name == endpoint.name);
            let waits = backlog.get(&endpoint.id).is_some_and(|left| left.pending > 0);
            let standing = running.of(&endpoint.name);
            if !(asked && waits && standing.is_still()) {
                shown.remove(&endpoint.name);
                continue;
            }
            if shown.insert(endpoint.name.clone(), standing.state.clone()) != Some(standing.state.clone()) {
                let name = &endpoint.name;
                lines.push(format!(
                    "waiting: {name} is {}; `turnhook endpoints resume {name}` lets go of that",
                    standing.describe(self.filter.zone())
                ));
            }
        }
        Ok(lines)
    }

    /// How many of the deliveries that it queued were given up, by the receiver or by a person.
    async fn failed(&self, store: &Store, replay: &OnRecord) -> Result<u64, CliError> {
        let filter = DeliveryFilter {
            states: vec![DeliveryState::Dead, DeliveryState::Discarded],
            ..self.filter.to_filter(&[])
        };
        let (mut failed, mut after) = (0, None);
        loop {
            let page = store.ledger().deliveries(filter.clone(), after, PAGE).await?;
            failed += page.iter().filter(|row| row.replay == Some(replay.id)).count() as u64;
            match page.last() {
                Some(last) if page.len() == PAGE => {
                    after = Some(DeliveryCursor {
                        event_id: last.event_id,
                        id: last.id,
                    });
                }
                _ => return Ok(failed),
            }
        }
    }
}

async fn history(store: &Store, format: Format, zone: &Zone) -> Result<(), CliError> {
    let replays = store.ledger().replays(None, usize::MAX).await?;
    if format == Format::Json {
        return replays.iter().try_for_each(|replay| {
            print_json(&json!({
                "replay": replay.id.0,
                "at": rfc3339(replay.at),
                "who": replay.who,
                "what": replay.what,
                "total": replay.total,
                "pending": replay.pending,
            }))
        });
    }
    let mut table = Rows::new(&[
        ("REPLAY", true),
        ("AT (UTC)", false),
        ("WHO", false),
        ("QUEUED", true),
        ("PENDING", true),
        ("WHAT", false),
    ])
    .narrow(&["PENDING"], &["WHAT", "WHO"])
    .of_zone(zone);
    for replay in &replays {
        table.push([
            replay.id.0.to_string(),
            zone.show(replay.at),
            output::name(replay.who.as_bytes()),
            replay.total.to_string(),
            replay.pending.to_string(),
            output::name(replay.what.as_bytes()),
        ]);
    }
    table.print("no replays")
}
