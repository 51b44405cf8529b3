//! The rate limit: a token bucket that holds one second's worth (at least one). Pure: time is an input.

use turnhook_reducer::time::Timestamp;

use crate::{config::RateLimit, verdict::millis};

/// Counts in fractions of a token, so that whole numbers are exact: a token is `per` of them, and each
/// millisecond brings `count`.
#[derive(Debug)]
pub(crate) struct Bucket {
    count: u64,
    per: u64,
    capacity: u64,
    level: u64,
    at: Timestamp,
}

impl Bucket {
    pub(crate) fn new(limit: RateLimit, now: Timestamp) -> Bucket {
        let per = millis(limit.per).max(1);
        let count = u64::from(limit.count.max(1));
        let capacity = count.saturating_mul(1000).max(per);
        Bucket {
            count,
            per,
            capacity,
            level: capacity,
            at: now,
        }
    }

    /// With nothing in it.
    pub(crate) fn emptied(mut self) -> Bucket {
        self.level = 0;
        self
    }

    fn fill(&mut self, now: Timestamp) {
        let brought = now.since(self.at).saturating_mul(self.count);
        self.level = self.level.saturating_add(brought).min(self.capacity);
        self.at = now;
    }

    /// When a token is there.
    pub(crate) fn gate(&mut self, now: Timestamp) -> Timestamp {
        self.fill(now);
        now.plus(self.per.saturating_sub(self.level).div_ceil(self.count))
    }

    /// Takes a token that is there.
    pub(crate) fn take(&mut self) {
        self.level = self.level.saturating_sub(self.per);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition: in any stretch of time no more than a second's worth and what the time
        /// brings; and one who waits for the gate gets exactly the rate.
        #[test]
        fn keeps_the_rate(count in 1u32..5000, per in 1u64..100_000, waits in proptest::collection::vec(0u64..3_000, 1..200)) {
            let limit = RateLimit { count, per: Duration::from_millis(per) };
            let start = Timestamp(1_000_000);
            let mut bucket = Bucket::new(limit, start);
            let (mut now, mut taken) = (start, 0u64);
            let burst = (u64::from(count) * 1000 / per).max(1);
            for wait in waits {
                now = now.plus(wait);
                if bucket.gate(now) > now {
                    now = bucket.gate(now);
                    prop_assert!(bucket.gate(now) <= now, "the gate is kept");
                }
                bucket.take();
                taken += 1;
                prop_assert!(taken <= burst + now.since(start) * u64::from(count) / per + 1);
            }
            // Taking all that there is for ten seconds.
            let from = now;
            let mut more = 0u64;
            while now.since(from) < 10 * per.max(1000) && more < 100_000 {
                now = bucket.gate(now);
                prop_assert!(bucket.gate(now) <= now, "the gate is kept");
                bucket.take();
                more += 1;
            }
            let due = now.since(from) * u64::from(count) / per;
            prop_assert!(more + 1 >= due && more <= due + burst + 2, "{more} of {due}");
        }
    }
}
