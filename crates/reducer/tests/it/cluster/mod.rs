//! Generated fleets heard by two or three nodes that share a store, and lead and follow in turns.
//!
//! `history` is what proptest makes and shrinks, `store` the shared rows and the lease, `node` one turnhook,
//! `run` plays; the truth and most of what must hold are the model's. `TURNHOOK_HISTORIES` sets the number of
//! histories (default 30,000, of which each of the two properties plays an eighth).

mod ears;
mod history;
mod known;
mod node;
mod run;
mod store;

use self::{
    history::{History, histories},
    run::play,
};
use crate::model::{checks::Judge, hold_for_all};

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
    judge.several_nodes = true;
    judge.check_soundness();
    if !judge.evicted {
        judge.fleet = &promised;
        judge.unpromised = false;
        judge.the_books_balance();
        judge.nobody_is_billed_too_much();
        judge.what_was_heard_is_billed();
    }
}

fn hold(nodes: usize) {
    hold_for_all(REGRESSIONS, 8, &histories(nodes), holds, |history| {
        format!("{history:#?}")
    });
}

#[test]
fn two_nodes_tell_the_truth_once() {
    hold(2);
}

#[test]
fn three_nodes_tell_the_truth_once() {
    hold(3);
}
