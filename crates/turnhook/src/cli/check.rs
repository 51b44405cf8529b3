//! `turnhook check`.

use clap::Args;

use super::{CliError, ConfigArgs, Format, print, warn};
use crate::{
    config::{Config, StoreKind},
    store,
};

/// Check the configuration and print what holds in the end, secrets hidden
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook check --config /etc/turnhook/turnhook.toml
  $ TURNHOOK_STORE__PATH=/tmp/x.db turnhook check --format json

  Ends with status 78 if something is wrong, and says where and what. What is right and can still
  be a mistake is a warning, on stderr.")]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Check {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.config.load()?;
        for warning in &config.warnings {
            warn(warning);
        }
        match self.format {
            Format::Text => print(&(place(&config) + &config.to_toml())),
            Format::Json => print(&format!("{:#}\n", config.to_json())),
        }
    }
}

/// Where the store is, as a comment: what is printed is a configuration again. A URL may stand in a file.
fn place(config: &Config) -> String {
    match &config.store.kind {
        StoreKind::Sqlite(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("# The store: SQLite, {path:?}\n\n")
        }
        StoreKind::Postgres(postgres) => {
            let options = store::options(postgres);
            // It was read before, or nothing would be printed.
            let place = options.describe().unwrap_or_default();
            format!(
                "# The store: PostgreSQL, {place:?}; this node: {:?}\n\n",
                options.node
            )
        }
    }
}
