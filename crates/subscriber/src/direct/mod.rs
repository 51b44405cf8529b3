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
pub mod tracker;

use std::{
    net::{IpAddr, SocketAddr, TcpStream as StdStream},
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot, watch},
    task::JoinError,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};
use turnhook_reducer::time::Timestamp;

pub use self::config::{DirectConfig, DirectLimits, Keys};
use self::{
    connection::{End, Paused, Served, Visitor},
    guard::{Guard, block},
    handover::{Kept, Lag, Left, Resuming, Suspended, Tasks, Waiting},
    places::{Places, Room},
    tracker::ServerTracker,
};
use crate::{
    error::SubscriberError,
    queue::SignalSender,
    signal::{Clock, Signal, TurnAwayReason},
};

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
    lag: Lag,
    /// Reading stops, for another program to go on.
    suspended: watch::Sender<bool>,
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
    /// The time, as far as what had waited is read.
    fn now(&self) -> Timestamp {
        self.lag.time().unwrap_or_else(|| (self.clock)())
    }

    /// Ends when reading stops.
    fn suspended(&self) -> impl Future<Output = ()> + use<> {
        let mut suspended = self.suspended.subscribe();
        async move {
            // Its sender is here as long as there are connections.
            let _ = suspended.wait_for(|suspended| *suspended).await;
        }
    }

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
        self.track(|t| t.turned_away(reason, peer, self.now()));
    }
}

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
            let (id, ip) = (next, handover::address(peer));
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

/// Serves a connection that an earlier program has left.
fn resume(
    shared: &Arc<Shared>,
    tasks: &mut Tasks,
    (id, peer): (u64, SocketAddr),
    stream: StdStream,
    paused: Paused,
    waiting: Option<Waiting>,
) {
    let ip = handover::address(peer);
    let leave = shared.enter(id, ip);
    let seat = |door: &mut Door| {
        if paused.is_seated() && shared.keys.credentials().password.is_some() {
            door.guard.passed(block(ip), shared.now());
        }
        !paused.is_seated() || door.places.known(id)
    };
    let seated = leave.filter(|_| seat(&mut shared.door()));
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(stream));
    match (seated, stream) {
        (Some(leave), Ok(stream)) => {
            let visitor = Visitor { id, peer: ip, leave };
            let shared = Arc::clone(shared);
            tasks.spawn(look_after(shared, visitor, peer, stream, Some(paused), waiting));
        }
        _ => {
            // There are fewer places than there were.
            let at = shared.now();
            shared.door().places.leave(id);
            shared.track(|t| {
                t.closed(id, tracker::ClosedBy::Us, at, at);
                t.turned_away(TurnAwayReason::NoPlace, ip, at);
            });
        }
    }
}

/// One connection, from its first byte to its last, or to where another program goes on.
async fn look_after(
    shared: Arc<Shared>,
    visitor: Visitor,
    peer: SocketAddr,
    stream: TcpStream,
    paused: Option<Paused>,
    mut waiting: Option<Waiting>,
) -> Option<Kept> {
    let (id, ip) = (visitor.id, visitor.peer);
    let End {
        by,
        heard,
        reason,
        away,
    } = match connect(stream, visitor, &shared, paused, &mut waiting).await {
        Connected::Ended(end) => end,
        Connected::Paused(stream, paused) => {
            return Some(Kept {
                id,
                peer,
                paused,
                stream,
            });
        }
    };
    shared.door().places.leave(id);
    shared.track(|t| {
        let at = shared.now();
        t.closed(id, by, heard, at);
        if let Some(away) = away {
            t.turned_away(away, ip, at);
        }
    });
    debug!(%peer, ?by, reason, "connection closed");
    // Only now is its end told.
    drop(waiting);
    None
}

/// A connection that broke off in a panic still holds its place, and has not said what it lost: the listener ends with
/// it, for whoever watches over the source to see.
fn pass_on_panic(ended: Result<Option<Kept>, JoinError>) -> Option<Kept> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(kept) => kept,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => None,
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

/// What became of a connection, with the stream where another program may go on.
enum Connected {
    Ended(End),
    Paused(TcpStream, Paused),
}

async fn connect(
    mut stream: TcpStream,
    mut visitor: Visitor,
    shared: &Shared,
    paused: Option<Paused>,
    waiting: &mut Option<Waiting>,
) -> Connected {
    let deadline = Instant::now() + shared.limits.handshake;
    let acceptor = shared.keys.acceptor().filter(|_| paused.is_none());
    let Some(acceptor) = acceptor else {
        return match connection::serve(&mut stream, visitor, shared, deadline, paused, waiting).await {
            Served::Ended(end) => Connected::Ended(end),
            Served::Paused(paused) => Connected::Paused(stream, paused),
        };
    };
    let failed = |away, reason| Connected::Ended(End::turned_away(shared.now(), away, reason));
    let accepted = tokio::select! {
        accepted = timeout_at(deadline, acceptor.accept(stream)) => accepted,
        _ = &mut visitor.leave => return failed(TurnAwayReason::NoPlace, String::new()),
        () = shared.suspended() => return failed(TurnAwayReason::NoPlace, String::new()),
    };
    match accepted {
        Ok(Ok(mut stream)) => {
            match connection::serve(&mut stream, visitor, shared, deadline, None, waiting).await {
                Served::Ended(end) => Connected::Ended(end),
                // What TLS has made up is in this program alone.
                Served::Paused(_) => failed(TurnAwayReason::NoPlace, String::new()),
            }
        }
        Ok(Err(e)) => failed(TurnAwayReason::Tls, format!("TLS: {e}")),
        Err(_) => failed(
            TurnAwayReason::TooSlow,
            "the TLS handshake took too long".to_owned(),
        ),
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
