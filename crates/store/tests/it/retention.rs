//! What is old goes, in small steps; what is owed stays.

use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_store::{Commit, DeliveryFilter, DeliveryState, SessionFilter, Store, Trimmed};

use crate::support::{Backend, Fixture, at, dead, delivered, event, retry, session};

crate::support::on_both! {
    old_ones_go_and_dead_letters_stay,
    a_clock_that_is_ahead_removes_nothing_early,
    what_is_old_goes_though_nobody_looks,
    a_store_in_which_all_is_delivered_at_full_rate_stays_bounded,
}

async fn trim_all(store: &Store, before: u64, limit: usize) -> Trimmed {
    let mut sum = Trimmed::default();
    for _ in 0..10_000 {
        let step = store.admin().trim(at(before), limit).await.unwrap();
        assert!(step.events + step.sessions <= limit as u64);
        sum.events += step.events;
        sum.sessions += step.sessions;
        if !step.more {
            return sum;
        }
    }
    panic!("it never ends");
}

const DAY: u64 = 86_400_000;

/// One answer of a time server, years ahead: what is thirty days old by such a clock is minutes old. A restart believes it
/// no more.
async fn a_clock_that_is_ahead_removes_nothing_early(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let events = vec![event(1, 0, 0, 0, "a", false), event(1, 0, 1, 10, "a", true)];
    let made = f
        .store
        .state()
        .commit(f.commit(20, events))
        .await
        .unwrap()
        .deliveries;
    let outcomes = made.iter().map(|d| delivered(d.id, 1)).collect();
    f.store.outbox().record(outcomes).await.unwrap();
    f.store
        .ledger()
        .sessions(SessionFilter::default(), None, 1)
        .await
        .unwrap();
    let minute = 60_000;
    assert_eq!(
        f.store.admin().horizon(),
        Timestamp(0),
        "nothing is old before it is known"
    );
    assert_eq!(
        f.store.admin().advance_horizon(at(minute)).await.unwrap(),
        at(minute)
    );
    let mut f = f;
    for restart in [false, true, true] {
        if restart {
            f = f.reopen().await;
        }
        for ahead in [DAY, 3650 * DAY] {
            let horizon = f.store.admin().advance_horizon(at(ahead)).await.unwrap();
            assert_eq!(horizon, f.store.admin().horizon());
            assert!((at(minute)..at(DAY / 2)).contains(&horizon), "{horizon:?}");
            let before = horizon.0.saturating_sub(30 * DAY).saturating_sub(at(0).0);
            assert_eq!(before, 0);
            assert_eq!(trim_all(&f.store, before, 500).await.events, 0);
        }
        // Put back: never ahead of the clock.
        assert_eq!(
            f.store.admin().advance_horizon(at(30_000)).await.unwrap(),
            at(30_000)
        );
    }
    assert_eq!(f.count("event"), 2);
    let all = f.store.admin().trim_all(at(DAY), || true).await.unwrap();
    assert_eq!(
        (all.events, all.sessions, all.more),
        (2, 1, false),
        "at its time it goes"
    );
}

/// A file brings events into its ledger when many have come, or somebody looks: where neither happens, they go all the same,
/// in a few slices or many, and the books know of them.
async fn what_is_old_goes_though_nobody_looks(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let mut outcomes = Vec::new();
    for n in 0..300u64 {
        let events = vec![event(n, n, 0, n, "a", false), event(n, n, 1, n + 1, "a", true)];
        let made = f
            .store
            .state()
            .commit(f.commit(n, events))
            .await
            .unwrap()
            .deliveries;
        outcomes.extend(made.iter().map(|d| delivered(d.id, 1)));
    }
    f.store.outbox().record(outcomes).await.unwrap();
    let stopped = f.store.admin().trim_all(at(200), || false).await.unwrap();
    assert!(stopped.more, "it ends where it is told to");
    let rest = f.store.admin().trim_all(at(200), || true).await.unwrap();
    assert_eq!((stopped.events + rest.events, rest.more), (399, false));
    assert_eq!(f.count("event"), 600 - 399);
    let usage = f
        .store
        .ledger()
        .usage_by_day(0, u32::MAX, None, 10)
        .await
        .unwrap();
    assert_eq!((usage[0].started, usage[0].ended), (300, 300));
}

/// One pass over what is old after the other, while as much is delivered as the store takes: each removes all that has grown
/// old since the one before, and not only so much.
async fn a_store_in_which_all_is_delivered_at_full_rate_stays_bounded(on: &Backend) {
    const ROUND: u64 = 10_000;
    const CALLS: u64 = 600;
    const KEPT: u64 = 2;
    let f = Fixture::new(on, &["billing"]).await;
    let deliver = async |round: u64| {
        for part in 0..6 {
            let mut events = Vec::new();
            for n in 0..CALLS / 6 {
                let (call, at) = (round * CALLS + part * (CALLS / 6) + n, round * ROUND + n);
                events.push(event(call, at, 0, at, "a", false));
                events.push(event(call, at, 1, at, "a", true));
            }
            let commit = f.commit(round * ROUND, events);
            let made = f.store.state().commit(commit).await.unwrap().deliveries;
            let outcomes = made.iter().map(|d| delivered(d.id, 1)).collect();
            f.store.outbox().record(outcomes).await.unwrap();
        }
    };
    let rounds = 5;
    let mut most = 0;
    for round in 0..rounds {
        let before = at((round * ROUND).saturating_sub(KEPT * ROUND));
        let (_, trimmed) = tokio::join!(deliver(round), f.store.admin().trim_all(before, || true));
        assert!(!trimmed.unwrap().more);
        most = most.max(f.count("event"));
    }
    // What is to be kept, what came meanwhile, and nothing of before.
    let all = (rounds * CALLS * 2) as i64;
    let kept = ((KEPT + 1) * CALLS * 2) as i64;
    assert!(most <= kept, "{most} of {all} are kept, and {kept} are to be");
    assert_eq!(f.count("delivery"), f.count("event"));
}

async fn old_ones_go_and_dead_letters_stay(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    for n in 0..40u64 {
        let events = (0..3)
            .map(|s| event(n, n * 10, s, n * 10 + u64::from(s), "a", s == 2))
            .collect();
        let gaps = vec![Gap {
            from: at(n * 10),
            to: at(n * 10 + 1),
            reason: GapReason::Reconnect,
            server: None,
        }];
        let made = f
            .store
            .state()
            .commit(Commit {
                gaps,
                ..f.commit(n, events)
            })
            .await
            .unwrap()
            .deliveries;
        let outcomes = match n {
            // Dead, failed first, still pending, and never ended.
            3 => vec![
                delivered(made[0].id, 1),
                dead(made[1].id, 1),
                delivered(made[2].id, 1),
            ],
            4 => made
                .iter()
                .flat_map(|d| [retry(d.id, 1, 2), delivered(d.id, 3)])
                .collect(),
            5 => vec![delivered(made[0].id, 1), delivered(made[1].id, 1)],
            _ => made.iter().map(|d| delivered(d.id, 1)).collect(),
        };
        f.store.outbox().record(outcomes).await.unwrap();
    }
    let started = event(90, 0, 0, 0, "a", false);
    let made = f
        .store
        .state()
        .commit(f.commit(1, vec![started]))
        .await
        .unwrap()
        .deliveries;
    f.store
        .outbox()
        .record(vec![delivered(made[0].id, 1)])
        .await
        .unwrap();

    // On SQLite nothing has been brought into the ledger yet, so nothing may go.
    if f.is_sqlite() {
        assert_eq!(trim_all(&f.store, 300, 7).await, Trimmed::default());
    }
    assert_eq!(
        f.store
            .ledger()
            .sessions(SessionFilter::default(), None, 100)
            .await
            .unwrap()
            .len(),
        41
    );

    // Sessions 0 to 29 began before 300; the last event of 29 is at 292.
    let trimmed = trim_all(&f.store, 300, 7).await;
    assert_eq!((trimmed.events, trimmed.sessions), (30 * 3 - 2 + 1, 28));
    let left = f
        .store
        .ledger()
        .deliveries(DeliveryFilter::default(), None, 1000)
        .await
        .unwrap();
    assert_eq!(left.len(), 10 * 3 + 2);
    assert_eq!(left[30].state, DeliveryState::Pending);
    assert_eq!(left[31].state, DeliveryState::Dead);
    assert!(
        f.store.ledger().session(session(3, 30)).await.unwrap().is_some(),
        "its dead letter is there"
    );
    assert!(
        f.store.ledger().session(session(90, 0)).await.unwrap().is_some(),
        "it is open"
    );
    assert!(f.store.ledger().session(session(4, 40)).await.unwrap().is_none());
    assert!(
        f.store
            .ledger()
            .gaps(None, 100)
            .await
            .unwrap()
            .iter()
            .all(|g| g.gap.to >= at(290))
    );
    let tables: &[&str] = if f.is_sqlite() {
        &["event", "delivery", "event_key", "session_event"]
    } else {
        &["event", "delivery"]
    };
    assert!(tables.iter().all(|table| f.count(table) == 32));
    assert_eq!(f.count("attempt"), 1);

    // Days of usage outlive all that.
    let usage = f
        .store
        .ledger()
        .usage_by_day(0, u32::MAX, None, 10)
        .await
        .unwrap();
    assert_eq!((usage[0].started, usage[0].ended), (41, 40));

    // Once delivered, or discarded, they go with the next pass; and ids go on where they were.
    let other = f.shared().await;
    assert_eq!(
        other
            .admin()
            .discard(
                DeliveryFilter {
                    states: vec![DeliveryState::Dead, DeliveryState::Pending],
                    ..Default::default()
                },
                at(5)
            )
            .await
            .unwrap(),
        2
    );
    let trimmed = trim_all(&f.store, 1_000, 500).await;
    assert_eq!((trimmed.events, trimmed.sessions), (32, 12));
    let f = f.reopen().await;
    let next = f
        .store
        .state()
        .commit(f.commit(9, vec![event(91, 0, 0, 0, "a", false)]))
        .await
        .unwrap()
        .deliveries;
    assert!(next[0].id > made[0].id, "never a number twice");
}
