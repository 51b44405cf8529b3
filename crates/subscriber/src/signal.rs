//! What a source tells the engine, in the order in which it happened.

use std::sync::Arc;

use bytes::Bytes;
use turnhook_reducer::{source::Gap, time::Timestamp};

use crate::decode::Refusal;

/// Asks for the time. The caller's clock, so that all parts of the program agree on it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One thing that a source has to say.
#[derive(Debug)]
pub enum Signal {
    /// What one connection brought in one go.
    Messages(Batch),
    /// Frames that were passed over without being kept, so that they are counted. (What is in a batch and
    /// is not coturn's shows when it is decoded.)
    Refused {
        /// Why.
        reason: Refusal,
        /// How many.
        count: u64,
    },
    /// The source hears from now on: subscribed, or listening.
    Hearing {
        /// When.
        at: Timestamp,
        /// Whom or where, for people; no secrets.
        detail: String,
    },
    /// The source hears nothing from now on.
    Deaf {
        /// When this was noticed.
        at: Timestamp,
        /// Why, for people; no secrets.
        error: String,
    },
    /// Messages may have been missed. Sent when the gap is over, just after [`Signal::Hearing`] where
    /// the source was deaf.
    Gap(Gap),
    /// All that was published before `asked` has been sent on: a `PING` of that time was answered (`redis` sources).
    Answered {
        /// When it was asked.
        asked: Timestamp,
    },
    /// A server connected (`direct` sources), for the status page.
    ServerSeen {
        /// When.
        at: Timestamp,
        /// Which.
        server: Arc<[u8]>,
    },
    /// A server has stopped: its open allocations are over (`direct` sources).
    ServerStopped {
        /// When its connections closed.
        at: Timestamp,
        /// Which.
        server: Arc<[u8]>,
    },
    /// A server was started anew: allocations heard of on its connections that closed before `at` are over.
    ServerRestarted {
        /// When the last of those connections closed.
        at: Timestamp,
        /// Which.
        server: Arc<[u8]>,
    },
    /// A snapshot of the status keys begins.
    SnapshotBegan {
        /// When.
        at: Timestamp,
    },
    /// Keys found by the snapshot. The answer names those whose value is wanted, by index.
    SnapshotScanned {
        /// The keys, whole.
        keys: Vec<Bytes>,
        /// Where the answer goes.
        wanted: tokio::sync::oneshot::Sender<Vec<usize>>,
    },
    /// The values of wanted keys.
    SnapshotRead {
        /// When they were read.
        at: Timestamp,
        /// Key, value, and the idle time in seconds, asked for before the value; `None` where the server keeps none.
        entries: Vec<SnapshotEntry>,
    },
    /// The snapshot is complete, or was given up.
    SnapshotEnded {
        /// When.
        at: Timestamp,
        /// Whether all keys were seen.
        complete: bool,
    },
}

/// One status key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The key: the same words as a status channel.
    pub key: Bytes,
    /// Its value: the same words as a status payload.
    pub value: Bytes,
    /// Seconds since anybody last touched it, asked for before the value was.
    pub idle_seconds: Option<u64>,
}

/// Messages of one connection, in order, received at one time: channel and payload, raw.
///
/// They are kept in one block, each behind its two lengths, so that handing over a thousand of them
/// costs as much as handing over one.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When they were received.
    pub at: Timestamp,
    /// Which server said so (`direct` sources); `None` in `redis` sources, where nobody knows.
    pub server: Option<Arc<[u8]>>,
    block: Vec<u8>,
    count: usize,
}

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

    /// With room for `bytes`: what is read in one go is then kept in one piece from the start.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Batch {
        self.block.reserve(bytes);
        self
    }

    /// Adds a message. Lengths beyond u32 cannot occur: frames are bounded far below.
    pub fn push(&mut self, channel: &[u8], payload: &[u8]) {
        let (Ok(c), Ok(p)) = (u32::try_from(channel.len()), u32::try_from(payload.len())) else {
            return;
        };
        self.block.reserve(8 + channel.len() + payload.len());
        self.block.extend_from_slice(&c.to_le_bytes());
        self.block.extend_from_slice(&p.to_le_bytes());
        self.block.extend_from_slice(channel);
        self.block.extend_from_slice(payload);
        self.count += 1;
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

    /// The memory that the messages take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.block.len()
    }

    /// The memory that the batch takes, in bytes: what a bound on the queue counts.
    pub(crate) fn memory(&self) -> usize {
        self.block.capacity() + size_of::<Batch>()
    }

    /// The messages, in order: channel and payload.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.block.as_slice();
        std::iter::from_fn(move || {
            let (c, after) = rest.split_first_chunk::<4>()?;
            let (p, after) = after.split_first_chunk::<4>()?;
            let (channel, after) = after.split_at_checked(u32::from_le_bytes(*c) as usize)?;
            let (payload, after) = after.split_at_checked(u32::from_le_bytes(*p) as usize)?;
            rest = after;
            Some((channel, payload))
        })
    }
}
