//! `turnhook backup`.

use std::path::PathBuf;

use clap::Args;

use super::{args::ConfigArgs, error::CliError, output::print, store};

/// Copy the store to a new file, safely, while it is in use
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook backup --config /etc/turnhook/turnhook.toml /backup/turnhook-2026-11-22.db

  The copy is the store as it was at one moment. To restore it, stop turnhook and put it in the
  place of the store. What was delivered since is then delivered once more, under the same ids.
  A store in PostgreSQL is backed up with pg_dump, or by whatever backs up the database.")]
pub(super) struct Backup {
    #[command(flatten)]
    config: ConfigArgs,
    /// The new file; one that exists is never overwritten
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        store.admin().backup(&self.file).await?;
        let size = std::fs::metadata(&self.file).map_err(CliError::failed)?.len();
        print(&format!(
            "{}: {}\n",
            self.file.display(),
            super::units::bytes(size)
        ))
    }
}
