//! `turnhook doctor`: tries all that turnhook needs, and says what to do about what is missing.

use clap::Args;
use serde_json::Value;

use self::report::{PATIENCE, Report, port};
use super::{
    args::{ConfigArgs, Format},
    ask,
    error::CliError,
    output::print,
};
use crate::config::Config;

mod clocks;
mod controls;
mod endpoints;
mod report;
mod sources;
mod store;

/// Try everything that turnhook needs: store, disk, Redis and its rights, coturn and its CLI, endpoints, clocks, ports
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook doctor
  $ turnhook doctor --format json | jq 'select(.level != \"ok\")'

  Each line is ok, warn or fail; below it stands what to do. The status is 1 if something fails, 78 if the
  configuration is wrong. It may be run beside a running turnhook, as the same user, and changes nothing: endpoints get
  a HEAD request, and no event.")]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print it; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Doctor {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut report = Report {
            format: self.format,
            failed: 0,
            warned: 0,
        };
        let config = match self.config.load() {
            Ok(config) => config,
            Err(error) => {
                report.fail(
                    "configuration",
                    "is wrong, or cannot be read",
                    "see the errors below",
                )?;
                return Err(error);
            }
        };
        let (sources, endpoints) = (config.sources.len(), config.endpoints.len());
        report.ok(
            "configuration",
            format!("sources: {sources}, endpoints: {endpoints}"),
        )?;
        for warning in config.warnings.iter().chain(&config.kept_from_group) {
            report.warn("configuration", warning.to_string(), "")?;
        }
        if config.endpoints.is_empty() {
            report.warn(
                "endpoints",
                "none is configured: nothing is sent",
                "add an [[endpoint]]",
            )?;
        }
        let running = running(&config, &mut report).await?;
        let mut clocks = clocks::Clocks::default();
        store::look(&config, running.as_ref(), &mut clocks, &mut report).await?;
        for source in &config.sources {
            sources::look(source, running.as_ref(), &mut clocks, &mut report).await?;
        }
        for control in &config.controls {
            controls::look(control, &mut report).await?;
        }
        if running.is_none() {
            port("http", config.http, &mut report).await?;
            if let Some(admin) = &config.admin {
                port("admin", admin.listen, &mut report).await?;
            }
            for gate in &config.gates {
                port(&format!("gate {}", gate.realm), gate.listen, &mut report).await?;
            }
        }
        for endpoint in &config.endpoints {
            endpoints::look(endpoint, &mut clocks, &mut report).await?;
        }
        clocks.report(&mut report)?;
        if self.format == Format::Text {
            print(&format!(
                "\n{} failed, {} warnings\n",
                report.failed, report.warned
            ))?;
        }
        if report.failed > 0 {
            Err(CliError::Reported)
        } else {
            Ok(())
        }
    }
}

/// What the program that runs says of itself, if one does.
async fn running(config: &Config, report: &mut Report) -> Result<Option<Value>, CliError> {
    let url = ask::base(config.http) + "/status";
    let answer = ask::get(&url, PATIENCE).await.ok();
    let status: Option<Value> = answer.and_then(|answer| serde_json::from_str(&answer.body).ok());
    let Some(status) = status.filter(|status| status["version"].is_string()) else {
        report.warn(
            "turnhook",
            format!("none answers at {url}"),
            "start it (`systemctl start turnhook`, or `turnhook run`); what it alone knows is not looked at",
        )?;
        return Ok(None);
    };
    let (theirs, ours) = (
        status["version"].as_str().unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
    );
    if theirs == ours {
        report.ok("turnhook", format!("{theirs} runs"))?;
    } else {
        report.warn(
            "turnhook",
            format!("{theirs} runs, and this is {ours}"),
            "restart it with the new version",
        )?;
    }
    Ok(Some(status))
}
