//! Leading a source, or following it, where several nodes share the store. A follower hears the same messages and runs
//! the same reducer, and emits nothing; when the lease comes to it, it goes on from what is committed and brings in
//! what it heard.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, info};
use turnhook_reducer::state::Table;
use turnhook_store::{Epoch, LeaseName};

use super::{LoopState, SourceTask};
use crate::{
    engine::{
        recording::Reason,
        role::{AGAIN, Following, Role},
    },
    health,
};

impl SourceTask {
    /// What this node may do has changed, perhaps.
    pub(crate) async fn change_role(&mut self, current: &mut LoopState) {
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
            current.role_again_at = Some(Instant::now() + AGAIN);
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
            (Role::Leader(_), None) => self.follow(current).await,
            (Role::Leader(_), Some(lead)) => {
                // It was lost and taken again before this was noticed: others may have written.
                self.follow(current).await;
                self.read_committed(lead.epoch);
            }
        }
    }

    /// Nothing of the source had ever been committed when this node looked. Without a commit's time to go by, the
    /// follower would take what it hears until it first looks again for billed and forgotten.
    fn compare_with_nothing(&mut self) {
        let nothing: [(Table, u64, &[u8]); 0] = [];
        if let Err(error) = self.reducer.confirm(self.watch.now(), nothing) {
            error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
        }
    }

    /// Opens the listener of a `direct` source.
    pub(crate) async fn listen(&mut self, current: &mut LoopState) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        leading.listen_again_at = None;
        let Some(listening) = self.sharing.as_mut().and_then(|s| s.listening.as_mut()) else {
            return;
        };
        let (clock, signals) = (Arc::clone(&listening.clock), listening.signals.clone());
        let starting = listening.config.clone().start(clock, signals);
        match self.wait(current, starting).await {
            Ok(handle) => {
                if let Some(listening) = self.sharing.as_mut().and_then(|s| s.listening.as_mut()) {
                    listening.handle = Some(handle);
                }
            }
            Err(error) => {
                error!(source = %self.telemetry.name(), %error, "leads the source and cannot listen; tried again");
                self.telemetry.deaf(self.watch.now(), error.to_string());
                if let Role::Leader(leading) = &mut self.role {
                    leading.listen_again_at = Some(Instant::now() + AGAIN * 2);
                }
            }
        }
    }

    /// Another node leads, or may: what was not committed is not this node's to emit any more.
    pub(crate) async fn follow(&mut self, current: &mut LoopState) {
        let Some(committing) = self.role.committing_mut() else {
            return;
        };
        let mut following = Following::new();
        following.gaps = committing.take_gaps();
        self.role = Role::Follower(following);
        if let Some(tap) = current.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        let listening = self.sharing.as_mut().and_then(|s| s.listening.as_mut());
        if let Some(handle) = listening.and_then(|l| l.handle.take()) {
            self.wait(current, handle.stop()).await;
        }
        if let Some(control) = &self.control {
            control.take_snapshots(false);
        }
        self.reducer.follow(current.committed);
        self.telemetry.role(health::Role::Follower);
        info!(source = %self.telemetry.name(), "follows the source");
    }

    /// A process that was stopped past its lease finds out before it does anything else: what others have done
    /// meanwhile it does not know.
    pub(crate) async fn follow_if_over(&mut self, current: &mut LoopState) {
        let Some(over) = self.sharing.as_ref().map(|s| s.validity.is_over()) else {
            return;
        };
        if over && matches!(&self.role, Role::Leader(_)) {
            self.follow(current).await;
            current.role_again_at = Some(Instant::now() + AGAIN);
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
    pub(crate) async fn leave_if_done(&mut self, current: &mut LoopState) {
        let Role::Leader(leading) = &self.role else { return };
        if !leading.leaving || !leading.saved_last || leading.committing.has_a_commit() {
            return;
        }
        let epoch = leading.epoch;
        self.follow(current).await;
        self.give_back(epoch);
    }

    fn give_back(&self, epoch: Epoch) {
        if let Some(sharing) = &self.sharing {
            // A member that has ended gives all back itself.
            let _ = sharing.give_back.send((LeaseName::Source(self.id), epoch));
        }
    }
}
