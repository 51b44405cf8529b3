//! The program at work: sources, reducers, store and dispatcher, wired.
//!
//! ```text
//! subscriber task ─▶ queue ─▶ source task (reducer) ─▶ commit ─▶ store ─▶ deliveries ─▶ dispatcher ─▶ receivers
//!                                                                store ◀── outbox ◀── outcomes, reads ───┘
//! ```
//!
//! A source task owns its reducer and never waits for the disk (`source.rs`). Deliveries are handed on from
//! memory once they are committed (`outlet.rs`); what came of them is recorded, and what has to be sent later is read, through
//! the dispatcher's port to the store (`outbox.rs`). The housekeeper measures, trims, and notices what others did to the
//! store (`housekeeper.rs`). All of these are parts under one supervisor (`supervisor.rs`): the first that ends before
//! its time ends the process. A stop has one deadline (`deadline.rs`).

mod admin;
mod clock;
mod cluster;
mod commits;
mod deadline;
mod enforce;
pub(crate) mod fault;
mod housekeeper;
mod keep;
mod lanes;
mod notices;
mod outbox;
mod outlet;
pub mod player;
pub mod recorder;
mod recording;
pub mod reload;
mod role;
pub mod settings;
mod slices;
mod source;
mod store_health;
pub(crate) mod supervisor;
mod systemd;
pub mod tap;
mod telemetry;
pub(crate) mod unconfigured;
mod wedge;

use std::{io, sync::Arc};

use tokio::{net::TcpListener, runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use turnhook_dispatcher::{
    clock::Clocks,
    config::{ConfigError, EndpointConfig},
    dispatcher::Dispatcher,
    endpoint::Gate,
};
use turnhook_reducer::{Identity, Reducer, RestoreError, time::Timestamp};
use turnhook_store::{Lanes, LeaseName, Mode, SourceId, Store};
use turnhook_subscriber::{
    direct::handover::Left,
    error::SubscriberError,
    queue::{self, SignalReceiver, SignalSender},
    source::{SourceConfig, SourceHandle},
};

pub use self::keep::Given;
pub(crate) use self::outlet::sent_body;
use self::{
    admin::Page,
    clock::{Clock, Watch},
    cluster::{GivenBack, Holdings, Member, Validity},
    deadline::{Deadline, Stop},
    enforce::{Active, BlockKeeper, Obey},
    housekeeper::Housekeeper,
    keep::{Found, Keeper},
    lanes::LaneKeeper,
    outbox::Outbox,
    outlet::{Outlet, Routes},
    recorder::Recorder,
    reload::{Reload, Reloader},
    role::{Listening, LoadError, Loader, Role, Sharing},
    source::SourceTask,
    store_health::StoreHealth,
    supervisor::{Cause, Ended, Part, Supervisor, words_of_join},
    tap::Taps,
    telemetry::SourceTelemetry,
    wedge::Wedges,
};
use crate::{
    config::{self, Config},
    health::{Health, SourceState},
    http,
    metrics::{Metrics, SourceLabels},
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
        /// The name of the source.
        name: String,
        /// What is wrong.
        error: SubscriberError,
    },
    /// `user_pattern` cannot be used.
    #[error("[session] user_pattern: {0}")]
    UserPattern(turnhook_reducer::rules::PatternError),
    /// The state of a source cannot be read.
    #[error("source \"{name}\": {error}; restore a backup, or give the source another name to begin anew")]
    State {
        /// Its name.
        name: String,
        /// The row, and what is wrong with it.
        error: RestoreError,
    },
    /// The address of `[http] listen` or `[admin] listen` cannot be used.
    #[error("[{table}] listen: cannot listen on {address}: {error}")]
    Listen {
        /// Whose.
        table: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Something of `[admin]` cannot be used.
    #[error("[admin]: {problem}")]
    Admin {
        /// What.
        problem: String,
    },
    /// A part of the program ended before its time.
    #[error("the {part} has ended before its time ({cause}): stopped, so that all of it can be started anew")]
    Part {
        /// The name of the part.
        part: String,
        /// The cause of its end.
        cause: String,
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
            RunError::Endpoint(_) | RunError::UserPattern(_) | RunError::Admin { .. } => true,
            RunError::Source { error, .. } => !matches!(error, SubscriberError::Listen { .. }),
            RunError::Store(error) => {
                matches!(
                    error,
                    turnhook_store::Error::Newer { .. }
                        | turnhook_store::Error::NotAStore { .. }
                        | turnhook_store::Error::Unmigrated { .. }
                        | turnhook_store::Error::BadUrl { .. }
                        | turnhook_store::Error::Copied { .. }
                        | turnhook_store::Error::NoTls { .. }
                )
            }
            RunError::State { .. }
            | RunError::Listen { .. }
            | RunError::Part { .. }
            | RunError::Unfinished => false,
        }
    }
}

/// Runs until `shutdown`, or until the first of its parts ends before its time: then stops reading, commits, and finishes
/// requests under way, all of it within `shutdown_grace`.
///
/// # Errors
/// Whatever keeps it from starting, from going on, or from the last commit.
pub async fn run(
    config: Config,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: CancellationToken,
    reload: Reload,
    given: Given,
) -> Result<(), RunError> {
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
    // What was written down before the start is as old as the store says: it knows how far time has come, whatever the
    // wall clock is set to.
    let clocks = Clocks::system();
    store.advance_horizon(clocks.wall()).await?;
    let clocks = clocks.with_horizon({
        let store = store.clone();
        move || store.horizon()
    });

    let listener = TcpListener::bind(config.http)
        .await
        .map_err(|error| RunError::Listen {
            table: "http",
            address: config.http,
            error,
        })?;
    let store_health = Arc::new(StoreHealth::new(&store, &clock, &metrics, &health));
    let mut parts = Supervisor::default();
    let stops = Stops::default();

    config
        .endpoints
        .iter()
        .for_each(|e| metrics.endpoints.make(&e.name));
    let names: Vec<&str> = config.endpoints.iter().map(|e| e.name.as_str()).collect();
    let ids = store.set_endpoints(&names, clock.now()).await?;
    let included = Arc::new(
        store
            .set_included(outlet::parts_of(&config.endpoints, &ids))
            .await?,
    );
    let keeper = BlockKeeper::new(&store, &store_health, &clocks).await?;
    let active = keeper.active();
    let blocker = keeper.blocker();
    let obey = Obey::new(&config.enforce.obey, &store, blocker.clone());
    parts.start(Part::BlockKeeper, keeper.run(stops.parts.clone()));
    let routes = Routes::new(&config.endpoints, &ids, included, clocks);
    let outbox = Outbox::new(&store, &routes, &metrics, &store_health, obey);
    let pauses = outbox::pauses(&store).await?;
    let with_pauses = |e: &EndpointConfig| (e.clone(), pauses.get(&e.name).cloned().unwrap_or_default());
    let endpoints = config.endpoints.iter().map(with_pauses).collect();
    let (dispatcher, writer) =
        Dispatcher::start(endpoints, routes.clocks(), Arc::new(outbox), &Handle::current())?;
    let dispatcher = Arc::new(dispatcher);
    parts.start(
        Part::Dispatcher,
        watch_dispatcher(&dispatcher, stops.last.clone()),
    );
    parts.start(Part::OutcomeWriter, async move {
        let written = writer.run().await;
        written.map_err(|error| format!("a record: {}", words_of_join(error)))
    });
    let outlet = Arc::new(Outlet::new(routes, Arc::clone(&dispatcher), shared));

    let sources = loaded.iter().map(|source| source.id).collect();
    let (member, holdings, give_back, validity) = Member::new(&store, sources, &health, &store_health);
    let others = shared.then(|| (holdings.clone(), give_back.clone(), validity.clone()));
    if shared {
        let gate = validity.clone();
        dispatcher.only_while(&(Arc::new(move || !gate.is_over()) as Gate));
        parts.start(
            Part::Member,
            member.run(stops.taking.clone(), stops.leave.clone()),
        );
        let keeper = LaneKeeper {
            store: store.clone(),
            store_health: Arc::clone(&store_health),
            outlet: Arc::clone(&outlet),
            holdings: holdings.clone(),
            give_back,
            validity,
        };
        parts.start(Part::LaneKeeper, keeper.run(stops.parts.clone()));
    }
    let mut taps = Taps::default();
    let mut coturns: Vec<(String, enforce::Known)> = Vec::new();
    let (limits, limits_now) = watch::channel(config.limits);
    let mut keys = Vec::new();
    let keeper = Keeper::default();
    // All is well so far: what was left is this start's.
    let mut found = given.use_up(store.store_id());
    for source in loaded {
        let name: Arc<str> = source.config.name.as_str().into();
        let wiring = Wiring {
            config: &config,
            clock: &clock,
            store: &store,
            store_health: &store_health,
            outlet: &outlet,
            metrics: &metrics,
            health: &health,
            active: &active,
            limits: &limits_now,
            keeper: &keeper,
        };
        let listener = settings::source(&source.config);
        if let SourceConfig::Direct(direct) = &listener {
            keys.push((source.config.name.clone(), direct.keys.clone()));
        }
        let (task, handle, controls) = wiring
            .start(source, listener, &mut found, &mut taps, others.clone())
            .await?;
        for control in controls {
            coturns.push((name.to_string(), control.known()));
            parts.start(Part::Control(control.name()), control.run(stops.parts.clone()));
        }
        if let Some(handle) = handle {
            let part = Part::Subscriber(Arc::clone(&name));
            let listens = listen(part.clone(), handle, stops.reading.clone(), keeper.clone());
            parts.start(part, listens);
        }
        parts.start(Part::Source(name), task.run(stops.parts.clone()));
    }
    drop(found);
    for gate in &config.gates {
        let known = coturns.iter().filter(|(source, _)| *source == gate.source);
        let known = known.map(|(_, coturn)| Arc::clone(coturn)).collect();
        let pattern = turnhook_reducer::rules::UserPattern::new(&config.session.user_pattern);
        let pattern = pattern.map_err(RunError::UserPattern)?;
        let part = enforce::GatePart::new(
            gate,
            pattern,
            active.clone(),
            known,
            outlet.clocks().clone(),
            &metrics,
        );
        let part = part.await.map_err(|error| RunError::Listen {
            table: "[gate]",
            address: gate.listen,
            error,
        })?;
        parts.start(Part::Gate, part.run(stops.parts.clone()));
    }
    let housekeeper = Housekeeper::new(
        &config,
        &store,
        &outlet,
        &clock,
        Arc::clone(&metrics),
        Arc::clone(&health),
        Arc::clone(&store_health),
    );
    // Before the first answer, so that no `/status` says that nothing is pending because nobody has looked.
    housekeeper.look().await;
    let reloader = Reloader {
        reload,
        endpoints: config.endpoints.clone(),
        keys,
        limits,
        store: store.clone(),
        outlet: Arc::clone(&outlet),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        started: config.clone(),
    };
    parts.start(Part::Reloader, reloader.run(stops.parts.clone()));
    parts.start(Part::Watchdog, systemd::watchdog(stops.parts.clone()));
    let until = stops.parts.token();
    parts.start(Part::Housekeeper, async move {
        housekeeper.run(until).await;
        Ok(())
    });
    let socket = recorder::socket_path(&config);
    match Recorder::bind(socket.clone(), taps) {
        Ok(recorder) => parts.start(Part::Recorder, recorder.run(stops.parts.clone())),
        Err(error) => {
            warn!(path = %socket.display(), %error, "`turnhook record` cannot be used: its socket cannot be made")
        }
    }
    let http_address = listener.local_addr().unwrap_or(config.http);
    let (last, served) = (stops.last.clone(), (Arc::clone(&metrics), Arc::clone(&health)));
    let hosts = config.http_hosts.clone();
    parts.start(Part::Http, async move {
        http::serve(listener, served.0, served.1, &hosts, last).await;
        Ok(())
    });
    if let Some(admin) = &config.admin {
        let seen = (Arc::clone(&metrics), Arc::clone(&health));
        let routes = enforce::routes(&store, blocker.clone());
        let page = Page::new(&config, admin, seen.0, seen.1, routes).await?;
        parts.start(Part::Admin, page.run(stops.last.clone()));
    }
    info!(store = store.describe(), http = %http_address, sources = config.sources.len(), endpoints = names.len(), "running");
    systemd::ready();

    let early = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = parts.first() => Some(ended),
    };
    systemd::stopping();
    let deadline = Deadline::after(config.shutdown_grace);
    deadline.enforce();
    if let Some((part, cause)) = &early {
        ended_early(part, cause, &metrics, &health);
    } else if !shared && systemd::may_keep() {
        // Where several nodes share the store, another one listens at once.
        keeper.begin();
    }
    let parted = Parted {
        store,
        holdings: shared.then_some(holdings),
        dispatcher,
        outlet,
        keeper,
    };
    let well = parted.stop(parts, stops, deadline).await;
    info!("stopped");
    match early {
        Some((part, cause)) => Err(RunError::Part {
            part: part.to_string(),
            cause: cause.to_string(),
        }),
        None if well => Ok(()),
        None => Err(RunError::Unfinished),
    }
}

/// Says which part it was, and that its source is served no more.
fn ended_early(part: &Part, cause: &Cause, metrics: &Metrics, health: &Health) {
    error!(%part, %cause, "a part has ended before its time: the program stops, to be started anew");
    if let Some(source) = part.source() {
        let labels = SourceLabels {
            source: source.to_string(),
        };
        metrics.sources.source_up.get_or_create(&labels).set(0);
        health.update_source(source, |s| {
            s.state = SourceState::Deaf;
            s.last_error = Some(format!("the {part} has ended before its time: {cause}"));
        });
    }
}

/// What tells parts to stop, in this order.
#[derive(Default)]
struct Stops {
    /// Subscribers.
    reading: CancellationToken,
    /// The member takes no more leases.
    taking: CancellationToken,
    /// Sources, with all that they have yet to commit, and whoever only looks on.
    parts: Stop,
    /// The member gives back what is left.
    leave: CancellationToken,
    /// What is there to the end.
    last: CancellationToken,
}

/// What a stop needs.
struct Parted {
    store: Store,
    /// Where several nodes share the store.
    holdings: Option<watch::Receiver<Holdings>>,
    dispatcher: Arc<Dispatcher>,
    outlet: Arc<Outlet>,
    keeper: Keeper,
}

impl Parted {
    /// Stops all parts by the deadline. Whether all was committed, and nothing went wrong.
    async fn stop(self, mut parts: Supervisor, stops: Stops, deadline: Deadline) -> bool {
        let Parted {
            store,
            holdings,
            dispatcher,
            outlet,
            keeper,
        } = self;
        stops.taking.cancel();
        stops.reading.cancel();
        let is_reader = |part: &Part| matches!(part, Part::Subscriber(_));
        let sources = async {
            // What they have read is then in the queues.
            let mut well = parts.wait_for(is_reader, deadline).await;
            stops.parts.begin(deadline);
            well &= parts
                .wait_for(|part| matches!(part, Part::Source(_)), deadline)
                .await;
            if let Some(holdings) = &holdings {
                // Others need not wait for the requests that are under way here.
                let leads = holdings.borrow().sources.clone();
                deadline.within(hand_over(&store, leads)).await;
            }
            if well {
                keeper.hand_over(store.store_id(), deadline).await;
            }
            well
        };
        // Requests under way need not wait for a store that takes its time.
        let (mut well, ()) = tokio::join!(sources, dispatcher.shutdown(deadline.for_requests()));
        stops.leave.cancel();
        // It ends when nobody holds it, and the writer of outcomes after it.
        drop((dispatcher, outlet));
        let is_left = |part: &Part| !matches!(part, Part::Http | Part::Admin | Part::Dispatcher);
        well &= parts.wait_for(is_left, deadline).await;
        if deadline.within(store.close()).await.is_none() {
            warn!("the store does not answer: left as it is");
        }
        // The rest has nothing to lose, and ends with the runtime.
        stops.last.cancel();
        well
    }
}

async fn hand_over(store: &Store, leads: std::collections::BTreeMap<SourceId, cluster::Lead>) {
    let Some(cluster) = store.cluster() else { return };
    for (source, lead) in leads {
        if let Err(error) = cluster.release(LeaseName::Source(source), lead.epoch).await {
            warn!(%error, "a source could not be handed over: its lease expires by itself");
        }
    }
}

/// The dispatcher's tasks, watched as one part.
fn watch_dispatcher(
    dispatcher: &Dispatcher,
    last: CancellationToken,
) -> impl Future<Output = Ended> + Send + use<> {
    let failed = dispatcher.failed();
    async move {
        tokio::select! {
            said = failed => Err(said),
            () = last.cancelled() => Ok(()),
        }
    }
}

/// A source's subscriber, as a part: it runs until it is stopped.
async fn listen(part: Part, mut handle: SourceHandle, reading: CancellationToken, keeper: Keeper) -> Ended {
    let abort = handle.abort_handle();
    let ended = tokio::select! {
        ended = handle.ended() => ended,
        () = async {
            fault::abort(&part).await;
            abort.abort();
            std::future::pending().await
        } => Ok(()),
        () = reading.cancelled() => {
            if !keeper.has_begun() {
                handle.stop().await;
            } else if let (Some(name), Some(suspended)) = (part.source(), handle.suspend().await) {
                keeper.suspended(name, suspended);
            }
            return Ok(());
        }
    };
    match ended {
        Ok(()) => Ok(()),
        Err(error) => Err(words_of_join(error)),
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

/// What sources are wired with.
struct Wiring<'a> {
    config: &'a Config,
    clock: &'a Arc<Clock>,
    store: &'a Store,
    store_health: &'a Arc<StoreHealth>,
    outlet: &'a Arc<Outlet>,
    metrics: &'a Arc<Metrics>,
    health: &'a Arc<Health>,
    active: &'a watch::Receiver<Active>,
    limits: &'a watch::Receiver<config::Limits>,
    keeper: &'a Keeper,
}

impl Wiring<'_> {
    async fn start(
        &self,
        source: Loaded,
        listener: SourceConfig,
        found: &mut Found,
        taps: &mut Taps,
        others: Option<(watch::Receiver<Holdings>, GivenBack, Validity)>,
    ) -> Result<(SourceTask, Option<SourceHandle>, Vec<enforce::ControlTask>), RunError> {
        let (config, clock) = (self.config, self.clock);
        let name = source.config.name.clone();
        let (sender, signals): (SignalSender, SignalReceiver) = queue::channel(queue::DEFAULT_BOUND);
        let wrong = |error| RunError::Source {
            name: name.clone(),
            error,
        };
        let direct = matches!(source.config.kind, config::SourceKind::Direct(_));
        let mut resumed = None;
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
            let mut left = Left::default();
            if let SourceConfig::Direct(direct) = &listener {
                (left, resumed) = found.of(&name, direct.listen, source.last_commit, clock.now());
            }
            let handle = listener.resume(left, clock_fn(clock), sender).await;
            (Some(handle.map_err(wrong)?), None)
        };
        let control = handle.as_ref().and_then(|handle| handle.redis().cloned());
        let wedges = match &source.config.kind {
            config::SourceKind::Redis(redis) => Wedges::new(control.clone().filter(|_| redis.heal)),
            config::SourceKind::Direct(_) => Wedges::off(),
        };
        let store_id = self.store.store_id();
        let history = settings::History::new(&config.session, &config.limits, &source.config, store_id);
        let mut reducer = source.reducer;
        let mut telemetry = SourceTelemetry::new(
            name.clone(),
            direct,
            Arc::clone(self.metrics),
            Arc::clone(self.health),
        );
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
        let sharing = others
            .map(|(holdings, give_back, validity)| Sharing::new(holdings, give_back, validity, listening));
        let active = self.active.clone();
        let enforce::Wires { enforcing, controls } =
            enforce::wire(&name, config, active, self.metrics, self.health);
        let task = SourceTask {
            enforcing,
            id: source.id,
            loader: source.loader,
            control,
            role,
            sharing,
            reducer,
            signals,
            watch: Watch::new(Arc::clone(clock)),
            store: self.store.clone(),
            store_health: Arc::clone(self.store_health),
            outlet: Arc::clone(self.outlet),
            telemetry,
            taps: taps.of(&name, history),
            limits: self.limits.clone(),
            wedges,
            last_commit: source.last_commit,
            resumed,
            keeper: self.keeper.clone(),
        };
        Ok((task, handle, controls))
    }
}

fn clock_fn(clock: &Arc<Clock>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let clock = Arc::clone(clock);
    Arc::new(move || clock.now())
}
