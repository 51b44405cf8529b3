//! `turnhook sources`.

use clap::{Args, Subcommand};

use super::{args::ConfigArgs, error::CliError, output::print, store};

/// Give a source another name
#[derive(Debug, Args)]
pub(super) struct Sources {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Rename(Rename),
}

impl Sources {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Rename(command) => command.run().await,
        }
    }
}

/// Record in the store that a source has another name now, so that its open sessions go on
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ systemctl stop turnhook
  $ # in the configuration: name = \"eu-west\" where name = \"eu-1\" was
  $ turnhook sources rename eu-1 eu-west
  $ systemctl start turnhook

  Without it the source of the new name knows nothing of the calls that go on: it would bill their
  totals once more, and the sessions of the old name would never end. What was billed keeps the old name.")]
struct Rename {
    #[command(flatten)]
    config: ConfigArgs,
    /// Its name in the store
    old: String,
    /// Its name in the configuration, as it is now
    new: String,
}

impl Rename {
    async fn run(self) -> Result<(), CliError> {
        let Rename { config, old, new } = self;
        let (config, store) = store::open(&config).await?;
        let configured = |name: &str| config.sources.iter().any(|source| source.name == name);
        if !configured(&new) {
            return Err(CliError::failed(format!(
                "{new}: no source of this name is configured; change `name` in its [[source]] first"
            )));
        }
        if configured(&old) {
            return Err(CliError::failed(format!(
                "{old}: a source of this name is still configured; change `name` in its [[source]] first"
            )));
        }
        if store.is_run_on().await? {
            return Err(CliError::failed(format!(
                "{}: a turnhook runs on it; stop it first",
                store.describe()
            )));
        }
        store.admin().rename_source(&old, &new).await?;
        let source = store.state().source(&new).await?;
        let (allocations, sessions) = store.state().open_in(source).await?;
        print(&format!(
            "{old} is {new} now: {sessions} open sessions with {allocations} allocations go on under this name\n"
        ))
    }
}
