//! What the reducer learns of blocks, and what controls ask of the source.

use super::SourceTask;
use crate::engine::{
    enforce::{Ask, Heard, Recorded},
    role::Role,
};

impl SourceTask {
    /// Blocks, or a question of a control's.
    pub(crate) fn enforce(&mut self, heard: Heard) {
        match heard {
            Heard::Blocks => self.take_blocks(),
            Heard::Asked(Ask::Again) => self.reducer.look_for_blocked(),
            Heard::Asked(Ask::Not(to_end)) => self.reducer.not_ending(&to_end),
            Heard::Asked(Ask::May(to_end, reply)) => {
                // Whoever has lost the lease has no say any more, however lately.
                let may = self.may_act() && {
                    let at = self.reducer.now();
                    // The reducer's time stands still while there is nothing to do.
                    let behind = self.watch.now().since(at);
                    let confirm = self.enforcing.confirm.saturating_add(behind);
                    self.reducer.ending(at, &to_end, confirm)
                };
                if may {
                    self.enforcing.recording.add(to_end, reply);
                } else {
                    // A control that has given up waiting does nothing.
                    let _ = reply.send(false);
                }
            }
            Heard::Overdue => {
                for asked in self.enforcing.recording.overdue() {
                    self.may_say(asked);
                }
            }
        }
        self.hand_over();
    }

    /// What was to be on record before it is said is that now.
    pub(crate) fn on_record(&mut self) {
        for asked in self.enforcing.recording.recorded() {
            self.may_say(asked);
        }
    }

    /// The control has the say, if all is still as it was.
    fn may_say(&mut self, Recorded { to_end, reply }: Recorded) {
        let may = self.may_act() && self.reducer.saying(&to_end);
        if reply.send(may).is_err() || !may {
            self.reducer.not_ending(&to_end);
        }
    }

    fn may_act(&self) -> bool {
        match &self.role {
            Role::Alone(_) => true,
            Role::Follower(_) => false,
            Role::Leader(leading) => {
                !leading.leaving && !self.sharing.as_ref().is_none_or(|s| s.validity.is_over())
            }
        }
    }

    /// Gives the reducer who is blocked; also after a takeover, since the one that comes out of it knows of nobody.
    pub(crate) fn take_blocks(&mut self) {
        let active = self.enforcing.active.borrow_and_update().clone();
        let at = self.reducer.now();
        self.reducer.set_blocks(at, active.blocks);
        for (id, session, reason) in active.ends.iter() {
            if *id > self.enforcing.ends_done {
                self.reducer.end_session(at, *session, reason);
                if !self.role.follows() {
                    self.enforcing.ends_done = *id;
                }
            }
        }
    }

    /// Hands what is to be ended to the controls.
    pub(super) fn hand_over(&mut self) {
        let now = self.watch.now();
        self.enforcing
            .hand_over(&mut self.reducer, now, self.telemetry.name());
    }
}
