//! The log: to stderr, for people or for machines. What is an error of our own is counted, too.

mod journal;

use std::io::{self, IsTerminal};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::Targets,
    fmt,
    layer::{Context, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// The target of a broken invariant of our own: see `turnhook_reducer::internal_error`.
pub(crate) const INTERNAL_ERROR: &str = "turnhook::internal_error";

/// The target of the pool of connections to PostgreSQL.
const POOL: &str = "deadpool";

/// An error of any kind.
type Error = Box<dyn std::error::Error + Send + Sync>;

type SetLevel = dyn Fn(&str) -> Result<(), Error> + Send + Sync;

/// Changes the level of the log that runs.
pub struct LevelSwitch(Box<SetLevel>);

impl LevelSwitch {
    /// From now on only this is let through.
    ///
    /// # Errors
    /// The level cannot be read, which a checked configuration rules out.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        (self.0)(level)
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    Text,
    Json,
    /// Text with priorities, without times: systemd's journal has its own.
    Journal,
}

impl Lines {
    fn of(format: LogFormat) -> Lines {
        match format {
            LogFormat::Json => Lines::Json,
            LogFormat::Text => Lines::Text,
            LogFormat::Auto if io::stderr().is_terminal() => Lines::Text,
            LogFormat::Auto if journal::is_stderr() => Lines::Journal,
            LogFormat::Auto => Lines::Json,
        }
    }
}

/// What is let through at a level.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let filter = EnvFilter::builder().parse(level)?;
    Ok(if level.contains(POOL) {
        filter
    } else {
        // It warns of each connection to a database that is away; one line of our own says that it is.
        filter.add_directive(format!("{POOL}=error").parse()?)
    })
}

/// Starts it, once in the life of the program. `internal_errors` counts broken invariants, whatever the log's level is.
///
/// # Errors
/// The level cannot be read, which a checked configuration rules out, or a log was started before.
pub fn start(log: &Log, internal_errors: Counter) -> Result<LevelSwitch, Error> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let registry = tracing_subscriber::registry().with(count(internal_errors));
    let lines = fmt::layer().with_writer(io::stderr);
    match Lines::of(log.format) {
        Lines::Json => registry
            .with(lines.json().flatten_event(true).with_filter(filter))
            .try_init()?,
        Lines::Journal => registry
            .with(lines.event_format(journal::Lines::new()).with_filter(filter))
            .try_init()?,
        Lines::Text => {
            let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry
                .with(lines.with_ansi(color).with_filter(filter))
                .try_init()?;
        }
    }
    Ok(LevelSwitch(Box::new(move |level| {
        handle.reload(self::filter(level)?)?;
        Ok(())
    })))
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
