//! **While no gate answers, coturn refuses every new allocation.** That is the price of being asked: it fails closed.
//! What runs goes on, and so do its refreshes.
//!
//! coturn with `lt-cred-mech` and `redis-userdb="ip=… port=…"` asks for the key of each user who allocates. The gate
//! knows the secrets of the TURN REST API and answers with the key that coturn would have made itself, unless the
//! credential is over or its user is blocked. Clients, and whoever issues their credentials, change nothing. It answers
//! from memory: whatever the store does, an answer takes microseconds.

mod answer;
mod door;
mod secret;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};
use turnhook_subscriber::resp::{Args, Frame, Limits, Reader};

pub use answer::{Answer, RealmOptions};
pub use secret::{RestSecret, RestSecretError};

use door::{Door, Place};

/// A key has at most the longest realm and the longest username in it.
const LIMITS: Limits = Limits { frame: 4096, args: 8 };

/// How long whoever needs a password may take to give it, from the beginning, and how long a wrong one takes.
const LOGIN: Duration = Duration::from_secs(5);
const WRONG: Duration = Duration::from_millis(500);

/// Whom a gate asks, and to whom it reports.
pub trait Doorkeeper: Send + Sync + 'static {
    /// Whether it may answer at all: a coturn that is known to be too old could be crashed by a name.
    fn is_open(&self) -> bool;
    /// Whether nobody may allocate by this username.
    fn is_blocked(&self, username: &[u8]) -> bool;
    /// Seconds since the epoch, by the wall clock, as in credentials.
    fn now(&self) -> u64;
    /// What became of a question for a key.
    fn answered(&self, answer: Answer);
}

/// A gate.
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Of whose users it knows the keys.
    pub realm: Box<[u8]>,
    /// Of the TURN REST API.
    pub secrets: Vec<RestSecret>,
    /// What coturn must log in with, if anything.
    pub password: Option<SecretString>,
    /// What else coturn is answered about the realm.
    pub options: RealmOptions,
}

/// What a gate makes keys with, and what coturn logs in with: they can be changed while it answers.
#[derive(Clone)]
pub struct Keys(Arc<RwLock<Arc<Held>>>);

struct Held {
    secrets: Vec<RestSecret>,
    password: Option<SecretString>,
}

impl Keys {
    fn new(secrets: Vec<RestSecret>, password: Option<SecretString>) -> Keys {
        Keys(Arc::new(RwLock::new(Arc::new(Held { secrets, password }))))
    }

    /// From the next question on. Who has logged in stays in.
    pub fn change(&self, secrets: Vec<RestSecret>, password: Option<SecretString>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Held { secrets, password });
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A listener that answers coturn's questions.
pub struct Gate {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    realm: Box<[u8]>,
    options: RealmOptions,
    keys: Keys,
    keeper: Arc<dyn Doorkeeper>,
}

impl Gate {
    /// Listens; nothing is answered before [`Gate::run`].
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(config: Config, keeper: Arc<dyn Doorkeeper>) -> io::Result<Gate> {
        let listener = TcpListener::bind(config.listen).await?;
        Ok(Gate {
            listener,
            shared: Arc::new(Shared {
                realm: config.realm,
                options: config.options,
                keys: Keys::new(config.secrets, config.password),
                keeper,
            }),
        })
    }

    /// By which they can be changed.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.shared.keys.clone()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers, for as long as it is polled.
    pub async fn run(self) {
        let door = Door::new();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let (shared, place) = (Arc::clone(&self.shared), door.enter(peer.ip()));
                    tokio::spawn(serve(stream, peer, shared, place));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: some will come free.
                    warn!(%error, "the gate cannot accept a connection");
                    sleep(WRONG).await;
                }
            }
        }
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, mut place: Place) {
    let leave = Arc::clone(&place.leave);
    tokio::select! {
        ended = converse(&mut stream, peer, &shared, &mut place) => {
            if let Err(error) = ended {
                debug!(%peer, %error, "a connection of the gate has ended");
            }
        }
        () = leave.notified() => debug!(%peer, "a connection that had not logged in left the gate for another one"),
    }
}

async fn converse(
    stream: &mut TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    place: &mut Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let deadline = Instant::now() + LOGIN;
    let mut reader = Reader::requests(LIMITS);
    let mut known = shared.keys.held().password.is_none() && is_let_in(place, peer);
    loop {
        let space = reader.space();
        let read = stream.read(space);
        let n = if known {
            read.await?
        } else {
            timeout_at(deadline, read).await.map_err(io::Error::from)??
        };
        if n == 0 {
            return Ok(());
        }
        reader.filled(n);
        let mut replies = Vec::new();
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(Frame::Array(args))) => {
                    if is(&args, b"auth") {
                        if !shared.admits(&args) {
                            sleep(WRONG).await;
                            stream
                                .write_all(b"-WRONGPASS invalid username-password pair\r\n")
                                .await?;
                            if let Some(count) = place.door().guessed(Instant::now()) {
                                warn!(%peer, count, "somebody gave the gate a wrong password");
                            }
                            return Ok(());
                        }
                        known = is_let_in(place, peer);
                        if !known {
                            return Ok(());
                        }
                        replies.extend_from_slice(b"+OK\r\n");
                    } else if known {
                        shared.answer(&args, &mut replies);
                    } else {
                        stream.write_all(b"-NOAUTH Authentication required.\r\n").await?;
                        return Ok(());
                    }
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    stream.write_all(format!("-ERR {error}\r\n").as_bytes()).await?;
                    return Ok(());
                }
            }
        }
        stream.write_all(&replies).await?;
    }
}

fn is_let_in(place: &mut Place, peer: SocketAddr) -> bool {
    let let_in = place.known();
    if !let_in {
        warn!(%peer, "the gate has as many connections as it can have, and turned one away");
    }
    let_in
}

fn is(args: &Args<'_>, command: &[u8]) -> bool {
    args.get(0).eq_ignore_ascii_case(command)
}

impl Shared {
    /// `AUTH password`, or `AUTH user password`.
    fn admits(&self, args: &Args<'_>) -> bool {
        let held = self.keys.held();
        let Some(expected) = &held.password else {
            return true;
        };
        let given = args.get(args.len().saturating_sub(1));
        args.len() >= 2 && expected.expose_secret().as_bytes().ct_eq(given).into()
    }

    fn answer(&self, args: &Args<'_>, to: &mut Vec<u8>) {
        let what = args.get(1);
        if is(args, b"get") {
            match self.options.get(&self.realm, what) {
                Some(value) => bulk(Some(value.to_string().as_bytes()), to),
                None => bulk(self.key(what).as_deref().map(str::as_bytes), to),
            }
        } else if is(args, b"keys") || is(args, b"smembers") || is(args, b"hgetall") {
            to.extend_from_slice(b"*0\r\n");
        } else if is(args, b"select") {
            to.extend_from_slice(b"+OK\r\n");
        } else if is(args, b"ping") {
            to.extend_from_slice(b"+PONG\r\n");
        } else {
            // Nothing is changed by anybody here.
            to.extend_from_slice(b"-ERR unknown command\r\n");
        }
    }

    /// The key of a user, if he may allocate.
    fn key(&self, what: &[u8]) -> Option<String> {
        let username = answer::username(&self.realm, what)?;
        let keeper = &self.keeper;
        let (answer, key) = if keeper.is_open() {
            let blocked = keeper.is_blocked(username);
            answer::key(
                &self.realm,
                &self.keys.held().secrets,
                username,
                keeper.now(),
                blocked,
            )
        } else {
            (Answer::Closed, None)
        };
        keeper.answered(answer);
        key
    }
}

fn bulk(text: Option<&[u8]>, to: &mut Vec<u8>) {
    match text {
        Some(text) => {
            to.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            to.extend_from_slice(text);
            to.extend_from_slice(b"\r\n");
        }
        None => to.extend_from_slice(b"$-1\r\n"),
    }
}
