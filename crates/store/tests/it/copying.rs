//! A copy in PostgreSQL is the store that was in the file: to all who read it, to the byte, and to go on with.

use std::sync::Arc;

use turnhook_reducer::{
    event::{Unattributed, UnattributedReason},
    message::AllocationId,
    source::{Gap, GapReason},
    state::Table,
};
use turnhook_store::{
    Commit, DeliveryFilter, DeliveryId, DeliveryState, Error, Mode, Options, Progress, ReplayRequest, Store,
    copy,
};

use crate::{
    commits::load,
    postgres::Postgres,
    support::{
        Backend, Fixture, at, dead, delivered, event, patient_options, put, remove, retry, session, usage,
    },
    user_events,
};

/// Something of everything.
async fn much() -> Fixture {
    let options = Options {
        state_log_bytes: 5000,
        ..Options::default()
    };
    let mut f = Fixture::with(&Backend::Sqlite, &["billing", "audit \\ \"tab\there\""], options).await;
    let us = f.store.state().source("us-1").await.unwrap();
    f.store.state().source("never-used").await.unwrap();
    for n in 0..60u64 {
        let events = (0..3)
            .map(|s| {
                event(
                    n,
                    n * 10,
                    s,
                    n * 10 + u64::from(s),
                    ["", "anna", "b\\e\nn"][n as usize % 3],
                    s == 2 && n % 4 > 0,
                )
            })
            .collect();
        let noise: Vec<u8> = (0..=255).map(|b: u8| b.wrapping_mul(n as u8 | 1)).collect();
        let commit = Commit {
            changes: vec![
                put(Table::Allocation, n, &noise),
                put(Table::Session, u64::MAX - n % 7, b""),
                put(Table::Tombstone, n % 5, &n.to_be_bytes()),
                remove(Table::Allocation, n / 2),
            ],
            gaps: vec![Gap {
                from: at(n * 10),
                to: at(n * 10 + 1),
                reason: GapReason::Reconnect,
                server: n.is_multiple_of(2).then(|| vec![0, b'\\', n as u8].into()),
            }],
            unattributed: vec![Unattributed {
                at: at(n),
                server: None,
                realm: Box::default(),
                username: b"\\x00".to_vec().into(),
                allocation: AllocationId(n),
                opened_at: at(0),
                reason: UnattributedReason::Residue,
                usage: usage(n),
            }],
            ..f.commit(n, events)
        };
        let source = if n % 10 == 9 { us } else { f.source };
        let made = f
            .store
            .state()
            .commit(Commit { source, ..commit })
            .await
            .unwrap()
            .deliveries;
        let ids: Vec<_> = made
            .iter()
            .filter(|d| d.endpoint == f.endpoints[0])
            .map(|d| d.id)
            .collect();
        let outcomes = match n % 5 {
            0 => vec![],
            1 => vec![retry(ids[0], n, n + 1000)],
            2 => vec![delivered(ids[0], n), dead(ids[1], n)],
            3 => ids
                .iter()
                .flat_map(|id| [retry(*id, n, n + 1), delivered(*id, n + 2)])
                .collect(),
            _ => ids.iter().map(|id| delivered(*id, n)).collect(),
        };
        f.store.outbox().record(outcomes).await.unwrap();
        if n == 30 {
            f = f.reopen().await;
        }
    }
    let of = |session| DeliveryFilter {
        session: Some(session),
        endpoint: Some("billing".into()),
        ..DeliveryFilter::default()
    };
    f.store
        .admin()
        .discard(of(session(0, 0)), at(5000))
        .await
        .unwrap();
    for (n, who) in [(4, "ops"), (13, "a\tb")] {
        let request = ReplayRequest {
            filter: of(session(n, n * 10)),
            at: at(6000 + n),
            who: who.into(),
            what: "all of it".into(),
            rate: None,
            may_repeat: false,
        };
        assert!(f.store.admin().replay(request).await.unwrap().total > 0);
    }
    for (from, to) in [(1, Some(2)), (3, Some(4)), (5, None)] {
        f.store
            .admin()
            .pause("billing", at(from), &format!("pause \\N {from}"))
            .await
            .unwrap();
        if let Some(to) = to {
            f.store.admin().resume("billing", at(to)).await.unwrap();
        }
    }
    let quota = user_events::quota_of(b"r", b"\xff");
    for (ms, user) in [(1, quota), (2, user_events::quota_of(b"", b"ann\t\\N"))] {
        let admin = f.store.admin();
        let made = admin.block_once(at(ms), at(9000), &user, "a\\b", "quota");
        assert!(made.await.unwrap());
        if ms == 1 {
            assert_eq!(user_events::tell(&f).await.len(), f.endpoints.len());
        }
    }
    f.store
        .outbox()
        .set_endpoints(&["billing"], at(7000))
        .await
        .unwrap();
    // The newest events are gone, and their numbers must not come again.
    let last = event(99, 1, 0, 1, "gone", false);
    let made = f
        .store
        .state()
        .commit(f.commit(70, vec![last]))
        .await
        .unwrap()
        .deliveries;
    f.store
        .outbox()
        .record(made.iter().map(|d| delivered(d.id, 1)).collect())
        .await
        .unwrap();
    f.store
        .ledger()
        .sessions(Default::default(), None, 1)
        .await
        .unwrap();
    while f.store.admin().trim(at(2), 500).await.unwrap().more {}
    f
}

/// All that can be read of a store.
async fn everything(store: &Store) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add =
        |what: &str, value: &dyn std::fmt::Debug| all.push((what.to_owned(), format!("{value:#?}")));
    add("store id", &store.store_id());
    add("sources", &store.ledger().sources().await.unwrap());
    for name in ["eu-1", "us-1", "never-used"] {
        let source = store.state().source(name).await.unwrap();
        add(&format!("{name}: {source:?}"), &load(store, source).await);
    }
    let endpoints = store.outbox().endpoints().await.unwrap();
    add("endpoints", &endpoints);
    for endpoint in &endpoints {
        let pending = store
            .outbox()
            .pending_after(endpoint.id, DeliveryId(0), 10_000)
            .await
            .unwrap();
        add(&format!("pending to {}", endpoint.name), &pending);
        add(
            "due",
            &store
                .outbox()
                .newest_due(endpoint.id, at(900), 10_000)
                .await
                .unwrap(),
        );
    }
    add("backlog", &store.outbox().backlog().await.unwrap());
    let deliveries = store
        .ledger()
        .deliveries(DeliveryFilter::default(), None, 10_000)
        .await
        .unwrap();
    let mut events: Vec<_> = deliveries.iter().map(|d| d.event_id).collect();
    events.dedup();
    for event in events {
        add("delivery", &store.ledger().delivery(event).await.unwrap());
    }
    add("deliveries", &deliveries);
    add("replays", &store.ledger().replays(None, 100).await.unwrap());
    let sessions = store
        .ledger()
        .sessions(Default::default(), None, 10_000)
        .await
        .unwrap();
    for session in &sessions {
        add("session", &store.ledger().session(session.id).await.unwrap());
    }
    add("sessions", &sessions);
    add(
        "usage",
        &store
            .ledger()
            .usage_by_day(0, u32::MAX, None, 10_000)
            .await
            .unwrap(),
    );
    add("gaps", &store.ledger().gaps(None, 10_000).await.unwrap());
    add("untold", &store.outbox().pending_changes(100).await.unwrap());
    add("blocks", &store.admin().block_changes(0, 100).await.unwrap());
    let of_user = DeliveryFilter {
        user: Some(b"\xff".to_vec()),
        ..DeliveryFilter::default()
    };
    let of_user = store.ledger().deliveries(of_user, None, 100).await.unwrap();
    assert!(!of_user.is_empty());
    add("of a user", &of_user);
    all
}

fn same(one: &[(String, String)], other: &[(String, String)]) {
    for (one, other) in one.iter().zip(other) {
        assert!(one == other, "{}\n{}\n\n{}\n{}", one.0, one.1, other.0, other.1);
    }
    assert_eq!(one.len(), other.len());
}

async fn connect(server: &Postgres, database: &str, mode: Mode) -> Store {
    Store::connect(patient_options(&server.url(database)), mode)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_the_same_store() {
    let server = Postgres::start();
    let database = server.database();
    let f = much().await;
    let to = connect(&server, &database, Mode::Run).await;
    let before = everything(&f.store).await;
    for state in DeliveryState::ALL {
        let filter = DeliveryFilter {
            states: vec![state],
            ..DeliveryFilter::default()
        };
        assert!(
            f.store.ledger().count_deliveries(filter).await.unwrap() > 0,
            "there is one that is {state:?}"
        );
    }

    let mut told: Vec<Progress> = Vec::new();
    let copied = copy(&f.store, &to, |p| told.push(p)).await.unwrap();
    assert_eq!(
        (copied.sources, copied.endpoints, copied.events),
        (3, 2, f.count("event") as u64)
    );
    assert_eq!(copied.deliveries, f.count("delivery") as u64);
    assert!(told.is_sorted_by_key(|p| p.done) && told.iter().all(|p| p.done <= p.total));
    assert_eq!(told.last().map(|p| p.done), Some(copied.rows));
    same(&everything(&f.store).await, &before);

    to.close().await;
    let to = connect(&server, &database, Mode::Run).await;
    same(&everything(&to).await, &before);
    let unattributed = |of: &str| format!("SELECT {of} FROM unattributed");
    assert_eq!(
        f.count("unattributed").to_string(),
        server.sql(&database, &unattributed("count(*)"))
    );
    assert_eq!(
        server.sql(
            &database,
            &unattributed("sum(billable_bytes), min(encode(username, 'hex')), max(allocation)")
        ),
        format!("{}|5c783030|59", (2..60).map(|n| 2 * n).sum::<u64>())
    );

    // Both go on, and give the same numbers to what comes.
    let next = |f: &Fixture| f.commit(9000, vec![event(200, 9000, 0, 9000, "new", false)]);
    let one = f.store.state().commit(next(&f)).await.unwrap().deliveries;
    let other = to.state().commit(next(&f)).await.unwrap().deliveries;
    assert_eq!(one, other);
    // What was committed before is known.
    let again = f.commit(9001, vec![event(59, 590, 0, 590, "b\\e\nn", false)]);
    for store in [&f.store, &to] {
        assert_eq!(store.state().commit(again.clone()).await.unwrap().repeated, 1);
    }
    for store in [&f.store, &to] {
        let replayed = store.admin().replay(ReplayRequest {
            filter: DeliveryFilter {
                states: vec![DeliveryState::Dead],
                ..DeliveryFilter::default()
            },
            at: at(9500),
            who: "ops".into(),
            what: "the dead ones".into(),
            rate: Some(10.0),
            may_repeat: false,
        });
        replayed.await.unwrap();
        assert_eq!(store.state().source("ap-1").await.unwrap().0, 4);
        assert_eq!(
            store.outbox().set_endpoints(&["crm"], at(9600)).await.unwrap()[0].0,
            3
        );
        store.admin().pause("crm", at(9700), "new").await.unwrap();
    }
    same(&everything(&to).await, &everything(&f.store).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_is_refused_and_changes_nothing() {
    let server = Arc::new(Postgres::start());
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    f.store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 0, "a", false)]))
        .await
        .unwrap();

    // Somebody runs on the original.
    let database = server.database();
    let to = connect(&server, &database, Mode::Run).await;
    let shared = f.shared().await;
    assert_eq!(
        copy(&shared, &to, |_| {}).await.unwrap_err(),
        Error::InUse { path: f.path() }
    );
    f.store.close().await;

    // The target is in use, even if only by a source or an endpoint, or has been.
    for what in [1, 2, 3] {
        let used = Fixture::new(&Backend::Postgres(Arc::clone(&server)), &[]).await;
        match what {
            1 => drop(used.store.outbox().set_endpoints(&["crm"], at(0)).await.unwrap()),
            2 => drop(
                used.store
                    .state()
                    .commit(used.commit(1, vec![event(7, 0, 0, 0, "b", false)]))
                    .await
                    .unwrap(),
            ),
            _ => {}
        }
        let before = (used.count("source"), used.count("endpoint"), used.count("event"));
        let error = copy(&shared, &used.store, |_| {}).await.unwrap_err();
        assert_eq!(
            error,
            Error::NotEmpty {
                store: used.store.describe()
            }
        );
        assert!(error.to_string().contains("a new database"), "{error}");
        assert_eq!(
            (used.count("source"), used.count("endpoint"), used.count("event")),
            before
        );
    }

    // The wrong way round.
    let error = copy(&to, &shared, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");

    // Nothing of that keeps it from going on.
    Store::open(&f.path(), Mode::Run).await.unwrap().close().await;

    // Once is enough, also for the original.
    assert_eq!(copy(&shared, &to, |_| {}).await.unwrap().events, 1);
    let error = copy(&shared, &to, |_| {}).await.unwrap_err();
    assert_eq!(error, Error::AlreadyCopied { store: to.describe() });
    assert!(error.to_string().contains("url"), "{error}");
    let error = Store::open(&f.path(), Mode::Run).await.unwrap_err();
    let Error::Copied { to: place, mark, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(place, &to.describe());
    // Nor is it copied to another place, where each event would be sent once more.
    let elsewhere = connect(&server, &server.database(), Mode::Run).await;
    assert_eq!(&copy(&shared, &elsewhere, |_| {}).await.unwrap_err(), &error);
    // To look in it is as good as before, and it can be had back.
    f.shared().await;
    std::fs::remove_file(mark).unwrap();
    Store::open(&f.path(), Mode::Run).await.unwrap();
}

/// The connection is cut in the middle, or the process ends: then nothing is there, and it can be begun again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_interrupted_leaves_nothing_and_can_be_begun_again() {
    let server = Postgres::start();
    let database = server.database();
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    for n in 0..40u64 {
        let events = (0..50).map(|s| event(n, n, s, n, "a", false)).collect();
        f.store.state().commit(f.commit(n, events)).await.unwrap();
    }
    let to = connect(&server, &database, Mode::Run).await;
    let mut parts = 0;
    let count = copy(&f.store, &to, |_| {
        parts += 1;
        if parts == 3 {
            server.cut(&database);
        }
    });
    let error = count.await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM source"), "0");

    // Whoever asked goes away.
    let begun = tokio::sync::Notify::new();
    tokio::select! {
        result = copy(&f.store, &to, |_| begun.notify_one()) => panic!("{result:?}"),
        () = begun.notified() => {}
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM event"), "0");
    // The server may see it only now.
    assert_eq!(copy(&f.store, &to, |_| {}).await.unwrap().events, 2000);
    assert_eq!(
        server.sql(&database, "SELECT count(*) FROM delivery WHERE state = 0"),
        "2000"
    );
    let backlog = to.outbox().backlog().await.unwrap();
    assert_eq!(backlog[&f.endpoints[0]].pending, 2000);
}
