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
    recording::Reason,
    source::{SourceTask, Turn},
    supervisor::words_of_join,
    takeover::TakingOver,
};
use crate::health;

/// How often a follower reads what ended as committed: a tombstone is kept for 60 s at least.
pub(super) const CONFIRM: Duration = Duration::from_secs(20);

/// Between attempts to read the state that is to be taken over.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Gaps that a follower remembers, for the case that it leads.
const GAPS: usize = 1000;

/// What this node is to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// There is nobody else.
    Alone,
    /// It commits and tells, while this epoch lasts.
    Leader(Epoch),
    /// Another node does.
    Follower,
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
    /// What was missed while following: on record only if it is not what others heard.
    pub(super) gaps: Vec<Gap>,
    pub(super) confirm_at: Instant,
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
            gaps: Vec::new(),
            confirm_at: Instant::now() + CONFIRM,
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
        if lead.is_some() && self.role == Role::Follower && sharing.validity.is_over() {
            // Not known yet whether it is lost or will be renewed.
            turn.role_again_at = Some(Instant::now() + AGAIN);
            return;
        }
        turn.leaving = lead.is_some_and(|lead| lead.wanted_back);
        if turn.taking_over.as_ref().is_some_and(TakingOver::has_begun) {
            // Once it is done this is looked at again.
            return;
        }
        match (self.role, lead) {
            (Role::Leader(epoch), Some(lead)) if lead.epoch == epoch => {}
            (Role::Follower, None) => turn.taking_over = None,
            // A takeover that had not succeeded yet: there is nothing to commit.
            (Role::Follower, Some(lead)) if turn.leaving => {
                turn.taking_over = None;
                self.give_back(turn, lead.epoch);
            }
            (Role::Follower, Some(lead)) => self.read_committed(turn, lead.epoch),
            (_, None) => self.follow(turn).await,
            (_, Some(lead)) => {
                // It was lost and taken again before this was noticed: others may have written.
                self.follow(turn).await;
                self.read_committed(turn, lead.epoch);
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
    pub(crate) async fn listen(&mut self, turn: &mut Turn) {
        turn.listen_again_at = None;
        let Some(listening) = self.sharing.as_mut().and_then(|s| s.listening.as_mut()) else {
            return;
        };
        let (clock, signals) = (Arc::clone(&listening.clock), listening.signals.clone());
        match listening.config.clone().start(clock, signals).await {
            Ok(handle) => listening.handle = Some(handle),
            Err(error) => {
                error!(source = %self.telemetry.name(), %error, "leads the source and cannot listen; tried again");
                self.telemetry.deaf(self.watch.now(), error.to_string());
                turn.listen_again_at = Some(Instant::now() + AGAIN * 2);
            }
        }
    }

    /// Another node leads, or may: what was not committed is not this node's to tell any more.
    pub(crate) async fn follow(&mut self, turn: &mut Turn) {
        if self.role == Role::Follower {
            return;
        }
        self.role = Role::Follower;
        turn.commit = None;
        turn.under_way = None;
        turn.again_at = None;
        if let Some(tap) = turn.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        turn.deafened = None;
        turn.listen_again_at = None;
        turn.saved_last = false;
        let gaps = std::mem::take(&mut turn.gaps);
        if let Some(sharing) = &mut self.sharing {
            sharing.gaps.extend(gaps);
            sharing.confirm_at = Instant::now() + CONFIRM;
            if let Some(handle) = sharing.listening.as_mut().and_then(|l| l.handle.take()) {
                handle.stop().await;
            }
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
        if over && matches!(self.role, Role::Leader(_)) {
            self.follow(turn).await;
            turn.role_again_at = Some(Instant::now() + AGAIN);
        }
        let said = self
            .sharing
            .as_mut()
            .map(|s| std::mem::replace(&mut s.leaseless, over));
        if self.role == Role::Follower && said != Some(over) {
            if over {
                self.telemetry.nobody_leads(self.watch.now());
            } else {
                self.telemetry.role(health::Role::Follower);
            }
        }
    }

    /// Whether the lease may go: nothing is left to commit.
    pub(crate) async fn leave_if_done(&mut self, turn: &mut Turn) {
        let Role::Leader(epoch) = self.role else { return };
        if !turn.leaving || !turn.saved_last || turn.commit.is_some() || turn.under_way.is_some() {
            return;
        }
        self.follow(turn).await;
        self.give_back(turn, epoch);
    }

    fn give_back(&self, turn: &mut Turn, epoch: Epoch) {
        turn.leaving = false;
        if let Some(sharing) = &self.sharing {
            // A member that has ended gives all back itself.
            let _ = sharing.give_back.send((LeaseName::Source(self.id), epoch));
        }
    }

    /// A follower's gap: others may have heard what it missed.
    pub(crate) fn remember_gap(&mut self, gap: Gap) {
        if let Some(sharing) = &mut self.sharing {
            if sharing.gaps.len() >= GAPS {
                sharing.gaps.remove(0);
            }
            sharing.gaps.push(gap);
        }
    }
}
