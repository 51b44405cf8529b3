//! Connections: how long to wait, what is settled in each session, and which failures pass by themselves.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use super::fault::Fault;
use super::url::{self, PostgresOptions};
use crate::{
    Mode,
    error::{Error, Result},
};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// And no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// At a start, an answer that takes longer is worth a word.
const SILENT: Duration = Duration::from_secs(1);
/// Between two words about the same.
const AGAIN: Duration = Duration::from_secs(10);
/// What a row may take at the worst, where there are many.
const ROW: Duration = Duration::from_millis(1);
/// Requests at once, far more than there are connections.
const REQUESTS: usize = 1 << 20;

/// Nobody waits longer for a node that has died.
pub(super) const LEASE_MAX: Duration = Duration::from_secs(86_400);

/// For how long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// One statement, as the server sees it.
    pub(super) statement: Duration,
    /// Between two statements of a transaction, as the server sees it: longer, and the process has stopped.
    pub(super) idle: Duration,
    /// One try of a request, as we see it.
    pub(super) request: Duration,
    /// No new try of a request after this.
    pub(super) patience: Duration,
}

impl Limits {
    /// Below the lease where it is not too short for a busy machine: who is stopped inside of a transaction must not
    /// keep others from what it has locked.
    pub(super) fn new(mode: Mode, lease: Duration) -> Limits {
        // Beyond, the server would not take them as its settings.
        let lease = lease.min(LEASE_MAX);
        match mode {
            Mode::Run => Limits {
                statement: (lease / 2).max(Duration::from_secs(2)),
                idle: (lease / 4).max(Duration::from_secs(1)),
                request: lease.max(Duration::from_secs(5)),
                patience: (lease / 2).max(Duration::from_secs(2)),
            },
            // A person waits, and asks for much.
            Mode::Shared => Limits {
                statement: Duration::from_secs(300),
                idle: Duration::from_secs(10),
                request: Duration::from_secs(330),
                patience: Duration::from_secs(5),
            },
        }
    }
}

/// So long from now; a year, where there is no such time.
fn later(after: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now + YEAR)
}

/// Connections to one database.
pub(super) struct Db {
    pool: Pool,
    gate: Arc<Semaphore>,
    store: String,
    limits: Limits,
}

impl Db {
    /// Connects when the first request comes.
    pub(super) fn new(options: &PostgresOptions, limits: Limits, connections: usize) -> Result<Db> {
        let (config, ca_file) = url::config(options)?;
        let store = url::describe(&config);
        let tls = MakeRustlsConnect::new(url::tls(ca_file.as_deref(), &store)?);
        let manager = Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let settle = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET default_transaction_isolation = 'read committed'",
            limits.statement.as_millis(),
            limits.idle.as_millis(),
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(limits.request),
                create: Some(2 * url::CONNECT),
                recycle: Some(url::CONNECT),
            })
            .post_create(Hook::async_fn(move |client, _| {
                let settle = settle.clone();
                Box::pin(async move {
                    client.batch_execute(&settle).await.map_err(HookError::Backend)?;
                    // Plans by the values at hand: what is pending may be a row or a million. Not every
                    // database knows these.
                    let _ = client
                        .batch_execute("SET plan_cache_mode = force_custom_plan; SET jit = off")
                        .await;
                    Ok(())
                })
            }))
            .build()
            .map_err(|e| Error::Unavailable {
                store: store.clone(),
                message: e.to_string(),
            })?;
        Ok(Db {
            pool,
            gate: Arc::new(Semaphore::new(REQUESTS)),
            store,
            limits,
        })
    }

    /// Host and database.
    pub(super) fn describe(&self) -> &str {
        &self.store
    }

    /// Waits for the requests under way; later ones fail.
    pub(super) async fn close(&self) {
        #[allow(clippy::cast_possible_truncation)]
        let all = self.gate.acquire_many(REQUESTS as u32).await;
        self.gate.close();
        drop(all);
        self.pool.close();
    }

    /// A connection for one try of a request.
    pub(super) async fn conn(&self) -> Result<Conn, Fault> {
        let permit = Arc::clone(&self.gate)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        Ok(Conn {
            client: Some(self.pool.get().await?),
            _permit: permit,
        })
    }

    /// Finds out that the database answers. While it does not, it is said at once, and again from time to time: whoever
    /// starts the program sees nothing else of it until it gives up.
    pub(super) async fn reach(&self) -> Result<()> {
        let mut tries = self.tries();
        let mut wait = Wait::new(self, tries.until);
        loop {
            let result = {
                let mut connecting = std::pin::pin!(self.conn());
                loop {
                    tokio::select! {
                        result = &mut connecting => break result,
                        () = tokio::time::sleep_until(wait.say_at) => wait.say("no answer so far"),
                    }
                }
            };
            let result = match result {
                Ok(conn) => {
                    wait.over();
                    conn.finish(Ok(()))
                }
                Err(fault) => Err(match fault.at(&self.store) {
                    Error::Unavailable { store, message } => {
                        wait.failed(&message);
                        Error::Unavailable { store, message }
                    }
                    // What waiting does not mend is returned as it is.
                    error => error,
                }
                .into()),
            };
            if let Some(over) = tries.over(result).await {
                return over;
            }
        }
    }

    /// The tries of a request that begins now.
    pub(super) fn tries(&self) -> Tries<'_> {
        Tries {
            db: self,
            until: later(self.limits.patience),
            pause: PAUSE,
        }
    }

    /// How long a request may take that deals with so many rows.
    pub(super) fn limit_for(&self, rows: usize) -> Duration {
        self.limits
            .request
            .saturating_add(ROW * u32::try_from(rows).unwrap_or(u32::MAX))
    }

    /// No longer than a request may take.
    pub(super) async fn limited<T>(&self, f: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match tokio::time::timeout(self.limits.request, f).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer()),
        }
    }

    /// No longer than this; for what may take longer than other requests.
    pub(super) async fn limited_to<T>(
        &self,
        limit: Duration,
        f: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(limit, f).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Fault {
        Fault::Lost("no answer in time".into())
    }
}

/// A connection in use. Unless [`Conn::finish`] says that nothing is left under way on it, it is closed when it is
/// dropped, and the server undoes what was not committed.
pub(super) struct Conn {
    client: Option<Client>,
    _permit: OwnedSemaphorePermit,
}

impl Conn {
    pub(super) fn client(&mut self) -> Result<&mut Client, Fault> {
        self.client.as_mut().ok_or_else(|| Fault::Own(Error::Closed))
    }

    /// Gives it back, if it is of further use.
    pub(super) fn finish<T>(mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if result.as_ref().err().is_none_or(Fault::leaves_connection) {
            // Into the pool, and not out of it.
            drop(self.client.take());
        }
        result
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
    }
}

/// Tries of one request: what passes by itself is tried again for a while.
pub(super) struct Tries<'a> {
    db: &'a Db,
    until: Instant,
    pause: Duration,
}

impl Tries<'_> {
    /// `None`: try once more.
    pub(super) async fn over<T>(&mut self, result: Result<T, Fault>) -> Option<Result<T>> {
        let error = match result {
            Ok(value) => return Some(Ok(value)),
            Err(fault) => fault.at(&self.db.store),
        };
        if !error.is_transient() || later(self.pause) >= self.until {
            return Some(Err(error));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        None
    }
}

/// While a start waits for the database: what is said of it, and how often.
struct Wait<'a> {
    db: &'a Db,
    until: Instant,
    say_at: Instant,
    said: bool,
}

impl Wait<'_> {
    fn new(db: &Db, until: Instant) -> Wait<'_> {
        Wait {
            db,
            until,
            say_at: Instant::now() + SILENT,
            said: false,
        }
    }

    /// The first failure is said at once, later ones no more often than there is something to say anyway.
    fn failed(&mut self, why: &str) {
        if !self.said || Instant::now() >= self.say_at {
            self.say(why);
        }
    }

    fn say(&mut self, why: &str) {
        let now = Instant::now();
        let left = self.until.saturating_duration_since(now).as_secs_f64().ceil();
        tracing::warn!(
            store = self.db.store,
            error = why,
            "the database cannot be reached; it is tried for {left} s more, and then this program gives up"
        );
        (self.said, self.say_at) = (true, now + AGAIN);
    }

    fn over(&self) {
        if self.said {
            tracing::info!(store = self.db.store, "the database is reached");
        }
    }
}

/// Does `$body` with a connection `$client` (`&mut Client`), again and again where the failure passes by itself.
/// `$body` gives a `Result<_, Fault>`; what it does must be harmless to repeat.
///
/// `for $rows`: each of so many rows gives a try a little more time. `within $limit`: it has just that.
macro_rules! attempt {
    ($db:expr, $client:ident => $body:block) => {
        $crate::postgres::connection::attempt!($db, $client for 0 => $body)
    };
    ($db:expr, $client:ident for $rows:expr => $body:block) => {
        $crate::postgres::connection::attempt!($db, $client within ($db).limit_for($rows) => $body)
    };
    ($db:expr, $client:ident within $limit:expr => $body:block) => {{
        let db: &$crate::postgres::connection::Db = $db;
        let limit = $limit;
        let mut tries = db.tries();
        loop {
            let result = match db.conn().await {
                Ok(mut conn) => {
                    let result = db
                        .limited_to(limit, async {
                            let $client = conn.client()?;
                            $body
                        })
                        .await;
                    conn.finish(result)
                }
                Err(fault) => Err(fault),
            };
            if let Some(over) = tries.over(result).await {
                break over;
            }
        }
    }};
}
pub(super) use attempt;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_length_of_time_is_too_long() {
        let limits = Limits::new(Mode::Run, Duration::MAX);
        assert!(limits.request <= LEASE_MAX && limits.patience <= LEASE_MAX);
        assert!(
            i32::try_from(limits.statement.as_millis()).is_ok(),
            "the server takes no more"
        );
        assert!(later(Duration::MAX) > Instant::now());
    }
}
