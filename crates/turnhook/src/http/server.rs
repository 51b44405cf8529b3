//! HTTP/1 with limits: whoever can reach a port, with a password or without, must be able neither to exhaust the
//! process's memory and descriptors nor to keep others out.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::{
    descriptors,
    engine::{fault, supervisor::note_panic},
};

/// What shows who the server is; it is renewed every few weeks, and then another one is shown.
pub(crate) type Certificate = watch::Receiver<Option<TlsAcceptor>>;

/// As it is called in the log.
const CONNECTION: &str = "a connection of the HTTP server";
/// Connections at once. A scraper and a few probes need no more than a handful.
const CONNECTIONS: usize = 64;
/// A head must be there within this time, and so must the next one on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The bytes that a head may have.
const HEAD: usize = 16 * 1024;
/// From the end of the head to the beginning of the answer, the request's body included.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// After an `accept` that failed: out of descriptors, mostly, and they come back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop`; requests under way may take `grace` longer.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Certificate>,
    router: Router,
    grace: Duration,
    stop: CancellationToken,
) {
    let places = Arc::new(Places::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                note_panic(ended, CONNECTION);
                continue;
            }
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(peer) = stream.peer_addr() else {
            continue; // it has gone already
        };
        let Some(place) = places.take(peer.ip(), is_one_of_the_last(&stream)) else {
            debug!("a connection was turned away: the last descriptors are for sources and deliveries");
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        match tls.as_ref().map(|tls| tls.borrow().clone()) {
            // It is not there yet, and nothing may be said in clear.
            Some(None) => continue,
            None => connections.spawn(fault::inside(
                CONNECTION,
                connection(stream, peer, router, place, stop, REQUEST_TIME),
            )),
            Some(Some(tls)) => connections.spawn(async move {
                let shaken = tokio::select! {
                    shaken = timeout(HEAD_TIME, tls.accept(stream)) => shaken,
                    () = place.given_up.cancelled() => return,
                };
                match shaken {
                    Ok(Ok(stream)) => connection(stream, peer, router, place, stop, REQUEST_TIME).await,
                    Ok(Err(error)) => debug!(%error, "a connection came to no TLS"),
                    Err(_) => debug!("a connection took too long over its TLS"),
                }
            }),
        };
    }
    // Whatever is not done by then is given up.
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended, CONNECTION);
        }
    };
    drop(timeout(grace, rest).await);
}

/// Descriptors are given out from the lowest: a high one says that all below are in use.
fn is_one_of_the_last(stream: &TcpStream) -> bool {
    u64::try_from(stream.as_raw_fd()).is_ok_and(|number| number >= descriptors::reserve_begins_at())
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    place: Place,
    stop: CancellationToken,
    request_time: Duration,
) {
    let service = service_fn(|request| answer(router.clone(), peer, request, &place, request_time));
    // HTTP/1 and nothing else: what speaks HTTP/2 gets an error.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.given_up.cancelled() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended badly");
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
    place: &Place,
    time: Duration,
) -> Result<Response, std::convert::Infallible> {
    place.moved(true);
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    let answered = timeout(time, router.oneshot(request)).await;
    place.moved(false);
    match answered {
        Ok(answered) => answered,
        Err(_) => {
            let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
            Ok((StatusCode::REQUEST_TIMEOUT, close).into_response())
        }
    }
}

/// Who is connected. Where all places are taken, a newcomer gets one of the address that has most of them, so that a
/// stranger with many connections gives up his own: an idle one if there is, of these the one that is so for longest.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<HashMap<u64, Taken>>,
    /// Rises with each sign of life.
    clock: AtomicU64,
}

#[derive(Debug)]
struct Taken {
    peer: IpAddr,
    /// A request of it is being answered.
    busy: bool,
    moved_at: u64,
    given_up: CancellationToken,
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    number: u64,
    given_up: CancellationToken,
}

impl Places {
    /// `None` if another connection would have to be given up for it, and there is none.
    fn take(self: &Arc<Places>, peer: IpAddr, is_crowded: bool) -> Option<Place> {
        let number = self.tick();
        let given_up = CancellationToken::new();
        let mut taken = self.lock();
        if (is_crowded || taken.len() >= CONNECTIONS) && !give_up_one(&mut taken) {
            return None;
        }
        taken.insert(
            number,
            Taken {
                peer,
                busy: false,
                moved_at: number,
                given_up: given_up.clone(),
            },
        );
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            number,
            given_up,
        })
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there was one.
fn give_up_one(taken: &mut HashMap<u64, Taken>) -> bool {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for place in taken.values() {
        *counts.entry(place.peer).or_default() += 1;
    }
    let count = |place: &Taken| counts.get(&place.peer).copied().unwrap_or_default();
    let oldest = taken
        .iter()
        .max_by_key(|(_, place)| (count(place), !place.busy, std::cmp::Reverse(place.moved_at)))
        .map(|(number, _)| *number);
    let given_up = oldest.and_then(|number| taken.remove(&number));
    if let Some(place) = &given_up {
        place.given_up.cancel();
    }
    given_up.is_some()
}

impl Place {
    /// A request has come, or was answered.
    fn moved(&self, busy: bool) {
        let now = self.places.tick();
        if let Some(place) = self.places.lock().get_mut(&self.number) {
            place.busy = busy;
            place.moved_at = now;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_crowd_gives_up_its_oldest_and_others_keep_theirs() {
        let places = Arc::new(Places::default());
        let take = |last| places.take(peer(last), false).unwrap();
        let scraper = take(1);
        let crowd: Vec<Place> = (1..CONNECTIONS).map(|_| take(2)).collect();
        crowd[0].moved(false);
        crowd[1].moved(true);
        crowd[2].moved(true);
        crowd[2].moved(false);
        crowd[3].moved(true);
        let _newcomer = take(3);
        let given_up = |place: &Place| place.given_up.is_cancelled();
        assert!(given_up(&crowd[4]), "the oldest that is idle");
        assert_eq!(crowd.iter().filter(|place| given_up(place)).count(), 1);
        assert!(!given_up(&scraper));
        drop(crowd);
        assert_eq!(places.lock().len(), 2, "places are free again");
    }

    /// The head is there, and the body never comes: an answer, and the end of the connection.
    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let router = Router::new().fallback(|body: String| async move { body });
        let serve = async |sent: &[u8], time| {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let place = Arc::new(Places::default()).take(peer(1), false).unwrap();
            let (address, stop) = (([192, 0, 2, 1], 1).into(), CancellationToken::new());
            client.write_all(sent).await.unwrap();
            let serving = connection(server, address, router.clone(), place, stop, time);
            let mut answer = String::new();
            let reading = client.read_to_string(&mut answer);
            let (read, ()) = tokio::join!(reading, serving);
            read.unwrap();
            answer
        };
        let half = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhal";
        let answer = serve(half, Duration::ZERO).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let whole =
            b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\nwhole";
        let answer = serve(whole, REQUEST_TIME).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("whole"),
            "{answer}"
        );
    }

    #[test]
    fn where_descriptors_are_short_one_is_given_up_for_each_that_comes() {
        let places = Arc::new(Places::default());
        assert!(places.take(peer(1), true).is_none(), "others have them all");
        let first = places.take(peer(1), false).unwrap();
        let second = places.take(peer(1), true).unwrap();
        assert!(first.given_up.is_cancelled() && !second.given_up.is_cancelled());
    }
}
