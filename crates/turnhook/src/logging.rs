//! The log: to stderr, for people or for machines. What is an error of our own is counted, too.

use std::io::{self, IsTerminal};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::Targets,
    fmt,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// The target of a broken invariant of our own: see `turnhook_reducer::internal_error`.
const INTERNAL_ERROR: &str = "turnhook::internal_error";

/// The target of the pool of connections to PostgreSQL.
const POOL: &str = "deadpool";

/// Starts it, once in the life of the program. `internal_errors` counts broken invariants, whatever the log's level is.
///
/// # Errors
/// The level cannot be read, which a checked configuration rules out, or a log was started before.
pub fn start(log: &Log, internal_errors: Counter) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let mut filter = EnvFilter::builder().parse(&log.level)?;
    if !log.level.contains(POOL) {
        // It warns of each connection to a database that is away; one line of our own says that it is.
        filter = filter.add_directive(format!("{POOL}=error").parse()?);
    }
    let registry = tracing_subscriber::registry().with(count(internal_errors));
    if json {
        let lines = fmt::layer().json().flatten_event(true).with_writer(io::stderr);
        registry.with(lines.with_filter(filter)).try_init()?;
    } else {
        let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines = fmt::layer().with_ansi(color).with_writer(io::stderr);
        registry.with(lines.with_filter(filter)).try_init()?;
    }
    Ok(())
}

/// Counts lines.
struct Count(Counter);

/// Counts the lines that tell of broken invariants.
fn count<S>(internal_errors: Counter) -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    Count(internal_errors).with_filter(Targets::new().with_target(INTERNAL_ERROR, Level::ERROR))
}

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.inc();
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn broken_invariants_are_counted_whatever_the_level() {
        let counter = Counter::default();
        let silent = fmt::layer().with_filter(LevelFilter::OFF);
        let log = tracing_subscriber::registry()
            .with(count(counter.clone()))
            .with(silent);
        tracing::subscriber::with_default(log, || {
            tracing::error!("something of somebody else's");
            let broken = std::panic::catch_unwind(|| turnhook_reducer::internal_error!("{} is not {}", 1, 2));
            assert_eq!(
                broken.is_err(),
                cfg!(debug_assertions),
                "in a test it is an assertion"
            );
        });
        assert_eq!(counter.get(), 1);
    }
}
