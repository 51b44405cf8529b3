//! Outcomes that are not on record yet. A page that is read meanwhile may say what was before them: reads do not wait for
//! writes.

use std::collections::HashMap;

use bytes::Bytes;
use turnhook_reducer::{event::SessionId, outbox::DeliveryId, time::Timestamp};

use crate::queued::Queued;

/// An outcome of a delivery that is being recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    delivery: DeliveryId,
    number: u64,
}

/// What a delivery is after its outcome.
#[derive(Clone, Debug)]
pub(super) enum After {
    /// Done or dead. The session, where the delivery was read from the newest end.
    Over(Option<SessionId>),
    /// Pending as before, but for these.
    Pending {
        attempts: u32,
        began_at: Option<Timestamp>,
        due_at: Option<Timestamp>,
        sent: Option<Bytes>,
    },
}

impl After {
    pub(super) fn pending(queued: &Queued) -> After {
        After::Pending {
            attempts: queued.attempts,
            began_at: queued.began_at,
            due_at: queued.due_at,
            sent: queued.sent.clone(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    after: After,
    /// A row was left out by it.
    hid: bool,
}

#[derive(Debug, Default)]
pub(super) struct Unwritten {
    entries: HashMap<DeliveryId, Entry>,
    last: Option<Mark>,
    /// Since the read under way began: what was recorded meanwhile, which the page may have missed.
    recorded: Option<HashMap<DeliveryId, After>>,
}

/// What follows from a record.
pub(super) struct Recorded {
    /// A row was left out by it that was perhaps queued again since: to be read once more.
    pub(super) read_from: Option<DeliveryId>,
    /// The session of one that was read from the newest end: what comes next in it can be read from now on.
    pub(super) next_of: Option<SessionId>,
}

impl Unwritten {
    pub(super) fn reported(&mut self, delivery: DeliveryId, after: After) {
        let number = self.last.map_or(0, |last| last.number + 1);
        self.last = Some(Mark { delivery, number });
        let entry = Entry {
            number,
            after,
            hid: false,
        };
        self.entries.insert(delivery, entry);
    }

    /// That of the outcome that was reported last.
    pub(super) fn last(&self) -> Option<Mark> {
        self.last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains(&self, delivery: DeliveryId) -> bool {
        self.entries.contains_key(&delivery)
    }

    /// It is on record. Nothing follows where there is a later outcome of the same delivery.
    pub(super) fn recorded(&mut self, mark: Mark) -> Option<Recorded> {
        let is_last = |entry: &Entry| entry.number == mark.number;
        if !self.entries.get(&mark.delivery).is_some_and(is_last) {
            return None;
        }
        let entry = self.entries.remove(&mark.delivery)?;
        let next_of = match entry.after {
            After::Over(session) => session,
            After::Pending { .. } => None,
        };
        if let Some(recorded) = &mut self.recorded {
            recorded.insert(mark.delivery, entry.after);
        }
        Some(Recorded {
            read_from: entry.hid.then_some(mark.delivery),
            next_of,
        })
    }

    /// A page is asked for.
    pub(super) fn read_begins(&mut self) {
        self.recorded = Some(HashMap::new());
    }

    /// It has come: rows that are over are left out, the others say what their outcomes came to. The lowest that was left
    /// out by an outcome that is on record by now, to be read once more: somebody may have queued it again.
    pub(super) fn corrects(&mut self, rows: &mut Vec<Queued>) -> Option<DeliveryId> {
        let recorded = self.recorded.take().unwrap_or_default();
        let mut once_more: Option<DeliveryId> = None;
        rows.retain_mut(|row| {
            let entry = self.entries.get_mut(&row.id);
            let hid = entry.is_some();
            let Some(after) = (match entry {
                Some(entry) => {
                    entry.hid |= matches!(entry.after, After::Over(_));
                    Some(&entry.after)
                }
                None => recorded.get(&row.id),
            }) else {
                return true;
            };
            match after {
                After::Over(_) => {
                    if !hid {
                        once_more = Some(once_more.map_or(row.id, |id| id.min(row.id)));
                    }
                    false
                }
                After::Pending {
                    attempts,
                    began_at,
                    due_at,
                    sent,
                } => {
                    row.attempts = *attempts;
                    row.sent.clone_from(sent);
                    (row.began_at, row.due_at) = (*began_at, *due_at);
                    true
                }
            }
        });
        once_more
    }
}
