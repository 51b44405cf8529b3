//! What totals say after a takeover.

use turnhook_reducer::rules::StartOn;

use super::{carry, close, open, three_nodes, two_nodes};
use crate::{
    cluster::{history::Step, holds},
    model::call::Size::{self, Check, Nothing},
};

/// The next life's `new` was lost, and its totals make a whole with those of the life before: what it reported in
/// between, after a total of the one before, shows that they are not of one.
#[test]
fn totals_of_two_lives_are_not_exact() {
    let ended = vec![
        open(false, 1, true, 0),
        close([0, 0, 0, 0, 7]),
        Step::Restart,
        open(false, 1, true, 3),
        carry(0, Check, Nothing, false),
        close([0, 0, 3, 7, 0]),
    ];
    let closing = vec![
        open(false, 0, true, 0),
        close([0, 0, 0, 7, 0]),
        Step::Restart,
        open(false, 0, true, 7),
        carry(0, Nothing, Check, false),
        close([0, 0, 7, 0, 7]),
    ];
    for (steps, totals_grace) in [(ended, 5_000), (closing, 20_000)] {
        let mut history = three_nodes(StartOn::Allocation, false, steps);
        history.rules.totals_grace = totals_grace;
        history.clean_end = false;
        holds(&history);
    }
}

/// Its leader heard of it when it closed, five seconds after its client had let it go; the totals are those of the same.
#[test]
fn totals_that_come_long_after_the_client_let_go_are_its_own() {
    let steps = vec![
        Step::DeafLeader,
        open(true, 0, false, 0),
        Step::AskDeletion { life: 0, missed: 0 },
        carry(0, Nothing, Nothing, true),
        Step::Refresh {
            life: 0,
            moves: false,
            missed: 6,
        },
        Step::Hear(2),
        Step::Wait(5_000),
        close([0, 0, 0, 5, 0]),
        Step::HandOver,
        Step::HandOver,
    ];
    holds(&two_nodes(StartOn::Allocation, false, steps));
}

/// The peer's total is below what was counted of two lives that nobody could tell apart: it is not the total of all that.
#[test]
fn a_total_that_is_not_believed_is_none_after_a_takeover() {
    let steps = vec![
        open(false, 2, true, 0),
        Step::Carry {
            life: 0,
            up: Check,
            down: Nothing,
            strangers: Nothing,
            report: Some([6, 0]),
        },
        Step::Restart,
        Step::Crash(0),
        open(false, 2, true, 6),
        Step::Wait(15_000),
        carry(0, Check, Nothing, false),
        close([0, 2, 0, 2, 0]),
        Step::Wait(5_000),
        Step::CrashLeader,
        Step::Wait(0),
    ];
    let mut history = three_nodes(StartOn::Allocation, false, steps);
    history.clean_end = false;
    holds(&history);
}

/// Totals of two lives, of which one was committed, or heard by one node, and the other by another.
#[test]
fn totals_of_two_nodes_are_not_exact_where_they_differ() {
    let committed = vec![
        open(false, 2, true, 0),
        close([0, 0, 0, 7, 0]),
        Step::StoreDown,
        Step::Restart,
        open(false, 2, true, 0),
        carry(0, Nothing, Check, false),
        close([0; 5]),
    ];
    let one_each = vec![
        Step::CrashLeader,
        open(false, 1, true, 0),
        close([0, 0, 0, 0, 2]),
        Step::Wait(15_000),
        Step::StoreDown,
        Step::Wait(0),
        Step::Restart,
        open(false, 1, true, 0),
        carry(0, Check, Nothing, false),
        close([0, 0, 0, 4, 0]),
    ];
    let reported = vec![
        Step::PauseLeader,
        Step::Wait(10_000),
        Step::Resume(0),
        Step::StoreDown,
        Step::CrashLeader,
        open(false, 1, false, 0),
        close([0, 0, 0, 0, 3]),
        Step::Restart,
        Step::StoreUp,
        Step::HandOver,
        open(false, 1, false, 3),
        Step::HandOver,
        carry(0, Check, Nothing, false),
        close([0, 0, 2, 2, 0]),
    ];
    let third = vec![
        Step::Forge {
            user: 0,
            size: Nothing,
        },
        Step::Deaf(1),
        Step::CrashLeader,
        open(false, 0, false, 0),
        Step::Wait(5_000),
        open(false, 2, true, 0),
        Step::Wait(10_000),
        Step::Close {
            life: 187,
            missed: [0, 0, 0, 0, 4],
        },
        Step::CrashLeader,
        Step::Restart,
        open(false, 0, false, 0),
        open(false, 0, false, 0),
        open(false, 2, true, 4),
        Step::AskDeletion { life: 99, missed: 0 },
        Step::Wait(999),
        carry(31, Check, Nothing, false),
        Step::StoreDown,
        close([0; 5]),
        close([0, 0, 0, 7, 0]),
        Step::Restart,
    ];
    for (nodes, steps) in [(2, committed), (3, one_each), (2, reported), (3, third)] {
        let mut history = three_nodes(StartOn::Allocation, false, steps);
        (history.nodes, history.skews) = (nodes, vec![0; nodes]);
        history.clean_end = false;
        holds(&history);
    }
}

/// What the leader counted of two lives in one, of which the follower had heard the first one's total.
#[test]
fn a_total_does_not_say_what_was_counted_here() {
    let steps = vec![
        open(false, 1, false, 0),
        open(true, 0, false, 0),
        Step::Wait(1_028),
        Step::Close {
            life: 5,
            missed: [0; 5],
        },
        Step::AskDeletion { life: 0, missed: 0 },
        Step::CrashLeader,
        carry(0, Nothing, Size::Many, false),
        Step::Wait(1_418),
        Step::Wait(6_000),
        Step::Wait(1_544),
        Step::PauseLeader,
        Step::Wait(22_000),
        Step::Restart,
        Step::CrashLeader,
        open(false, 1, false, 0),
        carry(0, Nothing, Check, true),
        Step::Wait(10_000),
    ];
    holds(&two_nodes(StartOn::Allocation, false, steps));
}

/// A total that wrapped, more often than the client's leg speaks for. Whoever settled with it lost its lease before that was
/// committed, and took over again.
#[test]
fn a_total_that_was_not_believed_is_not_exact_after_a_lost_lease() {
    let steps = vec![
        Step::HandOver,
        Step::Wait(0),
        Step::HandOver,
        open(true, 0, false, 0),
        Step::Carry {
            life: 0,
            up: Nothing,
            down: Nothing,
            strangers: Size::Giga,
            report: Some([0, 2]),
        },
        carry(0, Nothing, Size::Giga, false),
        Step::AskDeletion { life: 0, missed: 0 },
        Step::StoreDown,
        Step::Wait(998),
        Step::Resume(1),
    ];
    let mut history = two_nodes(StartOn::Allocation, false, steps);
    history.rules.linger = 0;
    holds(&history);
}

/// A total that wrapped, and that the first of two who took over did not call one: the second does not either.
#[test]
fn a_total_that_may_have_wrapped_is_none_after_two_takeovers() {
    let missed = |down, strangers| Step::Carry {
        life: 0,
        up: Nothing,
        down,
        strangers,
        report: Some([0, 7]),
    };
    let steps = vec![
        open(false, 0, false, 0),
        Step::HandOver,
        open(true, 0, true, 0),
        Step::HandOver,
        close([0; 5]),
        missed(Size::Giga, Nothing),
        missed(Nothing, Size::Giga),
        close([0, 0, 0, 0, 4]),
        Step::DeafLeader,
        Step::Wait(20_000),
        Step::HandOver,
        Step::CrashLeader,
        Step::Wait(0),
    ];
    let mut history = three_nodes(StartOn::Allocation, false, steps);
    history.clean_end = false;
    history.rules.totals_grace = 20_000;
    holds(&history);
}

/// A leader that took two lives for one sets it right by their totals with what it had not billed yet, some of it another
/// allocation's: that goes on record with it, and not beside it in the next leader's session.
#[test]
fn what_sets_one_right_goes_on_record_with_it() {
    let missed = |life, down, report| Step::Carry {
        life,
        up: Nothing,
        down,
        strangers: Nothing,
        report,
    };
    let strangers = |life, down, strangers| Step::Carry {
        life,
        up: Nothing,
        down,
        strangers,
        report: None,
    };
    let steps = vec![
        open(false, 2, false, 0),
        missed(0, Size::Many, None),
        missed(0, Size::Part, Some([0, 0])),
        open(false, 0, false, 0),
        open(false, 0, false, 0),
        open(true, 2, false, 1),
        open(false, 0, false, 0),
        missed(128, Size::Many, Some([1, 0])),
        Step::Restart,
        strangers(0, Nothing, Size::Call),
        open(true, 2, false, 0),
        strangers(1, Size::Call, Size::Many),
        Step::Close {
            life: 84,
            missed: [0; 5],
        },
        Step::HandOver,
    ];
    let mut history = three_nodes(StartOn::Allocation, false, steps);
    history.clean_end = false;
    history.rules.usage_interval = 7_000;
    history.rules.max_session = 300_000;
    holds(&history);
}
