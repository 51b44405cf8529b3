//! What the listener turned away, reported at a bounded rate. Pure: time is an input.

use std::{collections::VecDeque, net::IpAddr};

use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use crate::signal::{Signal, TurnAwayReason, TurnedAway};

/// A reason is reported at once, and then at most once in so many milliseconds.
const PACE: u64 = 1_000;
/// When nobody was turned away for so long, in milliseconds, the time in which somebody may have been unheard is over.
const QUIET: u64 = 5_000;
/// While it goes on, it is emitted in pieces of so many milliseconds; and no two are emitted within less.
pub(super) const PIECE: u64 = 60_000;

/// Those who were turned away and are yet to be reported.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: [Option<TurnedAway>; TurnAwayReason::ALL.len()],
    reported: [Option<Timestamp>; TurnAwayReason::ALL.len()],
    /// Since when, and until when, there was no place for whoever came.
    unheard: Option<(Timestamp, Timestamp)>,
    unheard_at: Option<Timestamp>,
}

impl Refusals {
    /// One more.
    pub(super) fn note(&mut self, reason: TurnAwayReason, peer: IpAddr, at: Timestamp) {
        if let Some(waiting) = self.waiting.get_mut(reason as usize) {
            let sum = waiting.get_or_insert(TurnedAway {
                reason,
                count: 0,
                from: at,
                to: at,
                peer,
            });
            sum.count = sum.count.saturating_add(1);
            (sum.to, sum.peer) = (at, peer);
        }
        // Who has a wrong password, or none, is no coturn of ours; who found no place may have been one.
        if reason == TurnAwayReason::NoPlace {
            let (_, to) = self.unheard.get_or_insert((at, at));
            *to = at;
        }
    }

    /// Puts out what is due.
    pub(super) fn emit(&mut self, now: Timestamp, out: &mut VecDeque<Signal>) {
        for (waiting, reported) in self.waiting.iter_mut().zip(&mut self.reported) {
            if reported.is_none_or(|t| now.since(t) >= PACE)
                && let Some(sum) = waiting.take()
            {
                *reported = Some(now);
                out.push_back(Signal::TurnedAway(sum));
            }
        }
        if self.unheard_due().is_some_and(|due| due <= now)
            && let Some((from, to)) = self.unheard.take()
        {
            self.unheard_at = Some(now);
            out.push_back(Signal::Unheard(Gap {
                from,
                to,
                reason: GapReason::TurnedAway,
                server: None,
            }));
        }
    }

    /// Puts out what waits, due or not: there will be no later.
    pub(super) fn emit_all(&mut self, out: &mut VecDeque<Signal>) {
        out.extend(
            self.waiting
                .iter_mut()
                .filter_map(Option::take)
                .map(Signal::TurnedAway),
        );
        if let Some((from, to)) = self.unheard.take() {
            out.push_back(Signal::Unheard(Gap {
                from,
                to,
                reason: GapReason::TurnedAway,
                server: None,
            }));
        }
    }

    fn unheard_due(&self) -> Option<Timestamp> {
        let (from, to) = self.unheard?;
        let due = to.plus(QUIET).min(from.plus(PIECE));
        Some(
            self.unheard_at
                .map_or(due, |reported| due.max(reported.plus(PIECE))),
        )
    }

    /// When [`Refusals::emit`] has something to do next.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let reasons = self.waiting.iter().zip(&self.reported);
        reasons
            .filter_map(|(waiting, reported)| waiting.map(|sum| reported.map_or(sum.to, |t| t.plus(PACE))))
            .chain(self.unheard_due())
            .min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::net::Ipv4Addr;

    use super::*;

    /// Lets time pass up to `end`, as the deadlines ask, and gives what was emitted when.
    fn pass(refusals: &mut Refusals, end: u64) -> Vec<(u64, Signal)> {
        let mut reported = Vec::new();
        while let Some(due) = refusals.deadline().filter(|d| d.0 <= end) {
            let mut out = VecDeque::new();
            refusals.emit(due, &mut out);
            assert!(!out.is_empty(), "due at {due:?}, and nothing was");
            reported.extend(out.into_iter().map(|s| (due.0, s)));
        }
        reported
    }

    #[test]
    fn the_first_is_reported_at_once_and_a_flood_once_a_second() {
        let (mut refusals, mut reported) = (Refusals::default(), Vec::new());
        for at in 0..10_000 {
            let peer = IpAddr::V4(Ipv4Addr::from(at as u32));
            refusals.note(TurnAwayReason::WrongPassword, peer, Timestamp(at));
            reported.extend(pass(&mut refusals, at));
        }
        reported.extend(pass(&mut refusals, 100_000));
        assert_eq!(reported.len(), 11);
        assert_eq!(reported[0].0, 0);
        let count: u64 = reported
            .iter()
            .map(|(_, s)| match s {
                Signal::TurnedAway(sum) => sum.count,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(count, 10_000);
        assert_eq!(refusals.deadline(), None);
    }

    #[test]
    fn for_want_of_a_place_a_time_is_on_record_and_strangers_cannot_write_many() {
        let (mut refusals, mut reported) = (Refusals::default(), Vec::new());
        let mut note = |refusals: &mut Refusals, at| {
            reported.extend(pass(refusals, at));
            refusals.note(
                TurnAwayReason::NoPlace,
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                Timestamp(at),
            );
            reported.extend(pass(refusals, at));
        };
        note(&mut refusals, 1_000);
        note(&mut refusals, 2_500);
        // A day of it, with pauses.
        for i in 0..14_400 {
            note(&mut refusals, 10_000 + i * 6_000);
        }
        reported.extend(pass(&mut refusals, u64::MAX / 2));
        let gaps: Vec<(u64, u64)> = reported
            .into_iter()
            .filter_map(|(_, s)| match s {
                Signal::Unheard(gap) => Some((gap.from.0, gap.to.0)),
                _ => None,
            })
            .collect();
        assert_eq!(gaps[0], (1_000, 2_500));
        assert!((1_000..=1_441).contains(&gaps.len()), "{}", gaps.len());
        // What was turned away is in one of them, each and all of it.
        for i in 0..14_400 {
            let at = 10_000 + i * 6_000;
            assert!(
                gaps.iter().any(|(from, to)| *from <= at && at <= *to),
                "{at} is in none"
            );
        }
    }
}
