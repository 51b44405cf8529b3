//! The circuit breaker: an endpoint that fails again and again is left alone but for one request
//! every few seconds, and is served in full once one of those succeeds. Pure: time is an input.

use turnhook_reducer::{event::SessionId, outbox::DeliveryId, time::Timestamp};

/// Failures in a row that open it.
const THRESHOLD: usize = 5;
/// So many answers of 400 in a row open it: then it is not the events that are wrong, but the signatures.
const DOUBTS: usize = 20;
/// The first probe follows its opening after this many milliseconds; the wait doubles from probe to probe.
const FIRST_PROBE: u64 = 2_000;
/// The longest wait between probes in milliseconds: five requests a minute, and the endpoint's return is
/// noticed within this time.
const LAST_PROBE: u64 = 12_000;

/// Counts failures in a row, and says when a request may be sent.
///
/// A failure that says that nobody is there counts always. Any other (a 500, a 404) counts once for each
/// session, so that one event that its receiver chokes on delays no other session.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    unreachable: usize,
    sessions: Vec<SessionId>,
    doubts: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    wait: u64,
    probe: Probe,
}

#[derive(Debug)]
enum Probe {
    At(Timestamp),
    UnderWay(DeliveryId),
}

/// The state of an endpoint's circuit breaker, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All is well.
    Closed,
    /// The endpoint failed repeatedly: a single request is tried every few seconds.
    Open,
    /// That request is under way.
    Probing,
}

impl BreakerState {
    /// Whether it keeps requests back.
    #[must_use]
    pub fn is_open(self) -> bool {
        self != BreakerState::Closed
    }

    /// As in `/status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::Probing => "probing",
        }
    }
}

impl Breaker {
    /// When the next request may be sent; [`Timestamp::MAX`] while a probe is under way.
    pub(crate) fn gate(&self, now: Timestamp) -> Timestamp {
        match &self.open {
            None => now,
            Some(Open {
                probe: Probe::UnderWay(_),
                ..
            }) => Timestamp::MAX,
            Some(Open {
                probe: Probe::At(at), ..
            }) => *at,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Since when it is open.
    pub(crate) fn open_since(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.since)
    }

    pub(crate) fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(Open {
                probe: Probe::At(_), ..
            }) => BreakerState::Open,
            Some(Open {
                probe: Probe::UnderWay(_),
                ..
            }) => BreakerState::Probing,
        }
    }

    /// A request for this delivery begins: the probe, if the breaker is open.
    pub(crate) fn started(&mut self, delivery: DeliveryId) {
        if let Some(open) = &mut self.open {
            open.probe = Probe::UnderWay(delivery);
        }
    }

    /// Somebody is there. Whether the breaker was open.
    pub(crate) fn success(&mut self) -> bool {
        self.unreachable = 0;
        self.sessions.clear();
        self.doubts = 0;
        self.open.take().is_some()
    }

    /// The request for this delivery failed.
    pub(crate) fn failure(
        &mut self,
        delivery: DeliveryId,
        session: SessionId,
        unreachable: bool,
        now: Timestamp,
    ) {
        if self.is_open() {
            self.probe_failed(delivery, now);
            return;
        }
        if unreachable {
            self.unreachable += 1;
        } else if !self.sessions.contains(&session) {
            self.sessions.push(session);
        }
        if self.unreachable + self.sessions.len() >= THRESHOLD {
            self.trip(now);
        }
    }

    /// The request for this delivery was answered with 400.
    pub(crate) fn doubt(&mut self, delivery: DeliveryId, now: Timestamp) {
        if self.is_open() {
            self.probe_failed(delivery, now);
            return;
        }
        self.doubts += 1;
        if self.doubts >= DOUBTS {
            self.trip(now);
        }
    }

    /// The request for this delivery was answered with something that has to be put right first.
    pub(crate) fn held(&mut self, delivery: DeliveryId, now: Timestamp) {
        if self.is_open() {
            self.probe_failed(delivery, now);
        } else {
            self.trip(now);
        }
    }

    /// The request for this delivery was not made after all: should it have been the probe, there is another.
    pub(crate) fn unasked(&mut self, delivery: DeliveryId, now: Timestamp) {
        if let Some(open) = &mut self.open
            && matches!(open.probe, Probe::UnderWay(probe) if probe == delivery)
        {
            open.probe = Probe::At(now.plus(open.wait));
        }
    }

    fn trip(&mut self, now: Timestamp) {
        self.open = Some(Open {
            since: now,
            wait: FIRST_PROBE,
            probe: Probe::At(now.plus(FIRST_PROBE)),
        });
    }

    fn probe_failed(&mut self, delivery: DeliveryId, now: Timestamp) {
        if let Some(open) = &mut self.open
            // Requests that began before it opened say nothing new.
            && matches!(open.probe, Probe::UnderWay(probe) if probe == delivery)
        {
            open.wait = (open.wait * 2).min(LAST_PROBE);
            open.probe = Probe::At(now.plus(open.wait));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const S: SessionId = SessionId([0; 16]);

    fn session(n: u8) -> SessionId {
        SessionId([n; 16])
    }

    #[test]
    fn one_session_that_its_receiver_chokes_on_does_not_open_it() {
        let mut breaker = Breaker::default();
        for i in 0..1000 {
            breaker.failure(DeliveryId(i), S, false, Timestamp(0));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for n in 1..=4 {
            breaker.failure(DeliveryId(2000), session(n), false, Timestamp(0));
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn a_success_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for i in 0..100 {
            if i % 5 == 4 {
                assert!(!breaker.success());
            } else {
                breaker.failure(DeliveryId(i), S, true, Timestamp(0));
            }
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_dead_endpoint_costs_a_handful_a_minute_and_its_return_is_noticed_at_once() {
        let mut breaker = Breaker::default();
        let mut now = Timestamp(1_000_000);
        for i in 0..5 {
            breaker.failure(DeliveryId(i), session(1), true, now);
        }
        let opened = now;
        let mut probes = Vec::new();
        for id in 100..200 {
            now = breaker.gate(now);
            breaker.started(DeliveryId(id));
            assert_eq!(breaker.gate(now), Timestamp::MAX, "one probe at a time");
            breaker.failure(DeliveryId(3), S, true, now); // a straggler
            assert_eq!(breaker.state(), BreakerState::Probing);
            probes.push(now.since(opened));
            breaker.failure(DeliveryId(id), S, true, now);
        }
        for minute in 0..15 {
            let count = probes
                .iter()
                .filter(|at| (minute * 60_000..(minute + 1) * 60_000).contains(*at))
                .count();
            assert!(count <= 7, "{count} in minute {minute}");
        }
        assert!(probes.windows(2).all(|pair| pair[1] - pair[0] <= LAST_PROBE));
        breaker.started(DeliveryId(999));
        assert!(breaker.success());
        assert_eq!(breaker.gate(now), now);
    }

    proptest! {
        /// Whatever happens: never stuck (a gate in reach, or a probe under way), and with the breaker
        /// open never two probes less than the first wait apart.
        #[test]
        fn never_stuck_never_a_storm(steps in proptest::collection::vec((0u8..4, 0u64..20_000, any::<bool>()), 1..300)) {
            let mut breaker = Breaker::default();
            let mut now = Timestamp(1_000_000_000);
            let mut flying: Vec<i64> = Vec::new();
            let mut last_probe: Option<Timestamp> = None;
            for (id, (step, ms, unreachable)) in (0i64..).zip(steps) {
                now = now.plus(ms);
                match step {
                    0 | 1 if breaker.gate(now) <= now => {
                        if breaker.is_open() {
                            if let Some(last) = last_probe {
                                prop_assert!(now.since(last) >= FIRST_PROBE);
                            }
                            last_probe = Some(now);
                        }
                        breaker.started(DeliveryId(id));
                        flying.push(id);
                    }
                    2 if !flying.is_empty() => {
                        breaker.success();
                        flying.remove(0);
                        last_probe = None;
                    }
                    _ if !flying.is_empty() => {
                        let id = flying.remove(0);
                        breaker.failure(DeliveryId(id), session(u8::try_from(id % 251).unwrap()), unreachable, now);
                    }
                    _ => {}
                }
                match breaker.state() {
                    BreakerState::Probing => prop_assert!(!flying.is_empty()),
                    _ => prop_assert!(breaker.gate(now).since(now) <= LAST_PROBE),
                }
            }
        }
    }
}
