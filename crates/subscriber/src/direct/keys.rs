//! What opens the door of a listener: user, password, certificate. They can be changed while it stands.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::TlsAcceptor;

use super::{DirectConfig, command::Credentials};
use crate::error::SubscriberError;

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
