//! One coturn's CLI, and the allocations that are to be ended there.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};
use turnhook_control::{Config, Connection, Coturn, Error, Found, Search, Target, Version};
use turnhook_reducer::block::{AllocationRef, ToEnd};

use super::{
    super::{deadline::Stop, supervisor::Ended},
    orders::{Ask, Job, Order},
};
use crate::{
    config,
    health::{ControlStatus, Health},
    metrics::{CancelResult, Metrics},
};

/// For each answer of the CLI, and of the source.
const ANSWER: Duration = Duration::from_secs(2);

/// How often a CLI is looked at that nobody has used meanwhile, or that could not be reached.
const LOOK: Duration = Duration::from_secs(5);

/// Allocations whose clients can move, of which that was said.
const MOBILE: usize = 10_000;

pub(crate) struct ControlTask {
    config: config::Control,
    cli: Config,
    confirm: Duration,
    pace: Pace,
    orders: mpsc::Receiver<Order>,
    source: mpsc::Sender<Ask>,
    known: Arc<Mutex<Option<Coturn>>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    up: Gauge,
    connection: Option<Connection>,
    look_at: Instant,
    jobs: VecDeque<Job>,
    /// What was asked for, and until when its end may be heard.
    asked: HashMap<AllocationRef, Asked>,
    mobile: HashSet<AllocationRef>,
    /// Some could not be seen among the many of their name.
    unlisted: bool,
    last_error: Option<String>,
}

struct Asked {
    job: Job,
    until: Instant,
    again: bool,
}

impl ControlTask {
    pub(super) fn new(
        control: &config::Control,
        enforce: &config::Enforce,
        orders: mpsc::Receiver<Order>,
        source: mpsc::Sender<Ask>,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
    ) -> ControlTask {
        let up = metrics
            .enforce
            .control_up(&control.source, &control.address.to_string());
        ControlTask {
            cli: Config {
                address: control.address,
                password: control.password.clone(),
                timeout: ANSWER,
            },
            config: control.clone(),
            confirm: enforce.confirm,
            pace: Pace::new(enforce.max_rate),
            orders,
            source,
            known: Arc::default(),
            metrics: Arc::clone(metrics),
            health: Arc::clone(health),
            up,
            connection: None,
            look_at: Instant::now(),
            jobs: VecDeque::new(),
            asked: HashMap::new(),
            mobile: HashSet::new(),
            unlisted: false,
            last_error: None,
        }
    }

    pub(crate) fn known(&self) -> Arc<Mutex<Option<Coturn>>> {
        Arc::clone(&self.known)
    }

    /// For people: whose it is, and where.
    pub(crate) fn name(&self) -> Arc<str> {
        format!("{} at {}", self.config.source, self.config.address).into()
    }

    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        loop {
            let overdue = self.asked.values().map(|asked| asked.until).min();
            let next = (!self.jobs.is_empty()).then(|| self.pace.next());
            tokio::select! {
                () = stop.begun() => return Ok(()),
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    // The source has ended, and the process will.
                    None => stop.begun().await,
                },
                () = at(overdue) => self.look_after_overdue().await,
                () = at(next) => {
                    if let Some(job) = self.jobs.pop_front() {
                        self.end(job, false).await;
                    }
                }
                () = sleep_until(self.look_at) => self.look().await,
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::End(job) => {
                let allocation = job.to_end.allocation;
                let is_known = self.asked.contains_key(&allocation)
                    || self.mobile.contains(&allocation)
                    || self.jobs.iter().any(|j| j.to_end.allocation == allocation);
                if !is_known {
                    self.jobs.push_back(job);
                }
            }
            Order::Ended(allocation) => {
                if self.asked.remove(&allocation).is_some() {
                    self.metrics.enforce.cancelled(CancelResult::Done);
                    if std::mem::take(&mut self.unlisted) {
                        self.again();
                    }
                }
            }
        }
    }

    /// Has the source name all that is to be ended once more.
    fn again(&self) {
        // One that is asked enough looks anyway.
        let _ = self.source.try_send(Ask::Again);
    }

    /// Connects, or sees that the connection still stands.
    async fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        match self.connection.take() {
            Some(mut connection) => match connection.look().await {
                Ok(()) => self.connection = Some(connection),
                Err(error) => self.lost(&error),
            },
            None => {
                if self.connect().await {
                    // What could not be ended meanwhile.
                    self.again();
                }
            }
        }
    }

    /// Whether there is a connection now.
    async fn connect(&mut self) -> bool {
        match Connection::open(&self.cli).await {
            Ok(connection) => {
                self.connected(connection);
                true
            }
            Err(error) => {
                self.lost(&error);
                false
            }
        }
    }

    fn connected(&mut self, connection: Connection) {
        let coturn = connection.coturn().clone();
        let version = coturn.version.map(|v| v.to_string());
        let (source, address) = (&self.config.source, self.config.address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&coturn) {
            info!(source, %address, version, "coturn's CLI can be used: allocations can be ended");
            if coturn.version.is_some_and(|v| v < Version::SOUND) {
                warn!(source, %address, version,
                    "this coturn is older than 4.13: with redis-statsdb, any stranger can crash it by a username, \
                     and messages of long names are lost");
            }
        }
        *known = Some(coturn);
        drop(known);
        self.up.set(1);
        self.last_error = None;
        self.connection = Some(connection);
        self.set_up(true, version);
    }

    fn lost(&mut self, error: &Error) {
        self.connection = None;
        self.up.set(0);
        self.look_at = Instant::now() + LOOK;
        let said = error.to_string();
        if self.last_error.as_ref() != Some(&said) {
            warn!(source = self.config.source, %error, "allocations cannot be ended now; tried again");
            self.last_error = Some(said);
        }
        self.set_up(false, None);
    }

    fn set_up(&self, up: bool, version: Option<String>) {
        let status = ControlStatus {
            source: self.config.source.clone(),
            address: self.config.address.to_string(),
            up,
            coturn: version,
            last_error: self.last_error.clone(),
        };
        self.health.update_control(status);
    }

    fn result(&self, job: &Job, result: CancelResult) {
        self.metrics.enforce.cancelled(result);
        let (source, allocation) = (&self.config.source, job.to_end.id);
        match result {
            CancelResult::Done | CancelResult::Gone | CancelResult::Unreachable => {
                debug!(source, %allocation, result = result.as_str(), "an allocation that was to be ended");
            }
            CancelResult::Mobile => warn!(source, %allocation,
                "an allocation of a blocked user cannot be ended: its client can move, and would go on with its ticket \
                 (coturn's `mobility`); it lasts until its lifetime is over"),
            CancelResult::WrongServer => error!(source, %allocation, address = %self.config.address,
                "an allocation is not ended: the coturn whose CLI answers there is not the server that has it; each \
                 coturn of a machine needs a cli-port of its own, and a [[control]]"),
            CancelResult::Timeout => error!(source, %allocation,
                "an allocation was to be ended, and its end was not heard in time"),
            CancelResult::Unlisted => warn!(source, %allocation,
                "an allocation is not among the sessions that coturn's CLI lists; it is looked for again when others \
                 of its user have ended (cli-max-output-sessions)"),
            CancelResult::Unnamed => warn!(source, %allocation,
                "an allocation cannot be ended: its username cannot be said to coturn's CLI"),
        }
    }

    /// Ends one, if it is there, is the one that is meant, and may be ended.
    async fn end(&mut self, job: Job, again: bool) {
        if self.is_out_of_reach() {
            return self.result(&job, CancelResult::Unreachable);
        }
        let found = match self.find(&job).await {
            Ok(Search::Found(found)) => found,
            Ok(search) => return self.not_found(&job, &search),
            Err(Error::Name) => return self.result(&job, CancelResult::Unnamed),
            Err(error) => {
                self.lost(&error);
                return self.result(&job, CancelResult::Unreachable);
            }
        };
        self.pace.count(Instant::now());
        if !self.may(&job.to_end).await {
            return;
        }
        self.cut(job, found, again).await;
    }

    async fn cut(&mut self, job: Job, found: Found, again: bool) {
        let Some(connection) = &mut self.connection else {
            // It was there a moment ago, for the search.
            let _ = self.source.try_send(Ask::Not(job.to_end.clone()));
            return self.result(&job, CancelResult::Unreachable);
        };
        let ended = connection.end(found).await;
        // Where the answer did not come the command may have: then the stream says so.
        let until = Instant::now() + self.confirm;
        self.asked
            .insert(job.to_end.allocation, Asked { job, until, again });
        if let Err(error) = ended {
            self.lost(&error);
        }
    }

    fn not_found(&mut self, job: &Job, search: &Search) {
        match search {
            Search::Found(_) | Search::Gone => self.result(job, CancelResult::Gone),
            Search::Mobile => {
                if self.mobile.len() >= MOBILE {
                    self.mobile.clear();
                }
                self.mobile.insert(job.to_end.allocation);
                self.result(job, CancelResult::Mobile);
            }
            Search::WrongServer if job.alone => {
                self.result(job, CancelResult::WrongServer);
                // The next connection may lead to the right one, and is looked at anew.
                self.connection = None;
            }
            // Another control has it.
            Search::WrongServer => {}
            Search::Unlisted => {
                self.unlisted = true;
                self.result(job, CancelResult::Unlisted);
            }
        }
    }

    /// It could not be reached a moment ago: whoever tried again for each allocation would do nothing else.
    fn is_out_of_reach(&self) -> bool {
        self.connection.is_none() && self.last_error.is_some() && Instant::now() < self.look_at
    }

    /// By a new connection, if the one that was held has gone.
    async fn find(&mut self, job: &Job) -> Result<Search, Error> {
        let target = target(job);
        if let Some(server) = &self.config.server
            && target
                .server
                .as_ref()
                .is_some_and(|local| **local != *server.as_bytes())
        {
            return Ok(Search::WrongServer);
        }
        if let Some(connection) = &mut self.connection {
            match connection.find(&target).await {
                Err(error) if error.is_stale() => self.connection = None,
                found => return found,
            }
        }
        self.connected(Connection::open(&self.cli).await?);
        match &mut self.connection {
            Some(connection) => connection.find(&target).await,
            None => Ok(Search::Gone),
        }
    }

    /// Whether this node has the say, and the allocation is still there and meant. From then on its close is this end.
    async fn may(&self, to_end: &ToEnd) -> bool {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.source.send(Ask::May(to_end.clone(), reply)).await.ok()?;
            answer.await.ok()
        };
        matches!(timeout(ANSWER, asking).await, Ok(Some(true)))
    }

    /// What was asked for and not heard of: it is looked for, and asked for once more.
    async fn look_after_overdue(&mut self) {
        let now = Instant::now();
        let overdue: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.until <= now)
            .map(|(allocation, _)| *allocation)
            .collect();
        for allocation in overdue {
            let Some(asked) = self.asked.remove(&allocation) else {
                continue;
            };
            if asked.again {
                self.result(&asked.job, CancelResult::Timeout);
            } else {
                self.end(asked.job, true).await;
            }
        }
    }
}

fn target(job: &Job) -> Target {
    let to_end = &job.to_end;
    Target {
        id: to_end.id,
        username: to_end.username.clone(),
        realm: to_end.realm.clone(),
        client: to_end.client_address.clone(),
        server: to_end.server_address.clone(),
        age: job.opened.map(|at| at.elapsed()),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// At most so many in a time: a second's worth at once, and then one after the other.
struct Pace {
    rate: Option<(u32, Duration)>,
    /// When the bucket would be empty.
    until: Instant,
}

impl Pace {
    fn new(rate: Option<(u32, Duration)>) -> Pace {
        Pace {
            rate,
            until: Instant::now(),
        }
    }

    /// When the next may begin.
    fn next(&self) -> Instant {
        let burst = match self.rate {
            Some((count, per)) if per <= Duration::from_secs(1) => per - per / count.max(1),
            _ => Duration::ZERO,
        };
        self.until.checked_sub(burst).unwrap_or(self.until)
    }

    fn count(&mut self, now: Instant) {
        if let Some((count, per)) = self.rate {
            self.until = self.until.max(now) + per / count.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_goes_at_once_and_then_one_after_the_other() {
        let mut pace = Pace::new(Some((20, Duration::from_secs(1))));
        let began = Instant::now();
        let mut now = began;
        for n in 0..60u32 {
            now = now.max(pace.next());
            let late = now - began;
            assert!(n >= 20 || late.is_zero(), "{n}: {late:?}");
            assert!(
                n < 21 || late >= Duration::from_millis(49) * (n - 20),
                "{n}: {late:?}"
            );
            pace.count(now);
        }
        let mut free = Pace::new(None);
        free.count(now);
        assert!(free.next() <= now);
    }
}
