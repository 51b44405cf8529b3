//! Billing products, against one that keeps count: whatever is lost, refused, repeated or killed on the way, nothing is
//! counted twice, and what is not counted is listed as dead, uncertain or held.
//!
//! Everything runs on one thread by a clock that is set, from one number: a history that fails can be had again.

mod accounts;
mod batches;
mod fake;
mod world;

use std::time::Duration;

use turnhook_dispatcher::provider::account::Late;

use self::{
    fake::Kind,
    world::{Fate, Plan, World},
};

/// Histories of each of the two that are most unlike, and of each other product.
const HISTORIES: u64 = 500;
const OF_OTHERS: u64 = HISTORIES / 2;

fn run(seed: u64, kind: Kind, change: impl Fn(&mut Plan)) -> World {
    let mut plan = Plan::new(seed, kind);
    change(&mut plan);
    let mut world = World::new(plan);
    world.trouble(60);
    world.recover();
    world.check();
    world
}

fn many(kind: Kind, histories: u64) {
    let (mut counted, mut dead, mut waiting) = (0, 0, 0);
    for seed in 0..histories {
        let world = run(seed, kind, |_| ());
        counted += world.fates(|fate| *fate == Fate::Delivered);
        dead += world.fates(|fate| matches!(fate, Fate::Dead(_)));
        waiting += world.fates(|fate| *fate == Fate::Pending);
    }
    // Neither is everything given up, nor does all go well.
    assert!(counted > 10 * dead, "{counted} counted, {dead} dead");
    assert!(dead > 0 && waiting > 0, "{dead} dead, {waiting} waiting");
}

#[test]
fn what_openmeter_counts_is_the_ledger_or_is_listed() {
    many(Kind::OpenMeter, HISTORIES);
}

#[test]
fn what_lago_counts_is_the_ledger_or_is_listed() {
    many(Kind::Lago, HISTORIES);
}

#[test]
fn what_orb_counts_is_the_ledger_or_is_listed() {
    many(Kind::Orb, OF_OTHERS);
}

#[test]
fn what_metronome_counts_is_the_ledger_or_is_listed() {
    many(Kind::Metronome, OF_OTHERS);
}

#[test]
fn what_polar_counts_is_the_ledger_or_is_listed() {
    many(Kind::Polar, OF_OTHERS);
}

#[test]
fn what_stripe_counts_is_the_ledger_or_is_listed() {
    many(Kind::Stripe, OF_OTHERS);
}

#[test]
fn p2_what_may_have_been_counted_is_not_sent_again_after_the_window() {
    let mut uncertain = 0;
    for seed in 0..HISTORIES {
        let world = run(seed, Kind::OpenMeter, |plan| {
            plan.window = Duration::from_secs(600);
            plan.jumps = true;
        });
        uncertain += world.fates(|fate| *fate == Fate::Dead("uncertain"));
    }
    assert!(uncertain > 0);
}

#[test]
fn p4_what_is_late_is_dead_or_gets_a_new_time_if_nothing_can_have_been_counted() {
    for (late, reason) in [(Late::Dead, "too_late"), (Late::Now, "uncertain")] {
        let (mut dead, mut counted) = (0, 0);
        for seed in 0..HISTORIES / 2 {
            let world = run(seed, Kind::OpenMeter, |plan| {
                plan.oldest = Some(Duration::from_secs(900));
                plan.late = late;
                plan.jumps = true;
            });
            dead += world.fates(|fate| *fate == Fate::Dead(reason));
            counted += world.fates(|fate| *fate == Fate::Delivered);
            if late == Late::Now {
                assert_eq!(world.fates(|fate| *fate == Fate::Dead("too_late")), 0);
            }
        }
        assert!(
            dead > 0 && counted > 0,
            "{late:?}: {dead} dead, {counted} counted"
        );
    }
}

#[test]
fn p11_a_time_that_has_not_come_by_their_clock_waits_and_is_no_failure() {
    let world = run(1, Kind::Ahead, |plan| plan.calm());
    assert_eq!(world.fates(|fate| matches!(fate, Fate::Dead(_))), 0);
    assert!(world.fates(|fate| *fate == Fate::Delivered) > 0);
}

#[test]
fn p5_one_poisoned_item_takes_no_neighbour_along() {
    let all = [
        Kind::OpenMeter,
        Kind::Lago,
        Kind::Orb,
        Kind::Metronome,
        Kind::Polar,
        Kind::Stripe,
    ];
    for kind in all {
        for seed in 0..50 {
            let world = run(seed, kind, |plan| {
                plan.calm();
                plan.poison = true;
            });
            let dead = world.fates(|fate| *fate == Fate::Dead("rejected"));
            assert_eq!(dead, world.poisoned(), "{kind:?} {seed}");
            assert!(dead > 0 && world.fates(|fate| *fate == Fate::Delivered) > dead);
        }
    }
}

#[test]
fn a_wrong_key_holds_the_endpoint_and_nothing_dies() {
    let mut plan = Plan::new(3, Kind::OpenMeter);
    plan.calm();
    plan.unknown_users = false;
    let mut world = World::new(plan);
    world.fake.key_is_wrong = true;
    // Far beyond the time after which what fails is given up.
    for _ in 0..200 {
        world.step();
        world.pass(Duration::from_secs(3600));
    }
    assert_eq!(world.fates(|fate| *fate == Fate::Pending), world.events());
    let standstill = world.standstill().unwrap();
    assert_eq!(standstill.kind.as_str(), "held");
    assert!(standstill.reason.contains("credentials"), "{}", standstill.reason);
    let asked = world.fake.asked;
    assert!(
        (100..=201).contains(&asked),
        "one request every few seconds: {asked}"
    );
    world.fake.key_is_wrong = false;
    world.recover();
    world.check();
    assert_eq!(world.fates(|fate| *fate == Fate::Pending), 0);
    assert_eq!(world.standstill(), None);
}

#[test]
fn p7_who_is_not_in_the_map_is_sent_once_the_map_has_them() {
    let mut plan = Plan::new(5, Kind::Lago);
    plan.calm();
    let mut world = World::new(plan);
    world.recover_without_map();
    let waiting = world.fates(|fate| *fate == Fate::Pending);
    assert!(waiting > 0);
    assert_eq!(world.waiting_for_customers(), waiting);
    world.put_all_in_the_map();
    world.recover_without_map();
    world.check();
    assert_eq!(world.waiting_for_customers(), 0);
    assert_eq!(world.fates(|fate| *fate == Fate::Pending), 0);
}

#[test]
fn of_a_batch_those_of_a_session_stand_in_its_order() {
    let mut plan = Plan::new(9, Kind::OpenMeter);
    plan.calm();
    let mut world = World::new(plan);
    world.recover();
    assert!(
        world.fake.largest > 10,
        "batches go across sessions: {}",
        world.fake.largest
    );
    for session in world.counted_by_session() {
        assert!(session.is_sorted(), "{session:?}");
    }
}
