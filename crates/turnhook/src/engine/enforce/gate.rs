//! The gate at work: who is blocked, which coturn asks, and what was answered.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;
use tracing::{error, info};
use turnhook_control::{
    Coturn, Version,
    gate::{self, Answer, Doorkeeper},
};
use turnhook_dispatcher::clock::Clocks;
use turnhook_reducer::rules::UserPattern;

use super::{super::deadline::Stop, super::supervisor::Ended, Active};
use crate::{config, metrics::Metrics};

/// What a control has found out about its coturn.
pub(crate) type Known = Arc<Mutex<Option<Coturn>>>;

/// How it is known that coturn cannot be crashed by a name.
enum Age {
    /// Somebody has said so.
    Said,
    /// By the banners of the source's controls.
    Banners(Vec<Known>),
}

struct Keeper {
    active: watch::Receiver<Active>,
    realm: Box<[u8]>,
    pattern: UserPattern,
    age: Age,
    clocks: Clocks,
    counters: Vec<(Answer, prometheus_client::metrics::counter::Counter)>,
    closed: AtomicBool,
    source: String,
}

impl Doorkeeper for Keeper {
    fn is_open(&self) -> bool {
        let Age::Banners(known) = &self.age else {
            return true;
        };
        let versions: Vec<_> = known
            .iter()
            .filter_map(|k| k.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.version)
            .collect();
        let open = !versions.is_empty() && versions.iter().all(|v| *v >= Version::SOUND);
        if self.closed.swap(!open, Ordering::Relaxed) == open {
            if open {
                info!(source = self.source, "the gate is open: coturn is 4.13 or newer");
            } else {
                error!(
                    source = self.source,
                    "the gate is closed, and coturn refuses all new allocations: it is not known that coturn is 4.13 or \
                     newer, and older ones can be crashed by a username; give the source a [[control]], or the gate \
                     `coturn = \"4.17\"`, or `allow_old = true` to take that risk"
                );
            }
        }
        open
    }

    fn is_blocked(&self, username: &[u8]) -> bool {
        let active = self.active.borrow();
        !active.blocks.is_empty()
            && self
                .pattern
                .user(username)
                .is_some_and(|user| active.blocks.reason(&self.realm, user).is_some())
    }

    fn now(&self) -> u64 {
        self.clocks.wall().0 / 1000
    }

    fn answered(&self, answer: Answer) {
        if let Some((_, counter)) = self.counters.iter().find(|(of, _)| *of == answer) {
            counter.inc();
        }
    }
}

pub(crate) struct GatePart(gate::Gate);

impl GatePart {
    /// Listens. Fails with what the system says.
    pub(crate) async fn new(
        config: &config::Gate,
        pattern: UserPattern,
        active: watch::Receiver<Active>,
        known: Vec<Known>,
        clocks: Clocks,
        metrics: &Metrics,
    ) -> std::io::Result<GatePart> {
        let counters =
            Answer::ALL.map(|answer| (answer, metrics.enforce.gate_answers(&config.source, answer)));
        let keeper = Keeper {
            active,
            realm: config.realm.as_bytes().into(),
            pattern,
            age: if config.sound {
                Age::Said
            } else {
                Age::Banners(known)
            },
            clocks,
            counters: counters.into(),
            closed: AtomicBool::new(false),
            source: config.source.clone(),
        };
        let gate = gate::Config {
            listen: config.listen,
            realm: config.realm.as_bytes().into(),
            secrets: config.secrets.clone(),
            password: config.password.clone(),
            options: config.options,
        };
        gate::Gate::bind(gate, Arc::new(keeper)).await.map(GatePart)
    }

    pub(crate) fn keys(&self) -> gate::Keys {
        self.0.keys()
    }

    /// Until `stop`: then coturn refuses whoever is new.
    pub(crate) async fn run(self, stop: Stop) -> Ended {
        tokio::select! {
            () = stop.begun() => Ok(()),
            () = self.0.run() => Err("it does not answer any more".to_owned()),
        }
    }
}
