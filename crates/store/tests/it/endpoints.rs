//! Endpoints as the store knows them, and the deliveries of those that come and go.

use std::sync::Arc;

use turnhook_store::{Commit, DeliveryCursor, DeliveryFilter, DeliveryId, DeliveryState, Error, NewEvent};

use crate::deliveries::filter;
use crate::support::{Backend, Fixture, at, body, delivered, event};

crate::support::on_both! {
    endpoints_come_and_go_and_keep_what_is_theirs,
    an_event_that_nobody_wants_is_in_the_ledger_alone,
    many_pending_ones_are_listed_newest_first,
}

async fn endpoints_come_and_go_and_keep_what_is_theirs(on: &Backend) {
    let mut f = Fixture::new(on, &["billing", "audit"]).await;
    let made = f
        .store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 0, "a", false)]))
        .await
        .unwrap()
        .deliveries;
    f = f.reopen().await;
    let ids = f
        .store
        .outbox()
        .set_endpoints(&["audit", "crm"], at(5))
        .await
        .unwrap();
    assert_eq!(ids[0], f.endpoints[1]);
    let row = |name: &str, endpoints: &[turnhook_store::Endpoint]| {
        endpoints.iter().find(|e| e.name == name).unwrap().clone()
    };
    let endpoints = f.store.outbox().endpoints().await.unwrap();
    assert_eq!(row("billing", &endpoints).removed_at, Some(at(5)));
    assert_eq!(row("crm", &endpoints).created_at, at(5));
    assert_eq!(
        f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]].pending,
        1,
        "kept, and visible"
    );
    assert_eq!(
        f.store.outbox().set_endpoints(&["billing"], at(9)).await.unwrap(),
        [f.endpoints[0]]
    );
    assert_eq!(
        row("billing", &f.store.outbox().endpoints().await.unwrap()).removed_at,
        None
    );
    assert_eq!(
        f.store
            .outbox()
            .pending_after(f.endpoints[0], DeliveryId(0), 9)
            .await
            .unwrap()[0]
            .id,
        made[0].id
    );

    let other = f.shared().await;
    assert!(other.admin().pause("billing", at(10), "410 Gone").await.unwrap());
    assert!(!other.admin().pause("billing", at(11), "again").await.unwrap());
    let paused = row("billing", &f.store.outbox().endpoints().await.unwrap());
    assert_eq!(
        paused.paused().map(|p| (p.from, &*p.reason)),
        Some((at(10), "410 Gone"))
    );
    assert!(f.store.admin().resume("billing", at(40)).await.unwrap());
    assert!(!f.store.admin().resume("billing", at(41)).await.unwrap());
    // The wish is on record, for whoever runs and holds something back.
    let wish = row("billing", &f.store.outbox().endpoints().await.unwrap());
    assert_eq!(wish.paused(), None);
    assert_eq!(
        wish.pauses.last().map(|p| (p.from, p.to)),
        Some((at(41), Some(at(41))))
    );
    f.store.admin().pause("billing", at(50), "by hand").await.unwrap();
    let twice = row("billing", &f.store.outbox().endpoints().await.unwrap());
    let pauses: Vec<_> = twice.pauses.iter().map(|p| (p.from, p.to)).collect();
    assert_eq!(
        pauses,
        [(at(10), Some(at(40))), (at(41), Some(at(41))), (at(50), None)]
    );
    assert!(matches!(
        f.store.admin().pause("nobody", at(1), "").await.unwrap_err(),
        Error::UnknownEndpoint { .. }
    ));
}

async fn an_event_that_nobody_wants_is_in_the_ledger_alone(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let event = event(1, 0, 0, 0, "a", false);
    let new = NewEvent {
        body: body(&event),
        event,
        endpoints: Arc::new([]),
    };
    let done = f
        .store
        .state()
        .commit(Commit {
            events: vec![new],
            ..Commit::new(f.source, at(1))
        })
        .await
        .unwrap();
    assert!(done.deliveries.is_empty());
    assert!(
        f.store
            .ledger()
            .deliveries(filter(), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        f.store
            .ledger()
            .sessions(Default::default(), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

/// Among many pending ones the newest are looked for in another way, with the same result.
async fn many_pending_ones_are_listed_newest_first(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let mut made = Vec::new();
    for round in 0..21u64 {
        let events = (0..500)
            .map(|n| event(n, n, u32::try_from(round).unwrap(), round * 1000 + n, "a", false))
            .collect();
        made.extend(
            f.store
                .state()
                .commit(f.commit(round, events))
                .await
                .unwrap()
                .deliveries,
        );
    }
    let done = made
        .iter()
        .skip(10_100)
        .step_by(2)
        .map(|d| delivered(d.id, 1))
        .collect();
    f.store.outbox().record(done).await.unwrap();
    let pending = DeliveryFilter {
        states: vec![DeliveryState::Pending],
        ..filter()
    };
    assert!(f.store.ledger().count_deliveries(pending.clone()).await.unwrap() > 10_000);
    let (mut seen, mut after) = (Vec::new(), None);
    for _ in 0..5 {
        let page = f
            .store
            .ledger()
            .deliveries(pending.clone(), after, 80)
            .await
            .unwrap();
        after = page.last().map(|last| DeliveryCursor {
            event_id: last.event_id,
            id: last.id,
        });
        seen.extend(page.into_iter().map(|row| row.id));
    }
    let expected: Vec<_> = made
        .iter()
        .skip(10_101)
        .step_by(2)
        .rev()
        .chain(made[..10_100].iter().rev())
        .take(400)
        .map(|d| d.id)
        .collect();
    assert_eq!(seen, expected);
}
