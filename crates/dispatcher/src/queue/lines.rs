//! The deliveries of one endpoint that are known in memory, a line for each ordering key (a session, or a customer of a
//! billing product): only the head of a line (its lowest sequence) can be claimed, and one at a time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use turnhook_reducer::{event::SessionId, outbox::DeliveryId, time::Timestamp};

use crate::queued::Queued;

/// A delivery that is due later than this, in milliseconds, leaves its body to the outbox.
const KEEP_BODY: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: HashMap<SessionId, Line>,
    known: HashMap<DeliveryId, SessionId>,
    /// Lines whose head is due, in order: those of the backlog, and those read from its newest end.
    ready: [VecDeque<SessionId>; 2],
    /// Which of the two is served next, where both have work.
    next_end: usize,
    waiting: BTreeSet<(Timestamp, SessionId)>,
    /// Heads that are due and whose rows have to be read.
    due_rows: VecDeque<DeliveryId>,
    counts: Counts,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Deliveries with their bodies, those under way included.
    pub(super) bodies: usize,
    /// The bodies' bytes.
    pub(super) bytes: usize,
    /// Deliveries whose bodies are in the outbox alone.
    pub(super) stubs: usize,
    /// Those of `bodies` that were read from the newest end.
    pub(super) newest: usize,
}

#[derive(Debug, Default)]
struct Line {
    /// By sequence, then id.
    slots: VecDeque<Slot>,
    place: Place,
    /// How many of them are under way.
    out: usize,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Ready,
    Waiting(Timestamp),
    /// One of its deliveries is under way.
    Busy,
    /// Its head's row is being read.
    Asked,
}

#[derive(Debug)]
struct Slot {
    id: DeliveryId,
    sequence: u32,
    due: Timestamp,
    newest: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Here(Box<Queued>),
    /// Under way: so many bytes of body.
    Out(usize),
    /// In the outbox alone.
    Stored,
    /// Being read from there.
    Asked,
}

impl Lines {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The ids of all that are known.
    pub(super) fn ids(&self) -> Vec<DeliveryId> {
        self.known.keys().copied().collect()
    }

    pub(super) fn knows(&self, id: DeliveryId) -> bool {
        self.known.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Adds a delivery that is not known yet; `newest` says that it was read from the newest end.
    pub(super) fn insert(&mut self, delivery: Queued, newest: bool, now: Timestamp) {
        let session = delivery.ordering_key;
        // One that is read again may say another line, by a map of customers that has changed: it stays where it is.
        if self.known.contains_key(&delivery.id) {
            return;
        }
        self.known.insert(delivery.id, session);
        let due = delivery.due_at.unwrap_or_default();
        let (id, sequence) = (delivery.id, delivery.sequence);
        let content = if due.since(now) > KEEP_BODY {
            Content::Stored
        } else {
            Content::Here(Box::new(delivery))
        };
        self.counts.add(&content, newest);
        let slots = &mut self.lines.entry(session).or_default().slots;
        // Nearly always the last.
        let at = slots.partition_point(|slot| (slot.sequence, slot.id) < (sequence, id));
        slots.insert(
            at,
            Slot {
                id,
                sequence,
                due,
                newest,
                content,
            },
        );
        self.settle(session, now);
    }

    /// Makes what has fallen due ready.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(&(due, session)) = self.waiting.first()
            && due <= now
        {
            self.settle(session, now);
        }
    }

    /// Makes the line that waits for the shortest time ready.
    pub(super) fn hasten_one(&mut self, now: Timestamp) {
        if let Some(&(_, session)) = self.waiting.first() {
            self.hasten_line(session, now);
        }
    }

    /// Makes all that wait ready.
    pub(super) fn hasten_all(&mut self, now: Timestamp) {
        while let Some(&(_, session)) = self.waiting.first() {
            self.hasten_line(session, now);
        }
    }

    fn hasten_line(&mut self, session: SessionId, now: Timestamp) {
        if let Some(head) = self
            .lines
            .get_mut(&session)
            .and_then(|line| line.slots.front_mut())
        {
            head.due = head.due.min(now);
        }
        self.settle(session, now);
    }

    /// Whether a head with its body is due.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|queue| !queue.is_empty())
    }

    /// When the next head falls due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.waiting.first().map(|&(due, _)| due)
    }

    /// Takes the head that is next; its line is busy until it comes back.
    pub(super) fn claim(&mut self) -> Option<Queued> {
        loop {
            let queue = if self.ready[self.next_end].is_empty() {
                1 - self.next_end
            } else {
                self.next_end
            };
            let session = self.ready[queue].pop_front()?;
            // Entries may be stale: lines move on without looking for theirs.
            let Some(line) = self.lines.get_mut(&session) else {
                continue;
            };
            if line.place != Place::Ready {
                continue;
            }
            let Some(head) = line.slots.front_mut() else {
                continue;
            };
            let Content::Here(delivery) = std::mem::replace(&mut head.content, Content::Stored) else {
                continue;
            };
            head.content = Content::Out(delivery.body.len());
            line.place = Place::Busy;
            line.out += 1;
            self.next_end = 1 - queue;
            return Some(*delivery);
        }
    }

    /// Takes the one that follows those that are under way from a line, for the same request.
    pub(super) fn claim_more(&mut self, session: SessionId, now: Timestamp) -> Option<Queued> {
        let line = self.lines.get_mut(&session)?;
        let mut rest = line.slots.iter_mut();
        let next = rest.find(|slot| !matches!(slot.content, Content::Out(_)))?;
        if next.due > now || !matches!(next.content, Content::Here(_)) {
            return None;
        }
        let Content::Here(delivery) = std::mem::replace(&mut next.content, Content::Stored) else {
            return None;
        };
        next.content = Content::Out(delivery.body.len());
        line.out += 1;
        Some(*delivery)
    }

    /// About how many lines have a head that is due.
    pub(super) fn ready(&self) -> usize {
        self.ready.iter().map(VecDeque::len).sum()
    }

    /// Makes a delivery due.
    pub(super) fn hasten(&mut self, id: DeliveryId, now: Timestamp) {
        let Some(session) = self.known.get(&id).copied() else {
            return;
        };
        let line = self.lines.get_mut(&session);
        if let Some(slot) = line.and_then(|line| line.slots.iter_mut().find(|slot| slot.id == id)) {
            slot.due = slot.due.min(now);
        }
        self.settle(session, now);
    }

    /// Forgets a delivery that nobody wants sent any longer, unless it is under way.
    pub(super) fn withdraw(&mut self, id: DeliveryId, now: Timestamp) {
        let line = self.known.get(&id).and_then(|session| self.lines.get(session));
        let slot = line.and_then(|line| line.slots.iter().find(|slot| slot.id == id));
        if slot.is_some_and(|slot| !matches!(slot.content, Content::Out(_))) {
            self.remove(id, now);
        }
    }

    /// Forgets a delivery: it is done or dead. Whether it was read from the newest end.
    pub(super) fn remove(&mut self, id: DeliveryId, now: Timestamp) -> bool {
        let Some(session) = self.known.remove(&id) else {
            return false;
        };
        let Some(line) = self.lines.get_mut(&session) else {
            return false;
        };
        let mut newest = false;
        if let Some(at) = line.slots.iter().position(|slot| slot.id == id)
            && let Some(slot) = line.slots.remove(at)
        {
            line.out -= usize::from(matches!(slot.content, Content::Out(_)));
            self.counts.subtract(&slot);
            newest = slot.newest;
        }
        self.settle(session, now);
        newest
    }

    /// A claimed delivery comes back, to be tried again when it is due. Its body is kept unless that is
    /// far away, or `spare` asks to save memory.
    pub(super) fn give_back(&mut self, delivery: Queued, due: Timestamp, spare: bool, now: Timestamp) {
        let session = delivery.ordering_key;
        let Some(line) = self.lines.get_mut(&session) else {
            return;
        };
        let Some(slot) = line.slots.iter_mut().find(|slot| slot.id == delivery.id) else {
            return;
        };
        line.out -= usize::from(matches!(slot.content, Content::Out(_)));
        self.counts.subtract(slot);
        slot.due = due;
        let wait = due.since(now);
        slot.content = if wait > KEEP_BODY || (spare && wait > 0) {
            Content::Stored
        } else {
            Content::Here(Box::new(delivery))
        };
        self.counts.add(&slot.content, slot.newest);
        self.settle(session, now);
    }

    /// Whether all deliveries of this session lie behind `after` in the outbox, so that it can be forgotten.
    pub(super) fn lies_behind(&self, session: SessionId, after: DeliveryId) -> bool {
        self.lines
            .get(&session)
            .is_some_and(|line| line.slots.iter().all(|slot| slot.id > after))
    }

    /// Forgets all deliveries of a session.
    pub(super) fn forget(&mut self, session: SessionId) {
        let Some(line) = self.lines.remove(&session) else {
            return;
        };
        if let Place::Waiting(due) = line.place {
            self.waiting.remove(&(due, session));
        }
        for slot in &line.slots {
            self.known.remove(&slot.id);
            self.counts.subtract(slot);
        }
    }

    /// The ids whose rows have to be read, at most `limit`.
    pub(super) fn take_due_rows(&mut self, limit: usize) -> Vec<DeliveryId> {
        let mut rows = Vec::new();
        while rows.len() < limit
            && let Some(id) = self.due_rows.pop_front()
        {
            if self.is_asked(id) {
                rows.push(id);
            }
        }
        rows
    }

    /// Whether rows have to be read.
    pub(super) fn has_due_rows(&self) -> bool {
        !self.due_rows.is_empty()
    }

    /// The rows could not be read: they are to be asked for again.
    pub(super) fn ask_again(&mut self, ids: Vec<DeliveryId>) {
        self.due_rows.extend(ids);
    }

    fn is_asked(&self, id: DeliveryId) -> bool {
        let line = self.known.get(&id).and_then(|session| self.lines.get(session));
        line.is_some_and(|l| {
            l.slots
                .iter()
                .any(|s| s.id == id && matches!(s.content, Content::Asked))
        })
    }

    /// Rows that were asked for by id: what is not among them is finished or withdrawn.
    pub(super) fn fill(&mut self, asked: &[DeliveryId], rows: Vec<Queued>, now: Timestamp) {
        let found: HashSet<DeliveryId> = rows.iter().map(|row| row.id).collect();
        for id in asked.iter().filter(|id| !found.contains(id)) {
            if self.is_asked(*id) {
                self.remove(*id, now);
            }
        }
        for mut row in rows {
            if !self.is_asked(row.id) {
                continue;
            }
            // By a map of customers that has changed meanwhile it would be in another line, where nobody waits for it.
            let Some(session) = self.known.get(&row.id).copied() else {
                continue;
            };
            row.ordering_key = session;
            let Some(line) = self.lines.get_mut(&session) else {
                continue;
            };
            let Some(slot) = line.slots.iter_mut().find(|slot| slot.id == row.id) else {
                continue;
            };
            self.counts.subtract(slot);
            slot.content = Content::Here(Box::new(row));
            self.counts.add(&slot.content, slot.newest);
            self.settle(session, now);
        }
    }

    /// Puts a line where it belongs after any change to it.
    fn settle(&mut self, session: SessionId, now: Timestamp) {
        let Some(line) = self.lines.get_mut(&session) else {
            return;
        };
        if let Place::Waiting(due) = line.place {
            self.waiting.remove(&(due, session));
        }
        let was = line.place;
        let Some(head) = line.slots.front_mut() else {
            self.lines.remove(&session);
            return;
        };
        line.place = if line.out > 0 {
            Place::Busy
        } else if matches!(head.content, Content::Asked) {
            Place::Asked
        } else if head.due > now {
            self.waiting.insert((head.due, session));
            Place::Waiting(head.due)
        } else if matches!(head.content, Content::Here(_)) {
            if was != Place::Ready {
                self.ready[usize::from(head.newest)].push_back(session);
            }
            Place::Ready
        } else {
            head.content = Content::Asked;
            self.due_rows.push_back(head.id);
            Place::Asked
        };
    }
}

impl Counts {
    fn add(&mut self, content: &Content, newest: bool) {
        match content {
            Content::Here(delivery) => self.body(delivery.body.len(), newest),
            Content::Out(bytes) => self.body(*bytes, newest),
            Content::Stored | Content::Asked => self.stubs += 1,
        }
    }

    fn body(&mut self, bytes: usize, newest: bool) {
        self.bodies += 1;
        self.bytes += bytes;
        self.newest += usize::from(newest);
    }

    fn subtract(&mut self, slot: &Slot) {
        let bytes = match &slot.content {
            Content::Here(delivery) => delivery.body.len(),
            Content::Out(bytes) => *bytes,
            Content::Stored | Content::Asked => {
                self.stubs -= 1;
                return;
            }
        };
        self.bodies -= 1;
        self.bytes -= bytes;
        self.newest -= usize::from(slot.newest);
    }
}
