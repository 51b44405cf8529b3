//! The one thread that writes: it takes all that was asked for since its last commit, does it in one
//! transaction, and answers when that is on the disk. While one is being synced the next
//! one fills up, so that a busy store writes large ones.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Fault, connection,
    counts::Counts,
    helper::Helper,
    mem::{Folding, Mem},
    threads::{self, Threads},
};
use crate::{
    Mode, Options,
    error::{Error, Result},
};

/// Outcomes of attempts may wait this long for others, or for a commit to ride on: only a repeated
/// delivery after a crash is at stake, and each spares a transaction.
const OUTCOMES_WAIT: Duration = Duration::from_millis(20);
/// That many outcomes do not wait.
const OUTCOMES_ENOUGH: usize = 512;
/// Transactions of few rows begin at least this far apart. The last pages of a few tables are written with every one of
/// them: at some hundred events a second this more than halves the bytes written. Who comes to an idle store waits for
/// nothing.
const SPACING: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(6)];
/// Between these they are as far apart as leaves this for an event in the middle: half of the time between two, and what
/// one takes. A fast disk is written to less often for it.
const PACE: Duration = Duration::from_millis(4);
/// So many rows are few. With more of them those pages are a smaller part of what is written, and waiting gains less.
const FEW: u32 = 4;
/// After a large one the next may grow as well: where there is so much to do, what each transaction costs counts for
/// more than some milliseconds.
const SPACING_MAX: Duration = Duration::from_millis(12);
const SPACING_PER_ROW: Duration = Duration::from_micros(80);
/// One transaction takes at most this much work, so that the first who asked does not wait too long.
const WEIGHT_MAX: usize = 8192;
/// After a failure, housekeeping rests.
const REST: Duration = Duration::from_secs(10);

/// The thread's.
const NAME: &str = "store";

/// Something to do in the next transaction.
pub(super) trait Job: Send {
    /// Does it. Runs again, alone, if the transaction it shared with others has failed.
    fn run(&mut self, conn: &Connection, mem: &mut Mem) -> Result<(), Fault>;
    /// The transaction is on the disk, or everything was undone.
    fn finish(self: Box<Self>, mem: &mut Mem, result: Result<()>);
    /// How many can wait a little for others; 0 if it must not wait.
    fn patience(&self) -> usize {
        0
    }
    /// Rows, roughly.
    fn weight(&self) -> usize {
        1
    }
    /// Whether it does not wait for the time when the next transaction may begin, either.
    fn at_once(&self) -> bool {
        false
    }
}

/// A job made of a closure and whoever waits for its value.
pub(super) struct Closure<F, T> {
    f: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Closure<F, T> {
    pub(super) fn new(f: F, reply: oneshot::Sender<Result<T>>) -> Self {
        Closure {
            f,
            value: None,
            reply,
        }
    }
}

impl<F, T> Job for Closure<F, T>
where
    F: FnMut(&Connection, &mut Mem) -> Result<T, Fault> + Send,
    T: Send,
{
    fn run(&mut self, conn: &Connection, mem: &mut Mem) -> Result<(), Fault> {
        self.value = Some((self.f)(conn, mem)?);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Mem, result: Result<()>) {
        // Whoever asked may have stopped waiting.
        let Closure { value, reply, .. } = *self;
        let _ = reply.send(result.and_then(|()| value.ok_or(Error::Closed)));
    }
}

/// The way to the thread.
pub(super) struct Handle {
    jobs: Mutex<Option<Sender<Box<dyn Job>>>>,
    next_commit_at: Arc<Mutex<Instant>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    threads: Threads,
}

impl Handle {
    /// Has a job done and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T>>) -> Box<dyn Job>,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.as_ref()
                .ok_or(Error::Closed)?
                .send(make(reply))
                .map_err(|_| Error::Closed)?;
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// When the next transaction may begin.
    pub(super) fn next_commit_at(&self) -> Instant {
        *self.next_commit_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the thread, or the one that helps it, has panicked.
    pub(super) async fn panicked(&self) -> String {
        self.threads.panicked().await
    }

    /// Takes no more jobs and waits until those taken are done.
    pub(super) async fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

struct Writer {
    conn: Connection,
    path: PathBuf,
    mem: Mem,
    helper: Option<Helper>,
    rest_until: Option<Instant>,
    /// When the next transaction may begin.
    next_commit_at: Arc<Mutex<Instant>>,
    /// What a transaction takes, of late.
    takes: Duration,
    // Dropped last: the file is free only when the connection is closed.
    _lock: Option<std::fs::File>,
}

/// Starts the thread.
pub(super) fn start(
    opened: connection::Opened,
    mode: Mode,
    counts: Arc<Counts>,
    state_size: super::state::Size,
    options: &Options,
) -> Result<Handle> {
    let connection::Opened {
        path, mut conn, lock, ..
    } = opened;
    let mem = Mem::load(&conn, counts, Folding::new(state_size, options))
        .map_err(|e| connection::error_from(&path, &e))?;
    let threads = Threads::new();
    let helper = match mode {
        Mode::Run => {
            Some(Helper::start(&threads, &path, &mut conn).map_err(|e| connection::error_from(&path, &e))?)
        }
        Mode::Shared => None,
    };
    let (jobs, queue) = mpsc::channel();
    let next_commit_at = Arc::new(Mutex::new(Instant::now()));
    let mut writer = Writer {
        conn,
        path: path.clone(),
        mem,
        helper,
        rest_until: None,
        next_commit_at: Arc::clone(&next_commit_at),
        takes: PACE,
        _lock: lock,
    };
    let thread = threads
        .start(NAME, move || writer.serve(&queue))
        .map_err(|e| Error::Io {
            path,
            message: e.to_string(),
        })?;
    Ok(Handle {
        jobs: Mutex::new(Some(jobs)),
        next_commit_at,
        thread: Mutex::new(Some(thread)),
        threads,
    })
}

impl Writer {
    fn serve(&mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut patient: Vec<Box<dyn Job>> = Vec::new();
        let mut patient_since = Instant::now();
        let mut open = true;
        while open || !patient.is_empty() {
            let mut batch: Vec<Box<dyn Job>> = Vec::new();
            let mut weight = 0;
            let fold = open && self.fold_wanted();
            let wait = if fold {
                Duration::ZERO
            } else if patient.is_empty() {
                Duration::MAX
            } else {
                OUTCOMES_WAIT.saturating_sub(patient_since.elapsed())
            };
            let mut next = match (open, wait) {
                (false, _) => Err(RecvTimeoutError::Disconnected),
                (true, Duration::MAX) => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (true, wait) => queue.recv_timeout(wait),
            };
            let mut spaced = false;
            loop {
                match next {
                    Ok(job) => {
                        if job.at_once() {
                            spaced = true;
                        }
                        if job.patience() == 0 && !std::mem::replace(&mut spaced, true) {
                            let begins = *self.next_commit_at();
                            std::thread::sleep(begins.saturating_duration_since(Instant::now()));
                        }
                        weight += job.weight();
                        if job.patience() == 0 {
                            batch.push(job);
                        } else {
                            if patient.is_empty() {
                                patient_since = Instant::now();
                            }
                            patient.push(job);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
                if weight >= WEIGHT_MAX {
                    break;
                }
                next = queue.try_recv().map_err(|e| match e {
                    mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                });
            }
            let enough = patient.iter().map(|j| j.patience()).sum::<usize>() >= OUTCOMES_ENOUGH;
            if !batch.is_empty() || fold || enough || !open || patient_since.elapsed() >= OUTCOMES_WAIT {
                batch.append(&mut patient);
            }
            if fold {
                batch.push(Box::new(FoldStep));
            }
            if !batch.is_empty() {
                self.commit(batch);
                if let Some(helper) = &self.helper {
                    helper.end_copying(&self.conn);
                }
            }
        }
        if let Some(helper) = self.helper.take() {
            helper.stop(&mut self.conn);
        }
    }

    fn next_commit_at(&self) -> MutexGuard<'_, Instant> {
        self.next_commit_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all jobs in one transaction; if that fails, each in one of its own.
    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.transact(&mut batch) {
            Ok(()) => {
                for job in batch {
                    job.finish(&mut self.mem, Ok(()));
                }
            }
            Err(error) if batch.len() == 1 => {
                for job in batch {
                    job.finish(&mut self.mem, Err(error.clone()));
                }
            }
            Err(_) => {
                for job in batch {
                    self.commit(vec![job]);
                }
            }
        }
        self.rest();
    }

    fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        threads::fault(NAME);
        let rows: usize = batch.iter().map(|job| job.weight()).sum();
        let began = Instant::now();
        *self.next_commit_at() = began + spacing(self.takes, rows);
        self.mem.begin();
        let result = (|| {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for job in batch {
                job.run(&self.conn, &mut self.mem)?;
            }
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            Ok::<(), Fault>(())
        })();
        self.takes = (self.takes * 7 + began.elapsed()) / 8;
        match result {
            Ok(()) => {
                self.mem.counts.keep(&mut self.mem.moves);
                Ok(())
            }
            Err(fault) => {
                // Some errors make SQLite roll back by itself.
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("ROLLBACK");
                }
                self.mem.undo();
                Err(fault.at(&self.path))
            }
        }
    }

    /// Whether a step of folding is to be done with the next transaction.
    fn fold_wanted(&mut self) -> bool {
        let Some(helper) = &self.helper else { return false };
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.rest_until = None;
        match super::fold::wanted(&mut self.mem, helper) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.mem.folding.failed = Some(connection::error_from(&self.path, &error));
                self.rest();
                false
            }
        }
    }

    /// After a failure.
    fn rest(&mut self) {
        if let Some(error) = self.mem.folding.failed.take() {
            tracing::warn!(%error, "housekeeping of the store failed; trying again in a while");
            self.rest_until = Instant::now().checked_add(REST);
        }
    }
}

/// How far after a transaction of so many rows the next one begins, where one takes so long of late.
fn spacing(takes: Duration, rows: usize) -> Duration {
    let [least, most] = SPACING;
    let rows = u32::try_from(rows).unwrap_or(u32::MAX).clamp(1, 1000);
    let few = (PACE.saturating_sub(takes) * 2).clamp(least, most) * FEW / rows.max(FEW);
    few.max(SPACING_PER_ROW * rows).min(SPACING_MAX)
}

/// A step of housekeeping, in the same transaction as whatever else there is to do.
struct FoldStep;

impl Job for FoldStep {
    fn run(&mut self, conn: &Connection, mem: &mut Mem) -> Result<(), Fault> {
        super::fold::step(conn, mem)
    }

    fn finish(self: Box<Self>, mem: &mut Mem, result: Result<()>) {
        super::fold::finish(mem, result);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_longer_a_transaction_takes_the_sooner_the_next_may_begin() {
        let apart = |micros| spacing(Duration::from_micros(micros), 1).as_micros();
        assert_eq!(
            [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 60_000].map(apart),
            [6_000, 6_000, 6_000, 5_000, 4_000, 3_000, 3_000, 3_000]
        );
    }

    #[test]
    fn the_more_rows_a_transaction_has_the_sooner_the_next_until_they_cost_more_than_waiting() {
        let apart = |rows| spacing(Duration::from_millis(1), rows).as_micros();
        assert_eq!(
            [0, 1, 4, 8, 16, 50, 100, 1_000, usize::MAX].map(apart),
            [6_000, 6_000, 6_000, 3_000, 1_500, 4_000, 8_000, 12_000, 12_000]
        );
    }
}
