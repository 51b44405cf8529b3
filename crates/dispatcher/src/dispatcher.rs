//! All endpoints. Each is on its own: one's trouble never delays another's.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use turnhook_reducer::outbox::{Delivery, DeliveryId, Pause};

use crate::{
    client::Client,
    clock::Clocks,
    config::{ConfigError, EndpointConfig},
    endpoint::{Endpoint, EndpointStatus, Gate, Means},
    outbox::Outbox,
    writer::Writer,
};

/// Makes deliveries to a number of endpoints until it is shut down.
///
/// It keeps no state: what is pending is offered, or read from the outbox, and what came of each attempt is recorded there.
/// At start it knows nothing, and reads.
pub struct Dispatcher {
    endpoints: RwLock<HashMap<Arc<str>, Arc<Endpoint>>>,
    means: Means,
    gate: OnceLock<Gate>,
    /// How many nodes share the limits, once that was said.
    nodes: Mutex<Option<usize>>,
}

/// How long an endpoint that is changed waits for its requests under way: what is not done by then is made again, with the
/// same id.
const LAST_REQUESTS: Duration = Duration::from_secs(20);

/// Outcomes that wait to be recorded: beyond, requests wait.
const REPORTS: usize = 1024;

impl Dispatcher {
    /// Starts an endpoint for each configuration. Beside it stand the times in which the endpoint was
    /// paused; one without an end says that it is, still.
    ///
    /// The [`Writer`] must be run until the dispatcher is dropped, and ends then.
    ///
    /// # Errors
    /// If a configuration is wrong, or a name is used twice; nothing is started then.
    pub fn start(
        endpoints: Vec<(EndpointConfig, Vec<Pause>)>,
        clocks: &Clocks,
        outbox: Arc<dyn Outbox>,
        runtime: &Handle,
    ) -> Result<(Dispatcher, Writer), ConfigError> {
        let mut checked = Vec::new();
        let mut names = HashSet::new();
        for (config, pauses) in endpoints {
            if !names.insert(config.name.clone()) {
                return Err(config.error("name", "another endpoint has the same name"));
            }
            checked.push((config.client()?, config, pauses));
        }
        let (reports, reported) = mpsc::channel(REPORTS);
        let writer = Writer::new(Arc::clone(&outbox), reported);
        let dispatcher = Dispatcher {
            endpoints: RwLock::default(),
            means: Means {
                clocks: clocks.clone(),
                outbox,
                reports,
                runtime: runtime.clone(),
                failed: watch::Sender::new(None),
            },
            gate: OnceLock::new(),
            nodes: Mutex::new(None),
        };
        for (client, config, pauses) in checked {
            dispatcher.put(client, &config, pauses);
        }
        Ok((dispatcher, writer))
    }

    /// Whether endpoints could be begun with these.
    ///
    /// # Errors
    /// What is wrong with the first that is.
    pub fn check<'a>(endpoints: impl IntoIterator<Item = &'a EndpointConfig>) -> Result<(), ConfigError> {
        endpoints
            .into_iter()
            .try_for_each(|config| config.client().map(drop))
    }

    /// Begins an endpoint, or has one that was [retired](Dispatcher::retire) begin anew: it reads its outbox, as at a start.
    ///
    /// # Errors
    /// If its configuration is wrong; nothing is changed then.
    pub fn begin(&self, config: &EndpointConfig, pauses: Vec<Pause>) -> Result<(), ConfigError> {
        self.put(config.client()?, config, pauses);
        Ok(())
    }

    fn put(&self, client: Client, config: &EndpointConfig, pauses: Vec<Pause>) {
        // Whoever offers something meanwhile waits, so that it goes to the endpoint that will read what was before.
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let endpoint = Endpoint::start(config, client, pauses, self.means.clone());
        // It has yet to read what it could send.
        if let Some(gate) = self.gate.get() {
            endpoint.only_while(Arc::clone(gate));
        }
        if let Some(nodes) = *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) {
            endpoint.share(nodes);
        }
        endpoints.insert(Arc::clone(endpoint.name()), endpoint);
    }

    /// Has an endpoint begin no request any longer, and waits for those under way. All outcomes are on record then: whoever
    /// reads its outbox next does not find them pending. What it is offered meanwhile stays in the outbox.
    pub async fn retire(&self, name: &str) {
        let Some(endpoint) = self.named(name) else {
            return;
        };
        endpoint.stop();
        drop(tokio::time::timeout(LAST_REQUESTS, endpoint.finished()).await);
        endpoint.abort();
        endpoint.recorded().await;
    }

    /// Forgets an endpoint that was [retired](Dispatcher::retire).
    pub fn forget(&self, name: &str) {
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        endpoints.remove(name);
    }

    fn named(&self, name: &str) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        endpoints.get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Endpoint>> {
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        endpoints.values().cloned().collect()
    }

    /// Resolves when one of the dispatcher's tasks has panicked, with what there is to say: from then on deliveries may
    /// stand still, and whoever started the dispatcher should start anew.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failed = self.means.failed.subscribe();
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
        // Whoever comes first decides.
        let _ = self.gate.set(Arc::clone(gate));
        for endpoint in self.all() {
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
    pub fn withdraw(&self, endpoint: &str, deliveries: &[DeliveryId]) -> bool {
        self.with(endpoint, |endpoint| endpoint.withdraw(deliveries))
    }

    /// Some of what is being read of an endpoint's outbox is somebody else's to send now, and nobody can tell which: what
    /// the read brings is thrown away, and read once more. Says whether there is such an endpoint.
    pub fn drop_read(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::drop_read)
    }

    /// Someone else has changed an endpoint's outbox (a replay, say): it is read again. Says whether there is
    /// such an endpoint.
    pub fn read_again(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::read_again)
    }

    /// So many nodes share the endpoints' limits now: concurrency and rate are divided evenly among them, which is as
    /// exact as they agree on their number.
    pub fn share(&self, nodes: usize) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = Some(nodes);
        for endpoint in self.all() {
            endpoint.share(nodes);
        }
    }

    /// The deliveries that an endpoint holds in memory, to be withdrawn where they are pending no longer.
    #[must_use]
    pub fn known(&self, endpoint: &str) -> Vec<DeliveryId> {
        self.named(endpoint)
            .map_or_else(Vec::new, |endpoint| endpoint.known())
    }

    /// Sends nothing to an endpoint from now on, for this reason. Says whether there is such an endpoint.
    pub fn pause(&self, endpoint: &str, reason: &str) -> bool {
        self.with(endpoint, |endpoint| endpoint.pause(reason))
    }

    /// Sends again, at once and also what waited for a retry: a pause ends, and so do a `Retry-After` that is being
    /// waited for and an open circuit breaker. Says whether there is such an endpoint.
    pub fn resume(&self, endpoint: &str) -> bool {
        self.with(endpoint, Endpoint::resume)
    }

    fn with(&self, endpoint: &str, act: impl FnOnce(&Arc<Endpoint>)) -> bool {
        // The lock is kept, so that nothing is offered to an endpoint whose successor has begun to read.
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        endpoints.get(endpoint).map(act).is_some()
    }

    /// How each endpoint is doing, by name.
    #[must_use]
    pub fn status(&self) -> Vec<EndpointStatus> {
        let mut all: Vec<_> = self.all().iter().map(|endpoint| endpoint.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Begins no request any longer, and waits for those under way; what is not done within `grace` is
    /// given up, and repeated after the next start. Their outcomes are on their way to the outbox when this returns.
    pub async fn shutdown(&self, grace: Duration) {
        let all = self.all();
        for endpoint in &all {
            endpoint.stop();
        }
        let finished = async {
            for endpoint in &all {
                endpoint.finished().await;
            }
        };
        // Whether or not all were done in time: the rest is given up.
        drop(tokio::time::timeout(grace, finished).await);
        for endpoint in &all {
            endpoint.abort();
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        for endpoint in self.all() {
            endpoint.stop();
            endpoint.abort();
        }
    }
}
