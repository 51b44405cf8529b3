//! Generated fleets, played through a lossy world into the reducer, and held against what was true.
//!
//! `history` is what proptest makes and shrinks, `coturn` the truth, `run` the way from there to the
//! reducer, `turnhook` what goes wrong on this side, `checks` what must hold. `TURNHOOK_HISTORIES` sets the number of histories (default 30,000).

pub(crate) mod checks;
pub(crate) mod coturn;
pub(crate) mod history;
pub(crate) mod run;
mod turnhook;

use proptest::{
    strategy::{BoxedStrategy, Strategy},
    test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use self::{
    checks::Judge,
    history::{History, histories},
    run::{Manner, Outcome, play},
};
use crate::world::describe;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");

/// Four properties share the histories.
fn hold(histories: BoxedStrategy<History>, property: impl Fn(&History)) {
    hold_for_all(REGRESSIONS, 4, &histories, property);
}

/// The property holds for one of so many `parts` of the histories that are asked for: the same ones each time, others
/// with each run where a number is asked for.
pub(crate) fn hold_for_all<S: Strategy>(
    regressions: &'static str,
    parts: u32,
    histories: &S,
    property: impl Fn(&S::Value),
) {
    let wanted = std::env::var("TURNHOOK_HISTORIES").ok();
    let is_default = wanted.is_none();
    let wanted = wanted.map_or(30_000, |n| n.parse().expect("TURNHOOK_HISTORIES is a number"));
    let config = Config {
        cases: u32::max(wanted / parts, 1),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut runner = if is_default {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    } else {
        TestRunner::new(config)
    };
    let result = runner.run(histories, |history| {
        property(&history);
        Ok::<(), TestCaseError>(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// All that is told, in an order that does not depend on which of two things at one instant came first.
fn sorted(outcome: &Outcome) -> Vec<String> {
    let mut events: Vec<_> = outcome.events.iter().collect();
    events.sort_by_key(|e| (e.session_id, e.sequence));
    let mut records: Vec<_> = outcome.unattributed.iter().map(|u| format!("{u:?}")).collect();
    records.sort();
    let events = events.iter().map(|e| format!("{} {e:?}", describe(e)));
    events.chain(records).collect()
}

/// The first line in which the two differ.
fn assert_same(what: &str, a: &[String], b: &[String]) {
    let longer = a.len().max(b.len());
    for n in 0..longer {
        let (a, b) = (a.get(n).map_or("", |l| l), b.get(n).map_or("", |l| l));
        let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let around = |l: &str| {
            l.chars()
                .skip(same.saturating_sub(200))
                .take(300)
                .collect::<String>()
        };
        assert!(a == b, "{what}\n{}\n{}", around(a), around(b));
    }
}

fn is_true(history: &History) {
    let run = play(history, Manner::Plain);
    Judge::new(&history.setting.rules, &run.fleet, &run.outcome).check();
}

fn is_the_same_however_it_is_played(history: &History) {
    let plain = play(history, Manner::Plain).outcome;
    for manner in [Manner::Plain, Manner::FineSteps] {
        let again = play(history, manner).outcome;
        assert_eq!(plain.events, again.events, "{manner:?}");
        assert_eq!(plain.unattributed, again.unattributed, "{manner:?}");
        assert_eq!(plain.notices, again.notices, "{manner:?}");
        assert_eq!(plain.changes, again.changes, "{manner:?}");
    }
    for every in [1, 3] {
        let blinking = play(history, Manner::Blinking(every)).outcome;
        let crashing = play(history, Manner::Crashing(every)).outcome;
        if blinking.events != crashing.events || blinking.unattributed != crashing.unattributed {
            assert_same(
                "a crash that lost nothing",
                &sorted(&blinking),
                &sorted(&crashing),
            );
        }
    }
}

#[test]
fn direct_sources_tell_the_truth() {
    hold(histories(true), is_true);
}

#[test]
fn redis_sources_tell_the_truth() {
    hold(histories(false), is_true);
}

#[test]
fn direct_histories_come_out_the_same() {
    hold(histories(true), is_the_same_however_it_is_played);
}

#[test]
fn redis_histories_come_out_the_same() {
    hold(histories(false), is_the_same_however_it_is_played);
}
