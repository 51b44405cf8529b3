//! What was looked at and found, and what many looks are made of.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tokio::net::TcpListener;
use turnhook_subscriber::error::listen_cure;

use crate::cli::{
    args::Format,
    error::CliError,
    output::{name, print, print_json},
    units::bytes,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
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
pub(super) struct Report {
    pub(super) format: Format,
    pub(super) failed: usize,
    pub(super) warned: usize,
}

impl Report {
    pub(super) fn ok(&mut self, what: &str, found: impl AsRef<str>) -> Result<(), CliError> {
        self.line(Level::Ok, what, found.as_ref(), "")
    }

    pub(super) fn warn(
        &mut self,
        what: &str,
        found: impl AsRef<str>,
        cure: impl AsRef<str>,
    ) -> Result<(), CliError> {
        self.line(Level::Warn, what, found.as_ref(), cure.as_ref())
    }

    pub(super) fn fail(
        &mut self,
        what: &str,
        found: impl AsRef<str>,
        cure: impl AsRef<str>,
    ) -> Result<(), CliError> {
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
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Less room than this on the disk of the store is too little for long.
const ROOM: u64 = 1 << 30;
/// And less than this for anything.
const NO_ROOM: u64 = 64 << 20;

/// An address that nobody listens on yet, and that this program would.
pub(super) async fn port(what: &str, address: SocketAddr, report: &mut Report) -> Result<(), CliError> {
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
pub(super) fn disk(folder: &Path, report: &mut Report) -> Result<(), CliError> {
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
