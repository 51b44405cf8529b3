//! The program at work: sources, reducers, store and dispatcher, wired.
//!
//! ```text
//! subscriber task ─▶ queue ─▶ source task (reducer) ─▶ commit ─▶ store ─▶ deliveries ─▶ dispatcher ─▶ receivers
//!                                                                store ◀── outbox ◀── outcomes, reads ───┘
//! ```
//!
//! Sources are put together in `wiring.rs`. A source task owns its reducer and never waits for the disk (`source.rs`):
//! it hears, commits, and where several nodes share the store it leads or follows
//! (`source/{hearing,commits,leading,takeover}.rs`, over what `committing.rs`, `role.rs` and `loading.rs` keep).
//! Deliveries are handed on from memory once they are committed (`fan_out.rs`); what came of them is recorded, and what
//! has to be sent later is read, through the dispatcher's port to the store (`outbox.rs`). The housekeeper measures,
//! and notices what others did to the store (`housekeeper.rs`); beside it what is old is removed (`trimmer.rs`). All of
//! these are parts under one supervisor (`supervisor.rs`): the first that ends before its time ends the process. A stop
//! has one deadline (`stopping.rs`, `deadline.rs`).

mod admin;
mod clock;
mod cluster;
mod committing;
mod deadline;
mod enforce;
mod error;
mod fan_out;
pub(crate) mod fault;
mod handed;
mod heal;
mod housekeeper;
mod keep;
mod lanes;
mod loading;
mod notices;
mod outbox;
pub mod player;
pub mod recorder;
mod recording;
mod recording_api;
pub mod reload;
mod role;
pub mod settings;
mod slices;
mod source;
mod stopping;
mod store_health;
pub(crate) mod supervisor;
mod systemd;
pub mod tap;
mod telemetry;
mod trimmer;
mod trying;
pub(crate) mod unconfigured;
mod wedge;
mod wiring;

use std::sync::Arc;

use tokio::{net::TcpListener, runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use turnhook_dispatcher::{clock::Clocks, config::EndpointConfig, dispatcher::Dispatcher, endpoint::Gate};
use turnhook_store::{Lanes, Mode, Store};
use turnhook_subscriber::source::SourceConfig;

pub(crate) use self::fan_out::sent_body;
use self::{
    admin::Page,
    clock::Clock,
    cluster::Member,
    deadline::Deadline,
    enforce::{BlockKeeper, Notifier, Obey, QuotaKeeper},
    fan_out::{FanOut, Routes},
    heal::HealKeeper,
    housekeeper::Housekeeper,
    keep::Keeper,
    lanes::LaneKeeper,
    outbox::Outbox,
    recorder::{Recorder, Recordings},
    reload::{Reload, Reloader},
    stopping::{Parted, Stops},
    store_health::StoreHealth,
    supervisor::{Cause, Ended, Part, Supervisor, words_of_join},
    tap::Taps,
    trying::Configured,
    wiring::{Wiring, listen, load},
};
pub use self::{error::RunError, keep::Given};
use crate::{
    config::Config,
    health::{Health, SourceState},
    http,
    metrics::{Metrics, SourceLabels},
    store,
};

/// Runs until `shutdown`, or until the first of its parts ends before its time: then stops reading, commits, and
/// finishes requests under way, all of it within `shutdown_grace`.
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
        store.outbox().set_lanes(Lanes::NONE);
    }
    // Before `load` makes the source of a new name: until then it can still be renamed.
    unconfigured::warn_of(&config, &store).await?;
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
    store.admin().advance_horizon(clocks.wall()).await?;
    let clocks = clocks.with_horizon({
        let admin = store.admin().clone();
        move || admin.horizon()
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
    parts.start(Part::Store, watch_store(store.clone(), stops.last.clone()));

    config
        .endpoints
        .iter()
        .for_each(|e| metrics.endpoints.make(&e.name));
    let names: Vec<&str> = config.endpoints.iter().map(|e| e.name.as_str()).collect();
    let ids = store.outbox().set_endpoints(&names, clock.now()).await?;
    let included = Arc::new(
        store
            .outbox()
            .set_included(fan_out::includes(&config.endpoints, &ids))
            .await?,
    );
    let keeper = BlockKeeper::new(store.admin(), &store_health, &clocks).await?;
    let active = keeper.active();
    let blocker = keeper.blocker();
    let obey = Obey::new(&config.enforce.obey, &store, blocker.clone());
    parts.start(Part::BlockKeeper, keeper.run(stops.parts.clone()));
    let heal_keeper = HealKeeper::new(&store, &store_health, &clocks);
    let quotas = watch::Sender::new(Arc::clone(&config.quotas));
    let (tap, counts) = enforce::counting(&quotas);
    let quota_keeper = QuotaKeeper {
        ledger: store.ledger().clone(),
        shared,
        store_health: Arc::clone(&store_health),
        blocker: blocker.clone(),
        active: active.clone(),
        metrics: Arc::clone(&metrics),
        relayed: config.session.billable == crate::config::Billable::Relayed,
        counts,
    };
    parts.start(Part::QuotaKeeper, quota_keeper.run(stops.parts.clone()));
    let routes = Routes::new(&config.endpoints, &ids, included, clocks);
    let outbox = Outbox::new(store.outbox(), &routes, &metrics, &store_health, obey);
    let pauses = outbox::pauses(store.outbox()).await?;
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
    let fan_out = Arc::new(FanOut::new(routes, Arc::clone(&dispatcher), shared).counting(tap));

    let notifier = Notifier {
        store: store.clone(),
        store_health: Arc::clone(&store_health),
        fan_out: Arc::clone(&fan_out),
        active: active.clone(),
    };
    parts.start(Part::Notifier, notifier.run(stops.parts.clone()));

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
            outbox: store.outbox().clone(),
            store_health: Arc::clone(&store_health),
            fan_out: Arc::clone(&fan_out),
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
            fan_out: &fan_out,
            metrics: &metrics,
            health: &health,
            active: &active,
            heal_keeper: &heal_keeper,
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
    parts.start(Part::HealKeeper, heal_keeper.run(stops.parts.clone()));
    let mut gates = Vec::new();
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
            fan_out.clocks().clone(),
            &metrics,
        );
        let part = part.await.map_err(|error| RunError::Listen {
            table: "[gate]",
            address: gate.listen,
            error,
        })?;
        gates.push(part.keys());
        parts.start(Part::Gate, part.run(stops.parts.clone()));
    }
    let housekeeper = Housekeeper::new(
        &config,
        &store,
        &fan_out,
        &clock,
        Arc::clone(&metrics),
        Arc::clone(&health),
        Arc::clone(&store_health),
    );
    // Before the first answer, so that no `/status` says that nothing is pending because nobody has looked.
    housekeeper.look().await;
    let certificate = tokio::sync::watch::Sender::new(None);
    let (endpoints, endpoints_now) = watch::channel(Configured::of(&config));
    let reloader = Reloader {
        reload,
        gates,
        certificate: certificate.clone(),
        endpoints,
        keys,
        limits,
        quotas,
        outbox: store.outbox().clone(),
        fan_out: Arc::clone(&fan_out),
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
    let recordings = Recordings::new(taps);
    match Recorder::bind(socket.clone(), recordings.clone()) {
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
        let recorded = recording_api::routes(recordings, &store, fan_out.clocks());
        let routes = enforce::routes(&store, blocker.clone()).and(recorded);
        let page = Page::new(&config, admin, seen, endpoints_now, routes, &certificate).await?;
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
        fan_out,
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

/// The store's own threads, watched as one part.
async fn watch_store(store: Store, last: CancellationToken) -> Ended {
    tokio::select! {
        how = store.panicked() => Err(how),
        () = last.cancelled() => Ok(()),
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
