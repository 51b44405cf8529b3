//! What page and JSON API know of the running program, and how they are served.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use turnhook_admin::{
    Access, Admin, EndpointNow, Engine, History, NodeNow, Routes, Sample, ServerNow, SourceNow, StatusNow,
    StoreNow, Trying,
};
use turnhook_reducer::{
    event::{Accuracy, CloseReason},
    outbox::Next,
    rules::UserPattern,
};
use turnhook_store::{Mode, Store};
use turnhook_subscriber::decode::Refusal;

use super::{RunError, supervisor::Ended, trying::Configured};
use crate::{
    config::{self, Config},
    health::{EndpointStatus, Health, SourceStatus},
    http::{self, tls},
    metrics::{EndLabels, EventLabels, IGNORED, MessageKind, Metrics, OutcomeLabels, ReasonLabels},
    store,
};

/// Served until its stop.
pub(crate) struct Page {
    listener: TcpListener,
    tls: Option<http::Certificate>,
    router: axum::Router,
    hosts: Vec<String>,
    /// Its own, as that of a command is: what is read here waits for nobody who writes, and what is changed here the
    /// housekeeper notices as it notices a command's changes.
    store: Store,
    engine: Arc<dyn Engine>,
    history: Arc<History>,
}

impl Page {
    /// Listens; `more` are routes of other parts. `certificate` is what is shown, and can be changed.
    pub(crate) async fn new(
        config: &Config,
        admin: &config::Admin,
        (metrics, health): (Arc<Metrics>, Arc<Health>),
        endpoints: watch::Receiver<Arc<Configured>>,
        more: Routes,
        certificate: &watch::Sender<Option<TlsAcceptor>>,
    ) -> Result<Page, RunError> {
        let wrong = |problem: String| RunError::Admin { problem };
        let access = Access::new(
            admin.users_file.clone(),
            admin.tokens_file.clone(),
            admin.behind_proxy,
        )
        .map_err(|error| wrong(error.to_string()))?;
        let tls = admin
            .tls
            .as_ref()
            .map(|(cert, key)| tls::acceptor(cert, key))
            .transpose()
            .map_err(wrong)?
            .map(|acceptor| {
                certificate.send_replace(Some(acceptor));
                certificate.subscribe()
            });
        let listener = TcpListener::bind(admin.listen)
            .await
            .map_err(|error| RunError::Listen {
                table: "admin",
                address: admin.listen,
                error,
            })?;
        let store = store::open(&config.store.kind, Mode::Shared).await?;
        let user_pattern =
            UserPattern::new(&config.session.user_pattern).map_err(|error| wrong(error.to_string()))?;
        let engine: Arc<dyn Engine> = Arc::new(Running {
            metrics,
            health,
            endpoints,
            user_pattern,
            controlled: config
                .controls
                .iter()
                .map(|control| control.source.clone())
                .collect(),
        });
        let history = Arc::new(History::default());
        let shown = Admin {
            ledger: store.ledger().clone(),
            changes: store.admin().clone(),
            engine: Arc::clone(&engine),
            history: Arc::clone(&history),
        };
        Ok(Page {
            listener,
            tls,
            router: turnhook_admin::router(shown, access, more),
            hosts: admin.hosts.clone(),
            store,
            engine,
            history,
        })
    }

    pub(crate) async fn run(self, stop: CancellationToken) -> Ended {
        tokio::select! {
            () = http::serve_admin(self.listener, self.tls, self.router, &self.hosts, stop) => {}
            () = self.history.watch(self.engine) => {}
        }
        self.store.close().await;
        Ok(())
    }
}

struct Running {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// As they are configured now.
    endpoints: watch::Receiver<Arc<Configured>>,
    user_pattern: UserPattern,
    controlled: BTreeSet<String>,
}

impl Engine for Running {
    fn try_endpoint<'a>(&'a self, name: &'a str, sample: Sample) -> Trying<'a> {
        let endpoints = Arc::clone(&self.endpoints.borrow());
        Box::pin(async move { endpoints.try_one(name, sample).await })
    }

    fn user_of(&self, username: &[u8]) -> Option<Vec<u8>> {
        self.user_pattern.user(username).map(<[u8]>::to_vec)
    }

    fn status(&self) -> StatusNow {
        let status = self.health.status();
        let parts = status.parts;
        StatusNow {
            version: status.version.to_owned(),
            uptime_seconds: status.uptime.as_secs(),
            store: StoreNow {
                writable: parts.store.writable,
                reachable: parts.store.reachable,
                last_error: parts.store.last_error,
                last_error_at: parts.store.last_error_at,
            },
            sources: parts
                .sources
                .into_iter()
                .map(|(name, of)| self.source(name, of))
                .collect(),
            endpoints: parts
                .endpoints
                .into_iter()
                .map(|(name, of)| self.endpoint(name, of))
                .collect(),
            node: parts.node.map(|node| NodeNow {
                id: node.id,
                live: node.live,
                lanes: node.lanes,
            }),
        }
    }
}

impl Running {
    fn source(&self, name: String, of: SourceStatus) -> SourceNow {
        let messages = MessageKind::ALL.map(|kind| {
            let labels = EventLabels {
                source: name.clone(),
                kind,
            };
            let count = self
                .metrics
                .sources
                .events
                .get(&labels)
                .map_or(0, |counter| counter.get());
            (kind.as_str().to_owned(), count)
        });
        let server = |server: crate::health::ServerStatus| ServerNow {
            server: server.server,
            state: word(&server.state),
            since: server.since,
        };
        SourceNow {
            r#type: of.r#type.to_owned(),
            role: word(&of.role),
            ready: of.state.is_ready(),
            state: word(&of.state),
            since: of.since,
            detail: of.detail,
            last_message_at: of.last_message_at,
            last_error: of.last_error,
            last_error_at: of.last_error_at,
            open_allocations: of.open_allocations,
            open_sessions: of.open_sessions,
            servers: of.servers.into_iter().map(server).collect(),
            silent_threads: of.wedged_threads,
            messages: messages.into(),
            ignored: self.ignored(&name),
            ended: self.ended(&name),
            controlled: self.controlled.contains(&name),
            name,
        }
    }

    fn ignored(&self, source: &str) -> Vec<(String, u64)> {
        let reasons = Refusal::ALL.iter().map(|refusal| refusal.as_str()).chain(IGNORED);
        let counted = reasons.map(|reason| {
            let labels = ReasonLabels {
                source: source.to_owned(),
                reason,
            };
            let counter = self.metrics.sources.events_ignored.get(&labels);
            (reason.to_owned(), counter.map_or(0, |counter| counter.get()))
        });
        counted.collect()
    }

    fn ended(&self, source: &str) -> Vec<(String, String, u64)> {
        let mut counted = Vec::new();
        for reason in CloseReason::ALL.iter().copied() {
            for accuracy in Accuracy::ALL {
                let labels = EndLabels {
                    source: source.to_owned(),
                    reason: reason.as_str(),
                    accuracy: accuracy.as_str(),
                };
                let counter = self.metrics.sources.sessions_ended.get(&labels);
                let count = counter.map_or(0, |counter| counter.get());
                counted.push((reason.as_str().to_owned(), accuracy.as_str().to_owned(), count));
            }
        }
        counted
    }

    fn endpoint(&self, name: String, of: EndpointStatus) -> EndpointNow {
        let outcomes = Next::WORDS.map(|outcome| {
            let labels = OutcomeLabels {
                endpoint: name.clone(),
                outcome,
            };
            let counter = self.metrics.endpoints.deliveries.get(&labels);
            (outcome.to_owned(), counter.map_or(0, |counter| counter.get()))
        });
        EndpointNow {
            state: word(&of.state),
            since: of.since,
            until: of.until,
            reason: of.reason,
            paused: of.paused,
            pending: of.pending,
            oldest_pending_seconds: of.oldest_pending_seconds,
            dead_letters: of.dead_letters,
            last_error: of.last_error,
            last_error_at: of.last_error_at,
            last_delivered_at: of.last_delivered_at,
            outcomes: outcomes.into(),
            settings: self.endpoints.borrow().settings(&name),
            name,
        }
    }
}

/// As `/status` writes it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}
