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
mod cluster;
mod commits;
mod courier;
mod housekeeper;
mod lanes;
mod notices;
mod outlet;
mod role;
pub mod settings;
mod source;
pub mod tap;
mod telemetry;
mod unconfigured;
mod wedge;

use std::{io, sync::Arc};

use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turnhook_dispatcher::{
    clock::Clocks,
    config::{ConfigError, EndpointConfig},
    dispatcher::Dispatcher,
};
use turnhook_reducer::{Identity, Reducer, RestoreError, time::Timestamp};
use turnhook_store::{Lanes, LeaseName, Mode, SourceId, Store};
use turnhook_subscriber::{
    error::SubscriberError,
    queue::{self, SignalReceiver, SignalSender},
    source::SourceHandle,
};

use self::{
    clock::{Clock, Watch},
    cluster::{GivenBack, Holdings, Member, Validity},
    courier::Courier,
    housekeeper::Housekeeper,
    lanes::LaneKeeper,
    outlet::Outlet,
    role::{Listening, LoadError, Loader, Role, Sharing},
    source::SourceTask,
    tap::Taps,
    telemetry::SourceTelemetry,
    wedge::Wedges,
};
use crate::{
    config::{self, Config},
    health::Health,
    http,
    metrics::Metrics,
    store,
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
    /// A last commit could not be made.
    #[error("stopped, but the last commit could not be made: see the log")]
    Unfinished,
}

impl RunError {
    /// Whether changing the configuration is what helps (exit 78).
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            RunError::Endpoint(_) | RunError::UserPattern(_) => true,
            RunError::Source { error, .. } => !matches!(error, SubscriberError::Listen { .. }),
            RunError::Store(error) => {
                matches!(
                    error,
                    turnhook_store::Error::Newer { .. }
                        | turnhook_store::Error::NotAStore { .. }
                        | turnhook_store::Error::Unmigrated { .. }
                        | turnhook_store::Error::BadUrl { .. }
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
    let store = store::open(&config.store.kind, Mode::Run).await?;
    let shared = store.cluster().is_some();
    if shared {
        // Whoever holds them delivers; this node holds none yet.
        store.set_lanes(Lanes::NONE);
    }
    // Before `load` makes the source of a new name: until then it can still be renamed.
    unconfigured::tell(&config, &store).await?;
    let loaded = load(&config, &store).await?;
    let last_commit = loaded
        .iter()
        .filter_map(|s| s.last_commit)
        .max()
        .unwrap_or_default();
    let clock = Clock::start(last_commit);
    let clocks = Clocks::system();

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
    let pauses = courier::pauses(&store, &clocks).await?;
    let with_pauses = |e: &EndpointConfig| (e.clone(), pauses.get(&e.name).cloned().unwrap_or_default());
    let endpoints = config.endpoints.iter().map(with_pauses).collect();
    let dispatcher = Arc::new(Dispatcher::start(
        endpoints,
        &clocks,
        &reports,
        &Handle::current(),
    )?);
    drop(reports);
    let outlet = Arc::new(Outlet::new(
        &config.endpoints,
        &ids,
        Arc::clone(&dispatcher),
        clocks,
        shared,
    ));
    let courier = Courier::new(store.clone(), &outlet, Arc::clone(&metrics));
    let courier = tokio::spawn(courier.run(reported));

    let sources = loaded.iter().map(|source| source.id).collect();
    let (member, holdings, give_back, validity) = Member::new(&store, sources, &clock, &health);
    let (stopping, leave) = (CancellationToken::new(), CancellationToken::new());
    let member = shared.then(|| tokio::spawn(member.run(stopping.clone(), leave.clone())));
    let stop = CancellationToken::new();
    let others = shared.then(|| (holdings.clone(), give_back.clone(), validity));
    let lane_keeper = shared.then(|| {
        let keeper = LaneKeeper {
            store: store.clone(),
            outlet: Arc::clone(&outlet),
            holdings: holdings.clone(),
            give_back: give_back.clone(),
        };
        tokio::spawn(keeper.run(stop.clone()))
    });
    let mut tasks = JoinSet::new();
    let mut handles = Vec::new();
    let mut taps = Taps::default();
    for source in loaded {
        let (task, handle) = start(
            source,
            &config,
            &clock,
            &store,
            &outlet,
            &metrics,
            &health,
            &mut taps,
            others.clone(),
        )
        .await?;
        tasks.spawn(task.run(stop.clone(), grace));
        handles.extend(handle);
    }
    let housekeeper = Housekeeper::new(
        &config,
        &store,
        &outlet,
        &clock,
        Arc::clone(&metrics),
        Arc::clone(&health),
    );
    // Before the first answer, so that no `/status` says that nothing is pending because nobody has looked.
    housekeeper.look().await;
    let housekeeper = tokio::spawn(housekeeper.run(stop.clone()));
    let http_address = listener.local_addr().unwrap_or(config.http);
    let http = {
        let (hosts, stop) = (config.http_hosts.clone(), stop.clone());
        tokio::spawn(
            async move { http::serve(listener, metrics, health, Arc::new(taps), &hosts, stop).await },
        )
    };
    info!(store = store.describe(), http = %http_address, sources = config.sources.len(), endpoints = names.len(), "running");

    shutdown.cancelled().await;
    stopping.cancel();
    for handle in handles {
        handle.stop().await;
    }
    stop.cancel();
    let mut all_committed = true;
    while let Some(committed) = tasks.join_next().await {
        all_committed &= committed.unwrap_or(false);
    }
    if let Some(cluster) = store.cluster() {
        // Others need not wait for the requests that are under way here.
        for (source, lead) in holdings.borrow().sources.clone() {
            if let Err(error) = cluster.release(LeaseName::Source(source), lead.epoch).await {
                warn!(%error, "a source could not be handed over: its lease expires by itself");
            }
        }
    }
    dispatcher.shutdown(grace).await;
    leave.cancel();
    if let Some(member) = member
        && let Err(error) = member.await
    {
        warn!("the beat ended badly: {error}");
    }
    if let Some(keeper) = lane_keeper {
        // It holds the dispatcher.
        let _ = keeper.await;
    }
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
    loader: Arc<Loader>,
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
        let loader = Loader {
            store: store.clone(),
            id,
            identity,
            rules,
        };
        let (reducer, last_commit) = loader.reducer().await.map_err(|error| match error {
            LoadError::Store(error) => RunError::Store(error),
            LoadError::State(error) => RunError::State {
                name: source.name.clone(),
                error,
            },
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
            loader: Arc::new(loader),
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
    others: Option<(watch::Receiver<Holdings>, GivenBack, Validity)>,
) -> Result<(SourceTask, Option<SourceHandle>), RunError> {
    let name = source.config.name.clone();
    let (sender, signals): (SignalSender, SignalReceiver) = queue::channel(queue::DEFAULT_BOUND);
    let wrong = |error| RunError::Source {
        name: name.clone(),
        error,
    };
    let listener = settings::source(&source.config);
    let direct = matches!(source.config.kind, config::SourceKind::Direct(_));
    let (handle, listening) = if direct && others.is_some() {
        listener.validate().map_err(wrong)?;
        let listening = Listening {
            config: listener,
            clock: clock_fn(clock),
            signals: sender,
            handle: None,
        };
        (None, Some(listening))
    } else {
        let handle = listener.start(clock_fn(clock), sender).await.map_err(wrong)?;
        (Some(handle), None)
    };
    let control = handle.as_ref().and_then(|handle| handle.redis().cloned());
    let wedges = match &source.config.kind {
        config::SourceKind::Redis(redis) => Wedges::new(control.clone().filter(|_| redis.heal)),
        config::SourceKind::Direct(_) => Wedges::off(),
    };
    let history = settings::History::new(&config.session, &config.limits, &source.config, store.store_id());
    let mut reducer = source.reducer;
    let mut telemetry = SourceTelemetry::new(name.clone(), direct, Arc::clone(metrics), Arc::clone(health));
    let role = if others.is_some() {
        reducer.follow(source.last_commit.unwrap_or_default());
        telemetry.role(crate::health::Role::Follower);
        if let Some(control) = &control {
            control.take_snapshots(false);
        }
        Role::Follower
    } else {
        Role::Alone
    };
    let task = SourceTask {
        id: source.id,
        loader: source.loader,
        control,
        role,
        sharing: others
            .map(|(holdings, give_back, validity)| Sharing::new(holdings, give_back, validity, listening)),
        reducer,
        signals,
        watch: Watch::new(Arc::clone(clock)),
        store: store.clone(),
        outlet: Arc::clone(outlet),
        telemetry,
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
