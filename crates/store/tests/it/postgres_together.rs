//! Several processes at once on one PostgreSQL: whatever they do to the same deliveries, the books are right at the end,
//! and nobody has waited for another in a circle.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use turnhook_store::{DeliveryFilter, DeliveryId, DeliveryState, Mode, ReplayRequest, Store};

use crate::support::{Backend, Fixture, at, dead, delivered, event, retry, run_on_postgres};

const ROUNDS: u64 = 25;
const SESSIONS: u64 = 20;

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    }
}

/// Takes what is pending and says what became of it: more than one process may have taken the same.
async fn deliver(f: Arc<Fixture>, store: Store, seed: u64) {
    let mut random = random(seed);
    for now in 0..ROUNDS {
        let endpoint = f.endpoints[usize::try_from(random(2)).unwrap()];
        let mut pending = store
            .outbox()
            .pending_after(endpoint, DeliveryId(0), 200)
            .await
            .unwrap();
        if random(2) == 0 {
            pending.reverse();
        }
        let outcomes = pending.iter().map(|d| match random(6) {
            0 => dead(d.id, now),
            1 => retry(d.id, now, now + 1),
            _ => delivered(d.id, now),
        });
        let outcomes = outcomes.collect();
        store.outbox().record(outcomes).await.unwrap();
    }
}

/// Replays and discards.
async fn intervene(store: Store, seed: u64, replayed: Arc<AtomicU64>) {
    let mut random = random(seed);
    let some = [
        DeliveryState::Delivered,
        DeliveryState::Dead,
        DeliveryState::Discarded,
    ];
    for now in 0..ROUNDS {
        let filter = DeliveryFilter {
            states: vec![some[usize::try_from(random(3)).unwrap()]],
            since: Some(at(random(SESSIONS) * 10)),
            ..DeliveryFilter::default()
        };
        if random(3) == 0 {
            let pending = DeliveryFilter {
                states: vec![],
                ..filter
            };
            store.admin().discard(pending, at(now)).await.unwrap();
        } else {
            let request = ReplayRequest {
                filter,
                at: at(1000 + now),
                who: "ops".into(),
                what: "some".into(),
                rate: None,
                may_repeat: false,
            };
            let replay = store.admin().replay(request).await.unwrap();
            replayed.fetch_add(replay.total, Ordering::Relaxed);
        }
    }
}

#[test]
fn together() {
    run_on_postgres(&[
        ("the_books_are_right_whoever_does_what", |on| {
            Box::pin(the_books_are_right_whoever_does_what(on))
        }),
        ("what_is_cut_on_the_way_is_done_once", |on| {
            Box::pin(what_is_cut_on_the_way_is_done_once(on))
        }),
        ("what_is_queued_again_is_not_trimmed", |on| {
            Box::pin(what_is_queued_again_is_not_trimmed(on))
        }),
    ]);
}

async fn the_books_are_right_whoever_does_what(on: &Backend) {
    let f = Arc::new(Fixture::new(on, &["billing", "audit"]).await);
    let server = f.server();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(f.place.open(Mode::Run).await.unwrap());
    }
    // From the first moment there is something to queue again.
    let events = (0..SESSIONS)
        .map(|n| event(n + 9000, 200, 0, 200 + n, "a", false))
        .collect();
    let made = f
        .store
        .state()
        .commit(f.commit(0, events))
        .await
        .unwrap()
        .deliveries;
    f.store
        .outbox()
        .record(made.iter().map(|d| delivered(d.id, 1)).collect())
        .await
        .unwrap();
    let replayed = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (seed, source) in [(1u64, "eu-1"), (2, "us-1")] {
        let f = Arc::clone(&f);
        tasks.push(tokio::spawn(async move {
            let source = f.store.state().source(source).await.unwrap();
            for round in 0..u32::try_from(ROUNDS).unwrap() {
                let events = (0..SESSIONS).map(|n| {
                    let n = n + seed * 1000;
                    event(
                        n,
                        n % SESSIONS * 10,
                        round,
                        n % SESSIONS * 10 + u64::from(round),
                        "a",
                        false,
                    )
                });
                let events = events.collect();
                let commit = turnhook_store::Commit {
                    source,
                    ..f.commit(round.into(), events)
                };
                assert_eq!(f.store.state().commit(commit).await.unwrap().repeated, 0);
            }
        }));
    }
    tasks.push(tokio::spawn(deliver(Arc::clone(&f), others[0].clone(), 3)));
    tasks.push(tokio::spawn(deliver(Arc::clone(&f), others[1].clone(), 4)));
    tasks.push(tokio::spawn(intervene(
        others[2].clone(),
        5,
        Arc::clone(&replayed),
    )));
    tasks.push(tokio::spawn(intervene(
        others[3].clone(),
        6,
        Arc::clone(&replayed),
    )));
    for store in [others[0].clone(), others[2].clone()] {
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                store.admin().trim(at(40), 50).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }

    let all = f
        .store
        .ledger()
        .deliveries(DeliveryFilter::default(), None, 100_000)
        .await
        .unwrap();
    let mut counts = BTreeMap::new();
    for row in &all {
        let (pending, dead) = counts.entry(row.id.endpoint()).or_insert((0, 0));
        *pending += u64::from(row.state == DeliveryState::Pending);
        *dead += u64::from(row.state == DeliveryState::Dead);
    }
    let told = f.store.outbox().backlog().await.unwrap();
    let told: BTreeMap<_, _> = told
        .into_iter()
        .map(|(id, b)| (id, (b.pending, b.dead)))
        .collect();
    assert_eq!(told, counts);
    assert_eq!(
        f.count("event") * 2,
        f.count("delivery"),
        "none has lost a part of its deliveries"
    );
    let on_record: u64 = f
        .store
        .ledger()
        .replays(None, 1000)
        .await
        .unwrap()
        .iter()
        .map(|r| r.total)
        .sum();
    assert!(replayed.load(Ordering::Relaxed) > 0);
    assert_eq!(on_record, replayed.load(Ordering::Relaxed));
    let usage = f
        .store
        .ledger()
        .usage_by_day(0, u32::MAX, None, 10)
        .await
        .unwrap();
    let told = (ROUNDS - 1) * SESSIONS * 2000;
    assert_eq!(
        usage
            .iter()
            .map(|d| (d.started, d.usage.billable_bytes))
            .collect::<Vec<_>>(),
        [(2 * SESSIONS, told), (SESSIONS, told)]
    );
    assert!(!server.has_logged("deadlock"), "{}", server.log());
}

/// Somebody has queued a delivery again, and commits while the events of its time are being trimmed.
async fn what_is_queued_again_is_not_trimmed(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let made = f
        .store
        .state()
        .commit(f.commit(
            1,
            vec![event(1, 0, 0, 0, "a", false), event(2, 0, 0, 0, "a", false)],
        ))
        .await
        .unwrap()
        .deliveries;
    f.store
        .outbox()
        .record(made.iter().map(|d| delivered(d.id, 1)).collect())
        .await
        .unwrap();
    let (server, database) = (f.server(), f.database().to_owned());
    let again = std::thread::spawn({
        let (server, database, id) = (Arc::clone(&server), database.clone(), made[1].id.0);
        move || {
            let sql = format!("UPDATE delivery SET state = 0 WHERE id = {id}; SELECT pg_sleep(2)");
            server.sql(&database, &sql)
        }
    });
    let asleep = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
    );
    for _ in 0..3000 {
        if server.sql("postgres", &asleep) == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let trimmed = f.store.admin().trim(at(100), 500).await.unwrap();
    again.join().unwrap();
    assert_eq!(trimmed.events, 1);
    let left = f.store.ledger().delivery(made[1].event_id).await.unwrap();
    let states: Vec<_> = left.iter().map(|d| d.row.state).collect();
    assert_eq!(states, [DeliveryState::Delivered, DeliveryState::Pending]);
}

/// Connections are cut while much is queued again and given up: what is told of it is true all the same.
async fn what_is_cut_on_the_way_is_done_once(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    for round in 0..4 {
        let events = (0..500)
            .map(|n| event(n, 0, round, round.into(), "a", false))
            .collect();
        let made = f
            .store
            .state()
            .commit(f.commit(round.into(), events))
            .await
            .unwrap()
            .deliveries;
        f.store
            .outbox()
            .record(made.iter().map(|d| delivered(d.id, 1)).collect())
            .await
            .unwrap();
    }
    let (server, database) = (f.server(), f.database().to_owned());
    let store = f.store.clone();
    let over = Arc::new(AtomicBool::new(false));
    let cutting = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut random, mut cut) = (random(8), 0);
            // Bounded, and seldom enough for a step to come through.
            for _ in 0..40 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                cut += server.cut(&database);
                std::thread::sleep(Duration::from_millis(random(150)));
            }
            cut
        }
    });
    for at_ms in [5000, 6000, 7000] {
        let request = ReplayRequest {
            filter: DeliveryFilter::default(),
            at: at(at_ms),
            who: "ops".into(),
            what: "all".into(),
            rate: None,
            may_repeat: false,
        };
        let replay = store.admin().replay(request).await.unwrap();
        let on_record = store.ledger().replays(Some(replay.id), 9).await.unwrap();
        assert_eq!(on_record, std::slice::from_ref(&replay));
        assert_eq!((replay.total, replay.pending), (4000, 4000));
        let discarded = store
            .admin()
            .discard(DeliveryFilter::default(), at(at_ms + 1))
            .await
            .unwrap();
        assert_eq!(discarded, 4000);
    }
    over.store(true, Ordering::Relaxed);
    assert!(cutting.join().unwrap() > 0);
    assert_eq!(store.ledger().replays(None, 9).await.unwrap().len(), 3);
    let backlog = f.store.outbox().backlog().await.unwrap();
    assert!(
        backlog.values().all(|b| (b.pending, b.dead) == (0, 0)),
        "{backlog:?}"
    );
}
