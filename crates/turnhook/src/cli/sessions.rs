//! `turnhook sessions`.

use clap::{Args, Subcommand};

use super::error::CliError;

mod end;
mod export;
mod list;
pub(super) mod row;
mod show;
mod tail;

/// Look at sessions
#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Export(export::Export),
    End(end::End),
    Tail(tail::Tail),
}

impl Sessions {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
            Command::Show(command) => command.run().await,
            Command::Export(command) => command.run().await,
            Command::End(command) => command.run().await,
            Command::Tail(command) => command.run().await,
        }
    }
}
