//! Leading a source, or following it, where several nodes share the store. A follower hears the same messages and runs
//! the same reducer, and tells nothing; when the lease comes to it, it goes on from what is committed and brings in
//! what it heard.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{error, info};
use turnhook_reducer::{source::Gap, state::Table};
use turnhook_store::{Epoch, LeaseName};
use turnhook_subscriber::{
    queue::SignalSender,
    signal::Clock,
    source::{SourceConfig, SourceHandle},
};

use super::{
    cluster::{GivenBack, Holdings, Validity},
    commits::{Committing, Made, ready},
    recording::Reason,
    source::{SourceTask, Turn},
    supervisor::words_of_join,
    takeover::{Confirming, EndsRead, Taken, TakingOver, confirmed, taken_over},
};
use crate::health;

/// How often a follower reads what ended as committed: a tombstone is kept for 60 s at least.
pub(super) const CONFIRM: Duration = Duration::from_secs(20);

/// Between attempts to read the state that is to be taken over.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Gaps that a follower remembers, for the case that it leads.
const GAPS: usize = 1000;

/// What this node is to the source, with what belongs to that alone.
pub(crate) enum Role {
    /// There is nobody else.
    Alone(Committing),
    /// It commits and tells, while its epoch lasts.
    Leader(Leading),
    /// Another node does.
    Follower(Following),
}

/// What a leader has to do.
pub(crate) struct Leading {
    pub(super) epoch: Epoch,
    pub(super) committing: Committing,
    /// The lease is to go to another node once all is committed.
    pub(super) leaving: bool,
    /// The commit that was started last holds all that was known when the lease was wanted back.
    pub(super) saved_last: bool,
    /// Its listener could not be opened; it is tried again then.
    pub(super) listen_again_at: Option<Instant>,
}

/// What a follower has to do.
pub(crate) struct Following {
    /// What was missed: on record only if it is not what others heard.
    pub(super) gaps: Vec<Gap>,
    pub(super) confirm_at: Instant,
    pub(super) confirming: Option<Confirming>,
    pub(super) taking_over: Option<TakingOver>,
}

/// Something of the role's own has come to its end.
pub(crate) enum Progress {
    Committed(Made),
    EndsRead(EndsRead),
    TakenOver(Epoch, Box<Taken>),
}

impl Following {
    pub(crate) fn new() -> Following {
        Following {
            gaps: Vec::new(),
            confirm_at: Instant::now() + CONFIRM,
            confirming: None,
            taking_over: None,
        }
    }

    /// Whether the state is another thread's.
    fn is_joining(&self) -> bool {
        self.taking_over.as_ref().is_some_and(TakingOver::has_begun)
    }

    fn remember(&mut self, gap: Gap) {
        if self.gaps.len() >= GAPS {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
    }
}

impl Role {
    pub(crate) fn follows(&self) -> bool {
        matches!(self, Role::Follower(_))
    }

    pub(super) fn committing(&self) -> Option<&Committing> {
        match self {
            Role::Alone(committing) => Some(committing),
            Role::Leader(leading) => Some(&leading.committing),
            Role::Follower(_) => None,
        }
    }

    pub(super) fn committing_mut(&mut self) -> Option<&mut Committing> {
        match self {
            Role::Alone(committing) => Some(committing),
            Role::Leader(leading) => Some(&mut leading.committing),
            Role::Follower(_) => None,
        }
    }

    /// A gap goes on record with the next commit; a follower's only if others did not hear that time.
    pub(super) fn take_gap(&mut self, gap: Gap) {
        match self {
            Role::Alone(committing) => committing.gaps.push(gap),
            Role::Leader(leading) => leading.committing.gaps.push(gap),
            Role::Follower(following) => following.remember(gap),
        }
    }

    /// Whether the lease is to go to another node.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Role::Leader(leading) if leading.leaving)
    }

    pub(super) fn listen_again_at(&self) -> Option<Instant> {
        match self {
            Role::Leader(leading) => leading.listen_again_at,
            Role::Alone(_) | Role::Follower(_) => None,
        }
    }

    /// Whether the state is another thread's, for a while.
    pub(super) fn is_joining(&self) -> bool {
        matches!(self, Role::Follower(following) if following.is_joining())
    }

    /// What comes to its end next; never, if nothing is under way.
    pub(crate) async fn progress(&mut self) -> Progress {
        match self {
            Role::Alone(committing) => Progress::Committed(ready(committing).await),
            Role::Leader(leading) => Progress::Committed(ready(&mut leading.committing).await),
            Role::Follower(following) => tokio::select! {
                read = confirmed(&mut following.confirming) => Progress::EndsRead(read),
                (epoch, taken) = taken_over(&mut following.taking_over) => {
                    Progress::TakenOver(epoch, Box::new(taken))
                }
            },
        }
    }
}

/// The listener of a `direct` source: only the leader listens, so that coturn, or the balancer before it, finds it.
pub(crate) struct Listening {
    pub(crate) config: SourceConfig,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalSender,
    pub(crate) handle: Option<SourceHandle>,
}

/// What the task knows of the other nodes.
pub(crate) struct Sharing {
    pub(crate) holdings: watch::Receiver<Holdings>,
    pub(crate) give_back: GivenBack,
    pub(crate) validity: Validity,
    pub(crate) listening: Option<Listening>,
    /// Nothing was asked of this task yet.
    anew: bool,
    /// The leases have run out, and that was said.
    leaseless: bool,
}

impl Sharing {
    pub(crate) fn new(
        holdings: watch::Receiver<Holdings>,
        give_back: GivenBack,
        validity: Validity,
        listening: Option<Listening>,
    ) -> Sharing {
        Sharing {
            holdings,
            give_back,
            validity,
            listening,
            anew: true,
            leaseless: true,
        }
    }

    /// Whether what this node may do has changed, or is about to.
    pub(crate) fn is_changing(&self) -> bool {
        self.validity.is_over() || self.holdings.has_changed().unwrap_or(true)
    }
}

/// What happens to a task that has others beside it.
pub(crate) enum Change {
    /// What this node may do is another, perhaps.
    Role,
    /// The listener that a leader opened has ended, which it should not: how.
    Listener(String),
}

/// The next change; never where the node is alone.
pub(crate) async fn changed(sharing: &mut Option<Sharing>) -> Change {
    let Some(sharing) = sharing else {
        return std::future::pending().await;
    };
    let handle = sharing.listening.as_mut().and_then(|l| l.handle.as_mut());
    let listener = async {
        match handle {
            Some(handle) => match handle.ended().await {
                Ok(()) => "it returned".to_owned(),
                Err(error) => words_of_join(error),
            },
            None => std::future::pending().await,
        }
    };
    let role = async {
        if sharing.holdings.changed().await.is_err() {
            // The member has ended, and the process will.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = role => Change::Role,
        how = listener => Change::Listener(how),
    }
}

impl SourceTask {
    /// What this node may do has changed, perhaps.
    pub(crate) async fn change_role(&mut self, turn: &mut Turn) {
        let anew = self.sharing.as_mut().is_some_and(|s| std::mem::take(&mut s.anew));
        if anew && self.last_commit.is_none() {
            self.compare_with_nothing();
        }
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let lead = sharing
            .holdings
            .borrow_and_update()
            .sources
            .get(&self.id)
            .copied();
        if lead.is_some() && self.role.follows() && sharing.validity.is_over() {
            // Not known yet whether it is lost or will be renewed.
            turn.role_again_at = Some(Instant::now() + AGAIN);
            return;
        }
        let wanted_back = lead.is_some_and(|lead| lead.wanted_back);
        match (&mut self.role, lead) {
            (Role::Alone(_), _) => {}
            // Once it is done this is looked at again.
            (Role::Follower(following), _) if following.is_joining() => {}
            (Role::Leader(leading), Some(lead)) if lead.epoch == leading.epoch => {
                leading.leaving = wanted_back;
            }
            (Role::Follower(following), None) => following.taking_over = None,
            // A takeover that had not succeeded yet: there is nothing to commit.
            (Role::Follower(following), Some(lead)) if wanted_back => {
                following.taking_over = None;
                self.give_back(lead.epoch);
            }
            (Role::Follower(_), Some(lead)) => self.read_committed(lead.epoch),
            (Role::Leader(_), None) => self.follow(turn).await,
            (Role::Leader(_), Some(lead)) => {
                // It was lost and taken again before this was noticed: others may have written.
                self.follow(turn).await;
                self.read_committed(lead.epoch);
            }
        }
    }

    /// Nothing of the source had ever been committed when this node looked. Without a commit's time to go by, the follower
    /// would take what it hears until it first looks again for told and forgotten.
    fn compare_with_nothing(&mut self) {
        let nothing: [(Table, u64, &[u8]); 0] = [];
        if let Err(error) = self.reducer.confirm(self.watch.now(), nothing) {
            error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
        }
    }

    /// Opens the listener of a `direct` source.
    pub(crate) async fn listen(&mut self) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        leading.listen_again_at = None;
        let Some(listening) = self.sharing.as_mut().and_then(|s| s.listening.as_mut()) else {
            return;
        };
        let (clock, signals) = (Arc::clone(&listening.clock), listening.signals.clone());
        match listening.config.clone().start(clock, signals).await {
            Ok(handle) => listening.handle = Some(handle),
            Err(error) => {
                error!(source = %self.telemetry.name(), %error, "leads the source and cannot listen; tried again");
                self.telemetry.deaf(self.watch.now(), error.to_string());
                leading.listen_again_at = Some(Instant::now() + AGAIN * 2);
            }
        }
    }

    /// Another node leads, or may: what was not committed is not this node's to tell any more.
    pub(crate) async fn follow(&mut self, turn: &mut Turn) {
        let Some(committing) = self.role.committing_mut() else {
            return;
        };
        let mut following = Following::new();
        following.gaps = std::mem::take(&mut committing.gaps);
        self.role = Role::Follower(following);
        if let Some(tap) = turn.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        let listening = self.sharing.as_mut().and_then(|s| s.listening.as_mut());
        if let Some(handle) = listening.and_then(|l| l.handle.take()) {
            handle.stop().await;
        }
        if let Some(control) = &self.control {
            control.take_snapshots(false);
        }
        self.reducer.follow(turn.committed);
        self.telemetry.role(health::Role::Follower);
        info!(source = %self.telemetry.name(), "follows the source");
    }

    /// A process that was stopped past its lease finds out before it does anything else: what others have done meanwhile
    /// it does not know.
    pub(crate) async fn follow_if_over(&mut self, turn: &mut Turn) {
        let Some(over) = self.sharing.as_ref().map(|s| s.validity.is_over()) else {
            return;
        };
        if over && matches!(&self.role, Role::Leader(_)) {
            self.follow(turn).await;
            turn.role_again_at = Some(Instant::now() + AGAIN);
        }
        let said = self
            .sharing
            .as_mut()
            .map(|s| std::mem::replace(&mut s.leaseless, over));
        if self.role.follows() && said != Some(over) {
            if over {
                self.telemetry.nobody_leads(self.watch.now());
            } else {
                self.telemetry.role(health::Role::Follower);
            }
        }
    }

    /// Whether the lease may go: nothing is left to commit.
    pub(crate) async fn leave_if_done(&mut self, turn: &mut Turn) {
        let Role::Leader(leading) = &self.role else { return };
        if !leading.leaving || !leading.saved_last || leading.committing.has_a_commit() {
            return;
        }
        let epoch = leading.epoch;
        self.follow(turn).await;
        self.give_back(epoch);
    }

    fn give_back(&self, epoch: Epoch) {
        if let Some(sharing) = &self.sharing {
            // A member that has ended gives all back itself.
            let _ = sharing.give_back.send((LeaseName::Source(self.id), epoch));
        }
    }
}
