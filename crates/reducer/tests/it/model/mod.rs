//! Generated fleets, played through a lossy world into the reducer, and held against what was true.
//!
//! `history` is what a history is made of and `strategy` how proptest makes it, `call` and `coturn` the truth, `run`
//! and `wire` the way from there to the reducer, `turnhook` what goes wrong on this side. `checks`, `bills`, `exact` and `shape` say what
//! must hold, and `knowledge` where nobody can know. `TURNHOOK_HISTORIES` sets the number of histories (default 30,000), and
//! `TURNHOOK_SEED` which ones. What fails is shrunk, and then told in words by `show`. More billed than was relayed is
//! money, and anything else is not: a failure says first which of the two it is, and stays of that kind while it is shrunk.

mod bills;
pub(crate) mod call;
pub(crate) mod checks;
pub(crate) mod coturn;
mod exact;
pub(crate) mod history;
mod knowledge;
mod left_open;
pub(crate) mod run;
mod shape;
mod show;
pub(crate) mod strategy;
mod turnhook;
pub(crate) mod wire;

use std::{
    cell::Cell,
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
};

use proptest::{
    strategy::{BoxedStrategy, Strategy, ValueTree as _},
    test_runner::{
        Config, FailurePersistence, FileFailurePersistence, RngAlgorithm, TestCaseError, TestError, TestRng,
        TestRunner,
    },
};
use turnhook_reducer::{
    event::{Accuracy, EventId, EventType, SessionEvent},
    rules::{PeerLeg, Rules},
    usage::{Billable, Usage},
};

use self::{
    checks::Judge,
    history::{History, Step},
    run::{Manner, Outcome, play, play_by},
    show::in_words,
    strategy::histories,
};
use crate::world::describe;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");

/// Four properties share the histories.
fn hold(histories: BoxedStrategy<History>, property: impl Fn(&History)) {
    hold_for_all(REGRESSIONS, 4, &histories, property, in_words);
}

/// Whether what failed is that more was told or billed than was relayed.
#[derive(Debug, Default)]
struct Above(Cell<bool>);

impl Above {
    /// Fails if `check` does, and remembers that. Whether that alone is looked for from now on.
    fn look(&self, check: impl FnOnce()) -> bool {
        let before = self.0.replace(true);
        check();
        self.0.set(before);
        before
    }
}

/// The property holds for one of so many `parts` of the histories that are asked for: the same ones each time, others
/// with each run where a number is asked for and no seed.
pub(crate) fn hold_for_all<S: Strategy>(
    regressions: &'static str,
    parts: u32,
    histories: &S,
    property: impl Fn(&S::Value),
    in_words: impl Fn(&S::Value) -> String,
) {
    let wanted = std::env::var("TURNHOOK_HISTORIES").ok();
    let seed = std::env::var("TURNHOOK_SEED").ok();
    let seed: Option<u64> = seed.map(|n| n.parse().expect("TURNHOOK_SEED is a number"));
    let seed = seed.or_else(|| wanted.is_some().then(|| RandomState::new().hash_one(parts)));
    let wanted = wanted.map_or(30_000, |n| n.parse().expect("TURNHOOK_HISTORIES is a number"));
    let known = || -> Box<dyn FailurePersistence> { Box::new(FileFailurePersistence::Direct(regressions)) };
    let config = Config {
        cases: u32::max(wanted / parts, 1),
        // What a seed finds, the seed finds again.
        failure_persistence: seed.is_none().then(known),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let rng = match seed {
        Some(seed) => TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed)),
        None => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(histories, |history| {
        property(&history);
        Ok::<(), TestCaseError>(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, smallest)) => {
            panic!("TURNHOOK_SEED={seed:?}: {reason}\n{}", in_words(&smallest))
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
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

const BILLABLE: [Billable; 4] = [
    Billable::Relayed,
    Billable::Client,
    Billable::Egress,
    Billable::Ingress,
];

/// Under each rule of what is billed. Sessions and counters are the same by all of them; but where it turns out at the
/// end what was relayed, there is one usage more to tell.
fn is_true(history: &History, above: &Above) {
    let rules = BILLABLE.map(|billable| Rules {
        billable,
        ..history.setting.rules.clone()
    });
    let runs = BILLABLE.map(|billable| play_by(history, Manner::Plain, billable));
    let judges = || {
        rules.iter().zip(&runs).map(|(rules, run)| {
            let mut judge = Judge::new(rules, &run.fleet, &run.outcome);
            judge.steady = !history.steps().any(|step| matches!(step, Step::ClockBack(_)));
            judge
        })
    };
    if above.look(|| judges().for_each(|judge| judge.nothing_is_above_the_truth())) {
        return;
    }
    // Until it is known whether there is a peer leg, what is to be billed by it waits, and nothing else.
    let waits = history.setting.rules.peer_leg == PeerLeg::Auto;
    // What came twice and was told is too much by one of them, and is set right by another.
    let echoed = runs[0].fleet.lives.iter().any(|l| l.echoed);
    let mut before: Option<Vec<SessionEvent>> = None;
    for (judge, run) in judges().zip(&runs) {
        judge.check();
        let mut events: Vec<SessionEvent> = run.outcome.events.iter().filter_map(without_bill).collect();
        for end in events
            .iter_mut()
            .filter_map(|e| e.end.as_mut())
            .filter(|_| echoed)
        {
            end.accuracy = Accuracy::LowerBound;
        }
        // Of what was counted of two lives, what was told stands, and by each rule something else was told.
        let overcounted = run.outcome.overcounted > 0;
        if let Some(before) = before.replace(events.clone()).filter(|_| !waits && !overcounted) {
            let billable = judge.rules.billable;
            assert_eq!(events, before, "{billable:?}: it is not only billed otherwise");
        }
    }
}

fn tell_the_truth(direct: bool) {
    let above = Above::default();
    hold(histories(direct), |history| is_true(history, &above));
}

fn without_bill(event: &SessionEvent) -> Option<SessionEvent> {
    (event.event_type != EventType::Usage).then(|| SessionEvent {
        id: EventId([0; 16]),
        sequence: 0,
        billable: Billable::Relayed,
        usage_delta: Usage::default(),
        usage: Usage {
            billable_bytes: 0,
            ..event.usage
        },
        ..event.clone()
    })
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
    // Which of several that end at one instant is forgotten first, where few are remembered, hangs on their places.
    if history.setting.rules.tombstone_limit < 100 {
        return;
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
    tell_the_truth(true);
}

#[test]
fn redis_sources_tell_the_truth() {
    tell_the_truth(false);
}

#[test]
fn direct_histories_come_out_the_same() {
    hold(histories(true), is_the_same_however_it_is_played);
}

#[test]
fn redis_histories_come_out_the_same() {
    hold(histories(false), is_the_same_however_it_is_played);
}

/// Where the messages leave something open, the checks ask for less; but not for nothing: ten times what was told is
/// noticed there, too.
#[test]
fn what_is_left_open_has_bounds() {
    let mut noticed: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for direct in [true, false] {
        let mut runner = TestRunner::deterministic();
        let histories = histories(direct);
        for n in 0..4000 {
            let mut history = histories.new_tree(&mut runner).unwrap().current();
            if n % 4 == 0 {
                history.loses_peers();
            }
            let mut run = play(&history, Manner::Plain);
            if run.outcome.events.iter().all(|e| e.usage.billable_bytes == 0) {
                continue;
            }
            let rules = &history.setting.rules;
            let Some(open) = Judge::new(rules, &run.fleet, &run.outcome).left_open() else {
                continue;
            };
            for event in &mut run.outcome.events {
                let tenfold = |usage: &mut Usage| {
                    let once = *usage;
                    for _ in 1..10 {
                        usage.legs = usage.legs.plus(once.legs);
                    }
                    usage.billable_bytes = once.billable_bytes * 10;
                };
                tenfold(&mut event.usage);
                tenfold(&mut event.usage_delta);
                for report in &mut event.allocations {
                    let once = report.usage;
                    for _ in 1..10 {
                        report.usage = report.usage.plus(once);
                    }
                }
            }
            let judge = Judge::new(rules, &run.fleet, &run.outcome);
            let found = catch_unwind(AssertUnwindSafe(|| judge.nothing_is_above_the_truth())).is_err();
            let (times, all) = noticed.entry(open).or_default();
            (*times, *all) = (*times + u32::from(found), *all + 1);
        }
    }
    eprintln!("noticed, of how many, by what is left open: {noticed:?}");
    for open in Judge::LEFT_OPEN {
        let (times, all) = noticed.get(open).copied().unwrap_or_default();
        assert!(times > 0, "{open}: {times} of {all}");
    }
}
