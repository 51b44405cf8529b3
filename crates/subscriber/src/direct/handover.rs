//! A listener that stops reading, and one that goes on where it stopped: on its sockets, which somebody keeps
//! meanwhile.
//!
//! What coturn sends meanwhile waits in the kernel. Whoever goes on reads it first, as of the time at which the other
//! stopped, before time goes on and before anybody else is let in: so nothing that was heard in time is late, and a
//! coturn that has gone has gone before the next one comes.

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
    net::sockopt::socket_cookie,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use turnhook_reducer::time::Timestamp;

use super::{
    connection::Paused,
    serving::{Tasks, pass_on_panic, resume},
    shared::{Lag, Shared, Waiting},
    tracker,
};
use crate::signal::Signal;

/// What the kernel calls a socket, in whichever program it is: `None` where it does not say.
pub fn identity(socket: impl AsFd) -> Option<u64> {
    socket_cookie(socket).ok()
}

/// What a listener leaves: its sockets, and what they mean.
#[derive(Debug)]
pub struct Suspended {
    /// New connections wait in it.
    pub listener: TcpListener,
    /// The connections of `state`.
    pub streams: Vec<TcpStream>,
    /// `None`: its connections cannot be handed over (TLS).
    pub state: Option<State>,
}

/// What is known of the connections. Whatever changes in here needs a new number of its format, where it is written.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// When reading stopped.
    pub at: Timestamp,
    connections: Vec<Row>,
    tracker: tracker::Kept,
}

impl State {
    /// Whether this socket is one of its connections.
    #[must_use]
    pub fn has(&self, identity: u64) -> bool {
        self.connections.iter().any(|row| row.socket == identity)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    socket: u64,
    id: u64,
    peer: SocketAddr,
    paused: Paused,
}

/// What an earlier program left to this one.
#[derive(Debug, Default)]
pub struct Left {
    /// It listens on the address that is wanted.
    pub listener: Option<TcpListener>,
    /// Its connections, and the sockets among which they are, by [`identity`].
    pub connections: Option<(State, HashMap<u64, OwnedFd>)>,
}

type Suspend = oneshot::Receiver<oneshot::Sender<Suspended>>;

/// Where to send what is left, once that is asked for.
pub(super) async fn asked(suspend: Suspend) -> oneshot::Sender<Suspended> {
    match suspend.await {
        Ok(answer) => answer,
        Err(_) => std::future::pending().await,
    }
}

/// How many bytes wait in a connection, and whether its end waits behind them.
fn waiting(stream: &TcpStream) -> (u64, bool) {
    let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    // What cannot be asked of it shows when it is read.
    let ended = poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled.first().is_some_and(|p| p.revents().intersects(ends));
    (ioctl_fionread(stream).unwrap_or(0), ended)
}

/// Connections that are about to be served again.
pub(super) struct Resuming {
    rows: Vec<(Row, TcpStream)>,
    /// The tracker's, until it has them.
    kept: tracker::Kept,
    at: Timestamp,
}

impl Resuming {
    /// Those of the connections whose sockets are there, and how far that is behind.
    pub(super) fn new(state: State, mut sockets: HashMap<u64, OwnedFd>) -> (Resuming, Lag) {
        let mut rows = Vec::new();
        for row in state.connections {
            let Some(socket) = sockets.remove(&row.socket) else {
                continue;
            };
            rows.push((row, TcpStream::from(socket)));
        }
        let lag = Lag::behind(state.at);
        let resuming = Resuming {
            rows,
            kept: state.tracker,
            at: state.at,
        };
        (resuming, lag)
    }

    /// Serves them, and waits until all that had waited was read, or until `suspended`. Gives the next free number.
    pub(super) async fn begin(
        self,
        shared: &Arc<Shared>,
        tasks: &mut Tasks,
        detail: String,
        suspended: impl Future<Output = ()>,
    ) -> u64 {
        let at = self.at;
        shared.signals.signal(Signal::Resumed { at, detail });
        let here: HashSet<u64> = self.rows.iter().map(|(row, _)| row.id).collect();
        let next = here.iter().max().map_or(1, |last| last.saturating_add(1));
        shared.track(|t| t.resume(self.kept, &here, at));
        for (row, stream) in self.rows {
            let (left, ends) = waiting(&stream);
            let waiting = (left > 0 || ends).then(|| Waiting::new(Arc::clone(shared), left, ends));
            resume(shared, tasks, (row.id, row.peer), stream, row.paused, waiting);
        }
        shared.lag.done();
        tokio::pin!(suspended);
        while shared.lag.time().is_some() {
            tokio::select! {
                () = shared.lag.caught_up() => {}
                Some(ended) = tasks.join_next() => drop(pass_on_panic(ended)),
                // What is not read yet waits for the next program.
                () = &mut suspended => return next,
            }
        }
        shared.track(|t| t.resumed(shared.now()));
        shared.signals.signal(Signal::CaughtUp);
        next
    }
}

/// Stops reading: what is left. Connections only where they `can` be handed over.
pub(super) async fn suspend(
    listener: tokio::net::TcpListener,
    shared: &Shared,
    mut tasks: Tasks,
    can: bool,
) -> std::io::Result<Suspended> {
    if !can {
        drop(tasks);
        return Ok(Suspended {
            listener: listener.into_std()?,
            streams: Vec::new(),
            state: None,
        });
    }
    let at = shared.now();
    shared.suspended.send_replace(true);
    let (mut connections, mut streams) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let Some(kept) = pass_on_panic(ended) else {
            continue;
        };
        let (Some(socket), Ok(stream)) = (identity(&kept.stream), kept.stream.into_std()) else {
            // As if the service manager had not kept it: it is missed when it comes back.
            continue;
        };
        connections.push(Row {
            socket,
            id: kept.id,
            peer: kept.peer,
            paused: kept.paused,
        });
        streams.push(stream);
    }
    let tracker = shared.track(|t| {
        t.emit_all();
        t.keep()
    });
    Ok(Suspended {
        listener: listener.into_std()?,
        streams,
        state: Some(State {
            at,
            connections,
            tracker,
        }),
    })
}
