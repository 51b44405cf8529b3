//! Histories that came out wrong once, as they were found.

mod totals;

use turnhook_reducer::rules::{PeerLeg, Rules, StartOn};

use super::{
    history::{History, Step},
    holds,
    run::play,
};
use crate::model::call::Size::{self, Check, Nothing};

fn three_nodes(start_on: StartOn, addresses: bool, steps: Vec<Step>) -> History {
    History {
        rules: Rules {
            start_on,
            peer_leg: PeerLeg::Reported,
            ..Rules::default()
        },
        addresses,
        nodes: 3,
        skews: vec![0; 3],
        barrier: false,
        clean_end: true,
        steps,
    }
}

/// Of which not all is over when it ends.
fn two_nodes(start_on: StartOn, addresses: bool, steps: Vec<Step>) -> History {
    History {
        nodes: 2,
        skews: vec![0; 2],
        clean_end: false,
        ..three_nodes(start_on, addresses, steps)
    }
}

/// On the one or the other server; `missed` says by whom, in bits.
fn open(second: bool, user: u8, keeps: bool, missed: u8) -> Step {
    open_from(second, user, keeps, true, missed)
}

fn open_from(second: bool, user: u8, keeps: bool, same_remote: bool, missed: u8) -> Step {
    Step::Open {
        second,
        user,
        keeps,
        same_remote,
        missed,
    }
}

fn carry(life: u8, up: Size, down: Size, told: bool) -> Step {
    Step::Carry {
        life,
        up,
        down,
        strangers: Nothing,
        report: told.then_some([0, 0]),
    }
}

fn close(missed: [u8; 5]) -> Step {
    Step::Close { life: 0, missed }
}

/// What the leader counted in the life before, having missed the `new` of the next, waits in a follower's queue.
#[test]
fn what_waited_for_a_follower_is_not_told_in_two_lives() {
    let soon = vec![
        open(false, 0, true, 0),
        Step::Restart,
        Step::Lag(1),
        open_from(false, 0, true, false, 5),
        carry(0, Nothing, Nothing, true),
        Step::Restart,
        Step::CrashLeader,
        Step::Wait(0),
    ];
    let later = vec![
        open(false, 0, false, 0),
        open(false, 2, false, 0),
        carry(157, Nothing, Nothing, true),
        Step::HandOver,
        Step::Restart,
        Step::HandOver,
        open(false, 0, false, 0),
        Step::Wait(32_000),
        Step::Lag(1),
        open(false, 2, false, 4),
        carry(1, Nothing, Nothing, true),
        Step::Wait(10_000),
        Step::Crash(0),
        Step::HandOver,
    ];
    let forged = vec![
        Step::Lag(0),
        Step::Forge {
            user: 0,
            size: Nothing,
        },
        open(true, 0, false, 0),
        carry(0, Nothing, Check, true),
        Step::Snapshot,
        Step::HandOver,
        Step::CrashLeader,
        Step::Wait(600_000),
    ];
    for (addresses, steps) in [(true, soon), (false, later), (false, forged)] {
        let mut history = three_nodes(StartOn::Allocation, addresses, steps);
        history.clean_end = false;
        holds(&history);
    }
}

/// One that was told to have ended lives on in a session that began when that one had ended.
#[test]
fn no_two_sessions_have_one_id() {
    let steps = vec![
        open(false, 0, true, 5),
        Step::DeafLeader,
        carry(0, Nothing, Check, true),
        open(true, 0, true, 0),
        Step::Close {
            life: 61,
            missed: [0; 5],
        },
        carry(0, Check, Nothing, false),
        open(true, 0, false, 0),
        Step::Wait(5_000),
        Step::CrashLeader,
    ];
    holds(&three_nodes(StartOn::Relay, false, steps));
}

/// The leader heard neither its `new` nor its client's total, and coturn's counters may have wrapped: what a follower saw
/// go on to the client is billed nevertheless.
#[test]
fn what_a_follower_saw_go_on_is_billed_without_a_total() {
    let steps = vec![
        open(true, 0, false, 2),
        Step::CrashLeader,
        Step::Carry {
            life: 0,
            up: Nothing,
            down: Size::Giga,
            strangers: Size::Many,
            report: None,
        },
        Step::Carry {
            life: 0,
            up: Nothing,
            down: Nothing,
            strangers: Size::Many,
            report: None,
        },
        close([0, 0, 0, 2, 0]),
        Step::Wait(10_000),
        Step::CrashLeader,
    ];
    let mut history = three_nodes(StartOn::Allocation, false, steps);
    history.clean_end = false;
    holds(&history);
    let run = play(&history);
    let events = run.outcome.events.iter();
    let billed: u64 = events.map(|e| e.usage_delta.billable_bytes).sum();
    assert!(billed > 3_000_000_000, "billed {billed}");
}

/// A node that had forgotten the life before, which had ended a minute ago, leads: a `new` is not taken for that one's.
#[test]
fn a_new_does_not_wait_for_a_minute() {
    let steps = vec![
        open(false, 0, true, 0),
        close([0, 0, 0, 5, 0]),
        Step::Wait(50_000),
        Step::CrashLeader,
        Step::Restart,
        open(false, 0, true, 0),
        carry(0, Nothing, Nothing, false),
    ];
    holds(&three_nodes(StartOn::Allocation, false, steps));
}

/// The session before ended by what only a follower had heard, when the next was waiting to start.
#[test]
fn a_session_starts_when_the_one_before_has_ended() {
    let steps = vec![
        open(false, 0, false, 0),
        carry(0, Check, Nothing, false),
        Step::AskDeletion { life: 0, missed: 0 },
        open(true, 0, true, 0),
        Step::Carry {
            life: 89,
            up: Nothing,
            down: Size::Part,
            strangers: Nothing,
            report: Some([0, 3]),
        },
        Step::DeafLeader,
        Step::Wait(996),
        Step::Restart,
        Step::CrashLeader,
        Step::Wait(10000),
        Step::Crash(1),
    ];
    let mut history = two_nodes(StartOn::Relay, false, steps);
    history.rules.linger = 0;
    holds(&history);
}

/// Its client let it go by the clock of one node before it had opened by that of the other.
#[test]
fn nothing_closes_before_it_opens() {
    let steps = vec![
        Step::Crash(2),
        Step::Wait(15_000),
        open(false, 0, false, 2),
        Step::Wait(1_000),
        Step::Wait(0),
        Step::Snapshot,
        Step::AskDeletion { life: 0, missed: 6 },
        Step::Forge {
            user: 0,
            size: Nothing,
        },
        Step::HandOver,
        Step::AskDeletion { life: 0, missed: 0 },
    ];
    let mut history = two_nodes(StartOn::Allocation, false, steps);
    history.skews = vec![0, 2];
    holds(&history);
}

/// Nobody heard the next life's `new`: what the leader counted in the life before may be of it, whenever another node
/// first heard of it.
#[test]
fn what_was_counted_in_the_life_before_is_not_billed_again() {
    let steps = vec![
        Step::CrashLeader,
        open(false, 0, false, 0),
        Step::Wait(0),
        open(false, 2, true, 4),
        Step::Restart,
        Step::HandOver,
        open(false, 0, false, 0),
        open_from(false, 2, true, false, 7),
        carry(133, Nothing, Check, true),
        Step::Wait(0),
        open(true, 0, false, 0),
        Step::PauseLeader,
        Step::Wait(15_000),
        Step::CrashLeader,
        Step::Refresh {
            life: 64,
            moves: false,
            missed: 0,
        },
        Step::Wait(9_000),
    ];
    let history = three_nodes(StartOn::Allocation, true, steps);
    holds(&history);
}

/// The leader missed the next life's `new`, and counted it to its end in the life before; who took over had heard it, late.
#[test]
fn what_ended_in_the_life_before_is_not_billed_again() {
    let steps = vec![
        open(false, 1, false, 0),
        Step::Restart,
        Step::CrashLeader,
        Step::Wait(15_000),
        Step::Lag(0),
        open_from(false, 1, false, false, 2),
        carry(0, Nothing, Nothing, false),
        close([0; 5]),
        Step::Wait(5_000),
        Step::CrashLeader,
        Step::Crash(2),
    ];
    let mut history = three_nodes(StartOn::Allocation, true, steps);
    history.clean_end = false;
    holds(&history);
}

/// The leader did not hear what a peer got; the follower did, and took over when the client had gone to another address.
#[test]
fn what_one_node_heard_of_a_leg_is_not_billed_beside_the_total() {
    let steps = vec![
        open(true, 0, false, 0),
        Step::Carry {
            life: 0,
            up: Nothing,
            down: Size::Call,
            strangers: Nothing,
            report: Some([0, 1]),
        },
        Step::Refresh {
            life: 0,
            moves: true,
            missed: 0,
        },
        Step::HandOver,
        Step::HandOver,
        close([2, 0, 0, 0, 0]),
    ];
    holds(&two_nodes(StartOn::Allocation, true, steps));
}
