//! One task for each source: it owns the source's reducer, applies whatever has arrived, and never waits
//! for the disk. While a commit is under way, or waits until the store begins one, everything goes on; what has piled
//! up by then is the next one. So latency is low when it is quiet and commits are large when it is busy.

mod commits;
mod enforcing;
mod hearing;
mod leading;
mod recording;
mod takeover;

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{error, warn};
use turnhook_reducer::{
    HearsSince, Notice, Reducer, ServerRef,
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_store::{SourceId, State};
use turnhook_subscriber::{queue::SignalReceiver, redis::RedisControl, signal::Signal};

pub(super) use self::hearing::apply_snapshot_key;
use super::{
    clock::{PULSE, Watch},
    committing::Committing,
    deadline::Stop,
    enforce::Enforcing,
    fan_out::FanOut,
    fault,
    heal::Healing,
    keep::Keeper,
    loading::Loader,
    notices,
    recording::Reason,
    role::{self, Change, Progress, Role, Sharing},
    slices::{self, Slice, Unwatched},
    store_health::StoreHealth,
    supervisor::Ended,
    tap::{Heard, Tap, TapRequests},
    telemetry::SourceTelemetry,
    wedge::Wedges,
};
use crate::config::Limits;

/// Events that may wait for a store that takes nothing. Beyond that what is heard is given up, as a gap:
/// events never are.
const MOST_PENDING: usize = 100_000;

/// Messages applied before the task looks up again, give or take a batch: few enough that this takes far
/// less than what counts as a stall.
const RUN: usize = 8192;

/// While this many events wait for a commit that is due, nothing more is decided: own work alone must not come to the
/// bound past which messages are given up. What is heard meanwhile waits in its queue.
const HELD_BACK: usize = 50_000;

/// As both bounds are called where a test asks for small ones.
const PENDING: &str = "pending";

pub(crate) struct SourceTask {
    pub(crate) id: SourceId,
    pub(crate) reducer: Reducer,
    pub(crate) signals: SignalReceiver,
    pub(crate) watch: Watch,
    pub(crate) state: State,
    pub(crate) store_health: Arc<StoreHealth>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) telemetry: SourceTelemetry,
    pub(crate) taps: TapRequests,
    /// They can be changed while the program runs.
    pub(crate) limits: watch::Receiver<Limits>,
    pub(crate) wedges: Wedges,
    /// What was heard before this belongs to an earlier run, if there was one.
    pub(crate) last_commit: Option<Timestamp>,
    pub(crate) loader: Arc<Loader>,
    /// Of a `redis` source.
    pub(crate) control: Option<RedisControl>,
    pub(crate) role: Role,
    pub(crate) enforcing: Enforcing,
    pub(crate) healing: Healing,
    /// Where several nodes share the store.
    pub(crate) sharing: Option<Sharing>,
    /// Since when nothing was missed, where the source goes on with the connections that an earlier program had. Until
    /// what had waited in them is read, time stands still.
    pub(crate) resumed: Option<HearsSince>,
    pub(crate) keeper: Keeper,
}

/// What the task keeps from one pass of its loop to the next.
pub(crate) struct LoopState {
    /// The signal that is next, while what is due before it has yet to be done.
    held: Option<Signal>,
    unwatched: Unwatched,
    /// There is more to do at once.
    busy: bool,
    /// What is committed now is the last, and it was said that all is well up to then.
    pub(super) ending: bool,
    pub(super) said_end: bool,
    pub(crate) tap: Option<Tap>,
    pub(super) heard: Heard,
    /// By how much the wall clock was ahead as the reducer last heard of it.
    pub(super) wall_ahead: Option<i64>,
    /// Servers that had not stopped, and since when that was thought: their gaps are on record.
    pub(super) returned: VecDeque<(Box<[u8]>, Timestamp)>,
    pub(crate) server: Option<(Arc<[u8]>, ServerRef)>,
    /// The time of the last commit that is known to have succeeded.
    pub(crate) committed: Timestamp,
    /// What this node is to the source is looked at again then.
    pub(crate) role_again_at: Option<Instant>,
    /// What is heard may have waited since before then, while others went on.
    pub(crate) behind_since: Option<Timestamp>,
}

impl LoopState {
    fn new(committed: Timestamp) -> LoopState {
        LoopState {
            held: None,
            unwatched: Unwatched::default(),
            busy: false,
            ending: false,
            said_end: false,
            tap: None,
            heard: Heard::default(),
            wall_ahead: None,
            returned: VecDeque::new(),
            server: None,
            committed,
            role_again_at: None,
            behind_since: None,
        }
    }
}

impl SourceTask {
    /// Runs until `stop`, then commits what was heard. Fails with what keeps it from going on, or from that last
    /// commit.
    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        let mut current = LoopState::new(self.last_commit.unwrap_or_default());
        let mut open = true;
        self.watch.begin();
        // What this node may do may be known before it is first waited for.
        self.change_role(&mut current).await;
        while !stop.has_begun() {
            self.follow_if_over(&mut current).await;
            let everything = self.role.is_leaving() || self.role.committing().is_none_or(Committing::is_due);
            self.leave_if_done(&mut current).await;
            self.start_commit(&mut current, everything).await;
            self.look_for_ends();
            self.rest(&mut current);
            // Nothing is heard while the state is another thread's, or while the store has enough to do.
            let hears = !self.is_held_back() && !self.role.is_joining();
            let nap = if hears { self.nap() } else { PULSE };
            let busy = hears && (current.busy || self.reducer.is_looking() || !current.unwatched.is_empty());
            let commit_at = self.role.committing().and_then(|committing| committing.commit_at);
            let listen_again_at = self.role.listen_again_at();
            let signal = tokio::select! {
                biased;
                progress = self.role.progress() => {
                    self.look(&mut current);
                    self.progressed(&mut current, progress).await?;
                    continue;
                }
                () = stop.begun() => break,
                change = role::changed(&mut self.sharing) => match change {
                    Change::Role => {
                        self.look(&mut current);
                        self.change_role(&mut current).await;
                        continue;
                    }
                    Change::Listener(how) => return Err(format!("its listener has ended: {how}")),
                },
                () = at(commit_at) => None,
                () = at(current.role_again_at) => {
                    self.look(&mut current);
                    current.role_again_at = None;
                    self.change_role(&mut current).await;
                    continue;
                }
                () = at(listen_again_at) => {
                    self.look(&mut current);
                    self.listen(&mut current).await;
                    continue;
                }
                // A server that is being ended is so in no row.
                Some((sink, mut history)) = self.taps.recv(), if hears && !self.reducer.is_ending() => {
                    self.look(&mut current);
                    self.follow_limits(&mut current);
                    history.limits = *self.limits.borrow();
                    self.record(&mut current, sink, history, &stop).await?;
                    continue;
                }
                heard = self.enforcing.next(), if hears => {
                    self.look(&mut current);
                    self.enforce(heard);
                    continue;
                }
                () = tokio::task::yield_now(), if busy => None,
                signal = self.signals.recv(), if open && hears && !busy && current.held.is_none() => {
                    // Its subscriber is a part of its own: whoever watches that one stops this one.
                    open = signal.is_some();
                    signal
                }
                () = tokio::time::sleep(nap), if !busy => None,
            };
            self.look(&mut current);
            if hears {
                let now = self.watch.now();
                self.healing.heal(self.id, &self.role, now, &mut self.reducer);
                current.busy = self.work(&mut current, signal);
            }
        }
        self.finish(current, stop.deadline()).await
    }

    /// Whether the store has enough to do. One that fails does not hold anything back: then messages are given up in
    /// the end.
    pub(super) fn is_held_back(&self) -> bool {
        let committing = self.role.committing();
        committing.is_some_and(|committing| committing.again_at().is_none())
            && self.reducer.pending_events() >= fault::bound(PENDING, HELD_BACK, 50)
    }

    /// Something of the role's own has come to its end. Fails with what cannot be got over.
    async fn progressed(&mut self, current: &mut LoopState, progress: Progress) -> Ended {
        match progress {
            Progress::Committed(made) => self.committed(current, made).await,
            Progress::EndsRead(read) => self.ends_read(read),
            Progress::TakenOver(epoch, taken) => self.taken_over(current, epoch, *taken).await,
        }
    }

    /// A wait is over.
    fn look(&mut self, current: &mut LoopState) {
        if let (_, Some(gap)) = self.watch.look() {
            self.unwatched(current, gap);
        }
    }

    /// Work is over, and a wait begins.
    fn rest(&mut self, current: &mut LoopState) {
        self.telemetry.slice(self.watch.worked());
        if let Some(gap) = self.watch.rest() {
            self.unwatched(current, gap);
        }
    }

    /// Waits in the midst of work.
    pub(super) async fn wait<T>(&mut self, current: &mut LoopState, what: impl Future<Output = T>) -> T {
        self.rest(current);
        let come = what.await;
        self.look(current);
        come
    }

    pub(super) fn unwatched(&mut self, current: &mut LoopState, gap: Gap) {
        current.behind_since = Some(gap.to).filter(|_| self.sharing.is_some());
        warn!(source = %self.telemetry.name(), reason = gap.reason.as_str(), from = gap.from.0, to = gap.to.0,
            "time passed unwatched: messages may have been missed");
        current.unwatched.push(gap);
    }

    /// Hands the time that went by unwatched to the reducer. Whether there is more to be done before that.
    fn pass_unwatched(&mut self, current: &mut LoopState, slice: &Slice) -> bool {
        while let Some(gap) = current.unwatched.next(&mut self.reducer, slice) {
            self.gap(current, gap);
        }
        !current.unwatched.is_empty()
    }

    /// What a follower did not watch is put among its gaps, before it leads: of those it drops what others heard.
    pub(super) fn pass_all_unwatched(&mut self, current: &mut LoopState) {
        for gap in current.unwatched.take() {
            self.gap(current, gap);
        }
    }

    /// One slice of what there is to do: applies what has arrived, and lets time pass up to now if that was all.
    /// Whether there is more to do at once.
    pub(super) fn work(&mut self, current: &mut LoopState, first: Option<Signal>) -> bool {
        let slice = Slice::begin();
        let now = self.watch.now();
        let waits = self.pass_unwatched(current, &slice);
        // What was decided before is dated by the clock of before.
        if !waits && !self.reducer.is_ending() {
            self.follow_wall_clock(current, now);
        }
        self.follow_limits(current);
        let mut next = current.held.take().or(first);
        let mut left = RUN;
        let more = loop {
            if waits {
                current.held = next;
                break true;
            }
            let Some(signal) = next.take().or_else(|| self.signals.try_recv()) else {
                let passes = !self.is_deafened() && self.resumed.is_none();
                break passes && self.pass(current, now, &slice);
            };
            let at = slices::time_of(&signal).unwrap_or(self.reducer.now());
            let due = slices::pass(&mut self.reducer, at, &slice);
            if due || self.is_held_back() {
                current.held = Some(signal);
                break true;
            }
            left = left.saturating_sub(match &signal {
                Signal::Messages(batch) => batch.len(),
                _ => 1,
            });
            self.apply(current, signal);
            if left == 0 || slice.is_over() {
                break true;
            }
        };
        slices::look(&mut self.reducer, &slice);
        if let Some(committing) = self.role.committing_mut() {
            let gaps = &mut committing.gaps;
            self.wedges
                .look(&self.reducer, now, &self.telemetry, gaps, &slice);
        }
        self.hand_over();
        self.telemetry.levels(&self.reducer);
        self.telemetry.stats(&self.reducer.stats());
        self.telemetry.broken(now, self.reducer.take_broken());
        self.telemetry.waiting(self.signals.backlog());
        more
    }

    /// A reducer that was made anew, too, keeps to the limits of now.
    fn follow_limits(&mut self, current: &mut LoopState) {
        let (allocations, unconfirmed, tombstones) = {
            let limits = self.limits.borrow();
            (limits.allocations, limits.unconfirmed, limits.tombstones)
        };
        let changed =
            self.reducer
                .set_limits(allocations as usize, unconfirmed as usize, tombstones as usize);
        if changed && let Some(tap) = current.tap.take() {
            tap.sink().end(Reason::LimitsChanged);
        }
    }

    /// Times in events are the wall clock's, however far it was put back; within a session that has later ones, they
    /// stand still meanwhile.
    fn follow_wall_clock(&mut self, current: &mut LoopState, now: Timestamp) {
        let ahead = self.watch.wall_ahead();
        if current.wall_ahead.is_some_and(|last| last.abs_diff(ahead) < 1000) {
            return;
        }
        if ahead != 0 || current.wall_ahead.is_some() {
            error!(source = %self.telemetry.name(), seconds = ahead / 1000,
                "the wall clock has been put back, or was ahead before: times in events follow it from now on; within sessions \
                 that have later times, they stand still");
        }
        current.wall_ahead = Some(ahead);
        self.telemetry.wall_ahead(ahead);
        let at = now.min(self.reducer.now());
        if current.tap.as_mut().is_some_and(|tap| !tap.wall_clock(at, ahead)) {
            current.tap = None;
        }
        self.reducer.wall_clock(at, ahead);
    }

    /// Time passes up to now, as far as the slice goes.
    fn pass(&mut self, current: &mut LoopState, now: Timestamp, slice: &Slice) -> bool {
        if slices::pass(&mut self.reducer, now, slice) {
            return true;
        }
        if current.tap.as_mut().is_some_and(|tap| !tap.time(now)) {
            current.tap = None;
        }
        false
    }

    /// A gap goes to the reducer as of its start, so that nothing expires for a time that was not heard.
    pub(super) fn gap(&mut self, current: &mut LoopState, gap: Gap) {
        if let Some(tap) = &mut current.tap
            && !tap.gap(&gap)
        {
            current.tap = None;
        }
        self.reducer.gap(gap.from, &gap);
        self.record_gap(gap);
    }

    /// A gap that is put on record, and no more.
    pub(super) fn record_gap(&mut self, gap: Gap) {
        if !self.role.follows() {
            self.telemetry.gap(&gap);
        }
        self.role.take_gap(gap);
    }

    /// Whether messages are to be given up because the store takes nothing.
    pub(super) fn give_up(&mut self, current: &mut LoopState, at: Timestamp) -> bool {
        let Some(committing) = self.role.committing_mut() else {
            return false;
        };
        let most = fault::bound(PENDING, MOST_PENDING, 50);
        let full = self.reducer.pending_events() > most;
        match (full, committing.deafened) {
            (true, None) => {
                error!(source = %self.telemetry.name(), pending = most,
                    "the store takes nothing and the bound is reached: messages are given up until it does");
                committing.deafened = Some(at);
                true
            }
            (true, Some(_)) => true,
            (false, Some(from)) => {
                committing.deafened = None;
                let gap = Gap {
                    from,
                    to: at,
                    reason: GapReason::StoreFull,
                    server: None,
                };
                self.gap(current, gap);
                false
            }
            (false, None) => false,
        }
    }

    /// Whether messages are being given up.
    pub(super) fn is_deafened(&self) -> bool {
        self.role
            .committing()
            .is_some_and(|committing| committing.deafened.is_some())
    }

    fn nap(&self) -> Duration {
        let now = self.watch.now();
        // A deadline fires once its moment has passed.
        let deadline = self
            .reducer
            .next_deadline()
            .filter(|_| !self.is_deafened() && self.resumed.is_none())
            .map_or(PULSE, |at| Duration::from_millis(at.plus(1).since(now)));
        let again = self.role.committing().and_then(Committing::again_at);
        let again = again.map_or(PULSE, |at| at.saturating_duration_since(Instant::now()));
        deadline.min(again).min(PULSE)
    }

    pub(super) fn notice(&mut self, current: &LoopState, notice: &Notice) {
        if let Notice::HadNotStopped { server, from, to } = notice {
            let is_known =
                |(name, since): &(Box<[u8]>, Timestamp)| Some(name) == server.as_ref() && since == from;
            if current.returned.iter().any(is_known) {
                // The listener has noticed, and it is said and on record.
                return;
            }
            let (server, reason) = (server.clone(), GapReason::Reconnect);
            self.record_gap(Gap {
                from: *from,
                to: *to,
                reason,
                server,
            });
        }
        notices::log(self.telemetry.name(), notice);
    }
}

/// Never, if there is no such moment.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
