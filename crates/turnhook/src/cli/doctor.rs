//! `turnhook doctor`: tries all that turnhook needs, and says what to do about what is missing.

use std::{net::SocketAddr, path::Path, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use turnhook_subscriber::error::listen_cure;

use super::{
    CliError, ConfigArgs, Format, ask,
    output::{name, print_json},
    print,
    units::bytes,
};
use crate::config::Config;

mod clocks;
mod controls;
mod endpoints;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What was looked at and found, line by line as it is found.
struct Report {
    format: Format,
    failed: usize,
    warned: usize,
}

impl Report {
    fn ok(&mut self, what: &str, found: impl AsRef<str>) -> Result<(), CliError> {
        self.line(Level::Ok, what, found.as_ref(), "")
    }

    fn warn(&mut self, what: &str, found: impl AsRef<str>, cure: impl AsRef<str>) -> Result<(), CliError> {
        self.line(Level::Warn, what, found.as_ref(), cure.as_ref())
    }

    fn fail(&mut self, what: &str, found: impl AsRef<str>, cure: impl AsRef<str>) -> Result<(), CliError> {
        self.line(Level::Fail, what, found.as_ref(), cure.as_ref())
    }

    fn line(&mut self, level: Level, what: &str, found: &str, cure: &str) -> Result<(), CliError> {
        match level {
            Level::Ok => {}
            Level::Warn => self.warned += 1,
            Level::Fail => self.failed += 1,
        }
        if self.format == Format::Json {
            return print_json(&json!({
                "level": level.as_str(),
                "what": what,
                "found": found,
                "cure": (!cure.is_empty()).then_some(cure),
            }));
        }
        let mut text = format!(
            "{:<4}  {}: {}\n",
            level.as_str(),
            name(what.as_bytes()),
            name(found.as_bytes())
        );
        if !cure.is_empty() {
            text += &format!("      → {}\n", name(cure.as_bytes()));
        }
        print(&text)
    }
}

/// How long one thing may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Less room than this on the disk of the store is too little for long.
const ROOM: u64 = 1 << 30;
/// And less than this for anything.
const NO_ROOM: u64 = 64 << 20;

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
        for warning in &config.warnings {
            report.warn("configuration", warning.to_string(), "")?;
        }
        if config.endpoints.is_empty() {
            report.warn(
                "endpoints",
                "none is configured: nobody is told",
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
        }
        for endpoint in &config.endpoints {
            endpoints::look(endpoint, &mut clocks, &mut report).await?;
        }
        clocks.tell(&mut report)?;
        if self.format == Format::Text {
            print(&format!(
                "\n{} failed, {} warnings\n",
                report.failed, report.warned
            ))?;
        }
        if report.failed > 0 {
            Err(CliError::Told)
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

/// An address that nobody listens on yet, and that this program would.
async fn port(what: &str, address: SocketAddr, report: &mut Report) -> Result<(), CliError> {
    match TcpListener::bind(address).await {
        Ok(_) => report.ok(what, format!("{address} is free to listen on")),
        Err(error) => report.fail(
            what,
            format!("cannot listen on {address}: {error}"),
            listen_cure(&error),
        ),
    }
}

/// Room on the disk of a folder.
fn disk(folder: &Path, report: &mut Report) -> Result<(), CliError> {
    let shown = folder.display();
    match rustix::fs::statvfs(folder) {
        Err(error) => report.warn("disk", format!("{shown}: {error}"), ""),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free at {shown}", bytes(free));
            let cure = "make room: where nothing can be written, nothing is committed, and a gap opens";
            if free < NO_ROOM {
                report.fail("disk", text, cure)
            } else if free < ROOM {
                report.warn("disk", text, cure)
            } else {
                report.ok("disk", text)
            }
        }
    }
}
