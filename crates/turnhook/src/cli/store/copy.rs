//! `turnhook store copy`.

use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
    time::Instant,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use turnhook_store::{Copied, Mode, Progress, Store, copy};

use super::super::{args::ConfigArgs, error::CliError, output::print};
use crate::{cli::units::duration, config::StoreKind, store};

/// Copy a SQLite store into the configured PostgreSQL, to go on there
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook store copy --config /etc/turnhook/turnhook.toml --from /var/lib/turnhook/turnhook.db

  Stop turnhook, set `[store] url` to a new, empty database, copy, start. All of it is copied, with the
  same ids and bytes: open sessions go on, and what was not delivered is delivered from there. It is
  one transaction: if it fails, nothing is there, and it can be begun again. The file is only read.")]
pub(in crate::cli) struct Copy {
    #[command(flatten)]
    config: ConfigArgs,
    /// The SQLite file; no turnhook may run on it
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

impl Copy {
    pub(in crate::cli) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load_for_store()?;
        let StoreKind::Postgres(postgres) = &config.store.kind else {
            return Err(CliError::Unusable(
                "[store] url: missing; it says which PostgreSQL to copy into (or `url_file`)".to_owned(),
            ));
        };
        let from = Store::open(&self.from, Mode::Shared).await?;
        // Before anything is made in the database.
        if from.is_run_on().await? {
            return Err(CliError::failed(format!(
                "{}: a turnhook runs on it; stop it first",
                from.describe()
            )));
        }
        let to = Store::connect(store::options(postgres), Mode::Run).await?;
        let began = Instant::now();
        let mut shown = Shown::new();
        let copied = copy(&from, &to, |progress| shown.update(progress)).await;
        shown.end();
        let copied = copied?;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (file, place) = (from.describe(), to.describe());
        print(&format!(
            "copied to {place} in {}: {}\n\
             next: start `turnhook run` with this configuration, on as many machines as you like\n\
             keep {file} as a backup; a file beside it keeps it from being run on, since both would send each event\n",
            duration(took),
            summary(&copied),
        ))
    }
}

fn summary(copied: &Copied) -> String {
    format!(
        "{} sources, {} endpoints, {} sessions, {} events, {} deliveries; {} rows in all",
        copied.sources, copied.endpoints, copied.sessions, copied.events, copied.deliveries, copied.rows
    )
}

/// How far it has come: a bar on a terminal, a line at each tenth elsewhere.
enum Shown {
    Bar(ProgressBar),
    Lines { tenth: u64 },
}

impl Shown {
    fn new() -> Shown {
        if !stderr().is_terminal() {
            return Shown::Lines { tenth: 0 };
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} eta {eta} {msg}") {
            bar.set_style(style);
        }
        Shown::Bar(bar)
    }

    fn update(&mut self, progress: Progress) {
        match self {
            Shown::Bar(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(progress.table);
            }
            Shown::Lines { tenth } => {
                let now = progress.done.saturating_mul(10) / progress.total.max(1);
                if now > *tenth {
                    *tenth = now;
                    eprintln!("{} of {} rows", progress.done, progress.total);
                }
            }
        }
    }

    fn end(&self) {
        if let Shown::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
