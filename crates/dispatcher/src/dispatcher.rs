//! All endpoints. Each is on its own: one's trouble never delays another's.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use turnhook_reducer::time::Timestamp;

use crate::{
    config::{ConfigError, EndpointConfig},
    endpoint::{Endpoint, EndpointStatus, Gate, Report},
    queue::Delivery,
    schedule::Pause,
};

/// Asks for the time. The caller's clock, so that all parts of the program agree on it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes deliveries to a number of endpoints until it is shut down.
///
/// It keeps no state: what is pending is offered, or read from the outbox on its wish ([`Report::Read`]),
/// and what came of each attempt is reported. At start it knows nothing, and reads.
pub struct Dispatcher {
    endpoints: HashMap<Arc<str>, Arc<Endpoint>>,
    failed: watch::Sender<Option<String>>,
}

impl Dispatcher {
    /// Starts an endpoint for each configuration. Beside it stand the times in which the endpoint was
    /// paused; one without an end says that it is, still.
    ///
    /// `reports` may be small: requests wait while it is full, and nothing is lost. It must be read
    /// until the dispatcher is dropped.
    ///
    /// # Errors
    /// If a configuration is wrong, or a name is used twice; nothing is started then.
    pub fn start(
        endpoints: Vec<(EndpointConfig, Vec<Pause>)>,
        clock: &Clock,
        reports: &mpsc::Sender<Report>,
        runtime: &Handle,
    ) -> Result<Dispatcher, ConfigError> {
        let mut checked = Vec::new();
        let mut names = HashSet::new();
        for (config, pauses) in endpoints {
            if !names.insert(config.name.clone()) {
                return Err(config.error("name", "another endpoint has the same name"));
            }
            checked.push((config.client()?, config, pauses));
        }
        let failed = watch::Sender::new(None);
        let started = checked.into_iter().map(|(client, config, pauses)| {
            let (clock, reports) = (Arc::clone(clock), reports.clone());
            let (failed, runtime) = (failed.clone(), runtime.clone());
            let endpoint = Endpoint::start(&config, client, pauses, clock, reports, failed, runtime);
            (Arc::clone(endpoint.name()), endpoint)
        });
        Ok(Dispatcher {
            endpoints: started.collect(),
            failed,
        })
    }

    /// Resolves when one of the dispatcher's tasks has panicked, with what there is to say: from then on deliveries may
    /// stand still, and whoever started the dispatcher should start anew.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failed = self.failed.subscribe();
        async move {
            loop {
                if let Some(said) = failed.borrow_and_update().clone() {
                    return said;
                }
                if failed.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// From now on requests begin only while `gate` says so: it is asked before each. Where several nodes share the outbox,
    /// that is while this one's leases hold. To be called once, before anything is offered.
    pub fn only_while(&self, gate: &Gate) {
        for endpoint in self.endpoints.values() {
            endpoint.only_while(Arc::clone(gate));
        }
    }

    /// Hands deliveries to an endpoint that were just committed to the outbox, or are to be sent again
    /// (replay), in the order of their rows. Returns at once. Says whether there is such an endpoint.
    pub fn offer(&self, endpoint: &str, deliveries: Vec<Delivery>) -> bool {
        self.with(endpoint, |endpoint| endpoint.offer(deliveries))
    }

    /// Takes deliveries back that were discarded. Those under way go on. Says whether there is such an
    /// endpoint.
    pub fn withdraw(&self, endpoint: &str, deliveries: &[i64]) -> bool {
        self.with(endpoint, |endpoint| endpoint.withdraw(deliveries))
    }

    /// Someone else has changed an endpoint's outbox (a replay, say): it is read again. Says whether there is
    /// such an endpoint.
    pub fn read_again(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::read_again)
    }

    /// So many nodes share the endpoints' limits now: concurrency and rate are divided evenly among them, which is as
    /// exact as they agree on their number.
    pub fn share(&self, nodes: usize) {
        for endpoint in self.endpoints.values() {
            endpoint.share(nodes);
        }
    }

    /// The deliveries that an endpoint holds in memory, to be withdrawn where they are pending no longer.
    #[must_use]
    pub fn known(&self, endpoint: &str) -> Vec<i64> {
        self.endpoints
            .get(endpoint)
            .map_or_else(Vec::new, |endpoint| endpoint.known())
    }

    /// Sends nothing to an endpoint from now on. Says whether there is such an endpoint.
    pub fn pause(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::pause)
    }

    /// Sends again, at once and also what waited for a retry. Says whether there is such an endpoint.
    pub fn resume(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::resume)
    }

    fn with(&self, endpoint: &str, act: impl FnOnce(&Arc<Endpoint>)) -> bool {
        self.endpoints.get(endpoint).map(act).is_some()
    }

    /// How each endpoint is doing, by name.
    #[must_use]
    pub fn status(&self) -> Vec<EndpointStatus> {
        let mut all: Vec<_> = self
            .endpoints
            .values()
            .map(|endpoint| endpoint.status())
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Begins no request any longer, and waits for those under way; what is not done within `grace` is
    /// given up, and repeated after the next start. Their outcomes are reported before this returns.
    pub async fn shutdown(&self, grace: Duration) {
        for endpoint in self.endpoints.values() {
            endpoint.stop();
        }
        let finished = async {
            for endpoint in self.endpoints.values() {
                endpoint.finished().await;
            }
        };
        // Whether or not all were done in time: the rest is given up.
        drop(tokio::time::timeout(grace, finished).await);
        for endpoint in self.endpoints.values() {
            endpoint.abort();
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        for endpoint in self.endpoints.values() {
            endpoint.stop();
            endpoint.abort();
        }
    }
}
