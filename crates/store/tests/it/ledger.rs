//! Sessions and usage by day: whatever path the events take into the ledger, the books balance.

use std::collections::BTreeMap;

use turnhook_reducer::{
    event::SessionEvent,
    source::{Gap, GapReason},
    usage::Usage,
};
use turnhook_store::{Commit, DeliveryState, Options, SessionFilter, Store, UsageDay};

use crate::support::{Backend, Fixture, T0, at, delivered, event, session};

crate::support::on_both! {
    a_session_is_what_its_last_event_said,
    how_much_is_kept_is_known,
    the_books_balance,
}

const DAY: u64 = 86_400_000;

/// All rows, in pages of an odd size.
async fn usage_by_day(store: &Store) -> Vec<UsageDay> {
    let mut all: Vec<UsageDay> = Vec::new();
    loop {
        let page = store
            .ledger()
            .usage_by_day(0, u32::MAX, all.last().cloned(), 33)
            .await
            .unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// What must be there: by day and user.
#[derive(Default)]
struct Books(BTreeMap<(u64, Vec<u8>), (u64, u64, Usage)>);

impl Books {
    fn add(&mut self, event: &SessionEvent) {
        let user = event.user.as_deref().unwrap_or_default().to_vec();
        let (started, ended, usage) = self.0.entry((event.timestamp.0 / DAY, user)).or_default();
        *started += u64::from(event.sequence == 0);
        *ended += u64::from(event.end.is_some());
        *usage = usage.plus(event.usage_delta);
    }

    async fn compare(&self, store: &Store) {
        let found: Vec<_> = usage_by_day(store)
            .await
            .into_iter()
            .map(|d| {
                (
                    (u64::from(d.day), d.user.unwrap_or_default()),
                    (d.started, d.ended, d.usage),
                )
            })
            .collect();
        assert_eq!(found, self.0.clone().into_iter().collect::<Vec<_>>());
    }
}

async fn how_much_is_kept_is_known(on: &Backend) {
    let f = Fixture::new(on, &[]).await;
    let ledger = f.store.ledger();
    assert_eq!(ledger.oldest().await.unwrap(), None);
    let before = ledger.bytes().await.unwrap();
    assert!(before > 0);
    for (id, started) in [(1, 70_000), (2, 5_000), (3, 90_000)] {
        let told = event(id, started, 0, started, "cust_42", false);
        f.store
            .state()
            .commit(f.commit(90_000, vec![told]))
            .await
            .unwrap();
    }
    // Listing brings the ledger up to date.
    let listed = ledger.sessions(SessionFilter::default(), None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(ledger.oldest().await.unwrap(), Some(at(5_000)));
    assert!(ledger.bytes().await.unwrap() >= before);
}

async fn a_session_is_what_its_last_event_said(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let (start, usage, end) = (
        event(1, 0, 0, 0, "cust_42", false),
        event(1, 0, 1, 60_000, "cust_42", false),
        event(1, 0, 2, 90_000, "cust_42", true),
    );
    let other = event(2, 70_000, 0, 70_000, "", false);
    f.store
        .state()
        .commit(f.commit(1, vec![start.clone()]))
        .await
        .unwrap();
    let row = |rows: Vec<turnhook_store::SessionRow>| rows.into_iter().next().unwrap();
    let open = row(f
        .store
        .ledger()
        .sessions(SessionFilter::default(), None, 10)
        .await
        .unwrap());
    assert_eq!((open.end, open.sequence, open.usage), (None, 0, start.usage));

    let gap = |from, to| Gap {
        from: at(from),
        to: at(to),
        reason: GapReason::ThrownOut,
        server: Some(b"s".to_vec().into()),
    };
    let gaps = vec![gap(0, 5), gap(80_000, 100_000), gap(100_000, 110_000)];
    let done = f
        .store
        .state()
        .commit(Commit {
            gaps: gaps.clone(),
            ..f.commit(90_000, vec![usage, other.clone(), end.clone()])
        })
        .await
        .unwrap();
    f.store
        .outbox()
        .record(vec![delivered(done.deliveries[0].id, 61_000)])
        .await
        .unwrap();

    let detail = f.store.ledger().session(session(1, 0)).await.unwrap().unwrap();
    let told = end.end.unwrap();
    assert_eq!(detail.row.end, Some((told.ended_at, told.reason, told.accuracy)));
    assert_eq!(
        (detail.row.usage, detail.row.sequence, detail.row.started_at),
        (end.usage, 2, at(0))
    );
    assert_eq!(
        (detail.row.realm, detail.row.user),
        (b"example.org".to_vec(), Some(b"cust_42".to_vec()))
    );
    assert_eq!(detail.row.usernames, [b"1795413634:cust_42".to_vec()]);
    assert_eq!(detail.row.labels, [("team".to_owned(), b"red".to_vec())]);
    assert_eq!(
        (
            detail.row.source.as_str(),
            detail.row.allocations,
            detail.row.peer_leg
        ),
        ("eu-1", 1, true)
    );
    assert_eq!(detail.last_body, Some(crate::support::body(&end)));
    assert_eq!(detail.gaps, gaps[..2]);
    let states: Vec<_> = detail
        .events
        .iter()
        .map(|e| (e.sequence, e.deliveries.iter().map(|d| d.1).collect::<Vec<_>>()))
        .collect();
    let pending = vec![DeliveryState::Pending; 2];
    assert_eq!(
        states,
        [
            (0, pending.clone()),
            (1, vec![DeliveryState::Delivered, DeliveryState::Pending]),
            (2, pending)
        ]
    );
    assert_eq!(f.store.ledger().session(session(9, 0)).await.unwrap(), None);

    let ids = async |filter: SessionFilter| -> Vec<_> {
        f.store
            .ledger()
            .sessions(filter, None, 10)
            .await
            .unwrap()
            .into_iter()
            .map(|s| s.id)
            .collect()
    };
    let (one, two) = (session(1, 0), session(2, 70_000));
    assert_eq!(ids(SessionFilter::default()).await, [two, one]);
    assert_eq!(
        ids(SessionFilter {
            user: Some(b"cust_42".to_vec()),
            ..Default::default()
        })
        .await,
        [one]
    );
    assert_eq!(
        ids(SessionFilter {
            open: Some(true),
            ..Default::default()
        })
        .await,
        [two]
    );
    assert_eq!(
        ids(SessionFilter {
            open: Some(false),
            ..Default::default()
        })
        .await,
        [one]
    );
    assert_eq!(
        ids(SessionFilter {
            since: Some(at(90_001)),
            ..Default::default()
        })
        .await,
        [two]
    );
    assert_eq!(
        ids(SessionFilter {
            until: Some(at(70_000)),
            ..Default::default()
        })
        .await,
        [one]
    );
    assert_eq!(
        ids(SessionFilter {
            source: Some("us-1".into()),
            ..Default::default()
        })
        .await,
        []
    );
    assert_eq!(
        ids(SessionFilter {
            realm: Some(b"example.org".to_vec()),
            ..Default::default()
        })
        .await,
        [two, one]
    );
    assert_eq!(
        f.store
            .ledger()
            .sessions(SessionFilter::default(), Some(two), 10)
            .await
            .unwrap()[0]
            .id,
        one
    );
    assert_eq!(
        f.store.ledger().gaps(Some(at(50_000)), 10).await.unwrap().len(),
        2
    );
}

/// In batches while it runs, when asked for, by this process and by another one, over restarts.
async fn the_books_balance(on: &Backend) {
    let options = Options {
        ledger_batch: 1500,
        state_log_bytes: 4096,
        ..Options::default()
    };
    let mut f = Fixture::with(on, &["billing"], options).await;
    let (mut books, mut sequences) = (Books::default(), BTreeMap::<u64, u32>::new());
    let mut seed = 11u64;
    let mut random = move |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let users = ["", "anna", "ben", "chloé", "d/e:f"];
    for round in 0..120u64 {
        let now = round * DAY / 50;
        let events: Vec<_> = (0..random(250))
            .map(|_| {
                let n = random(2000);
                let sequence = *sequences.entry(n).and_modify(|s| *s += 1).or_insert(0);
                let some = users[usize::try_from(n).unwrap() % users.len()];
                // Many users, so that a batch has more rows of usage than one step writes.
                let user = if n < 200 {
                    some.to_owned()
                } else {
                    format!("{some}{n}")
                };
                event(n, 0, sequence, now, &user, false)
            })
            .collect();
        events.iter().for_each(|e| books.add(e));
        f.store.state().commit(f.commit(now, events)).await.unwrap();
        match round {
            20 | 90 => books.compare(&f.store).await,
            40 | 70 => {
                let other = f.shared().await;
                let (_, ()) = tokio::join!(
                    f.store.ledger().sessions(SessionFilter::default(), None, 10),
                    books.compare(&other)
                );
            }
            50 | 100 => {
                f = f.reopen().await;
            }
            _ => {}
        }
    }
    books.compare(&f.store).await;
    let sessions = f
        .store
        .ledger()
        .sessions(SessionFilter::default(), None, 10_000)
        .await
        .unwrap();
    assert_eq!(sessions.len(), sequences.len());
    for row in sessions.into_iter().step_by(40) {
        let n = (0..2000).find(|n| session(*n, 0) == row.id).unwrap();
        assert_eq!(row.sequence, sequences[&n]);
        let events = f.store.ledger().session(row.id).await.unwrap().unwrap().events;
        assert_eq!(events.len() as u32, row.sequence + 1);
    }
    assert!(T0 / DAY + 2 <= u64::from(usage_by_day(&f.store).await.last().unwrap().day));
}
