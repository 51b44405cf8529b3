//! Nodes that share a PostgreSQL: who may do what, and that who may not any more can write nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use turnhook_reducer::{state::Table, time::Timestamp};
use turnhook_store::{Commit, Epoch, Error, Lanes, LeaseName, Mode, NewEvent, SourceId, Store, assign};

use crate::{
    commits::load,
    postgres::Postgres,
    postgres_wire::Wire,
    support::{Backend, at, body, event, postgres_options, put, run_on_postgres},
};

/// For what is waited for; only a failure takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// So short that it is over when it is looked at.
const SHORT: Duration = Duration::from_millis(200);

/// A database on the test's server.
pub(crate) struct Database {
    pub(crate) server: Arc<Postgres>,
    pub(crate) name: String,
}

impl Database {
    pub(crate) fn new(on: &Backend) -> Database {
        let Backend::Postgres(server) = on else {
            panic!("on PostgreSQL alone")
        };
        Database {
            server: Arc::clone(server),
            name: server.database(),
        }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    pub(crate) async fn node(&self, lease: Duration) -> Store {
        node(&self.url(), lease).await
    }

    /// A session of its own that holds locks until it is dropped.
    pub(crate) async fn hold(&self, sql: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(sql).await.unwrap();
        client
    }

    /// Waits until so many sessions wait for a lock.
    pub(crate) async fn waiting(&self, n: usize) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
            self.name
        );
        wait(async || self.sql(&sql) == n.to_string()).await;
    }
}

async fn node(url: &str, lease: Duration) -> Store {
    let options = turnhook_store::PostgresOptions {
        lease,
        ..postgres_options(url)
    };
    Store::connect(options, Mode::Run).await.unwrap()
}

async fn wait(mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < until, "waited for nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Takes it as soon as it can be had.
async fn take(store: &Store, lease: LeaseName) -> Epoch {
    let taken = async {
        loop {
            if let Some(epoch) = store.cluster().unwrap().take(lease).await.unwrap() {
                return epoch;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("it comes free")
}

/// A commit with an event and a row of state, both its own.
async fn commit_of(store: &Store, source: SourceId, epoch: Epoch, n: u64) -> Commit {
    let endpoints = store.outbox().set_endpoints(&["billing"], at(0)).await.unwrap();
    let event = event(n, 0, 0, n, "a", false);
    Commit {
        epoch: Some(epoch),
        changes: vec![put(Table::Session, n, b"row")],
        events: vec![NewEvent {
            body: body(&event),
            event,
            endpoints: endpoints.into(),
        }],
        ..Commit::new(source, at(n))
    }
}

fn lost(source: SourceId) -> Error {
    Error::LeaseLost {
        lease: LeaseName::Source(source),
    }
}

#[test]
fn leases() {
    run_on_postgres(&[
        ("of_two_who_race_one_gets_it", |on| {
            Box::pin(of_two_who_race_one_gets_it(on))
        }),
        ("who_lost_a_lease_writes_nothing", |on| {
            Box::pin(who_lost_a_lease_writes_nothing(on))
        }),
        ("a_taker_waits_for_a_commit_under_way", |on| {
            Box::pin(a_taker_waits_for_a_commit_under_way(on))
        }),
        ("a_beat_does_not_wait_for_a_commit", |on| {
            Box::pin(a_beat_does_not_wait_for_a_commit(on))
        }),
        ("a_process_that_is_stopped_holds_nothing_for_long", |on| {
            Box::pin(a_process_that_is_stopped_holds_nothing_for_long(on))
        }),
        ("a_request_that_is_given_up_leaves_nothing_behind", |on| {
            Box::pin(a_request_that_is_given_up_leaves_nothing_behind(on))
        }),
        ("nodes_see_each_other_and_share", |on| {
            Box::pin(nodes_see_each_other_and_share(on))
        }),
        ("what_has_expired_is_not_renewed", |on| {
            Box::pin(what_has_expired_is_not_renewed(on))
        }),
    ]);
}

async fn of_two_who_race_one_gets_it(on: &Backend) {
    let db = Database::new(on);
    let (a, b) = tokio::join!(db.node(LONG), db.node(LONG));
    let (a, b) = (a.cluster().unwrap(), b.cluster().unwrap());
    assert_ne!(a.node(), b.node());
    for lane in 0..Lanes::COUNT {
        let lease = LeaseName::Lane(lane);
        let (mine, theirs) = tokio::join!(a.take(lease), b.take(lease));
        let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
        assert!(mine.is_some() != theirs.is_some(), "{lease}: {mine:?} {theirs:?}");
        assert_eq!(mine.or(theirs), Some(Epoch(1)));
    }
    // All at once, in opposite orders: nobody waits for ever, and each gets what the other does not.
    a.leave().await.unwrap();
    b.leave().await.unwrap();
    let names: Vec<LeaseName> = (0..Lanes::COUNT).map(LeaseName::Lane).collect();
    let back: Vec<LeaseName> = names.iter().rev().copied().collect();
    let (mine, theirs) = tokio::join!(a.take_all(&names), b.take_all(&back));
    let mut taken: Vec<(LeaseName, Epoch)> = [mine.unwrap(), theirs.unwrap()].concat();
    taken.sort_unstable();
    assert_eq!(
        taken,
        names.iter().map(|name| (*name, Epoch(2))).collect::<Vec<_>>()
    );
    // One that is not there cannot be had.
    assert_eq!(a.take(LeaseName::Source(SourceId(99))).await.unwrap(), None);
}

async fn who_lost_a_lease_writes_nothing(on: &Backend) {
    let db = Database::new(on);
    let (a, b) = (db.node(SHORT).await, db.node(LONG).await);
    let source = a.state().source("eu-1").await.unwrap();
    let lease = LeaseName::Source(source);
    let old = take(&a, lease).await;
    let first = commit_of(&a, source, old, 1).await;
    a.state().commit(first.clone()).await.unwrap();
    let new = take(&b, lease).await;
    assert!(new > old);

    let before = (
        load(&b, source).await,
        db.sql("SELECT * FROM counter ORDER BY name"),
    );
    let late = commit_of(&a, source, old, 2).await;
    assert_eq!(a.state().commit(late.clone()).await.unwrap_err(), lost(source));
    // Not even what was committed before is confirmed, and an epoch without the lease is no help.
    assert_eq!(a.state().commit(first).await.unwrap_err(), lost(source));
    let stolen = Commit {
        epoch: Some(new),
        ..late.clone()
    };
    assert_eq!(a.state().commit(stolen).await.unwrap_err(), lost(source));
    let after = (
        load(&b, source).await,
        db.sql("SELECT * FROM counter ORDER BY name"),
    );
    assert_eq!(before, after);
    assert_eq!(db.sql("SELECT count(*) FROM event"), "1");

    assert_eq!(a.cluster().unwrap().take(lease).await.unwrap(), None);
    let mine = Commit {
        epoch: Some(new),
        ..late
    };
    assert_eq!(b.state().commit(mine).await.unwrap().deliveries.len(), 1);
    // Given back in an old epoch is not given back.
    a.cluster().unwrap().release(lease, old).await.unwrap();
    b.cluster().unwrap().release(lease, old).await.unwrap();
    assert_eq!(a.cluster().unwrap().take(lease).await.unwrap(), None);
    b.cluster().unwrap().release(lease, new).await.unwrap();
    let again = take(&a, lease).await;
    assert_eq!(again, Epoch(new.0 + 1));
    // It holds the lease, but what it knows is from before.
    let stale = commit_of(&a, source, old, 3).await;
    assert_eq!(a.state().commit(stale.clone()).await.unwrap_err(), lost(source));
    let fresh = Commit {
        epoch: Some(again),
        ..stale
    };
    assert_eq!(a.state().commit(fresh).await.unwrap().deliveries.len(), 1);
}

async fn a_taker_waits_for_a_commit_under_way(on: &Backend) {
    let db = Database::new(on);
    let (a, b) = (db.node(LONG).await, db.node(LONG).await);
    let source = a.state().source("eu-1").await.unwrap();
    let lease = LeaseName::Source(source);
    let epoch = take(&a, lease).await;
    let commit = commit_of(&a, source, epoch, 1).await;
    let held = db
        .hold("SELECT * FROM counter WHERE name = 'event' FOR UPDATE")
        .await;
    let committing = tokio::spawn({
        let a = a.clone();
        async move { a.state().commit(commit).await }
    });
    db.waiting(1).await;
    db.sql(&format!("UPDATE lease SET expires_at = 0 WHERE name = '{lease}'"));
    let taking = tokio::spawn({
        let b = b.clone();
        async move { b.cluster().unwrap().take(lease).await }
    });
    db.waiting(2).await;
    assert!(!committing.is_finished() && !taking.is_finished());
    drop(held);
    assert_eq!(committing.await.unwrap().unwrap().deliveries.len(), 1);
    assert_eq!(taking.await.unwrap().unwrap(), Some(Epoch(epoch.0 + 1)));
    let (rows, clock) = load(&b, source).await;
    assert_eq!((rows.len(), clock), (1, Some(at(1))));
}

async fn a_beat_does_not_wait_for_a_commit(on: &Backend) {
    let db = Database::new(on);
    let a = db.node(LONG).await;
    let source = a.state().source("eu-1").await.unwrap();
    let lease = LeaseName::Source(source);
    let epoch = take(&a, lease).await;
    let commit = commit_of(&a, source, epoch, 1).await;
    let held = db
        .hold("SELECT * FROM counter WHERE name = 'event' FOR UPDATE")
        .await;
    let committing = tokio::spawn({
        let a = a.clone();
        async move { a.state().commit(commit).await }
    });
    db.waiting(1).await;
    let before: i64 = db
        .sql(&format!("SELECT expires_at FROM lease WHERE name = '{lease}'"))
        .parse()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let view = tokio::time::timeout(PATIENCE, a.cluster().unwrap().beat(&[source]))
        .await
        .unwrap()
        .unwrap();
    assert!(!committing.is_finished());
    let row = view.leases.iter().find(|l| l.name == lease).unwrap();
    assert_eq!(
        (row.holder, row.epoch, row.expired),
        (Some(a.cluster().unwrap().node()), epoch, false)
    );
    let after: i64 = db
        .sql(&format!("SELECT expires_at FROM lease WHERE name = '{lease}'"))
        .parse()
        .unwrap();
    assert!(after > before, "renewed");
    drop(held);
    assert_eq!(committing.await.unwrap().unwrap().deliveries.len(), 1);
}

async fn a_process_that_is_stopped_holds_nothing_for_long(on: &Backend) {
    let db = Database::new(on);
    let b = db.node(LONG).await;
    let source = b.state().source("eu-1").await.unwrap();
    let lease = LeaseName::Source(source);
    let wire = Wire::to(db.server.port()).await;
    let through = db
        .url()
        .replace(&format!(":{}", db.server.port()), &format!(":{}", wire.port));
    let a = node(&through, SHORT).await;
    let epoch = take(&a, lease).await;
    let commit = commit_of(&a, source, epoch, 1).await;
    let held = db.hold("SELECT * FROM source FOR UPDATE").await;
    let committing = tokio::spawn({
        let a = a.clone();
        async move { a.state().commit(commit).await }
    });
    db.waiting(1).await;
    wire.stop();
    // Now its first half goes on and locks all that it wants, and its second half never comes.
    drop(held);
    let new = take(&b, lease).await;
    assert!(new > epoch);
    assert!(
        b.state()
            .commit(commit_of(&b, source, new, 2).await)
            .await
            .is_ok()
    );
    // To the other side the server has gone silent: that is found out, too.
    let error = tokio::time::timeout(PATIENCE, committing)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    let (rows, clock) = load(&b, source).await;
    assert_eq!(
        (rows.into_keys().collect::<Vec<_>>(), clock),
        (vec![(2, 2)], Some(at(2)))
    );
}

/// Whoever asked for it has gone while it waited: it is undone, and no other request finds itself in the middle of it.
async fn a_request_that_is_given_up_leaves_nothing_behind(on: &Backend) {
    let db = Database::new(on);
    let a = db.node(LONG).await;
    let source = a.state().source("eu-1").await.unwrap();
    let epoch = take(&a, LeaseName::Source(source)).await;
    let commit = commit_of(&a, source, epoch, 1).await;
    let held = db.hold("SELECT * FROM source FOR UPDATE").await;
    let committing = tokio::spawn({
        let a = a.clone();
        async move { a.state().commit(commit).await }
    });
    db.waiting(1).await;
    committing.abort();
    assert!(committing.await.unwrap_err().is_cancelled());
    drop(held);
    db.waiting(0).await;
    a.state()
        .commit(commit_of(&a, source, epoch, 2).await)
        .await
        .unwrap();
    let (rows, clock) = load(&a, source).await;
    assert_eq!(
        (rows.into_keys().collect::<Vec<_>>(), clock),
        (vec![(2, 2)], Some(at(2)))
    );
}

async fn nodes_see_each_other_and_share(on: &Backend) {
    let db = Database::new(on);
    let (a, b) = (db.node(LONG).await, db.node(LONG).await);
    let (one, two) = (
        a.state().source("eu-1").await.unwrap(),
        b.state().source("us-1").await.unwrap(),
    );
    assert_eq!(b.state().source("eu-1").await.unwrap(), one);
    let (a, b) = (a.cluster().unwrap(), b.cluster().unwrap());
    a.beat(&[two, one]).await.unwrap();
    let view = b.beat(&[two]).await.unwrap();
    assert_eq!(view.nodes.len(), 2);
    assert!(view.nodes.is_sorted_by_key(|n| n.id) && view.leases.is_sorted_by_key(|l| l.name));
    let row = view.nodes.iter().find(|n| n.id == a.node()).unwrap();
    assert_eq!(
        (row.name.as_str(), row.live, &row.sources[..]),
        ("test", true, &[one, two][..])
    );
    assert!(row.expires_in > LONG / 2 && row.expires_in <= LONG);
    assert!(row.started_at > Timestamp(1_700_000_000_000));
    assert_eq!(view.leases.len(), 66);
    assert!(
        view.leases
            .iter()
            .all(|l| l.holder.is_none() && l.expired && l.epoch == Epoch(0))
    );

    // Each takes what it should have, by a view of its own.
    for node in [a, b] {
        let view = node.view().await.unwrap();
        let mine: Vec<LeaseName> = assign(&view)
            .into_iter()
            .filter(|(_, id)| *id == node.node())
            .map(|(name, _)| name)
            .collect();
        assert_eq!(node.take_all(&mine).await.unwrap().len(), mine.len());
    }
    let view = a.view().await.unwrap();
    let held = |id| {
        view.leases
            .iter()
            .filter(|l| l.holder == Some(id) && !l.expired)
            .count()
    };
    assert_eq!((held(a.node()), held(b.node())), (33, 33));
    let leader = |source| {
        view.leases
            .iter()
            .find(|l| l.name == LeaseName::Source(source))
            .unwrap()
            .holder
    };
    assert_eq!((leader(one), leader(two)), (Some(a.node()), Some(b.node())));

    // Who leaves gives all back at once.
    b.leave().await.unwrap();
    let view = a.view().await.unwrap();
    assert_eq!(view.nodes.iter().map(|n| n.id).collect::<Vec<_>>(), [a.node()]);
    assert!(
        view.leases
            .iter()
            .all(|l| l.holder == Some(a.node()) || l.holder.is_none())
    );
    assert_eq!(a.take(LeaseName::Source(two)).await.unwrap(), Some(Epoch(2)));
}

async fn what_has_expired_is_not_renewed(on: &Backend) {
    let db = Database::new(on);
    let store = db.node(SHORT).await;
    let a = store.cluster().unwrap();
    let epoch = take(&store, LeaseName::Lane(3)).await;
    wait(async || {
        a.view()
            .await
            .unwrap()
            .leases
            .iter()
            .any(|l| l.holder == Some(a.node()) && l.expired)
    })
    .await;
    let view = a.beat(&[]).await.unwrap();
    let row = view.leases.iter().find(|l| l.name == LeaseName::Lane(3)).unwrap();
    assert_eq!(
        (row.holder, row.epoch, row.expired),
        (Some(a.node()), epoch, true)
    );
    assert_eq!(
        a.take(LeaseName::Lane(3)).await.unwrap(),
        Some(Epoch(epoch.0 + 1))
    );
    // A node that beats no more is seen to be gone, and forgotten in the end.
    wait(async || !a.view().await.unwrap().nodes[0].live).await;
    db.sql("UPDATE node SET expires_at = expires_at - 3600001");
    let other = db.node(LONG).await;
    let view = other.cluster().unwrap().beat(&[]).await.unwrap();
    assert_eq!(view.nodes.len(), 1);
}
