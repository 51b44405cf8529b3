//! The command line.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::{error::CliError, run::runtime};
use crate::text::Untrusted;

mod admin;
mod args;
mod ask;
mod backup;
mod blocks;
mod check;
mod completions;
mod deliveries;
mod doctor;
mod endpoints;
mod error;
mod follow;
mod gaps;
mod listen;
mod manual;
mod migrate;
mod nodes;
mod output;
mod pages;
mod period;
mod ready;
mod reconcile;
mod record;
mod replay;
mod run;
mod running;
mod schema;
mod secret;
mod sessions;
mod simulate;
mod sources;
mod status;
mod store;
mod unattributed;
mod units;
mod usage;
mod zone;

/// `sysexits.h`: something was found in an unconfigured or misconfigured state.
const EXIT_CONFIG: u8 = 78;
/// As the command line itself ends where it is wrong.
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "turnhook",
    version,
    about = "From coturn to billing: signed webhooks for TURN relay sessions",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// The configuration file [default: $TURNHOOK_CONFIG, ./turnhook.toml, /etc/turnhook/turnhook.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Status(status::Status),
    Ready(ready::Ready),
    Listen(listen::Listen),
    Sessions(sessions::Sessions),
    Usage(usage::Usage),
    Deliveries(deliveries::Deliveries),
    Replay(replay::Replay),
    Endpoints(endpoints::Endpoints),
    Gaps(gaps::Gaps),
    Unattributed(unattributed::Unattributed),
    Reconcile(reconcile::Reconcile),
    Secret(secret::Secret),
    Backup(backup::Backup),
    Migrate(migrate::Migrate),
    Nodes(nodes::Nodes),
    Store(store::StoreArgs),
    Record(record::Record),
    Simulate(simulate::Simulate),
    Sources(sources::Sources),
    Block(blocks::Block),
    Unblock(blocks::Unblock),
    Blocks(blocks::Blocks),
    Admin(admin::Admin),
    Schema(schema::Schema),
    Completions(completions::Completions),
    #[command(hide = true)]
    Manual(manual::Manual),
}

/// Reads the command line and does what it says; 0 done, 1 failed, 2 wrong usage, 78 bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    main_with(env::args_os())
}

/// The same by other words, of which the first is the program's name. Ends the process where they are no command.
#[must_use]
pub fn main_with<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> ExitCode {
    let result = match Cli::parse_from(words).command {
        Command::Run(command) => command.run(),
        Command::Check(command) => block_on(command.run()),
        Command::Doctor(command) => block_on(command.run()),
        Command::Status(command) => block_on(command.run()),
        Command::Ready(command) => block_on(command.run()),
        Command::Usage(command) => block_on(command.run()),
        Command::Gaps(command) => block_on(command.run()),
        Command::Unattributed(command) => block_on(command.run()),
        Command::Reconcile(command) => block_on(command.run()),
        Command::Schema(command) => command.run(),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Manual(command) => command.run(Cli::command()),
        Command::Listen(command) => block_on(command.run()),
        Command::Sessions(command) => block_on(command.run()),
        Command::Deliveries(command) => block_on(command.run()),
        Command::Replay(command) => block_on(command.run()),
        Command::Endpoints(command) => block_on(command.run()),
        Command::Secret(command) => command.run(),
        Command::Backup(command) => block_on(command.run()),
        Command::Migrate(command) => block_on(command.run()),
        Command::Nodes(command) => block_on(command.run()),
        Command::Store(command) => block_on(command.run()),
        Command::Record(command) => block_on(command.run()),
        Command::Simulate(command) => command.run(),
        Command::Sources(command) => block_on(command.run()),
        Command::Block(command) => block_on(command.run()),
        Command::Unblock(command) => block_on(command.run()),
        Command::Blocks(command) => block_on(command.run()),
        Command::Admin(command) => command.run(),
    };
    match result {
        Ok(()) | Err(CliError::Unread) => ExitCode::SUCCESS,
        Err(CliError::Reported) => ExitCode::FAILURE,
        Err(error) => {
            for line in error.to_string().lines() {
                // Where stderr is closed too there is nobody left to say it to.
                let _ = writeln!(io::stderr(), "error: {}", Untrusted::from(line));
            }
            match error {
                CliError::Config(_) | CliError::Unusable(_) => ExitCode::from(EXIT_CONFIG),
                CliError::Usage(_) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    runtime()?.block_on(command)
}
