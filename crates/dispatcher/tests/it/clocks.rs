//! The wall clock is set while deliveries are made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use turnhook_dispatcher::clock::Clocks;
use turnhook_reducer::{outbox::Next, time::Timestamp};

use crate::{
    delivering::verifies,
    harness::{Harness, SECRET, config, deliveries},
    receiver::{Receiver, Reply, wait_for},
};

const DAY: i64 = 86_400_000;

/// The system's clocks, but that the wall clock can be set: it is off by so many milliseconds.
fn clocks() -> (Arc<AtomicI64>, Clocks) {
    let off = Arc::new(AtomicI64::new(0));
    let (system, set) = (Clocks::system(), Arc::clone(&off));
    let steady = system.clone();
    let wall = move || Timestamp(system.wall().0.saturating_add_signed(set.load(Ordering::SeqCst)));
    (off, Clocks::new(wall, move || steady.steady()))
}

/// A receiver that takes what it can verify, as all do: the timestamp must be that of now.
async fn strict() -> Receiver {
    Receiver::start(|request| Reply::Status(if verifies(SECRET, request) { 200 } else { 401 })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_a_day_ahead_signs_rightly_once_it_is_put_back_and_gives_nothing_up() {
    let receiver = strict().await;
    let mut config = config("billing", &receiver.url());
    config.retry.give_up_after = Duration::from_secs(3600);
    let (off, clocks) = clocks();
    let harness = Harness::start_by(clocks, vec![(config, Vec::new())]);
    harness.commit("billing", deliveries(3, 2));
    harness.drained("billing").await;
    let before = receiver.received().len();

    off.store(DAY, Ordering::SeqCst);
    harness.commit(
        "billing",
        (0..3)
            .map(|n| crate::harness::delivery(100 + n, 50, n as u32))
            .collect(),
    );
    wait_for(|| (receiver.received().len() >= before + 2).then_some(())).await;
    let outcomes = harness.outcomes();
    let failed = outcomes
        .iter()
        .find(|outcome| outcome.status == Some(401))
        .unwrap();
    assert!(matches!(failed.next, Next::Retry(_)), "{failed:?}");

    off.store(0, Ordering::SeqCst);
    harness.drained("billing").await;
    assert!(
        harness
            .outcomes()
            .iter()
            .all(|outcome| outcome.next != Next::GAVE_UP)
    );
}

/// The jump comes between two attempts: the age of a delivery does not grow by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leaps_ahead_ages_nothing() {
    let receiver = Receiver::start(|_| Reply::Status(500)).await;
    let mut config = config("billing", &receiver.url());
    config.retry.give_up_after = Duration::from_secs(3600);
    let (off, clocks) = clocks();
    let harness = Harness::start_by(clocks, vec![(config, Vec::new())]);
    harness.commit("billing", deliveries(1, 1));
    harness.outcome(|outcome| outcome.attempt == 1).await;
    off.store(400 * DAY, Ordering::SeqCst);
    let later = harness.outcome(|outcome| outcome.attempt == 4).await;
    assert!(matches!(later.next, Next::Retry(_)), "{later:?}");
    assert!(later.tried_for < Duration::from_secs(3600));
}

/// What is due in a moment is due in a moment, although the wall clock is put back by a day meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_put_back_delays_nothing() {
    let receiver = Receiver::start(|_| Reply::Status(500)).await;
    let (off, clocks) = clocks();
    let harness = Harness::start_by(clocks, vec![(config("billing", &receiver.url()), Vec::new())]);
    harness.commit("billing", deliveries(1, 1));
    harness.outcome(|outcome| outcome.attempt == 1).await;
    off.store(-DAY, Ordering::SeqCst);
    let later = harness.outcome(|outcome| outcome.attempt == 5).await;
    let Next::Retry(at) = later.next else {
        panic!("{later:?}")
    };
    assert!(
        at.since(later.at) < 3_600_000,
        "it is told by the wall clock: {later:?}"
    );
}
