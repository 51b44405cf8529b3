//! Relay threads that have fallen silent (TRAPS.md, trap 11): which are, and which only look so.

use turnhook_reducer::{
    rules::Rules,
    source::{Gap, GapReason},
    time::Timestamp,
};

use crate::world::World;

const SLACK: u64 = 5_000;
/// The first allocation of relay thread 1.
const OTHER_THREAD: u64 = 1_000_000_000_000_001;

fn silent(w: &mut World) -> Vec<u16> {
    w.advance();
    w.reducer.silent_threads(SLACK).iter().map(|t| t.thread).collect()
}

#[test]
fn a_thread_whose_refreshes_stay_away_while_another_goes_on() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).open("bob", OTHER_THREAD);
    w.at(590.0).refresh("bob", OTHER_THREAD);
    assert_eq!(silent(w.at(604.0)), []);
    w.at(606.0).refresh("bob", OTHER_THREAD);
    assert_eq!(silent(&mut w), [0]);
    // Heard again, it is silent no more.
    w.at(610.0).refresh("ann", 1);
    assert_eq!(silent(&mut w), []);
}

/// A server that says nothing at all is gone, or its network is: no thread of it can be singled out.
#[test]
fn nobody_is_silent_where_all_are() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).open("bob", OTHER_THREAD);
    assert_eq!(silent(w.at(640.0)), []);
}

/// What wedges a thread is a Redis that stands still, which is a gap: allocations from before it count too, once a
/// whole lifetime has passed after it.
#[test]
fn a_thread_that_fell_silent_in_a_gap() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).open("bob", OTHER_THREAD);
    w.at(100.0).advance();
    let at = |seconds: u64| Timestamp(crate::world::START + seconds * 1000);
    w.reducer.deaf(at(100));
    w.reducer.hearing(at(125));
    let gap = Gap {
        from: at(95),
        to: at(125),
        reason: GapReason::Stall,
        server: None,
    };
    w.reducer.gap(at(95), &gap);
    w.at(126.0).refresh("bob", OTHER_THREAD);
    w.at(700.0).refresh("bob", OTHER_THREAD);
    assert_eq!(
        silent(w.at(720.0)),
        [],
        "a refresh may have been missed in the gap"
    );
    w.at(731.0).refresh("bob", OTHER_THREAD);
    assert_eq!(silent(&mut w), [0]);
}
