//! The way from a source to the engine: in order, bounded, and never in the way of reading a socket.
//!
//! Where the engine falls so far behind that the bound is reached, messages are given up (and nothing else
//! is), and a [`Gap`] says from when to when as soon as there is room again: a gap that is known costs
//! accuracy, a socket that is not read costs the connection and everything in it (TRAPS.md, trap 16).

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use crate::signal::{Batch, Signal};

/// How much may wait for the engine by default, in bytes: some four million messages, two seconds of the most that
/// anything was seen to publish.
pub const DEFAULT_BOUND: usize = 256 * 1024 * 1024;

/// A queue that holds up to `bound` bytes of messages.
#[must_use]
pub fn channel(bound: usize) -> (SignalSender, SignalReceiver) {
    let shared = Arc::new(Shared {
        bound,
        state: Mutex::new(State {
            queue: VecDeque::new(),
            bytes: 0,
            overflow: None,
            senders: 1,
            receiver: true,
        }),
        arrived: Notify::new(),
        waiting: AtomicBool::new(false),
    });
    (
        SignalSender {
            shared: Arc::clone(&shared),
        },
        SignalReceiver { shared },
    )
}

/// A source's end. Clones feed the same queue.
#[derive(Debug)]
pub struct SignalSender {
    shared: Arc<Shared>,
}

/// The engine's end.
#[derive(Debug)]
pub struct SignalReceiver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    state: Mutex<State>,
    arrived: Notify,
    /// Whether the receiver sleeps, so that senders wake it only then.
    waiting: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Signal>,
    /// Taken by the messages in the queue.
    bytes: usize,
    /// Messages are being given up since.
    overflow: Option<Overflow>,
    senders: usize,
    receiver: bool,
}

#[derive(Debug)]
struct Overflow {
    from: Timestamp,
    to: Timestamp,
    /// The server concerned, or `None` where there is none or more than one.
    server: Option<Arc<[u8]>>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock; were it so, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if self.waiting.swap(false, Ordering::AcqRel) {
            self.arrived.notify_one();
        }
    }
}

impl SignalSender {
    /// Sends messages, or gives them up where there is no room. Returns whether they were taken.
    pub fn messages(&self, mut batch: Batch) -> bool {
        if batch.is_empty() {
            return true;
        }
        batch.trim();
        let mut state = self.shared.state();
        let size = batch.memory();
        if let Some(overflow) = &mut state.overflow {
            overflow.to = batch.at.max(overflow.to);
            if overflow.server != batch.server {
                overflow.server = None;
            }
            return false;
        }
        if state.bytes > 0 && state.bytes.saturating_add(size) > self.shared.bound {
            state.overflow = Some(Overflow {
                from: batch.at,
                to: batch.at,
                server: batch.server.clone(),
            });
            return false;
        }
        state.bytes = state.bytes.saturating_add(size);
        state.queue.push_back(Signal::Messages(batch));
        drop(state);
        self.shared.wake();
        true
    }

    /// Sends what is not a message. It is never given up: there is little of it.
    pub fn signal(&self, signal: Signal) {
        if let Signal::Messages(batch) = signal {
            self.messages(batch);
            return;
        }
        self.shared.state().queue.push_back(signal);
        self.shared.wake();
    }

    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.shared.state().receiver
    }

    /// The bytes of messages that wait.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shared.state().bytes
    }
}

impl Clone for SignalSender {
    fn clone(&self) -> SignalSender {
        self.shared.state().senders += 1;
        SignalSender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for SignalSender {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.senders = state.senders.saturating_sub(1);
        let last = state.senders == 0;
        drop(state);
        if last {
            self.shared.wake();
        }
    }
}

impl SignalReceiver {
    /// The bytes of messages that wait.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shared.state().bytes
    }

    /// How many may wait.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.shared.bound
    }

    /// The next signal; `None` when all senders are gone and everything was received.
    /// Can be dropped and called again without loss.
    pub async fn recv(&mut self) -> Option<Signal> {
        loop {
            self.shared.waiting.store(true, Ordering::Release);
            if let Some(signal) = self.try_recv() {
                return Some(signal);
            }
            if self.shared.state().senders == 0 {
                return self.try_recv();
            }
            self.shared.arrived.notified().await;
        }
    }

    /// The next signal, if there is one now.
    pub fn try_recv(&mut self) -> Option<Signal> {
        let mut state = self.shared.state();
        let signal = state.queue.pop_front();
        if let Some(Signal::Messages(batch)) = &signal {
            state.bytes = state.bytes.saturating_sub(batch.memory());
        }
        // Half is room enough not to be full again at the next message. Nothing was queued since the first
        // was given up but what is not a message, so the gap stands behind all that was heard before it.
        if state.bytes <= self.shared.bound / 2
            && let Some(Overflow { from, to, server }) = state.overflow.take()
        {
            let server = server.map(|s| Box::from(&s[..]));
            state.queue.push_back(Signal::Gap(Gap {
                from,
                to,
                reason: GapReason::Overflow,
                server,
            }));
        }
        match signal {
            Some(signal) => Some(signal),
            None => state.queue.pop_front(),
        }
    }
}

impl Drop for SignalReceiver {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.receiver = false;
        state.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn batch(at: u64, server: Option<&[u8]>) -> Batch {
        let mut batch = Batch::new(Timestamp(at), server.map(Arc::from));
        batch.push(b"channel", &[b'x'; 100]);
        batch
    }

    #[tokio::test]
    async fn in_order_and_ends_with_the_last_sender() {
        let (tx, mut rx) = channel(1_000_000);
        let other = tx.clone();
        let receiver = tokio::spawn(async move {
            let mut at = Vec::new();
            while let Some(signal) = rx.recv().await {
                at.push(match signal {
                    Signal::Messages(b) => b.at.0,
                    Signal::Hearing { at, .. } => at.0,
                    other => panic!("{other:?}"),
                });
            }
            at
        });
        for i in 0..100 {
            tx.messages(batch(2 * i, None));
            other.signal(Signal::Hearing {
                at: Timestamp(2 * i + 1),
                detail: String::new(),
            });
            tokio::task::yield_now().await;
        }
        drop((tx, other));
        assert_eq!(receiver.await.unwrap(), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn past_the_bound_messages_are_given_up_as_a_gap_in_its_place() {
        let size = batch(0, None).memory();
        let (tx, mut rx) = channel(size * 10);
        for at in 0..15 {
            assert_eq!(tx.messages(batch(at, Some(b"a"))), at < 10, "{at}");
        }
        tx.signal(Signal::Hearing {
            at: Timestamp(15),
            detail: String::new(),
        });
        assert_eq!(tx.backlog(), size * 10);
        for want in 0..5 {
            let Some(Signal::Messages(b)) = rx.try_recv() else {
                panic!()
            };
            assert_eq!(b.at.0, want);
        }
        // There is room: messages are taken again, behind the gap.
        assert!(tx.messages(batch(16, Some(b"b"))));
        let rest: Vec<String> = std::iter::from_fn(|| rx.try_recv())
            .map(|s| match s {
                Signal::Messages(b) => b.at.0.to_string(),
                Signal::Hearing { .. } => "hearing".into(),
                Signal::Gap(g) => format!("{}-{} {:?} {}", g.from.0, g.to.0, g.reason, g.server.is_some()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            rest,
            ["5", "6", "7", "8", "9", "hearing", "10-14 Overflow true", "16"]
        );
    }

    /// Two million messages as coturn sends them, in the pieces in which a connection is read, and nobody who takes
    /// any: on a scale of 1 to 16.
    #[test]
    fn a_burst_of_two_million_messages_overflows_nothing() {
        const SCALE: usize = 16;
        let (tx, _rx) = channel(DEFAULT_BOUND / SCALE);
        let payload = b"rcvp=2048, rcvb=355328, sentp=2048, sentb=347136";
        for first in (0..2_000_000 / SCALE).step_by(250) {
            let mut batch =
                Batch::new(Timestamp(0), Some(Arc::from(&b"192.0.2.1/-/0"[..]))).with_room(64 * 1024);
            for n in first..first + 250 {
                let channel = format!(
                    "turn/realm/example.org/user/1795413634:cust_{n:07}/allocation/003{n:015}/total_traffic/peer"
                );
                batch.push(channel.as_bytes(), payload);
            }
            assert!(tx.messages(batch), "{first}");
        }
    }

    #[test]
    fn a_gap_of_two_servers_is_nobodys_in_particular() {
        let size = batch(0, None).memory();
        let (tx, mut rx) = channel(size);
        for (at, server) in [(0, b"a"), (1, b"a"), (2, b"b")] {
            tx.messages(batch(at, Some(server)));
        }
        assert!(matches!(rx.try_recv(), Some(Signal::Messages(_))));
        let Some(Signal::Gap(gap)) = rx.try_recv() else {
            panic!()
        };
        assert_eq!((gap.from.0, gap.to.0, gap.server), (1, 2, None));
        assert!(rx.try_recv().is_none());
    }

    #[test]
    fn a_batch_larger_than_the_bound_passes_an_empty_queue() {
        let (tx, mut rx) = channel(1);
        assert!(tx.messages(batch(0, None)));
        assert!(!tx.messages(batch(1, None)));
        assert!(matches!(rx.try_recv(), Some(Signal::Messages(_))));
        assert!(matches!(rx.try_recv(), Some(Signal::Gap(_))));
        assert!(tx.messages(batch(2, None)));
    }

    #[test]
    fn without_a_receiver_senders_know() {
        let (tx, rx) = channel(1000);
        assert!(!tx.is_closed());
        drop(rx);
        assert!(tx.is_closed());
    }
}
