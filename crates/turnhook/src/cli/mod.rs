//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigError, Input};

mod admin;
mod backup;
mod blocks;
mod check;
mod deliveries;
mod endpoints;
mod listen;
mod migrate;
mod nodes;
mod output;
mod record;
mod replay;
mod run;
mod running;
mod secret;
mod sessions;
mod simulate;
mod sources;
mod store;
mod units;

/// `sysexits.h`: something was found in an unconfigured or misconfigured state.
const EXIT_CONFIG: u8 = 78;

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
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Listen(listen::Listen),
    Sessions(sessions::Sessions),
    Deliveries(deliveries::Deliveries),
    Replay(replay::Replay),
    Endpoints(endpoints::Endpoints),
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
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file [default: turnhook.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "TURNHOOK_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, CliError> {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let input = Input::read(self.config.as_deref(), env)?;
        Ok(config::load(&input)?)
    }
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: a table on a terminal, aligned columns elsewhere
    #[default]
    Text,
    /// For programs
    Json,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// Status 78.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Status 78, found only when it was used.
    #[error("{0}")]
    Unusable(String),
    /// Status 1.
    #[error("{0}")]
    Failed(String),
    /// The reader of stdout has gone (`| head`): nobody to tell, and nothing wrong.
    #[error("nobody reads the output")]
    Unread,
}

impl CliError {
    fn failed(what: impl std::fmt::Display) -> CliError {
        CliError::Failed(what.to_string())
    }
}

/// Writes to stdout.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::Unread),
        Err(error) => Err(CliError::failed(format!("cannot write to stdout: {error}"))),
    }
}

/// Says something on stderr, for people. Where that is closed there is nobody left to tell.
fn warn(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "warning: {what}");
}

/// Reads the command line and does what it says; 0 done, 1 failed, 2 wrong usage, 78 bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
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
        Err(error) => {
            for line in error.to_string().lines() {
                // Where stderr is closed too there is nobody left to tell.
                let _ = writeln!(io::stderr(), "error: {line}");
            }
            match error {
                CliError::Config(_) | CliError::Unusable(_) => ExitCode::from(EXIT_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    runtime()?.block_on(command)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))
}
