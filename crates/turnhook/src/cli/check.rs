//! `turnhook check`.

use clap::Args;

use super::{CliError, ConfigArgs, Format, print};

/// Check the configuration and print what holds in the end, secrets hidden
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook check --config /etc/turnhook/turnhook.toml
  $ TURNHOOK_STORE__PATH=/tmp/x.db turnhook check --format json

  Ends with status 78 if something is wrong, and says where and what.")]
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
        match self.format {
            Format::Text => print(&config.to_toml()),
            Format::Json => print(&format!("{:#}\n", config.to_json())),
        }
    }
}
