//! `turnhook migrate`.

use std::path::PathBuf;

use clap::Args;
use turnhook_store::{PostgresOptions, Store};

use super::{args::ConfigArgs, error::CliError, output::print};
use crate::{config::StoreKind, store};

/// Bring the schema of a store in PostgreSQL up to date
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook migrate --config /etc/turnhook/turnhook.toml
  $ turnhook migrate --url-file /root/turnhook-owner.url

  `turnhook run` does it by itself where its role may create tables. Where it may not, do it with a
  role that may, before the new version is started. It is one transaction, may be done while other
  nodes run, and by several at once. A SQLite file needs none of this.")]
pub(super) struct Migrate {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log in with the URL in this file rather than that of `[store]`
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
}

impl Migrate {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load_for_store()?;
        let mut options = match (&config.store.kind, &self.url_file) {
            (StoreKind::Postgres(postgres), _) => store::options(postgres),
            (StoreKind::Sqlite(_), Some(_)) => PostgresOptions::new(""),
            (StoreKind::Sqlite(path), None) => {
                return Err(CliError::failed(format!(
                    "{}: a SQLite file, which is brought up to date when it is opened; this is for a store in PostgreSQL ([store] url)",
                    path.display()
                )));
            }
        };
        if let Some(file) = &self.url_file {
            let url = std::fs::read_to_string(file)
                .map_err(|error| CliError::Unusable(format!("cannot read {}: {error}", file.display())))?;
            options.url = url.trim().to_owned().into();
        }
        let place = options.describe().map_err(|error| match &self.url_file {
            Some(file) => CliError::Unusable(format!("{}: {error}", file.display())),
            None => error.into(),
        })?;
        let done = Store::migrate(&options).await?;
        if done.from == done.to {
            print(&format!("{place}: schema {} is current\n", done.to))
        } else {
            print(&format!("{place}: schema {} → {}\n", done.from, done.to))
        }
    }
}
