//! Generated fleets heard by two or three nodes that share a store, and lead and follow in turns.
//!
//! `history` is what proptest makes and shrinks, `store` the shared rows and the lease, `node` one turnhook,
//! `run` plays; the truth and most of what must hold are the model's. `TURNHOOK_HISTORIES` sets the number of histories (default 30,000).

mod history;
mod node;
mod run;
mod store;

use proptest::test_runner::{
    Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner,
};

use self::{
    history::{History, histories},
    run::play,
};
use crate::model::checks::Judge;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/cluster.txt");

fn holds(history: &History) {
    let run = play(history);
    if std::env::var("TURNHOOK_SHOW").is_ok() {
        eprintln!("{history:#?}\n{:#?}", run.outcome.events);
    }
    // Lives of one key are told apart by what every node heard of them.
    let by_all = run.fleet_by(|run, life| run.heard_by_all(life));
    let by_any = run.fleet_by(|run, life| run.heard_by_any(life));
    let promised = run.fleet_by(|run, life| run.promised(life));
    let mut judge = Judge::new(&history.rules, &by_all, &run.outcome);
    judge.fleet = &by_any;
    // What a follower keeps has the same bound.
    judge.evicted |= history.rules.tombstone_limit < 100;
    judge.unpromised = true;
    judge.check_soundness();
    if !judge.evicted {
        judge.fleet = &promised;
        judge.unpromised = false;
        judge.the_books_balance();
        judge.bills_are_true();
    }
}

fn hold(nodes: usize) {
    let wanted = std::env::var("TURNHOOK_HISTORIES").ok();
    let wanted = wanted.map_or(30_000, |n| n.parse().expect("TURNHOOK_HISTORIES is a number"));
    let config = Config {
        cases: u32::max(wanted / 8, 1),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    // The same histories each time; others with each run where a number is asked for.
    let mut runner = match std::env::var_os("TURNHOOK_HISTORIES") {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let result = runner.run(&histories(nodes), |history| {
        holds(&history);
        Ok::<(), TestCaseError>(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn two_nodes_tell_the_truth_once() {
    hold(2);
}

#[test]
fn three_nodes_tell_the_truth_once() {
    hold(3);
}
