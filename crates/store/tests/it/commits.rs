//! State, events and deliveries are committed as one, and come back as they were.

use std::collections::BTreeMap;

use turnhook_reducer::{
    event::{Unattributed, UnattributedReason},
    message::AllocationId,
    source::{Gap, GapReason},
    state::{Change, Table},
    time::Timestamp,
};
use turnhook_store::{Commit, DeliveryId, SourceId, Store};

use crate::support::{Backend, Fixture, at, delivered, event, put, remove, session, usage};

crate::support::on_both! {
    state_comes_back_as_it_was_last_committed,
    state_survives_folding,
    a_commit_gives_its_deliveries_in_order,
    a_commit_may_be_repeated,
    commits_of_many_sources_share_transactions,
    closing_does_what_was_asked_for,
}

type Rows = BTreeMap<(u8, u64), Vec<u8>>;

pub(crate) async fn load(store: &Store, source: SourceId) -> (Rows, Option<Timestamp>) {
    let each = |rows: &mut Rows, table: Table, key: u64, value: &[u8]| {
        assert!(
            rows.insert((table as u8, key), value.to_vec()).is_none(),
            "{table:?} {key} came twice"
        );
    };
    store.state().load(source, Rows::new(), each).await.unwrap()
}

async fn state_comes_back_as_it_was_last_committed(on: &Backend) {
    let mut f = Fixture::new(on, &[]).await;
    assert_eq!(load(&f.store, f.source).await, (Rows::new(), None));
    let other = f.store.state().source("us-1").await.unwrap();
    assert_ne!(other, f.source);
    let changes = vec![
        put(Table::Allocation, 1, b"one"),
        put(Table::Allocation, u64::MAX, b"last"),
        put(Table::Session, 1, b""),
        put(Table::Tombstone, 7, b"gone soon"),
    ];
    f.store
        .state()
        .commit(Commit {
            changes,
            ..Commit::new(f.source, at(1))
        })
        .await
        .unwrap();
    f.store
        .state()
        .commit(Commit {
            changes: vec![put(Table::Allocation, 1, b"other")],
            ..Commit::new(other, at(9))
        })
        .await
        .unwrap();
    let changes = vec![
        put(Table::Allocation, 1, b"changed"),
        remove(Table::Tombstone, 7),
        remove(Table::Tombstone, 8),
    ];
    f.store
        .state()
        .commit(Commit {
            changes,
            ..Commit::new(f.source, at(2))
        })
        .await
        .unwrap();

    let expected: Rows = [
        ((1, 1), b"changed".to_vec()),
        ((1, u64::MAX), b"last".to_vec()),
        ((2, 1), Vec::new()),
    ]
    .into();
    assert_eq!(load(&f.store, f.source).await, (expected.clone(), Some(at(2))));
    f = f.reopen().await;
    assert_eq!(f.store.state().source("eu-1").await.unwrap(), f.source);
    assert_eq!(load(&f.store, f.source).await, (expected, Some(at(2))));
    assert_eq!(
        load(&f.store, other).await,
        ([((1, 1), b"other".to_vec())].into(), Some(at(9)))
    );
}

/// Enough changes that the log is folded into the table several times, while more come.
async fn state_survives_folding(on: &Backend) {
    let mut f = Fixture::new(on, &[]).await;
    let mut model = Rows::new();
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    for round in 0..120u64 {
        let mut changes: BTreeMap<u64, Change> = BTreeMap::new();
        for _ in 0..500 {
            let key = random() % 3000;
            let noise: Vec<u8> = (0..40).flat_map(|_| random().to_le_bytes()).collect();
            let change = if random().is_multiple_of(5) {
                remove(Table::Session, key)
            } else {
                put(Table::Session, key, &noise)
            };
            changes.insert(key, change);
        }
        for change in changes.values() {
            match &change.value {
                Some(value) => model.insert((change.table as u8, change.key), value.clone()),
                None => model.remove(&(change.table as u8, change.key)),
            };
        }
        let commit = Commit {
            changes: changes.into_values().collect(),
            ..Commit::new(f.source, at(round))
        };
        f.store.state().commit(commit).await.unwrap();
        if round % 40 == 17 {
            // Perhaps in the middle of it.
            assert_eq!(load(&f.store, f.source).await, (model.clone(), Some(at(round))));
            f = f.reopen().await;
        }
    }
    assert_eq!(load(&f.store, f.source).await, (model, Some(at(119))));
    // On SQLite the log is folded beside the commits, when its turn comes.
    let mut clock = 120;
    while f.count("state") == 0 {
        assert!(clock < 20_000, "the log is never folded");
        f.store
            .state()
            .commit(Commit::new(f.source, at(clock)))
            .await
            .unwrap();
        clock += 1;
    }
}

async fn a_commit_gives_its_deliveries_in_order(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let events = vec![
        event(1, 0, 0, 0, "a", false),
        event(2, 0, 0, 5, "b", false),
        event(1, 0, 1, 9, "a", true),
    ];
    let done = f
        .store
        .state()
        .commit(f.commit(10, events.clone()))
        .await
        .unwrap();
    assert_eq!(done.repeated, 0);
    let expected: Vec<_> = events
        .iter()
        .flat_map(|e| f.endpoints.iter().map(|p| (e.id, *p)))
        .collect();
    assert_eq!(
        done.deliveries
            .iter()
            .map(|d| (d.event_id, d.endpoint))
            .collect::<Vec<_>>(),
        expected
    );
    assert!(done.deliveries.is_sorted_by_key(|d| d.id.0 >> 16));
    let first = &done.deliveries[0];
    assert_eq!(
        (first.sequence, first.session_id, first.timestamp, first.attempts),
        (0, session(1, 0), at(0), 0)
    );
    let outbox = f
        .store
        .outbox()
        .pending_after(f.endpoints[0], DeliveryId(0), 100)
        .await
        .unwrap();
    let memory: Vec<_> = done
        .deliveries
        .into_iter()
        .filter(|d| d.endpoint == f.endpoints[0])
        .collect();
    assert_eq!(
        outbox, memory,
        "the outbox gives what was handed over, to the byte"
    );
}

async fn a_commit_may_be_repeated(on: &Backend) {
    let mut f = Fixture::new(on, &["billing", "audit"]).await;
    let mut commit = f.commit(
        10,
        vec![event(1, 0, 0, 0, "a", false), event(1, 0, 1, 9, "a", true)],
    );
    commit.changes = vec![put(Table::Session, 1, b"x")];
    commit.gaps = vec![Gap {
        from: at(1),
        to: at(2),
        reason: GapReason::Reconnect,
        server: None,
    }];
    commit.unattributed = vec![Unattributed {
        at: at(3),
        server: None,
        realm: Box::default(),
        username: b"u".to_vec().into(),
        allocation: AllocationId(4),
        opened_at: at(0),
        reason: UnattributedReason::Residue,
        usage: usage(5),
    }];
    let first = f.store.state().commit(commit.clone()).await.unwrap();
    f.store
        .outbox()
        .record(vec![delivered(first.deliveries[0].id, 11)])
        .await
        .unwrap();
    for round in 0..3 {
        let again = f.store.state().commit(commit.clone()).await.unwrap();
        assert_eq!(
            (again.repeated, &again.deliveries[..]),
            (2, &first.deliveries[1..]),
            "round {round}"
        );
        match round {
            0 => f = f.reopen().await,
            // Brings the events into the index.
            _ => assert_eq!(
                f.store
                    .ledger()
                    .sessions(Default::default(), None, 10)
                    .await
                    .unwrap()
                    .len(),
                1
            ),
        }
    }
    assert_eq!(f.store.ledger().gaps(None, 10).await.unwrap().len(), 1);
    assert_eq!(
        f.store
            .ledger()
            .deliveries(Default::default(), None, 10)
            .await
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        1
    );
}

/// Many callers, few transactions: all get an answer of their own.
async fn commits_of_many_sources_share_transactions(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let mut tasks = Vec::new();
    for n in 0..20u64 {
        let store = f.store.clone();
        let commit = f.commit(
            n,
            (0..50)
                .map(|s| event(n, 0, s, u64::from(s), "a", false))
                .collect(),
        );
        tasks.push(tokio::spawn(async move {
            let source = store.state().source(&format!("source-{n}")).await.unwrap();
            (
                n,
                store.state().commit(Commit { source, ..commit }).await.unwrap(),
            )
        }));
    }
    for task in tasks {
        let (n, done) = task.await.unwrap();
        assert!(done.deliveries.iter().all(|d| d.session_id == session(n, 0)));
        assert_eq!(done.deliveries.len(), 50);
    }
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        1000
    );
}

async fn closing_does_what_was_asked_for(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let done = f
        .store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 0, "a", false)]))
        .await
        .unwrap();
    let (recorded, ()) = tokio::join!(
        f.store.outbox().record(vec![delivered(done.deliveries[0].id, 5)]),
        async {
            tokio::task::yield_now().await;
            f.store.close().await;
        }
    );
    assert_eq!(recorded.unwrap().ignored, 0);
    assert_eq!(
        f.store
            .state()
            .commit(Commit::new(f.source, at(9)))
            .await
            .unwrap_err(),
        turnhook_store::Error::Closed
    );
    let f = f.reopen().await;
    assert_eq!(
        f.store
            .outbox()
            .backlog()
            .await
            .unwrap()
            .get(&f.endpoints[0])
            .map_or(0, |b| b.pending),
        0
    );
}
