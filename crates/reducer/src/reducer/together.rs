//! Messages that are looked up together. With a million allocations open nearly each message waits for memory three times:
//! for the index, the allocation and its session. What one message waits for does not depend on the message before it, so
//! the processor waits for many at once if it meets them in a row, and what is then decided finds all of it in the cache.

use std::hint::black_box;

use super::{Reducer, ServerRef};
use crate::{
    intern::NONE,
    key::Key,
    message::{AllocationId, Message},
    time::Timestamp,
};

/// Messages that are looked up together at most: what they speak of fits into the first cache.
pub const TOGETHER: usize = 32;
/// So many allocations are in a cache anyhow.
const CACHED: usize = if cfg!(test) { 2 } else { 4096 };

impl Reducer {
    /// Takes messages of one server that were received at `at`, in order: the same as [`Reducer::message`] for each of
    /// them, but faster with many allocations open. [`TOGETHER`] or a multiple of it is a good number.
    pub fn messages(&mut self, at: Timestamp, server: ServerRef, messages: &[Message<'_>]) {
        for few in messages.chunks(TOGETHER) {
            let mut hashes = [0; TOGETHER];
            let mut before: Option<(AllocationId, &[u8])> = None;
            let mut hash = 0;
            for (message, place) in few.iter().zip(&mut hashes) {
                // The halves of a report come one after the other.
                if before.replace((message.id, message.username)) != Some((message.id, message.username)) {
                    hash = self.hash(server.0, message.id, message.username);
                }
                *place = hash;
            }
            if self.allocations.len() > CACHED {
                self.meet(hashes.get(..few.len()).unwrap_or_default());
            }
            for (message, hash) in few.iter().zip(hashes) {
                let (realm, username) = (message.realm, message.username);
                let key = Key::with_hash(server.0, message.id, realm, username, hash);
                self.take(at, &key, message.kind);
            }
        }
    }

    /// Reads a little of all that messages with these hashes speak of. Nothing is decided by it: what is not there, or is
    /// another's, is left to the look-up proper.
    fn meet(&self, hashes: &[u64]) {
        let mut slots = [NONE; TOGETHER];
        let mut before = None;
        for (hash, slot) in hashes.iter().zip(&mut slots) {
            if before.replace(*hash) != Some(*hash) {
                *slot = self.allocation_table.find(*hash, |_| true).unwrap_or(NONE);
            }
        }
        for slot in &mut slots {
            *slot = self.allocation(*slot).map_or(NONE, |a| a.session);
        }
        let met = slots.iter().map(|session| {
            let session = self.sessions.get(*session as usize);
            session.map_or(0, |s| s.met())
        });
        // What is read is to be read, though nobody asks what it says.
        black_box(met.fold(0, u64::wrapping_add));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Identity,
        message::{Kind, Leg, Status},
        rules::Rules,
        usage::Counters,
    };

    /// Lives one after the other under few numbers, so that what is looked up beforehand is opened, ended and another's by
    /// the time that its message is taken.
    #[test]
    fn together_comes_to_the_same_as_one_by_one() {
        let counters = |n: u64| Counters {
            received_packets: n,
            received_bytes: 1000 * n,
            sent_packets: n,
            sent_bytes: 1000 * n,
        };
        let names: Vec<String> = (0..7).map(|n| format!("user{n}")).collect();
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut all: Vec<Message<'_>> = Vec::new();
        for _ in 0..4_000 {
            let n = next(7);
            let kinds: &[Kind<'_>] = match next(8) {
                0 | 1 => &[Kind::New(Status {
                    lifetime: 600,
                    ..Status::default()
                })],
                2 => &[
                    Kind::Deleted,
                    Kind::TotalTraffic(Leg::Client, counters(90)),
                    Kind::TotalTraffic(Leg::Peer, counters(90)),
                ],
                3 => &[Kind::Refreshed(Status {
                    lifetime: 600,
                    ..Status::default()
                })],
                _ => &[
                    Kind::Traffic(Leg::Client, counters(3)),
                    Kind::Traffic(Leg::Peer, counters(3)),
                ],
            };
            let realm: &[u8] = if next(9) == 0 {
                b"other.org"
            } else {
                b"example.org"
            };
            all.extend(kinds.iter().map(|kind| Message {
                realm,
                username: names[n as usize].as_bytes(),
                id: AllocationId(1 + n % 3),
                kind: *kind,
            }));
        }
        let play = |together: bool| {
            let identity = Identity {
                store: [7; 16],
                source: "test".into(),
            };
            let mut reducer = Reducer::new(identity, Rules::default());
            reducer.hearing(Timestamp(0));
            let mut outputs = Vec::new();
            for (n, some) in all.chunks(75).enumerate() {
                let at = Timestamp(1_000 * n as u64);
                if together {
                    reducer.messages(at, ServerRef::UNKNOWN, some);
                } else {
                    for message in some {
                        reducer.message(at, ServerRef::UNKNOWN, message);
                    }
                }
                outputs.push(format!("{:?}", reducer.drain(true)));
            }
            (outputs, format!("{:?}", reducer.stats()))
        };
        let (one_by_one, together) = (play(false), play(true));
        assert_eq!(one_by_one, together);
        assert!(one_by_one.0.iter().any(|output| output.contains("End")));
    }
}
