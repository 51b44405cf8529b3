//! `turnhook run`: runs until it is stopped.

use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{args::ConfigArgs, error::CliError};
use crate::{
    descriptors,
    engine::{self, Given, reload::Reload},
    health::Health,
    logging,
    metrics::Metrics,
    shutdown,
};

/// Listen to coturn, send billing its webhooks
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook run --config /etc/turnhook/turnhook.toml

  SIGTERM and SIGINT stop it: it stops reading, commits, and finishes the requests under way. SIGHUP
  has it read its configuration again, without closing a socket; what needs a restart is said.
  A restart goes on where it was. Logs go to stderr.")]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Run {
    pub(super) fn run(self) -> Result<(), CliError> {
        // Before there are threads: it takes something out of the environment.
        let given = Given::take();
        let config = self.config.load()?;
        let metrics = Arc::new(Metrics::new());
        // Nothing is logged before this.
        let level = logging::start(&config.log, metrics.internal_errors.clone()).map_err(CliError::failed)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        descriptors::check(&config);
        let health = Arc::new(Health::new(&config));
        let runtime = runtime()?;
        let ended = runtime.block_on(async {
            let shutdown = shutdown::on_signals().map_err(CliError::failed)?;
            let load = move || self.config.load().map_err(|error| error.to_string());
            let reload = Reload {
                asked: signal(SignalKind::hangup()).map_err(CliError::failed)?,
                load: Arc::new(load),
                level,
            };
            let ended = engine::run(config, metrics, health, shutdown, reload, given).await;
            ended.map_err(|error| {
                if error.is_configuration() {
                    CliError::Unusable(error.to_string())
                } else {
                    CliError::failed(error)
                }
            })
        });
        // What still stands in a call to the system is not waited for.
        runtime.shutdown_background();
        ended
    }
}

/// What commands run on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))
}
