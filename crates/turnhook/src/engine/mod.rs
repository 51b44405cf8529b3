//! The program at work: sources, reducers, store and dispatcher, wired.
//!
//! ```text
//! subscriber task ─▶ queue ─▶ source task (reducer) ─▶ commit ─▶ store ─▶ deliveries ─▶ dispatcher ─▶ receivers
//!                                                                store ◀── courier ◀── outcomes, reads ──┘
//! ```
//!
//! A source task owns its reducer and never waits for the disk (`source.rs`). Deliveries are handed on from
//! memory once they are committed (`outlet.rs`); what came of them, and what has to be read again, goes
//! through the courier (`courier.rs`). The housekeeper measures, trims, and notices what others did to the
//! store (`housekeeper.rs`).

mod clock;
mod courier;
mod housekeeper;
mod outlet;
pub mod settings;
mod source;
pub mod tap;
mod telemetry;
mod wedge;

use std::{io, sync::Arc};

use tokio::{net::TcpListener, runtime::Handle, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turnhook_dispatcher::{
    config::{ConfigError, EndpointConfig},
    dispatcher::Dispatcher,
};
use turnhook_reducer::{Identity, Reducer, RestoreError, time::Timestamp};
use turnhook_store::{Mode, SourceId, Store};
use turnhook_subscriber::{
    error::SubscriberError,
    queue::{self, SignalReceiver, SignalSender},
    source::SourceHandle,
};

use self::{
    clock::{Clock, Watch},
    courier::Courier,
    housekeeper::Housekeeper,
    outlet::Outlet,
    source::SourceTask,
    tap::Taps,
    telemetry::SourceTelemetry,
    wedge::Wedges,
};
use crate::{
    config::{self, Config, StoreKind},
    health::Health,
    http,
    metrics::Metrics,
};

/// Why the program cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] turnhook_store::Error),
    /// An endpoint's configuration cannot be used.
    #[error("{0}")]
    Endpoint(#[from] ConfigError),
    /// A source's configuration cannot be used.
    #[error("source \"{name}\": {error}")]
    Source {
        /// Its name.
        name: String,
        /// What is wrong.
        error: SubscriberError,
    },
    /// `user_pattern` cannot be used.
    #[error("[session] user_pattern: {0}")]
    UserPattern(String),
    /// The state of a source cannot be read.
    #[error("source \"{name}\": {error}; restore a backup, or give the source another name to begin anew")]
    State {
        /// Its name.
        name: String,
        /// Which row.
        error: RestoreError,
    },
    /// The address of `[http] listen` cannot be used.
    #[error("[http] listen: cannot listen on {address}: {error}")]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Not in this version.
    #[error("[store] url: this version keeps its store in a file; set [store] path instead")]
    NoPostgres,
    /// A last commit could not be made.
    #[error("stopped, but the last commit could not be made: see the log")]
    Unfinished,
}

impl RunError {
    /// Whether changing the configuration is what helps (exit 78).
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            RunError::Endpoint(_) | RunError::UserPattern(_) | RunError::NoPostgres => true,
            RunError::Source { error, .. } => !matches!(error, SubscriberError::Listen { .. }),
            RunError::Store(error) => {
                matches!(
                    error,
                    turnhook_store::Error::Newer { .. } | turnhook_store::Error::NotAStore { .. }
                )
            }
            RunError::State { .. } | RunError::Http { .. } | RunError::Unfinished => false,
        }
    }
}

/// Runs until `shutdown`: then stops reading, commits, finishes requests under way within `shutdown_grace`.
///
/// # Errors
/// Whatever keeps it from starting, or from the last commit.
pub async fn run(
    config: Config,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let grace = config.shutdown_grace;
    let StoreKind::Sqlite(path) = &config.store.kind else {
        return Err(RunError::NoPostgres);
    };
    let store = Store::open(path, Mode::Run).await?;
    let loaded = load(&config, &store).await?;
    let last_commit = loaded
        .iter()
        .filter_map(|s| s.last_commit)
        .max()
        .unwrap_or_default();
    let clock = Clock::start(last_commit);
    let tell_time = clock_fn(&clock);

    let listener = TcpListener::bind(config.http)
        .await
        .map_err(|error| RunError::Http {
            address: config.http,
            error,
        })?;
    health.update_store(|s| s.writable = true);

    let names: Vec<&str> = config.endpoints.iter().map(|e| e.name.as_str()).collect();
    let ids = store.set_endpoints(&names, clock.now()).await?;
    let (reports, reported) = mpsc::channel(1024);
    let pauses = courier::pauses(&store).await?;
    let with_pauses = |e: &EndpointConfig| (e.clone(), pauses.get(&e.name).cloned().unwrap_or_default());
    let endpoints = config.endpoints.iter().map(with_pauses).collect();
    let dispatcher = Arc::new(Dispatcher::start(
        endpoints,
        &tell_time,
        &reports,
        &Handle::current(),
    )?);
    drop(reports);
    let outlet = Arc::new(Outlet::new(&config.endpoints, &ids, Arc::clone(&dispatcher)));
    let courier = Courier::new(store.clone(), &outlet, Arc::clone(&metrics), Arc::clone(&clock));
    let courier = tokio::spawn(courier.run(reported));

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut handles = Vec::new();
    let mut taps = Taps::default();
    for source in loaded {
        let (task, handle) = start(
            source, &config, &clock, &store, &outlet, &metrics, &health, &mut taps,
        )
        .await?;
        tasks.spawn(task.run(stop.clone(), grace));
        handles.push(handle);
    }
    let housekeeper = Housekeeper::new(
        &config,
        &store,
        &outlet,
        &clock,
        Arc::clone(&metrics),
        Arc::clone(&health),
    );
    let housekeeper = tokio::spawn(housekeeper.run(stop.clone()));
    let http_address = listener.local_addr().unwrap_or(config.http);
    let http = tokio::spawn(http::serve(
        listener,
        metrics,
        health,
        Arc::new(taps),
        stop.clone(),
    ));
    info!(store = %path.display(), http = %http_address, sources = handles.len(), endpoints = names.len(), "running");

    shutdown.cancelled().await;
    for handle in handles {
        handle.stop().await;
    }
    stop.cancel();
    let mut all_committed = true;
    while let Some(committed) = tasks.join_next().await {
        all_committed &= committed.unwrap_or(false);
    }
    dispatcher.shutdown(grace).await;
    drop(dispatcher);
    drop(outlet);
    for (name, ended) in [("housekeeper", housekeeper.await), ("courier", courier.await)] {
        if let Err(error) = ended {
            warn!("{name} ended badly: {error}");
        }
    }
    http.abort();
    store.close().await;
    info!("stopped");
    if all_committed {
        Ok(())
    } else {
        Err(RunError::Unfinished)
    }
}

/// A source with its state, not yet listening.
struct Loaded {
    config: config::Source,
    id: SourceId,
    reducer: Reducer,
    last_commit: Option<Timestamp>,
}

async fn load(config: &Config, store: &Store) -> Result<Vec<Loaded>, RunError> {
    let mut loaded = Vec::new();
    for source in &config.sources {
        let rules =
            settings::rules(&config.session, &config.limits, source).map_err(RunError::UserPattern)?;
        let identity = Identity {
            store: store.store_id(),
            source: source.name.as_str().into(),
        };
        let id = store.source(&source.name).await?;
        let keep =
            |rows: &mut Vec<_>, table, key, row: &[u8]| rows.push((table, key, Box::<[u8]>::from(row)));
        let (rows, last_commit) = store.load(id, Vec::new(), keep).await?;
        let reducer =
            Reducer::restore(identity, rules, last_commit.unwrap_or_default(), rows).map_err(|error| {
                RunError::State {
                    name: source.name.clone(),
                    error,
                }
            })?;
        if reducer.open_allocations() > 0 {
            let (allocations, sessions) = (reducer.open_allocations(), reducer.open_sessions());
            info!(
                source = source.name,
                allocations, sessions, "goes on where it was"
            );
        }
        loaded.push(Loaded {
            config: source.clone(),
            id,
            reducer,
            last_commit,
        });
    }
    Ok(loaded)
}

#[allow(clippy::too_many_arguments)] // wiring: each is handed to one part
async fn start(
    source: Loaded,
    config: &Config,
    clock: &Arc<Clock>,
    store: &Store,
    outlet: &Arc<Outlet>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    taps: &mut Taps,
) -> Result<(SourceTask, SourceHandle), RunError> {
    let name = source.config.name.clone();
    let (sender, signals): (SignalSender, SignalReceiver) = queue::channel(queue::DEFAULT_BOUND);
    let handle = settings::source(&source.config)
        .start(clock_fn(clock), sender)
        .await
        .map_err(|error| RunError::Source {
            name: name.clone(),
            error,
        })?;
    let direct = matches!(source.config.kind, config::SourceKind::Direct(_));
    let wedges = match &source.config.kind {
        config::SourceKind::Redis(redis) => Wedges::new(handle.redis().cloned().filter(|_| redis.heal)),
        config::SourceKind::Direct(_) => Wedges::off(),
    };
    let history = settings::History::new(&config.session, &config.limits, &source.config, store.store_id());
    let task = SourceTask {
        id: source.id,
        reducer: source.reducer,
        signals,
        watch: Watch::new(Arc::clone(clock)),
        store: store.clone(),
        outlet: Arc::clone(outlet),
        telemetry: SourceTelemetry::new(name.clone(), direct, Arc::clone(metrics), Arc::clone(health)),
        taps: taps.of(&name, history),
        wedges,
        last_commit: source.last_commit,
    };
    Ok((task, handle))
}

fn clock_fn(clock: &Arc<Clock>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let clock = Arc::clone(clock);
    Arc::new(move || clock.now())
}
