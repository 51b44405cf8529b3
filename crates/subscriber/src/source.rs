//! Starting a source, whichever it is.

use std::net::SocketAddr;

use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::{
    direct::{DirectConfig, Listener},
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
        match self {
            SourceConfig::Direct(config) => {
                let listener = Listener::bind(config, clock, signals).await?;
                let address = Some(listener.address);
                Ok(SourceHandle {
                    task: tokio::spawn(listener.run()),
                    address,
                    redis: None,
                })
            }
            SourceConfig::Redis(config) => {
                let (redis, control) = Redis::new(&config, clock, signals)?;
                Ok(SourceHandle {
                    task: tokio::spawn(redis.run()),
                    address: None,
                    redis: Some(control),
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

    /// Stops reading, and closes all connections. What was read is in the queue; nothing is told about the stop,
    /// since whoever stops a source knows.
    pub async fn stop(mut self) {
        self.task.abort();
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
