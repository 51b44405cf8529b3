//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{self, Config, ConfigError, Input},
    text::Untrusted,
};

mod admin;
mod ask;
mod backup;
mod blocks;
mod check;
mod completions;
mod deliveries;
mod doctor;
mod endpoints;
mod follow;
mod gaps;
mod listen;
mod manual;
mod migrate;
mod nodes;
mod output;
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

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgs {
    // As above: it may stand before the command, too.
    /// The configuration file [default: $TURNHOOK_CONFIG, ./turnhook.toml, /etc/turnhook/turnhook.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, CliError> {
        Ok(config::load(&self.input()?)?)
    }

    /// For commands that only look into the store: without the secrets of sources and endpoints.
    fn load_for_store(&self) -> Result<Config, CliError> {
        Ok(config::load_for_store(&self.input()?)?)
    }

    fn input(&self) -> Result<Input, CliError> {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let named = self.config.clone().or_else(|| {
            let named = std::env::var_os("TURNHOOK_CONFIG")?;
            (!named.is_empty()).then(|| named.into())
        });
        Ok(Input::read(named.as_deref(), env)?)
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
    /// Status 2.
    #[error("{0}")]
    Usage(String),
    /// Status 1, and all has been said.
    #[error("")]
    Told,
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
    print_bytes(text.as_bytes())
}

/// The same of what need not be text.
fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::Unread),
        Err(error) => Err(CliError::failed(format!("cannot write to stdout: {error}"))),
    }
}

/// Says something on stderr, for people. Where that is closed there is nobody left to tell.
fn warn(what: impl std::fmt::Display) {
    let what = what.to_string();
    let _ = writeln!(io::stderr(), "warning: {}", Untrusted::from(what.as_str()));
}

/// Reads the command line and does what it says; 0 done, 1 failed, 2 wrong usage, 78 bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
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
        Command::Completions(command) => command.run(),
        Command::Manual(command) => command.run(),
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
        Err(CliError::Told) => ExitCode::FAILURE,
        Err(error) => {
            for line in error.to_string().lines() {
                // Where stderr is closed too there is nobody left to tell.
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

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))
}
