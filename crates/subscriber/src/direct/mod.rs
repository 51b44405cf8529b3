//! The `direct` source: a listener that speaks enough of Redis's protocol for coturn's `redis-statsdb`.
//!
//! One task a connection, all feeding the queue to the engine; what the connections say about the servers
//! behind them goes through one [`tracker::ServerTracker`].

pub mod command;
mod config;
mod connection;
mod guard;
pub mod handover;
mod places;
mod refusals;
mod server;
mod serving;
mod shared;
pub mod tracker;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep},
};
use tracing::warn;

pub use self::config::{DirectConfig, DirectLimits, Keys};
use self::{
    connection::Visitor,
    guard::Guard,
    handover::{Left, Resuming, Suspended},
    places::{FULL, Places, Room},
    serving::{Kept, Tasks, address, look_after, pass_on_panic, prepare},
    shared::{Door, Lag, Shared},
};
use crate::{
    error::SubscriberError,
    queue::SignalSender,
    signal::{Clock, Signal, TurnAwayReason},
};

/// How often it is said that no connection can be accepted.
const SAID: Duration = Duration::from_secs(60);

/// A listener that has its address. Runs when it is polled, until it is dropped.
pub(crate) struct Listener {
    listener: TcpListener,
    has_tls: bool,
    shared: Arc<Shared>,
    /// Connections that an earlier program has left.
    resuming: Option<Resuming>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Takes the address, or goes on where an earlier program has stopped.
    pub(crate) async fn bind(
        config: DirectConfig,
        left: Left,
        clock: Clock,
        signals: SignalSender,
    ) -> Result<Listener, SubscriberError> {
        config.validate()?;
        config.keys.begin(&config)?;
        let has_tls = config.tls.is_some();
        let failed = |error| SubscriberError::Listen {
            listen: config.listen,
            error,
        };
        let listener = match left.listener {
            Some(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                TcpListener::from_std(listener)
            }
            None => TcpListener::bind(config.listen).await,
        };
        let listener = listener.map_err(failed)?;
        let (resuming, lag) = match left.connections.filter(|_| !has_tls) {
            Some((state, sockets)) => {
                let (resuming, lag) = Resuming::new(state, sockets);
                (Some(resuming), lag)
            }
            None => (None, Lag::default()),
        };
        let address = listener.local_addr().map_err(failed)?;
        let strangers = config.password.is_some() || has_tls;
        let room = Room {
            known: config.limits.connections,
            strangers: strangers.then_some(config.limits.handshakes),
        };
        let shared = Shared {
            clock,
            signals,
            keys: config.keys,
            limits: config.limits,
            tracker: Mutex::default(),
            tracked: Notify::new(),
            door: Mutex::new(Door {
                places: Places::new(room),
                guard: Guard::default(),
            }),
            lag,
            suspended: watch::Sender::new(false),
        };
        Ok(Listener {
            listener,
            has_tls,
            resuming,
            shared: Arc::new(shared),
            address,
        })
    }

    /// Accepts and serves, until it is asked to leave all to another program.
    pub(crate) async fn run(self, suspend: oneshot::Receiver<oneshot::Sender<Suspended>>) {
        let shared = self.shared;
        let tls = if self.has_tls { " with TLS" } else { "" };
        let detail = format!("listening on {}{tls}", self.address);
        let asked = handover::asked(suspend);
        tokio::pin!(asked);
        // Dropped with this future, and all connections with it.
        let mut tasks = Tasks::new();
        let mut answer = None;
        let mut next = 1;
        if let Some(resuming) = self.resuming {
            let until = async { answer = Some((&mut asked).await) };
            next = resuming.begin(&shared, &mut tasks, detail, until).await;
        } else {
            let at = shared.now();
            shared.signals.signal(Signal::Hearing { at, detail });
        }
        if answer.is_none() {
            tasks.spawn(keep_time(Arc::clone(&shared)));
        }
        // Those who were asked to leave, and have yet to, are not many either.
        let most = 2 * (shared.limits.connections + shared.limits.handshakes);
        let mut said: Option<Instant> = None;
        let answer = loop {
            if let Some(answer) = answer.take() {
                break answer;
            }
            if tasks.len() > most
                && let Some(ended) = tasks.join_next().await
            {
                pass_on_panic(ended);
            }
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                answer = &mut asked => break answer,
                Some(ended) = tasks.join_next() => {
                    pass_on_panic(ended);
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, most likely: some will come free.
                    if said.is_none_or(|said| said.elapsed() > SAID) {
                        warn!(
                            "cannot accept a connection on {}: {e}; coturn waits",
                            self.address
                        );
                        said = Some(Instant::now());
                    }
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (id, ip) = (next, address(peer));
            next += 1;
            let Some(leave) = shared.enter(id, ip) else {
                let _ = stream.try_write(FULL);
                shared.turned_away(TurnAwayReason::NoPlace, ip);
                continue;
            };
            prepare(&stream);
            shared.track(|t| t.accepted(id, ip, shared.now()));
            let visitor = Visitor { id, peer: ip, leave };
            tasks.spawn(look_after(Arc::clone(&shared), visitor, peer, stream, None, None));
            // So that those who were let in come to say who they are, however many there are at the door.
            tokio::task::yield_now().await;
        };
        match handover::suspend(self.listener, &shared, tasks, !self.has_tls).await {
            // Who asked may have given up meanwhile.
            Ok(suspended) => drop(answer.send(suspended)),
            Err(error) => warn!("what listens on {} cannot be handed over: {error}", self.address),
        }
    }
}

/// Lets the tracker have its deadlines, until reading stops.
async fn keep_time(shared: Arc<Shared>) -> Option<Kept> {
    let suspended = shared.suspended();
    tokio::pin!(suspended);
    loop {
        let deadline = shared
            .tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .deadline();
        let now = shared.now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            shared.track(|t| t.tick(now));
            // A tick does all that is due; were it not so, this must not spin.
            tokio::task::yield_now().await;
            continue;
        }
        let due = async {
            match deadline {
                Some(deadline) => sleep(Duration::from_millis(deadline.since(now))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.tracked.notified() => {}
            () = &mut suspended => return None,
        }
    }
}
