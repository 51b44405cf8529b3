//! Where the listener of a `direct` source listens, for whom, and within which limits; and what opens its door (user,
//! password, certificate), which can be changed while it stands.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use secrecy::SecretString;
use tokio_rustls::TlsAcceptor;

use super::command::Credentials;
use crate::{error::SubscriberError, resp::Limits, tls};

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

    pub(super) fn acceptor(&self) -> Result<Option<TlsAcceptor>, SubscriberError> {
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
    pub(super) fn resp(&self) -> Limits {
        Limits {
            frame: self.frame,
            args: self.args,
        }
    }
}

/// Shared by all listeners that one configuration makes, and by whoever changes it. Who is connected stays so.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Option<Set>>>);

#[derive(Clone)]
struct Set {
    credentials: Arc<Credentials>,
    acceptor: Option<TlsAcceptor>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// From now on whoever connects is let in by these: password, user, and certificate as its files are now.
    ///
    /// # Errors
    /// A certificate or key that cannot be used; nothing is changed then.
    pub fn change(&self, config: &DirectConfig) -> Result<(), SubscriberError> {
        let set = Set {
            credentials: Arc::new(Credentials {
                user: config.user.clone(),
                password: config.password.clone(),
            }),
            acceptor: config.acceptor()?,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(set);
        Ok(())
    }

    /// The same, unless they were set before: a listener that is opened again has those that were last given.
    pub(super) fn begin(&self, config: &DirectConfig) -> Result<(), SubscriberError> {
        if self.set().is_some() {
            return Ok(());
        }
        self.change(config)
    }

    fn set(&self) -> Option<Set> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn credentials(&self) -> Arc<Credentials> {
        self.set().map(|set| set.credentials).unwrap_or_default()
    }

    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.set().and_then(|set| set.acceptor)
    }
}
