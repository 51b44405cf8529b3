//! The log: to stderr, for people or for machines. What is an error of our own is counted, too.

mod journal;

use std::io::{self, IsTerminal};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    filter::Targets,
    fmt,
    fmt::format,
    layer::{Context, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    text::Untrusted,
};

/// The target of a broken invariant of our own: see `turnhook_reducer::internal_error`.
pub(crate) const INTERNAL_ERROR: &str = "turnhook::internal_error";

/// That of the reducer's, which are counted by whoever takes them of it: one line may be about many.
pub(crate) const REDUCER_ERROR: &str = "turnhook::internal_error::reducer";

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
            .with(
                lines
                    .fmt_fields(fields())
                    .event_format(journal::Lines::new())
                    .with_filter(filter),
            )
            .try_init()?,
        Lines::Text => {
            let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry
                .with(lines.fmt_fields(fields()).with_ansi(color).with_filter(filter))
                .try_init()?;
        }
    }
    Ok(LevelSwitch(Box::new(move |level| {
        handle.reload(self::filter(level)?)?;
        Ok(())
    })))
}

/// Values as text. They may come from outside: a line of the log is one line, and obeyed by no terminal.
fn fields() -> impl for<'w> fmt::FormatFields<'w> + 'static {
    format::debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = Untrusted::from(value.as_str());
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

/// Counts lines.
struct Count(Counter);

/// Counts the lines that speak of broken invariants.
fn count<S>(internal_errors: Counter) -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    Count(internal_errors).with_filter(Targets::new().with_target(INTERNAL_ERROR, Level::ERROR))
}

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == INTERNAL_ERROR {
            self.0.inc();
        }
    }
}

/// For tests: what is logged by `doing`, and counted by the way, as people see it.
#[cfg(test)]
pub(crate) fn lines_of(internal_errors: Counter, doing: impl FnOnce()) -> String {
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let kept = Kept::default();
    let writer = kept.clone();
    let lines = fmt::layer()
        .with_ansi(false)
        .fmt_fields(fields())
        .with_writer(move || writer.clone());
    let log = tracing_subscriber::registry()
        .with(count(internal_errors))
        .with(lines);
    tracing::subscriber::with_default(log, doing);
    let text = kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn text_from_outside_writes_no_lines_of_its_own() {
        let text = lines_of(Counter::default(), || {
            let user = "x\r\n1970 ERROR forged\u{1b}[2J\u{9b}\u{202e}";
            tracing::warn!(shown = %user, quoted = user, count = 3, "of {user}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}') && text.contains("count=3"), "{text}");
        assert!(text.contains("of x\\r\\n1970"), "{text}");
    }

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
