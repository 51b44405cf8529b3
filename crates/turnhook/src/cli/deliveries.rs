//! `turnhook deliveries`.

use clap::{Args, Subcommand};

use super::error::CliError;

mod discard;
pub(super) mod filter;
mod list;
mod row;
mod show;
mod tail;

/// Look at deliveries, and give some up
#[derive(Debug, Args)]
pub(super) struct Deliveries {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Tail(tail::Tail),
    Discard(discard::Discard),
}

impl Deliveries {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
            Command::Show(command) => command.run().await,
            Command::Tail(command) => command.run().await,
            Command::Discard(command) => command.run().await,
        }
    }
}
