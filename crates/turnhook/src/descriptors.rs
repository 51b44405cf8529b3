//! File descriptors: each connection, file and database takes one, and a process has only so many.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::{Config, SourceKind};

/// Strangers' connections to the HTTP port never take the last of them: an eighth, but no more than this, is kept for
/// sources, deliveries and the store.
const RESERVE: u64 = 64;

/// What the program itself has open: the store's files, listeners, timers, the log.
const OWN: u64 = 64;

/// The connections that a `direct` source takes.
const SOURCE: u64 = 256;

/// Those of a gate: its coturns, and whoever has not logged in yet.
const GATE: u64 = 128;

/// As found at the start, once it was raised.
static LIMIT: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one: the soft one is low for programs that use `select`. Says how many there are.
pub(crate) fn raise() -> u64 {
    *LIMIT.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where it is refused, what was there before has to do.
        let now = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        now.unwrap_or(u64::MAX)
    })
}

/// The first descriptor that no connection to the HTTP port may have.
pub(crate) fn reserve_begins_at() -> u64 {
    let limit = raise();
    limit - (limit / 8).min(RESERVE)
}

/// Warns if there are fewer than the configuration can come to need.
pub(crate) fn check(config: &Config) {
    let (limit, wanted) = (raise(), wanted(config));
    if limit < wanted {
        warn!(
            limit,
            wanted,
            "there are fewer file descriptors than sources, deliveries and scrapers can come to need at once: raise the \
             limit (LimitNOFILE= of a systemd unit, `ulimit -n` of a shell)"
        );
    }
}

fn wanted(config: &Config) -> u64 {
    let sources = config.sources.iter().map(|source| match source.kind {
        SourceKind::Direct(_) => SOURCE,
        SourceKind::Redis(_) => 4,
    });
    let endpoints = config
        .endpoints
        .iter()
        .map(|endpoint| u64::from(endpoint.concurrency));
    let gates = config.gates.iter().map(|_| GATE);
    OWN + RESERVE + sources.chain(endpoints).chain(gates).sum::<u64>()
}
