//! Messages of one connection on their way to the engine: decoded once, by who has just read them, and small.
//!
//! All are kept in one block, so that handing over a thousand of them costs as much as handing over one. Counters,
//! which nearly all of them are, are kept as numbers: in a third of the room of channel and payload, from which both
//! can be written again to the byte. Everything else is kept as it came.

use std::{borrow::Cow, sync::Arc};

use turnhook_reducer::{
    message::{AllocationId, Kind, Leg, Message},
    time::Timestamp,
    usage::Counters,
};

use crate::decode::{Refusal, decode};

/// Messages of one connection, in order, received at one time.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When they were received.
    pub at: Timestamp,
    /// Which server said so (`direct` sources); `None` in `redis` sources, where nobody knows.
    pub server: Option<Arc<[u8]>>,
    block: Vec<u8>,
    count: usize,
}

/// The first byte of each: as it came, with two lengths before it; or counters.
const WHOLE: u8 = 0;
const TRAFFIC: u8 = 1;
const TOTAL: u8 = 2;
const KIND: u8 = 3;
/// Beside the kind of counters.
const PEER: u8 = 4;
const WIDE: u8 = 8;

/// `rcvp=, rcvb=, sentp=, sentb=`
const COUNTERS_TEXT: usize = 28;

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(at: Timestamp, server: Option<Arc<[u8]>>) -> Batch {
        Batch {
            at,
            server,
            block: Vec::new(),
            count: 0,
        }
    }

    /// With room for what a read of so many bytes usually comes to.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Batch {
        self.block.reserve(bytes / 2);
        self
    }

    /// Adds a message.
    #[inline]
    pub fn push(&mut self, channel: &[u8], payload: &[u8]) {
        self.push_decoded(channel, payload, &decode(channel, payload));
    }

    /// Adds a message that was decoded already.
    #[inline]
    pub(crate) fn push_decoded(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        decoded: &Result<Message<'_>, Refusal>,
    ) {
        let kept = decoded
            .as_ref()
            .is_ok_and(|message| self.push_counters(message, payload));
        if !kept {
            self.push_whole(channel, payload);
        }
    }

    /// Lengths beyond u32 cannot occur: frames are bounded far below.
    fn push_whole(&mut self, channel: &[u8], payload: &[u8]) {
        let (Ok(c), Ok(p)) = (u32::try_from(channel.len()), u32::try_from(payload.len())) else {
            return;
        };
        self.block.reserve(9 + channel.len() + payload.len());
        self.block.push(WHOLE);
        self.block.extend_from_slice(&c.to_le_bytes());
        self.block.extend_from_slice(&p.to_le_bytes());
        self.block.extend_from_slice(channel);
        self.block.extend_from_slice(payload);
        self.count += 1;
    }

    /// False where it is something else, or its text could not be written again to the byte.
    #[inline]
    fn push_counters(&mut self, message: &Message<'_>, payload: &[u8]) -> bool {
        let (kind, leg, counters) = match &message.kind {
            Kind::Traffic(leg, counters) => (TRAFFIC, leg, counters),
            Kind::TotalTraffic(leg, counters) => (TOTAL, leg, counters),
            _ => return false,
        };
        let numbers = numbers(counters);
        // Nothing follows them, and none begins with a zero.
        if payload.len() != COUNTERS_TEXT + numbers.iter().map(digits).sum::<usize>() {
            return false;
        }
        let (realm, username) = (message.realm, message.username);
        let (Ok(r), Ok(u)) = (u8::try_from(realm.len()), u16::try_from(username.len())) else {
            return false;
        };
        let peer = if *leg == Leg::Peer { PEER } else { 0 };
        let narrow = numbers.map(u32::try_from);
        let [u0, u1] = u.to_le_bytes();
        self.block.reserve(44 + realm.len() + username.len());
        if let [Ok(a), Ok(b), Ok(c), Ok(d)] = narrow {
            self.block.extend_from_slice(&[kind | peer, r, u0, u1]);
            self.block.extend_from_slice(&message.id.0.to_le_bytes());
            for n in [a, b, c, d] {
                self.block.extend_from_slice(&n.to_le_bytes());
            }
        } else {
            self.block.extend_from_slice(&[kind | peer | WIDE, r, u0, u1]);
            self.block.extend_from_slice(&message.id.0.to_le_bytes());
            for n in numbers {
                self.block.extend_from_slice(&n.to_le_bytes());
            }
        }
        self.block.extend_from_slice(realm);
        self.block.extend_from_slice(username);
        self.count += 1;
        true
    }

    /// Gives back what was reserved in vain.
    pub(crate) fn trim(&mut self) {
        if self.block.capacity() > self.block.len() + self.block.len() / 4 {
            self.block.shrink_to_fit();
        }
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The memory that the batch takes, in bytes: what a bound on the queue counts.
    pub(crate) fn memory(&self) -> usize {
        self.block.capacity() + size_of::<Batch>()
    }

    /// The messages, in order; why each that is not coturn's is passed over.
    pub fn messages(&self) -> impl Iterator<Item = Result<Message<'_>, Refusal>> {
        self.kept().map(|kept| match kept {
            Kept::Whole(channel, payload) => decode(channel, payload),
            Kept::Counters(message) => Ok(message),
        })
    }

    /// Channel and payload of each, as they came.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
        self.kept().map(|kept| match kept {
            Kept::Whole(channel, payload) => (Cow::Borrowed(channel), Cow::Borrowed(payload)),
            Kept::Counters(message) => text(&message),
        })
    }

    fn kept(&self) -> impl Iterator<Item = Kept<'_>> {
        let mut rest = self.block.as_slice();
        std::iter::from_fn(move || {
            let (&tag, _) = rest.split_first()?;
            let (kept, after) = if tag == WHOLE {
                whole(rest)?
            } else {
                counters(tag, rest)?
            };
            rest = after;
            Some(kept)
        })
    }
}

/// One message of a batch.
enum Kept<'a> {
    Whole(&'a [u8], &'a [u8]),
    Counters(Message<'a>),
}

fn whole(rest: &[u8]) -> Option<(Kept<'_>, &[u8])> {
    let (&[_, c0, c1, c2, c3, p0, p1, p2, p3], after) = rest.split_first_chunk::<9>()?;
    let (channel, after) = after.split_at_checked(u32::from_le_bytes([c0, c1, c2, c3]) as usize)?;
    let (payload, after) = after.split_at_checked(u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
    Some((Kept::Whole(channel, payload), after))
}

#[inline]
fn counters(tag: u8, rest: &[u8]) -> Option<(Kept<'_>, &[u8])> {
    let (&[_, r, u0, u1], after) = rest.split_first_chunk::<4>()?;
    let (id, after) = after.split_first_chunk::<8>()?;
    let (numbers, after) = if tag & WIDE == 0 {
        let (narrow, after) = after.split_first_chunk::<16>()?;
        let (n, _) = narrow.as_chunks::<4>();
        let &[a, b, c, d] = n else { return None };
        ([a, b, c, d].map(|n| u64::from(u32::from_le_bytes(n))), after)
    } else {
        let (wide, after) = after.split_first_chunk::<32>()?;
        let (n, _) = wide.as_chunks::<8>();
        let &[a, b, c, d] = n else { return None };
        ([a, b, c, d].map(u64::from_le_bytes), after)
    };
    let (realm, after) = after.split_at_checked(usize::from(r))?;
    let (username, after) = after.split_at_checked(usize::from(u16::from_le_bytes([u0, u1])))?;
    let [received_packets, received_bytes, sent_packets, sent_bytes] = numbers;
    let counters = Counters {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    };
    let leg = if tag & PEER == 0 { Leg::Client } else { Leg::Peer };
    let kind = if tag & KIND == TRAFFIC {
        Kind::Traffic(leg, counters)
    } else {
        Kind::TotalTraffic(leg, counters)
    };
    let message = Message {
        realm,
        username,
        id: AllocationId(u64::from_le_bytes(*id)),
        kind,
    };
    Some((Kept::Counters(message), after))
}

fn numbers(c: &Counters) -> [u64; 4] {
    [c.received_packets, c.received_bytes, c.sent_packets, c.sent_bytes]
}

fn digits(n: &u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Channel and payload of counters, as coturn writes them.
fn text(message: &Message<'_>) -> (Cow<'static, [u8]>, Cow<'static, [u8]>) {
    let (kind, leg, counters) = match &message.kind {
        Kind::Traffic(leg, counters) => ("traffic", leg, counters),
        Kind::TotalTraffic(leg, counters) => ("total_traffic", leg, counters),
        _ => return (Cow::default(), Cow::default()),
    };
    let peer = if *leg == Leg::Peer { "/peer" } else { "" };
    let mut channel = b"turn/".to_vec();
    if !message.realm.is_empty() {
        channel.extend_from_slice(b"realm/");
        channel.extend_from_slice(message.realm);
        channel.push(b'/');
    }
    channel.extend_from_slice(b"user/");
    channel.extend_from_slice(message.username);
    channel.extend_from_slice(format!("/allocation/{}/{kind}{peer}", message.id).as_bytes());
    let [a, b, c, d] = numbers(counters);
    let payload = format!("rcvp={a}, rcvb={b}, sentp={c}, sentb={d}");
    (Cow::Owned(channel), Cow::Owned(payload.into_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn batch(messages: &[(Vec<u8>, Vec<u8>)]) -> Batch {
        let mut batch = Batch::new(Timestamp(0), None);
        for (channel, payload) in messages {
            batch.push(channel, payload);
        }
        batch
    }

    fn agrees(messages: &[(Vec<u8>, Vec<u8>)]) {
        let batch = batch(messages);
        let kept: Vec<_> = batch
            .iter()
            .map(|(c, p)| (c.into_owned(), p.into_owned()))
            .collect();
        assert_eq!(kept, messages);
        let decoded: Vec<_> = batch.messages().collect();
        let want: Vec<_> = messages.iter().map(|(c, p)| decode(c, p)).collect();
        assert_eq!(decoded, want);
        assert_eq!(batch.len(), messages.len());
    }

    /// Realms and usernames that look like the rest of a channel among them.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"".to_vec()),
            Just(b"example.org".to_vec()),
            Just(b"/user/".to_vec()),
            Just(b"a/allocation/000000000000000001/traffic".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(any::<u8>(), 250..300),
        ]
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u64..2000).prop_map(|n| n.to_string()),
            any::<u32>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            Just("007".to_owned()),
            Just((1u64 << 53).to_string()),
            Just((1u64 << 32).to_string()),
            Just("x".to_owned()),
        ]
    }

    prop_compose! {
        fn message()(
            realm in prop::option::of(name()), user in name(), id in "[0-9]{17,19}",
            kind in "(status|traffic|total_traffic|other)(/peer)?",
            n in [number(), number(), number(), number()],
            rest in prop_oneof![4 => Just(""), 1 => Just(", more=1"), 1 => Just(","), 1 => Just("deleted")],
        ) -> (Vec<u8>, Vec<u8>) {
            let mut channel = b"turn/".to_vec();
            if let Some(realm) = realm {
                channel.extend([&b"realm/"[..], &realm, b"/"].concat());
            }
            channel.extend([&b"user/"[..], &user, format!("/allocation/{id}/{kind}").as_bytes()].concat());
            let [a, b, c, d] = n;
            let payload = match rest {
                "deleted" => rest.to_owned(),
                rest => format!("rcvp={a}, rcvb={b}, sentp={c}, sentb={d}{rest}"),
            };
            (channel, payload.into_bytes())
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out_to_the_byte(messages in prop::collection::vec(message(), 0..20)) {
            agrees(&messages);
        }

        #[test]
        fn and_so_does_what_is_no_message(messages in prop::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..20)) {
            agrees(&messages);
        }
    }

    #[test]
    fn counters_take_a_third_of_their_text() {
        let channel = b"turn/realm/example.org/user/1795413634:cust_0000042/allocation/003000000000000042/total_traffic/peer";
        let payload = b"rcvp=2048, rcvb=355328, sentp=2048, sentb=347136";
        let one = (channel.to_vec(), payload.to_vec());
        agrees(std::slice::from_ref(&one));
        let size = batch(&[one]).block.len();
        assert!(size * 2 < channel.len() + payload.len(), "{size}");
    }
}
