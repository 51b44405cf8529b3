//! The `direct` source: a listener that speaks enough of Redis's protocol for coturn's `redis-statsdb`.
//!
//! One task a connection, all feeding the queue to the engine; what the connections say about the servers
//! behind them goes through one [`tracker::ServerTracker`].

pub mod command;
mod connection;
mod guard;
mod keys;
mod places;
mod refusals;
mod server;
pub mod tracker;

use std::{
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

pub use self::keys::Keys;
use self::{
    connection::{End, Visitor},
    guard::{Guard, block},
    places::{Places, Room},
    tracker::ServerTracker,
};
use crate::{
    error::SubscriberError,
    queue::SignalSender,
    resp::Limits,
    signal::{Clock, Signal, TurnAwayReason},
    tls,
};

/// Where to listen, and for whom.
#[derive(Clone, Debug)]
pub struct DirectConfig {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The user that coturn names (4.17 and later); only with a password.
    pub user: Option<String>,
    /// The password that coturn gives; must be set where `listen` is not a loopback address.
    pub password: Option<SecretString>,
    /// Certificate chain and private key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What was made of the former three, and can be changed later.
    pub keys: Keys,
    /// So that a stranger on the port cannot exhaust anything.
    pub limits: DirectLimits,
}

impl DirectConfig {
    /// Listens on `listen`, without password or TLS.
    #[must_use]
    pub fn new(listen: SocketAddr) -> DirectConfig {
        DirectConfig {
            listen,
            user: None,
            password: None,
            tls: None,
            keys: Keys::default(),
            limits: DirectLimits::default(),
        }
    }

    /// Checks what can be checked without listening.
    ///
    /// # Errors
    /// A listener open to all, a user without a password, certificate or key that cannot be used.
    pub fn validate(&self) -> Result<(), SubscriberError> {
        if self.password.is_none() && self.user.is_some() {
            return Err(SubscriberError::UserWithoutPassword);
        }
        if self.password.is_none() && !self.listen.ip().to_canonical().is_loopback() {
            return Err(SubscriberError::OpenToAll { listen: self.listen });
        }
        self.acceptor().map(drop)
    }

    fn acceptor(&self) -> Result<Option<TlsAcceptor>, SubscriberError> {
        self.tls
            .as_ref()
            .map(|(cert, key)| tls::acceptor(cert, key))
            .transpose()
    }
}

/// Limits of the listener.
#[derive(Clone, Copy, Debug)]
pub struct DirectLimits {
    /// The largest command, in bytes. coturn's stay below 2 KiB.
    pub frame: usize,
    /// The most arguments of a command. coturn's have 2.
    pub args: usize,
    /// Connections of clients that are known; one address has half of them at most. A coturn opens one for each of its
    /// threads.
    pub connections: usize,
    /// Connections that have yet to authenticate, or to finish the TLS handshake; one address has half of them at most.
    /// Where there are more, the oldest leave.
    pub handshakes: usize,
    /// How long they may take.
    pub handshake: Duration,
    /// The most bytes of answers that wait to be read by a client; beyond, answers are dropped.
    pub replies: usize,
}

impl Default for DirectLimits {
    fn default() -> DirectLimits {
        DirectLimits {
            frame: 64 * 1024,
            args: 64,
            connections: 4096,
            handshakes: 256,
            handshake: Duration::from_secs(10),
            replies: 16 * 1024,
        }
    }
}

impl DirectLimits {
    fn resp(&self) -> Limits {
        Limits {
            frame: self.frame,
            args: self.args,
        }
    }
}

/// What all connections of a listener share.
struct Shared {
    clock: Clock,
    signals: SignalSender,
    keys: Keys,
    limits: DirectLimits,
    tracker: Mutex<ServerTracker>,
    /// The tracker's deadline may have changed.
    tracked: Notify,
    door: Mutex<Door>,
}

/// Who is let in.
struct Door {
    places: Places,
    guard: Guard,
}

const FULL: &[u8] = b"-ERR max number of clients reached\r\n";
/// How often it is said that no connection can be accepted.
const SAID: Duration = Duration::from_secs(60);

impl Shared {
    /// Nothing in here panics while it holds the lock; were it so, it would still be whole.
    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a newcomer a place. What it gets fires when it has to leave again for another.
    fn enter(&self, id: u64, peer: IpAddr) -> Option<oneshot::Receiver<()>> {
        let Door { places, guard } = &mut *self.door();
        places.enter(id, block(peer), |block| guard.trusts(block))
    }

    /// Tells the tracker something, and the engine what the tracker makes of it. Under one lock, so that
    /// the engine hears it in order.
    fn track<T>(&self, tell: impl FnOnce(&mut ServerTracker) -> T) -> T {
        let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = tracker.deadline();
        let told = tell(&mut tracker);
        for signal in tracker.signals() {
            self.signals.signal(signal);
        }
        if tracker.deadline() != before {
            self.tracked.notify_one();
        }
        told
    }

    fn turned_away(&self, reason: TurnAwayReason, peer: IpAddr) {
        self.track(|t| t.turned_away(reason, peer, (self.clock)()));
    }
}

/// A listener that has its address. Runs when it is polled, until it is dropped.
pub(crate) struct Listener {
    listener: TcpListener,
    has_tls: bool,
    shared: Arc<Shared>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Takes the address.
    pub(crate) async fn bind(
        config: DirectConfig,
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
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
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
        };
        Ok(Listener {
            listener,
            has_tls,
            shared: Arc::new(shared),
            address,
        })
    }

    /// Accepts and serves, for ever.
    pub(crate) async fn run(self) {
        let shared = self.shared;
        let at = (shared.clock)();
        let tls = if self.has_tls { " with TLS" } else { "" };
        shared.signals.signal(Signal::Hearing {
            at,
            detail: format!("listening on {}{tls}", self.address),
        });
        // Dropped with this future, and all connections with it.
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_time(Arc::clone(&shared)));
        // Those who were asked to leave, and have yet to, are not many either.
        let most = 2 * (shared.limits.connections + shared.limits.handshakes);
        let next = AtomicU64::new(1);
        let mut said: Option<Instant> = None;
        loop {
            if tasks.len() > most
                && let Some(ended) = tasks.join_next().await
            {
                pass_on_panic(ended);
            }
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
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
            let id = next.fetch_add(1, Ordering::Relaxed);
            let ip = peer.ip().to_canonical();
            let Some(leave) = shared.enter(id, ip) else {
                let _ = stream.try_write(FULL);
                shared.turned_away(TurnAwayReason::NoPlace, ip);
                continue;
            };
            prepare(&stream);
            shared.track(|t| t.accepted(id, ip, (shared.clock)()));
            let (shared, acceptor) = (Arc::clone(&shared), shared.keys.acceptor());
            tasks.spawn(async move {
                let visitor = Visitor { id, peer: ip, leave };
                let End {
                    by,
                    heard,
                    reason,
                    away,
                } = connect(stream, acceptor, visitor, &shared).await;
                shared.door().places.leave(id);
                shared.track(|t| {
                    let at = (shared.clock)();
                    t.closed(id, by, heard, at);
                    if let Some(away) = away {
                        t.turned_away(away, ip, at);
                    }
                });
                debug!(%peer, ?by, reason, "connection closed");
            });
            // So that those who were let in come to say who they are, however many there are at the door.
            tokio::task::yield_now().await;
        }
    }
}

/// A connection that broke off in a panic still holds its place, and has not said what it lost: the listener ends with
/// it, for whoever watches over the source to see.
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

/// A machine that has gone without a word is noticed after about two minutes, and its connection freed.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
}

async fn connect(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    mut visitor: Visitor,
    shared: &Shared,
) -> End {
    let deadline = Instant::now() + shared.limits.handshake;
    let Some(acceptor) = acceptor else {
        return connection::serve(stream, visitor, shared, deadline).await;
    };
    let accepted = tokio::select! {
        accepted = timeout_at(deadline, acceptor.accept(stream)) => accepted,
        _ = &mut visitor.leave => return End::turned_away((shared.clock)(), TurnAwayReason::NoPlace, String::new()),
    };
    let failed = |away, reason| End::turned_away((shared.clock)(), away, reason);
    match accepted {
        Ok(Ok(stream)) => connection::serve(stream, visitor, shared, deadline).await,
        Ok(Err(e)) => failed(TurnAwayReason::Tls, format!("TLS: {e}")),
        Err(_) => failed(
            TurnAwayReason::TooSlow,
            "the TLS handshake took too long".to_owned(),
        ),
    }
}

/// Lets the tracker have its deadlines.
async fn keep_time(shared: Arc<Shared>) {
    loop {
        let deadline = shared
            .tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .deadline();
        let Some(deadline) = deadline else {
            shared.tracked.notified().await;
            continue;
        };
        let now = (shared.clock)();
        if now < deadline {
            tokio::select! {
                () = sleep(Duration::from_millis(deadline.since(now))) => {}
                () = shared.tracked.notified() => {}
            }
            continue;
        }
        shared.track(|t| t.tick(now));
        // A tick does all that is due; were it not so, this must not spin.
        tokio::task::yield_now().await;
    }
}
