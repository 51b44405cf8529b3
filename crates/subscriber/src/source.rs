//! Starting a source, whichever it is.

use std::net::SocketAddr;

use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinError, JoinHandle},
};

use crate::{
    direct::{
        DirectConfig, Listener,
        handover::{Left, Suspended},
    },
    error::SubscriberError,
    queue::SignalSender,
    redis::{Redis, RedisConfig, RedisControl},
    signal::Clock,
};

/// A source, as configured.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// coturn connects to us.
    Direct(DirectConfig),
    /// coturn publishes to a Redis.
    Redis(RedisConfig),
}

impl SourceConfig {
    /// Checks all that can be checked without listening or connecting.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn validate(&self) -> Result<(), SubscriberError> {
        match self {
            SourceConfig::Direct(config) => config.validate(),
            SourceConfig::Redis(config) => config.validate(),
        }
    }

    /// Starts the source on the current tokio runtime. It sends what it hears to `signals` until it is stopped.
    ///
    /// A Redis that cannot be reached is no error: the source says that it is deaf, and keeps trying.
    ///
    /// # Errors
    /// Configuration that cannot be used; an address that cannot be listened on.
    pub async fn start(self, clock: Clock, signals: SignalSender) -> Result<SourceHandle, SubscriberError> {
        self.resume(Left::default(), clock, signals).await
    }

    /// The same, where an earlier program has left something to a `direct` source.
    ///
    /// # Errors
    /// As of [`SourceConfig::start`].
    pub async fn resume(
        self,
        left: Left,
        clock: Clock,
        signals: SignalSender,
    ) -> Result<SourceHandle, SubscriberError> {
        match self {
            SourceConfig::Direct(config) => {
                let listener = Listener::bind(config, left, clock, signals).await?;
                let address = Some(listener.address);
                let (suspend, asked) = oneshot::channel();
                Ok(SourceHandle {
                    task: tokio::spawn(listener.run(asked)),
                    address,
                    redis: None,
                    suspend: Some(suspend),
                })
            }
            SourceConfig::Redis(config) => {
                let (redis, control) = Redis::new(&config, clock, signals)?;
                Ok(SourceHandle {
                    task: tokio::spawn(redis.run()),
                    address: None,
                    redis: Some(control),
                    suspend: None,
                })
            }
        }
    }
}

/// A running source. Dropping it stops the source, too.
#[derive(Debug)]
pub struct SourceHandle {
    task: JoinHandle<()>,
    address: Option<SocketAddr>,
    redis: Option<RedisControl>,
    suspend: Option<oneshot::Sender<oneshot::Sender<Suspended>>>,
}

impl SourceHandle {
    /// Where a `direct` source listens.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What can be asked of a `redis` source.
    #[must_use]
    pub fn redis(&self) -> Option<&RedisControl> {
        self.redis.as_ref()
    }

    /// Waits until the source has ended by itself, which it never should: how it did. To be asked once; cancel safe.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        (&mut self.task).await
    }

    /// Ends the source as if it had ended by itself, for tests.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.task.abort_handle()
    }

    /// Stops reading, and closes all connections. What was read is in the queue; nothing is said about the stop,
    /// since whoever stops a source knows.
    pub async fn stop(mut self) {
        self.task.abort();
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl SourceHandle {
    /// Stops reading, and closes nothing: what was read is in the queue, and the rest is for another program. `None`
    /// where the source has no connections to leave.
    pub async fn suspend(mut self) -> Option<Suspended> {
        let (answer, suspended) = oneshot::channel();
        let asked = self.suspend.take().is_some_and(|asks| asks.send(answer).is_ok());
        let suspended = if asked { suspended.await.ok() } else { None };
        self.stop().await;
        suspended
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
