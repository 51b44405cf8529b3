//! A disk that is full: commits fail loudly, nothing is half there, and it goes on when there is room.
//!
//! On SQLite only: a PostgreSQL whose disk is full can not be had without a file system of its own.

use turnhook_reducer::state::Table;
use turnhook_store::{Commit, DeliveryFilter, Error, Mode, Options, Store};

use crate::{
    commits::load,
    support::{Backend, Fixture, Place, at, delivered, event, put},
};

#[tokio::test]
async fn a_commit_that_finds_no_room_leaves_nothing() {
    let mut f = Fixture::with(
        &Backend::Sqlite,
        &["billing"],
        Options {
            max_bytes: Some(1 << 20),
            ..Options::default()
        },
    )
    .await;
    let commit = |f: &Fixture, n: u64| Commit {
        changes: vec![put(Table::Source, 0, &n.to_be_bytes())],
        ..f.commit(n, (0..20).map(|s| event(n, n, s, n, "a", false)).collect())
    };
    let mut made = Vec::new();
    let error = loop {
        let n = made.len() as u64 / 20;
        match f.store.state().commit(commit(&f, n)).await {
            Ok(done) => made.extend(done.deliveries),
            Err(error) => break error,
        }
        assert!(n < 10_000);
    };
    let failed = made.len() as u64 / 20;
    assert_eq!(error, Error::Full { path: f.path() });
    assert!(
        error.is_transient() && error.to_string().contains("no room left"),
        "{error}"
    );
    for _ in 0..3 {
        assert!(matches!(
            f.store.state().commit(commit(&f, failed)).await,
            Err(Error::Full { .. })
        ));
    }
    // What needs no room goes on, and reads do.
    let outcomes = made.iter().take(50).map(|d| delivered(d.id, 9)).collect();
    assert_eq!(f.store.outbox().record(outcomes).await.unwrap().ignored, 0);
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        made.len() as u64 - 50
    );
    let (state, clock) = load(&f.store, f.source).await;
    assert_eq!(
        (state[&(4, 0)].as_slice(), clock),
        ((failed - 1).to_be_bytes().as_slice(), Some(at(failed - 1)))
    );

    // There is room again: the very same commit goes through, once.
    f.store.close().await;
    f.store = Store::open(f.path(), Mode::Run).await.unwrap();
    assert_eq!(
        f.store.state().commit(commit(&f, failed)).await.unwrap().repeated,
        0
    );
    assert_eq!(
        f.store.state().commit(commit(&f, failed)).await.unwrap().repeated,
        20
    );
    assert_eq!(
        f.store
            .ledger()
            .deliveries(DeliveryFilter::default(), None, 100_000)
            .await
            .unwrap()
            .len(),
        made.len() + 20
    );
}

/// Somebody's commit is too large; another's, in the same transaction, is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_fit_does_not_take_others_with_it() {
    let f = Fixture::with(
        &Backend::Sqlite,
        &["billing"],
        Options {
            max_bytes: Some(1 << 20),
            ..Options::default()
        },
    )
    .await;
    let mut seed = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 50) as u8
    })
    .take(3_000_000)
    .collect();
    let large = Commit {
        changes: vec![put(Table::Source, 0, &noise)],
        ..Commit::new(f.source, at(1))
    };
    let other = f.store.state().source("us-1").await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..10u64 {
        let (store, large) = (f.store.clone(), large.clone());
        let small = Commit {
            source: other,
            ..f.commit(n, vec![event(n, 0, 0, n, "a", false)])
        };
        tasks.push(tokio::spawn(async move {
            tokio::join!(store.state().commit(large), store.state().commit(small))
        }));
    }
    for task in tasks {
        let (large, small) = task.await.unwrap();
        assert!(matches!(large, Err(Error::Full { .. })));
        assert_eq!(small.unwrap().deliveries.len(), 1);
    }
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        10
    );
    assert_eq!(load(&f.store, f.source).await.1, None);
}

/// On a file system that is really full; it takes root to make one:
/// `mount -t tmpfs -o size=3m none DIR && SMALL_DISK=DIR cargo test … -- --ignored a_real_disk`.
#[tokio::test]
#[ignore = "needs a small file system"]
async fn a_real_disk_that_is_full() {
    let dir = std::path::PathBuf::from(std::env::var("SMALL_DISK").unwrap());
    let place = Place::File(tempfile::tempdir_in(&dir).unwrap(), Options::default());
    let f = Fixture::at(place, &["billing"]).await;
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let (mut n, mut failures) = (0, 0);
    while failures < 20 && n < 10_000 {
        let events = (0..20).map(|s| event(n, n, s, n, "a", false)).collect();
        match f.store.state().commit(f.commit(n, events)).await {
            Ok(_) => n += 1,
            Err(error) => {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 20);
    println!("full after {n} commits");
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        n * 20
    );
    std::fs::remove_file(&ballast).unwrap();
    let events = (0..20).map(|s| event(n, n, s, n, "a", false)).collect();
    f.store.state().commit(f.commit(n, events)).await.unwrap();
    assert_eq!(
        f.store
            .ledger()
            .deliveries(DeliveryFilter::default(), None, 1_000_000)
            .await
            .unwrap()
            .len() as u64,
        (n + 1) * 20
    );
    f.store.close().await;
}
