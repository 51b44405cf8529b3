//! `turnhook endpoints`.

use clap::{Args, Subcommand};
use serde_json::json;
use turnhook_dispatcher::{body::rfc3339, clock::wall_clock};

mod find;
mod render;
mod trial;

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{Rows, print, print_json},
    running::Running,
    store,
    units::duration,
    zone::ZoneArgs,
};
use crate::trial::shown_url;

/// Look at endpoints, try them, pause and resume them
#[derive(Debug, Args)]
pub(super) struct Endpoints {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Test(trial::Test),
    Render(render::Render),
    Pause(Pause),
    Resume(Resume),
}

impl Endpoints {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
            Command::Test(command) => command.run().await,
            Command::Render(command) => command.run().await,
            Command::Pause(command) => command.run().await,
            Command::Resume(command) => command.run().await,
        }
    }
}

/// List endpoints, and what each still has to get
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook endpoints list

  One that stands still says until when and why, as far as the running turnhook knows:
    paused        by `turnhook endpoints pause`, or because it answered 410
    held          it asked to be left alone (Retry-After), or something has to be put right first (a wrong key)
    breaker open  it failed again and again: one delivery is tried every few seconds
  `turnhook endpoints resume` lets go of all three. One that is failing is tried as usual.

  One that is no longer configured is listed as removed while it has deliveries: they wait until an
  endpoint of that name is configured again, or they are discarded. Times are UTC, or those of --tz.")]
struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let backlog = store.outbox().backlog().await?;
        let running = Running::ask(&config, &store).await?;
        running.say_if_unanswered();
        let now = wall_clock();
        let mut table = Rows::new(&[
            ("ENDPOINT", false),
            ("STATE", false),
            ("PENDING", true),
            ("OLDEST", true),
            ("DEAD", true),
            ("URL", false),
        ])
        .narrow(&["URL"], &["STATE", "ENDPOINT"]);
        for endpoint in store.outbox().endpoints().await? {
            let left = backlog.get(&endpoint.id).copied().unwrap_or_default();
            let configured = config.endpoints.iter().find(|one| one.name == endpoint.name);
            if configured.is_none() && left.pending == 0 && left.dead == 0 {
                continue;
            }
            let paused = endpoint.paused();
            let mut standing = running.of(&endpoint.name);
            if configured.is_none() {
                standing.state = "removed".to_owned();
            }
            // Without its query and whatever else may be a token.
            let url = configured.map(|one| {
                let mut url = shown_url(&one.url);
                url.set_query(None);
                url.to_string()
            });
            let oldest = left.oldest.filter(|_| left.pending > 0);
            match self.format {
                Format::Json => print_json(&json!({
                    "endpoint": endpoint.name,
                    "state": standing.state,
                    "since": standing.since,
                    "until": standing.until,
                    "reason": standing.reason,
                    "paused_since": paused.map(|pause| rfc3339(pause.from)),
                    "pause_reason": paused.map(|pause| pause.reason.to_string()),
                    "pending": left.pending,
                    "oldest_pending_at": oldest.map(rfc3339),
                    "dead_letters": left.dead,
                    "url": url,
                }))?,
                Format::Text => table.push([
                    endpoint.name.clone(),
                    standing.describe(&self.zone),
                    left.pending.to_string(),
                    oldest.map(|at| duration(now.since(at))).unwrap_or_default(),
                    left.dead.to_string(),
                    url.unwrap_or_default(),
                ]),
            }
        }
        if self.format == Format::Text {
            table.print("no endpoints")
        } else {
            Ok(())
        }
    }
}

/// Send nothing to an endpoint, and keep everything for it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook endpoints pause billing --reason 'database upgrade'

  A running turnhook notices within seconds. `give_up_after` stands still meanwhile.")]
struct Pause {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint's name
    name: String,
    /// Why, for whoever looks
    #[arg(long, default_value = "by command")]
    reason: String,
}

impl Pause {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let paused = store
            .admin()
            .pause(&self.name, wall_clock(), &self.reason)
            .await?;
        store::note(&store, "pause", self.name.clone(), &self.reason, paused.into()).await?;
        print(&format!(
            "{} {}\n",
            self.name,
            if paused { "is paused" } else { "was paused already" }
        ))
    }
}

/// Send to an endpoint again that is paused, held by a Retry-After, or left alone by the circuit breaker
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook endpoints resume billing

  A running turnhook notices within seconds, and sends at once what waited.")]
struct Resume {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint's name
    name: String,
}

impl Resume {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let resumed = store.admin().resume(&self.name, wall_clock()).await?;
        store::note(&store, "resume", self.name.clone(), "", resumed.into()).await?;
        print(&format!(
            "{} {}\n",
            self.name,
            if resumed {
                "is resumed"
            } else {
                "was not paused; whatever else holds it back is let go"
            }
        ))
    }
}
