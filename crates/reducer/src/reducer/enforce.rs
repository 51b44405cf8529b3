//! Blocked users: which allocations are to be ended, and which ends were asked for. Who is blocked is handed in anew
//! after a start, and so is what follows from it. State that is kept is alone that an end was asked for, and why:
//! coturn's stream does not say who ended an allocation, and whoever asked may not live to hear of it.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Reducer;
use crate::{
    allocation::{Cut, Dirty},
    block::{AllocationRef, Blocks, Order, ToEnd},
    event::{CloseReason, SessionId},
    flags::Flags,
    session::Session,
    time::Timestamp,
};

/// So many places are looked at in a step.
const LOOKED_AT: usize = 8;

impl Reducer {
    /// Who is blocked from now on: in the place of the list before. All open allocations of theirs are to be ended:
    /// [`Reducer::look_on`] names them.
    pub fn set_blocks(&mut self, at: Timestamp, blocks: Arc<Blocks>) {
        self.begin_beside(at);
        self.enforcing.blocks = blocks;
        self.look_for_blocked();
    }

    /// All open allocations of blocked users are to be named once more, for whoever could not end them.
    pub fn look_for_blocked(&mut self) {
        if !self.enforcing.blocks.is_empty() && !self.is_following() {
            self.enforcing.look.blocked = true;
            self.look_all_round();
        }
    }

    /// The open allocations of a session are to be ended: [`Reducer::look_on`] names them.
    pub fn end_session(&mut self, at: Timestamp, session: SessionId, reason: &Arc<str>) {
        self.begin_beside(at);
        if !self.is_following() {
            let look = &mut self.enforcing.look;
            look.sessions.insert(session, Arc::clone(reason));
            self.look_all_round();
        }
    }

    fn look_all_round(&mut self) {
        let places = self.allocations.capacity();
        self.enforcing.look.left = places;
        self.enforcing.look.places = places;
    }

    /// An open allocation is about to leave its session. Where that one is to be ended, a look would not find it any more.
    pub(crate) fn end_if_asked(&mut self, session: u32, slot: u32) {
        if self.enforcing.look.sessions.is_empty() {
            return;
        }
        let id = self.sessions.get(session as usize).map(|s| s.id);
        if let Some(id) = id
            && let Some(reason) = self.enforcing.look.sessions.get(&id).cloned()
        {
            self.name_to_end(slot, Order::Session(id), reason);
        }
    }

    /// Names allocations that are to be ended, as far as about `steps` steps of some microseconds each go. Whether there
    /// is more to be looked at; anything may be handed in before that.
    pub fn look_on(&mut self, steps: usize) -> bool {
        let places = self.allocations.capacity();
        let mut look = std::mem::take(&mut self.enforcing.look);
        if self.is_following() {
            return false;
        }
        if look.left > 0 {
            look.left += places.saturating_sub(look.places);
            look.places = places;
        }
        // Many allocations have one name, and the pattern takes its time.
        let mut names: HashMap<u32, bool> = HashMap::new();
        let part = look.left.min(steps.saturating_mul(LOOKED_AT));
        for _ in 0..part {
            let slot = look.next;
            look.next = if (slot as usize) + 1 < places { slot + 1 } else { 0 };
            let Some((name, session)) = self.allocation(slot).map(|a| (a.name, a.session)) else {
                continue; // a place that none has
            };
            if !look.sessions.is_empty()
                && let Some(id) = self.sessions.get(session as usize).map(|s| s.id)
                && let Some(reason) = look.sessions.get(&id)
            {
                self.name_to_end(slot, Order::Session(id), Arc::clone(reason));
            }
            if !look.blocked {
                continue;
            }
            let blocked = *names.entry(name).or_insert_with(|| self.blocked(name).is_some());
            if blocked {
                self.end_if_blocked(slot);
            }
        }
        look.left -= part;
        if look.left > 0 {
            self.enforcing.look = look;
        }
        self.is_looking()
    }

    /// Whether there is more to be looked at.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        self.enforcing.look.left > 0
    }

    /// Takes the allocations that are to be ended. One that could not be is named again with its next refresh.
    pub fn take_to_end(&mut self) -> Vec<ToEnd> {
        std::mem::take(&mut self.enforcing.to_end)
    }

    /// Takes those that have closed after [`Reducer::saying`], in time.
    pub fn take_ended(&mut self) -> Vec<AllocationRef> {
        std::mem::take(&mut self.enforcing.ended)
    }

    /// Somebody is about to end an allocation, once that is on record or cannot wait for it any longer: its row says so
    /// from now on. False if it must not be ended any more: it has closed, or its user is blocked no longer.
    pub fn ending(&mut self, at: Timestamp, to_end: &ToEnd, confirm: u64) -> bool {
        self.begin_beside(at);
        if !self.may_end(to_end) {
            return false;
        }
        let slot = to_end.allocation.slot;
        let cut = Cut {
            at: self.now,
            until: self.now.plus(confirm),
            reason: Arc::clone(&to_end.reason),
        };
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("an open allocation that is gone is ended");
            return false;
        };
        a.rare().cut = Some(Box::new(cut));
        self.enforcing.unsaid.insert(slot);
        self.mark(slot, Dirty::Hard);
        true
    }

    /// It is asked for now: its close within the time that [`Reducer::ending`] was given is that end. False as there.
    pub fn saying(&mut self, to_end: &ToEnd) -> bool {
        let may = self.may_end(to_end);
        if may {
            self.enforcing.unsaid.remove(&to_end.allocation.slot);
        } else {
            self.not_ending(to_end);
        }
        may
    }

    /// It could not be asked for: a close is whosever it is.
    pub fn not_ending(&mut self, to_end: &ToEnd) {
        let slot = to_end.allocation.slot;
        if !self.is_open(to_end) {
            return;
        }
        self.enforcing.unsaid.remove(&slot);
        let rare = self
            .allocations
            .get_mut(slot as usize)
            .and_then(|a| a.rare.as_mut());
        if rare.is_some_and(|rare| rare.cut.take().is_some()) {
            self.mark(slot, Dirty::Hard);
        }
    }

    fn may_end(&self, to_end: &ToEnd) -> bool {
        let name = self.allocation(to_end.allocation.slot).map(|a| a.name);
        let is_meant = match to_end.order {
            Order::Block => name.is_some_and(|name| self.blocked(name).is_some()),
            Order::Session(_) => true,
        };
        let is_open = self.to_be_ended(to_end.allocation.slot) == Some(to_end.allocation);
        is_meant && is_open && !self.is_following()
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self, to_end: &ToEnd) -> bool {
        self.reference(to_end.allocation.slot) == Some(to_end.allocation)
    }

    /// A status of an open allocation was heard.
    pub(crate) fn end_if_blocked(&mut self, slot: u32) -> bool {
        if self.enforcing.blocks.is_empty() || self.is_following() {
            return false;
        }
        let name = self.allocation(slot).map(|a| a.name);
        let Some(reason) = name.and_then(|name| self.blocked(name)) else {
            return false; // nobody blocks its user
        };
        self.name_to_end(slot, Order::Block, reason);
        true
    }

    fn blocked(&self, name: u32) -> Option<Arc<str>> {
        let user = self.rules.user(self.names.username(name))?;
        self.enforcing
            .blocks
            .reason(self.names.realm(name), user)
            .cloned()
    }

    /// An allocation that is open, and not about to be deleted by its own client.
    fn reference(&self, slot: u32) -> Option<AllocationRef> {
        let a = self.allocation(slot)?;
        (!a.flags.intersects(Flags::GONE)).then(|| AllocationRef {
            slot,
            id: a.id,
            opened_at: a.opened_at.get(),
            twin: a.twin(),
        })
    }

    /// The same, where somebody is to end it: not if it is over with its server, and merely waits to be ended for that.
    fn to_be_ended(&self, slot: u32) -> Option<AllocationRef> {
        let a = self.allocation(slot)?;
        let is_over = self.ending.iter().any(|job| job.ends(a));
        self.reference(slot).filter(|_| !is_over)
    }

    fn name_to_end(&mut self, slot: u32, order: Order, reason: Arc<str>) {
        let (Some(allocation), Some(a)) = (self.to_be_ended(slot), self.allocation(slot)) else {
            return; // its client, or the end of its server, ends it already
        };
        let to_end = ToEnd {
            allocation,
            order,
            reason,
            id: a.id,
            username: self.names.username(a.name).into(),
            realm: self.names.realm(a.name).into(),
            client_address: a.remote.to_text(),
            server_address: self.labels.owned(self.labels.set(a.labels).local),
            opened_at: a.flags.contains(Flags::OPENED_SEEN).then(|| a.opened_at.get()),
        };
        self.enforcing.to_end.push(to_end);
    }

    /// Why an allocation closes of which `deleted` was heard.
    pub(crate) fn close_reason(&mut self, slot: u32) -> CloseReason {
        let now = self.now;
        match self.asked(slot).filter(|cut| now <= cut.until) {
            Some(cut) => self.cut_off(slot, &cut),
            None => CloseReason::Closed,
        }
    }

    /// When an allocation was cut off that is found to be over by `closed_at`, and of which nothing was heard after its
    /// end had been asked for: whoever asked was killed before it heard of that end. `None` if it lasted longer.
    pub(crate) fn cut_unheard(
        &mut self,
        slot: u32,
        closed_at: Timestamp,
    ) -> Option<(Timestamp, CloseReason)> {
        let heard_at = self.allocation(slot)?.heard_at.get();
        let cut = self.asked(slot)?;
        if heard_at > cut.until || closed_at <= cut.until {
            return None;
        }
        let session = self.allocation(slot)?.session;
        // Events of its session stand: it lasted as long.
        let last_event_at = self.sessions.get(session as usize).map(|s| s.last_event_at.get());
        let over = cut
            .at
            .max(heard_at)
            .max(last_event_at.unwrap_or_default())
            .min(closed_at);
        Some((over, self.cut_off(slot, &cut)))
    }

    /// That the end of an open allocation was asked for of coturn.
    fn asked(&self, slot: u32) -> Option<Cut> {
        self.reference(slot)?;
        let cut = self.allocation(slot)?.rare.as_ref()?.cut.as_deref()?;
        (!self.enforcing.unsaid.contains(&slot)).then(|| cut.clone())
    }

    fn cut_off(&mut self, slot: u32, cut: &Cut) -> CloseReason {
        let session = self.allocation(slot).map(|a| a.session);
        if let Some(session) = session
            && let Some(s) = self.sessions.get_mut(session as usize)
        {
            // Whoever blocked him may unblock him before the session's end is emitted, by this program or by the next.
            s.former_mut().block_reason = Some(Arc::clone(&cut.reason));
            self.mark_session(session);
        }
        self.enforcing.ended.extend(self.reference(slot));
        CloseReason::Cancelled
    }

    /// Its place may be taken by another one.
    pub(crate) fn forget_asked(&mut self, slot: u32) {
        self.enforcing.unsaid.remove(&slot);
    }

    /// Why a session was cut off. Of one that an earlier program kept, what is said of its user now.
    pub(crate) fn block_reason(&self, s: &Session) -> Option<Arc<str>> {
        let known = s.former().block_reason.clone();
        known.or_else(|| self.blocked(s.first_name))
    }
}
