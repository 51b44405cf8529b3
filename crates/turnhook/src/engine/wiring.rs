//! How a source is put together: its state, its subscriber, and the task that owns its reducer.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;
use turnhook_reducer::{Identity, Reducer, time::Timestamp};
use turnhook_store::{SourceId, Store};
use turnhook_subscriber::{
    direct::handover::Left,
    queue::{self, SignalReceiver, SignalSender},
    source::{SourceConfig, SourceHandle},
};

use super::{
    RunError,
    clock::{Clock, Watch},
    cluster::{GivenBack, Holdings, Validity},
    committing::Committing,
    enforce::{self, Active},
    fan_out::FanOut,
    fault,
    heal::HealKeeper,
    keep::{Found, Keeper},
    loading::{LoadError, Loader},
    role::{Following, Listening, Role, Sharing},
    settings,
    source::SourceTask,
    store_health::StoreHealth,
    supervisor::{Ended, Part, words_of_join},
    tap::Taps,
    telemetry::SourceTelemetry,
    wedge::Wedges,
};
use crate::{
    config::{self, Config},
    health::Health,
    metrics::Metrics,
};

/// A source's subscriber, as a part: it runs until it is stopped.
pub(super) async fn listen(
    part: Part,
    mut handle: SourceHandle,
    reading: CancellationToken,
    keeper: Keeper,
) -> Ended {
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
pub(super) struct Loaded {
    pub(super) config: config::Source,
    pub(super) id: SourceId,
    loader: Arc<Loader>,
    reducer: Reducer,
    pub(super) last_commit: Option<Timestamp>,
}

pub(super) async fn load(config: &Config, store: &Store) -> Result<Vec<Loaded>, RunError> {
    let mut loaded = Vec::new();
    for source in &config.sources {
        let rules =
            settings::rules(&config.session, &config.limits, source).map_err(RunError::UserPattern)?;
        let identity = Identity {
            store: store.store_id(),
            source: source.name.as_str().into(),
        };
        let id = store.state().source(&source.name).await?;
        let loader = Loader {
            state: store.state().clone(),
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
pub(super) struct Wiring<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: &'a Arc<Clock>,
    pub(super) store: &'a Store,
    pub(super) store_health: &'a Arc<StoreHealth>,
    pub(super) fan_out: &'a Arc<FanOut>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) health: &'a Arc<Health>,
    pub(super) active: &'a watch::Receiver<Active>,
    pub(super) heal_keeper: &'a HealKeeper,
    pub(super) limits: &'a watch::Receiver<config::Limits>,
    pub(super) keeper: &'a Keeper,
}

impl Wiring<'_> {
    pub(super) async fn start(
        &self,
        source: Loaded,
        listener: SourceConfig,
        found: &mut Found,
        taps: &mut Taps,
        others: Option<(watch::Receiver<Holdings>, GivenBack, Validity)>,
    ) -> Result<(SourceTask, Option<SourceHandle>, Vec<enforce::ControlTask>), RunError> {
        let (config, clock) = (self.config, self.clock);
        let name = source.config.name.clone();
        let (sender, signals): (SignalSender, SignalReceiver) =
            queue::channel(fault::bound("queue", queue::DEFAULT_BOUND, 1000));
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
        self.metrics.sources.may_wait(&name, signals.bound());
        let role = if others.is_some() {
            reducer.follow(source.last_commit.unwrap_or_default());
            telemetry.role(crate::health::Role::Follower);
            if let Some(control) = &control {
                control.take_snapshots(false);
            }
            Role::Follower(Following::new())
        } else {
            Role::Alone(Committing::saved())
        };
        let sharing = others
            .map(|(holdings, give_back, validity)| Sharing::new(holdings, give_back, validity, listening));
        let active = self.active.clone();
        let enforce::Wires { enforcing, controls } =
            enforce::wire(&name, config, active, self.metrics, self.health);
        let task = SourceTask {
            enforcing,
            healing: self.heal_keeper.healing(),
            id: source.id,
            loader: source.loader,
            control,
            role,
            sharing,
            reducer,
            signals,
            watch: Watch::new(Arc::clone(clock)),
            state: self.store.state().clone(),
            store_health: Arc::clone(self.store_health),
            fan_out: Arc::clone(self.fan_out),
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
