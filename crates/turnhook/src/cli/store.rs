//! The store, for commands that look into it, whether turnhook runs or not; and `turnhook store`.

use clap::{Args, Subcommand};
use turnhook_dispatcher::clock::wall_clock;
use turnhook_store::{AuditEntry, Error, Mode, Store};

use super::{args::ConfigArgs, error::CliError};
use crate::{config::Config, store};

mod copy;

/// Move a store
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Copy(copy::Copy),
}

impl StoreArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Copy(command) => command.run().await,
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> CliError {
        match error {
            Error::Newer { .. }
            | Error::NotAStore { .. }
            | Error::Unmigrated { .. }
            | Error::BadUrl { .. }
            | Error::Copied { .. }
            | Error::NoTls { .. } => CliError::Unusable(error.to_string()),
            error => CliError::failed(error),
        }
    }
}

/// The configured store.
pub(super) async fn open(config: &ConfigArgs) -> Result<(Config, Store), CliError> {
    let config = config.load_for_store()?;
    let store = store::open(&config.store.kind, Mode::Shared).await?;
    Ok((config, store))
}

/// Puts on record what somebody did by a command.
pub(super) async fn note(
    store: &Store,
    action: &str,
    target: String,
    detail: &str,
    count: u64,
) -> Result<(), CliError> {
    let entry = AuditEntry {
        at: wall_clock(),
        who: who(),
        action: action.to_owned(),
        target,
        detail: detail.to_owned(),
        count,
        ..AuditEntry::default()
    };
    Ok(store.admin().note(entry).await?)
}

/// Who it was, as far as the system knows.
pub(super) fn who() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    user.map_or_else(
        |_| "command line".to_owned(),
        |user| format!("command line ({user})"),
    )
}
