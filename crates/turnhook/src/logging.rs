//! The log: to stderr, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Starts it, once in the life of the program.
///
/// # Errors
/// The level cannot be read, which a checked configuration rules out, or a log was started before.
pub fn start(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let filter = EnvFilter::builder().parse(&log.level)?;
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry
            .with(fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .try_init()?;
    } else {
        let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry
            .with(fmt::layer().with_ansi(color).with_writer(io::stderr))
            .try_init()?;
    }
    Ok(())
}
