//! Coming to PostgreSQL: schema and rights, and connections that break.

use std::time::{Duration, Instant};

use turnhook_reducer::state::Table;
use turnhook_store::{Commit, DeliveryId, Error, Mode, NewEvent, Recorded, Store};

use crate::{
    postgres_certificates::certificates_are_verified,
    postgres_cluster::Database,
    support::{
        Backend, at, body, dead, delivered, event, postgres_options, put, remove, retry, run_on_postgres,
    },
};

/// For what is waited for; only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn connections() {
    run_on_postgres(&[
        ("who_is_not_let_in_is_told_why", |on| {
            Box::pin(who_is_not_let_in_is_told_why(on))
        }),
        ("cut_connections_lose_nothing", |on| {
            Box::pin(cut_connections_lose_nothing(on))
        }),
        ("restarts_lose_nothing", |on| Box::pin(restarts_lose_nothing(on))),
        ("a_commit_of_any_size_is_one", |on| {
            Box::pin(a_commit_of_any_size_is_one(on))
        }),
        ("an_outcome_may_be_repeated", |on| {
            Box::pin(an_outcome_may_be_repeated(on))
        }),
        ("changes_by_others_are_noticed", |on| {
            Box::pin(changes_by_others_are_noticed(on))
        }),
        ("any_text_can_be_kept", |on| Box::pin(any_text_can_be_kept(on))),
        (
            "an_answer_that_is_not_what_was_asked_for_is_an_error_with_a_name",
            |on| {
                Box::pin(an_answer_that_is_not_what_was_asked_for_is_an_error_with_a_name(
                    on,
                ))
            },
        ),
        // Last: the server speaks TLS from here on.
        ("certificates_are_verified", |on| {
            Box::pin(certificates_are_verified(on))
        }),
    ]);
}

/// Somebody has changed the schema: nothing panics, the column is named, and nobody tries again for ever.
async fn an_answer_that_is_not_what_was_asked_for_is_an_error_with_a_name(on: &Backend) {
    let db = Database::new(on);
    let store = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap();
    store.state().source("eu-1").await.unwrap();
    db.sql("ALTER TABLE source ALTER COLUMN id TYPE text; ALTER TABLE endpoint ALTER COLUMN name TYPE bytea USING name::bytea");
    store.outbox().set_endpoints(&["x"; 0], at(0)).await.unwrap();
    for error in [
        store.state().source("eu-1").await.unwrap_err(),
        store.ledger().sources().await.unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::Database { .. }) && !error.is_transient(),
            "{error:?}"
        );
        assert!(error.to_string().contains("(id)"), "{error}");
    }
    db.sql("DELETE FROM counter");
    let error = store.outbox().changed_by_others().await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("there were 0"), "{error}");
    // A number that has no place in a column is not made into another.
    let far = Commit::new(turnhook_store::SourceId(u32::MAX), at(1));
    let error = store.state().commit(far).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("4294967295"), "{error}");
}

/// Of one event, its own.
pub(crate) async fn commit(store: &Store, n: u64) -> Commit {
    let source = store.state().source("eu-1").await.unwrap();
    let endpoints = store.outbox().set_endpoints(&["billing"], at(0)).await.unwrap();
    let event = event(n, 0, 0, n, "a", false);
    Commit {
        events: vec![NewEvent {
            body: body(&event),
            event,
            endpoints: endpoints.into(),
        }],
        ..Commit::new(source, at(n))
    }
}

async fn who_is_not_let_in_is_told_why(on: &Backend) {
    let db = Database::new(on);
    let wrong = db.server.url_of("turnhook", "swordfish", &db.name);
    let error = Store::connect(postgres_options(&wrong), Mode::Run)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("swordfish"), "{error}");

    let nowhere = db.server.url("no_such_database");
    let error = Store::connect(postgres_options(&nowhere), Mode::Run)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains("no_such_database"), "{error}");

    // One that speaks no TLS will not learn it by being asked again.
    let insist_on_tls = format!("{}?sslmode=require", db.server.url(&db.name));
    let error = Store::connect(postgres_options(&insist_on_tls), Mode::Run)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::NoTls { .. }) && !error.is_transient(),
        "{error}"
    );
    assert!(error.to_string().contains("?sslmode=disable"), "{error}");

    // Nobody listens; somebody listens and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed_port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    for port in [closed_port, silent_port] {
        let options = postgres_options(&format!("postgres://u:swordfish@127.0.0.1:{port}/db"));
        let error = tokio::time::timeout(PATIENCE, Store::connect(options, Mode::Run))
            .await
            .unwrap()
            .unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { .. }) && error.is_transient(),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("swordfish"), "{error}");
        assert!(
            error.to_string().contains(&format!("127.0.0.1:{port}/db")),
            "{error}"
        );
    }
}

/// As the engine does it: whatever passes by itself is tried again as it is.
async fn insist<T>(mut request: impl AsyncFnMut() -> turnhook_store::Result<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match request().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_transient() && Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Commits and records while `disturb` is at work; in the end everything is there once.
async fn lose_nothing(db: &Database, disturb: impl Future<Output = ()>) {
    let store = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap();
    let first = commit(&store, 0).await;
    let endpoint = first.events[0].endpoints[0];
    let mut done = Vec::new();
    let mut recorded = 0u32;
    let work = async {
        // A round is over when nothing more disturbs, and enough has been done.
        for n in 0..400u64 {
            let commit = Commit {
                events: (0..5u32)
                    .map(|s| {
                        let event = event(n, 0, s, u64::from(s), "a", s == 4);
                        NewEvent {
                            body: body(&event),
                            event,
                            endpoints: vec![endpoint].into(),
                        }
                    })
                    .collect(),
                ..Commit::new(first.source, at(n))
            };
            let committed = insist(async || store.state().commit(commit.clone()).await).await;
            let ids: Vec<DeliveryId> = committed.deliveries.iter().map(|d| d.id).collect();
            assert_eq!(ids.len(), 5, "all of them, whoever has committed them before");
            let outcomes = vec![delivered(ids[0], 7), retry(ids[1], 7, 900), dead(ids[2], 7)];
            let Recorded { ignored } = insist(async || store.outbox().record(outcomes.clone()).await).await;
            assert_eq!(ignored, 0);
            recorded += 1;
            done.extend(ids);
        }
    };
    tokio::join!(work, disturb);
    assert!(done.is_sorted(), "later ones are larger");
    let (events, cases) = (done.len(), u64::from(recorded));
    let counts = db.sql(
        "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM delivery), (SELECT count(DISTINCT event_id) FROM event), \
         (SELECT value FROM counter WHERE name = 'event'), (SELECT sum(attempts) FROM delivery), (SELECT count(*) FROM attempt)",
    );
    assert_eq!(
        counts,
        format!("{events}|{events}|{events}|{events}|{}|{}", 3 * cases, 2 * cases)
    );
    let backlog = store.outbox().backlog().await.unwrap()[&endpoint];
    assert_eq!((backlog.pending, backlog.dead), (3 * cases, cases));
    let counted =
        db.sql("SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 2) FROM delivery");
    assert_eq!(counted, format!("{}|{}", 3 * cases, cases));
    let days = store
        .ledger()
        .usage_by_day(0, u32::MAX >> 1, None, 10)
        .await
        .unwrap();
    assert_eq!(
        days.iter().map(|d| (d.started, d.ended)).collect::<Vec<_>>(),
        [(cases, cases)]
    );
}

async fn cut_connections_lose_nothing(on: &Backend) {
    let db = Database::new(on);
    let mut cut = 0;
    lose_nothing(&db, async {
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            cut += tokio::task::block_in_place(|| db.server.cut(&db.name));
        }
    })
    .await;
    assert!(cut > 0);
}

async fn restarts_lose_nothing(on: &Backend) {
    let db = Database::new(on);
    lose_nothing(&db, async {
        for n in 0..4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tokio::task::block_in_place(|| match n % 2 {
                0 => db.server.restart(),
                _ => {
                    db.server.crash();
                    db.server.go();
                }
            });
        }
    })
    .await;
}

/// More rows of each kind than one statement takes.
async fn a_commit_of_any_size_is_one(on: &Backend) {
    let db = Database::new(on);
    let store = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap();
    let first = commit(&store, 0).await;
    let before = store.state().commit(first.clone()).await.unwrap().deliveries[0].id;
    let endpoints = store
        .outbox()
        .set_endpoints(&["billing", "audit"], at(0))
        .await
        .unwrap();
    let big = Commit {
        changes: (0..9000)
            .map(|n| put(Table::Allocation, n, &n.to_be_bytes()))
            .collect(),
        events: (1..6000u64)
            .map(|n| {
                let event = event(n, 0, 0, n, &format!("user-{n}"), false);
                NewEvent {
                    body: body(&event),
                    event,
                    endpoints: endpoints.clone().into(),
                }
            })
            // One that is there already, among them.
            .chain(first.events.clone())
            .collect(),
        ..Commit::new(first.source, at(1))
    };
    let done = store.state().commit(big.clone()).await.unwrap();
    assert_eq!((done.repeated, done.deliveries.len()), (1, 2 * 5999 + 1));
    let (old, new) = done.deliveries.split_last().unwrap();
    assert_eq!((old.id, new[0].id.0 >> 16), (before, (before.0 >> 16) + 1));
    let ids: Vec<_> = new
        .chunks(2)
        .map(|d| (d[0].id.0 >> 16, d[1].id.0 >> 16))
        .collect();
    assert!(ids.windows(2).all(|w| w[1].0 == w[0].0 + 1) && ids.iter().all(|(a, b)| a == b));
    let billing: Vec<_> = new
        .iter()
        .filter(|d| d.endpoint == endpoints[0])
        .cloned()
        .collect();
    assert_eq!(
        store
            .outbox()
            .pending_after(endpoints[0], before, 10_000)
            .await
            .unwrap(),
        billing
    );
    let counts = "SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM session), (SELECT count(*) FROM usage_day), \
         (SELECT count(*) FROM session s JOIN event e ON e.id = s.event AND e.session_id = s.id)";
    assert_eq!(db.sql(counts), "9000|6000|6000|6000");
    let removal = Commit {
        changes: (0..9000).map(|n| remove(Table::Allocation, n)).collect(),
        ..Commit::new(first.source, at(2))
    };
    store.state().commit(removal).await.unwrap();
    assert_eq!(db.sql("SELECT count(*) FROM state"), "0");
}

/// A failed attempt whose recording was not confirmed is written down again, and counts once.
async fn an_outcome_may_be_repeated(on: &Backend) {
    let db = Database::new(on);
    let store = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap();
    let made = store
        .state()
        .commit(commit(&store, 1).await)
        .await
        .unwrap()
        .deliveries;
    let id = made[0].id;
    for _ in 0..3 {
        assert_eq!(
            store.outbox().record(vec![retry(id, 5, 50)]).await.unwrap(),
            Recorded { ignored: 0 }
        );
    }
    let shown = store.outbox().pending_rows(vec![id]).await.unwrap();
    assert_eq!(
        (
            shown[0].attempts,
            shown[0].first_attempt_at,
            shown[0].next_attempt_at
        ),
        (1, Some(at(5)), at(50))
    );
    // The next one is another.
    assert_eq!(
        store
            .outbox()
            .record(vec![retry(id, 50, 90), retry(id, 90, 99)])
            .await
            .unwrap()
            .ignored,
        0
    );
    assert_eq!(
        store.outbox().pending_rows(vec![id]).await.unwrap()[0].attempts,
        3
    );
    for _ in 0..2 {
        assert_eq!(
            store.outbox().record(vec![dead(id, 99)]).await.unwrap().ignored,
            0
        );
    }
    // Given up, but it got there after all; from then on nothing turns it back.
    for _ in 0..2 {
        assert_eq!(
            store
                .outbox()
                .record(vec![delivered(id, 120)])
                .await
                .unwrap()
                .ignored,
            0
        );
    }
    assert_eq!(
        store
            .outbox()
            .record(vec![retry(id, 130, 140), dead(id, 150), delivered(id, 160)])
            .await
            .unwrap()
            .ignored,
        3
    );
    let shown = &store.ledger().delivery(made[0].event_id).await.unwrap()[0];
    assert_eq!(
        (shown.row.state.as_str(), shown.row.attempts, shown.attempts.len()),
        ("delivered", 5, 5)
    );
    let backlog = store.outbox().backlog().await.unwrap()[&id.endpoint()];
    assert_eq!((backlog.pending, backlog.dead, backlog.oldest), (0, 0, None));
}

async fn changes_by_others_are_noticed(on: &Backend) {
    let db = Database::new(on);
    let connect = |mode| Store::connect(postgres_options(&db.url()), mode);
    let (a, b) = (
        connect(Mode::Run).await.unwrap(),
        connect(Mode::Run).await.unwrap(),
    );
    let made = commit(&a, 1).await;
    a.state().commit(made.clone()).await.unwrap();
    assert!(!a.outbox().changed_by_others().await.unwrap(), "its own are none");
    assert!(
        b.outbox().changed_by_others().await.unwrap(),
        "an endpoint was configured"
    );
    assert!(!b.outbox().changed_by_others().await.unwrap());
    b.state().commit(made).await.unwrap();
    assert!(
        !a.outbox().changed_by_others().await.unwrap(),
        "what others commit is found in the outbox"
    );
    let person = connect(Mode::Shared).await.unwrap();
    assert!(
        person
            .admin()
            .pause("billing", at(1), "maintenance")
            .await
            .unwrap()
    );
    assert!(!person.admin().pause("billing", at(2), "again").await.unwrap());
    for store in [&a, &b] {
        assert!(store.outbox().changed_by_others().await.unwrap());
        assert!(!store.outbox().changed_by_others().await.unwrap());
    }
    // Two at once, one of them ours: the other's is not lost.
    person.admin().resume("billing", at(3)).await.unwrap();
    a.admin().pause("billing", at(4), "ours").await.unwrap();
    assert!(a.outbox().changed_by_others().await.unwrap());
    assert!(a.is_run_on().await.is_ok_and(|run| !run), "nobody has beaten");
    a.cluster().unwrap().beat(&[]).await.unwrap();
    assert!(person.is_run_on().await.unwrap());
}

async fn any_text_can_be_kept(on: &Backend) {
    let db = Database::new(on);
    let store = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap();
    let id = store
        .state()
        .commit(commit(&store, 1).await)
        .await
        .unwrap()
        .deliveries[0]
        .id;
    let mut outcome = retry(id, 5, 50);
    outcome.error = Some("a\0b".into());
    assert_eq!(store.outbox().record(vec![outcome]).await.unwrap().ignored, 0);
    assert!(store.admin().pause("billing", at(1), "why\0not").await.unwrap());
    assert_eq!(
        &*store.outbox().endpoints().await.unwrap()[0]
            .paused()
            .unwrap()
            .reason,
        "why\u{fffd}not"
    );
}
