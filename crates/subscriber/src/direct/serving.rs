//! The task of each connection, from its first byte to its last, or to where another program goes on.

use std::{
    net::{IpAddr, SocketAddr, TcpStream as StdStream},
    panic::resume_unwind,
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    connection::{self, End, Paused, Served, Visitor},
    guard::block,
    shared::{Door, Shared, Waiting},
    tracker,
};
use crate::signal::TurnAwayReason;

/// A connection that was suspended.
pub(super) struct Kept {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) paused: Paused,
    pub(super) stream: tokio::net::TcpStream,
}

pub(super) type Tasks = JoinSet<Option<Kept>>;

/// As the listener knows addresses.
pub(super) fn address(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

/// Serves a connection that an earlier program has left.
pub(super) fn resume(
    shared: &Arc<Shared>,
    tasks: &mut Tasks,
    (id, peer): (u64, SocketAddr),
    stream: StdStream,
    paused: Paused,
    waiting: Option<Waiting>,
) {
    let ip = address(peer);
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
pub(super) async fn look_after(
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
    // Only now is its end emitted.
    drop(waiting);
    None
}

/// A connection that broke off in a panic still holds its place, and has not said what it lost: the listener ends with
/// it, for whoever watches over the source to see.
pub(super) fn pass_on_panic(ended: Result<Option<Kept>, JoinError>) -> Option<Kept> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(kept) => kept,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

/// A machine that has gone without a word is noticed after about two minutes, and its connection freed.
pub(super) fn prepare(stream: &TcpStream) {
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
