//! `turnhook deliveries discard`.

use clap::{Args, ValueEnum};
use turnhook_dispatcher::clock::wall_clock;
use turnhook_store::DeliveryState;

use super::{
    super::{args::ConfigArgs, error::CliError, output::print},
    filter::FilterArgs,
};
use crate::cli::store;

/// Give up dead letters, or pending deliveries, for good
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook deliveries discard --endpoint old-billing --until 2026-11-01 --dry-run
  $ turnhook deliveries discard --id evt_06epcj2hhm0000000000000001

  What is discarded is still listed until `retention` has passed, and can be replayed.")]
pub(super) struct Discard {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to give up
    #[arg(long, value_enum, default_value_t)]
    state: StateArg,
    #[command(flatten)]
    filter: FilterArgs,
    /// Take all of them, where nothing else is asked for
    #[arg(long)]
    all: bool,
    /// Only say how many
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StateArg {
    /// Dead letters
    #[default]
    Dead,
    /// What is still to be delivered
    Pending,
    /// Both
    All,
}

impl Discard {
    pub(super) async fn run(self) -> Result<(), CliError> {
        if self.filter.is_empty() && !self.all {
            return Err(CliError::failed("say which, or --all"));
        }
        let (_, store) = store::open(&self.config).await?;
        let filter = self.filter.to_filter(match self.state {
            StateArg::Dead => &[DeliveryState::Dead],
            StateArg::Pending => &[DeliveryState::Pending],
            StateArg::All => &[DeliveryState::Dead, DeliveryState::Pending],
        });
        if self.dry_run {
            let count = store.ledger().count_deliveries(filter).await?;
            return print(&format!("{count} deliveries would be discarded\n"));
        }
        let what = format!("--state {:?} {}", self.state, self.filter.to_words()).to_lowercase();
        let count = store.admin().discard(filter, wall_clock()).await?;
        store::note(&store, "discard", what, "", count).await?;
        print(&format!("{count} deliveries discarded\n"))
    }
}
