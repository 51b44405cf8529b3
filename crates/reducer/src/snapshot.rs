//! Status keys that a snapshot refused to believe, with the time at which coturn last touched them:
//! reading a key makes it look fresh (TRAPS.md, trap 21), so the first look is the one that counts.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{internal::InternalErrors, message::AllocationId, time::Timestamp};

/// How many are remembered; past that the oldest is forgotten first.
const MOST: usize = 100_000;

/// Realm, username, allocation.
pub(crate) type RefusedKey = (Box<[u8]>, Box<[u8]>, AllocationId);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedAt {
    /// When coturn last touched it.
    pub(crate) touched_at: Timestamp,
    /// When we last read it, which is the last touch that the server knows of.
    pub(crate) read_at: Timestamp,
    pub(crate) row: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Refused {
    keys: BTreeMap<RefusedKey, RefusedAt>,
    order: VecDeque<(u64, RefusedKey)>,
    next_row: u64,
    /// Rows to write or to remove.
    changed: Vec<(u64, Option<RefusedKey>)>,
}

impl Refused {
    pub(crate) fn get(&self, key: &RefusedKey) -> Option<RefusedAt> {
        self.keys.get(key).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RefusedKey, RefusedAt)> {
        self.keys.iter().map(|(key, refused)| (key, *refused))
    }

    pub(crate) fn insert(
        &mut self,
        key: RefusedKey,
        touched_at: Timestamp,
        read_at: Timestamp,
        errors: &InternalErrors,
    ) {
        self.remove(&key);
        while self.keys.len() >= MOST {
            let Some((row, oldest)) = self.order.pop_front() else {
                errors.broken("refused keys without an oldest");
                break;
            };
            if self.keys.get(&oldest).is_some_and(|r| r.row == row) {
                self.remove(&oldest);
            }
        }
        let row = self.next_row;
        self.restore(
            key.clone(),
            RefusedAt {
                touched_at,
                read_at,
                row,
            },
        );
        self.changed.push((row, Some(key)));
        if self.order.len() > 2 * MOST {
            let keys = &self.keys;
            self.order
                .retain(|(row, key)| keys.get(key).is_some_and(|r| r.row == *row));
        }
    }

    pub(crate) fn restore(&mut self, key: RefusedKey, refused: RefusedAt) {
        self.next_row = self.next_row.max(refused.row + 1);
        self.order.push_back((refused.row, key.clone()));
        self.keys.insert(key, refused);
    }

    /// The rows to write or to remove, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<(u64, Option<RefusedKey>)> {
        let mut rows = std::mem::take(&mut self.changed);
        rows.sort();
        rows
    }

    pub(crate) fn forget_changes(&mut self) {
        self.changed.clear();
    }

    pub(crate) fn remove(&mut self, key: &RefusedKey) {
        if let Some(old) = self.keys.remove(key) {
            self.changed.push((old.row, None));
        }
    }
}
