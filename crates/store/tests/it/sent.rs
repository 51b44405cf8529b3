//! What of a delivery was sent to a billing product, from before its first request on.

use bytes::Bytes;
use turnhook_store::{
    DeliveryFilter, DeliveryId, DeliveryState, EndpointId, Include, Next, Outcome, ReplayRequest, Sent, Store,
};

use crate::support::{Backend, Fixture, at, delivered, event, retry};

crate::support::on_both! {
    what_was_sent_is_read_with_its_delivery_until_it_is_forgotten,
    a_replay_keeps_what_was_sent_unless_it_may_repeat,
    what_was_sent_goes_with_its_delivery,
    what_is_included_is_what_was_configured_when_the_event_came,
}

async fn one(on: &Backend) -> (Fixture, DeliveryId) {
    let f = Fixture::new(on, &["billing"]).await;
    let made = f
        .store
        .state()
        .commit(f.commit(1000, vec![event(1, 1000, 0, 1000, "anna", false)]))
        .await
        .unwrap();
    let id = made.deliveries[0].id;
    assert_eq!(made.deliveries[0].sent, None);
    (f, id)
}

async fn sent(store: &Store, id: DeliveryId) -> Option<Bytes> {
    let pending = store.outbox().pending_rows(vec![id]).await.unwrap();
    pending[0].sent.clone()
}

fn so(outcome: Outcome, sent: Sent) -> Outcome {
    Outcome { sent, ..outcome }
}

async fn what_was_sent_is_read_with_its_delivery_until_it_is_forgotten(on: &Backend) {
    let (f, id) = one(on).await;
    let items = |text: &'static str| Bytes::from_static(text.as_bytes());
    f.store
        .outbox()
        .begin_sending(vec![(id, items("first"))])
        .await
        .unwrap();
    assert_eq!(sent(&f.store, id).await, Some(items("first")));
    f.store
        .outbox()
        .record(vec![retry(id, 1100, 1200)])
        .await
        .unwrap();
    assert_eq!(sent(&f.store, id).await, Some(items("first")));
    let further = so(retry(id, 1200, 1300), Sent::Put(items("further")));
    f.store.outbox().record(vec![further]).await.unwrap();
    assert_eq!(sent(&f.store, id).await, Some(items("further")));
    // By a path that reads the oldest, too; and a commit that is repeated speaks of it.
    let again = f
        .store
        .state()
        .commit(f.commit(1000, vec![event(1, 1000, 0, 1000, "anna", false)]))
        .await
        .unwrap();
    assert_eq!(again.deliveries[0].sent, Some(items("further")));
    let waits = Outcome {
        next: Next::Waits,
        ..so(retry(id, 1300, 1400), Sent::Forget)
    };
    f.store.outbox().record(vec![waits]).await.unwrap();
    assert_eq!(sent(&f.store, id).await, None);
    let rows = f
        .store
        .ledger()
        .deliveries(DeliveryFilter::default(), None, 9)
        .await
        .unwrap();
    assert_eq!(
        (rows[0].state, rows[0].attempts),
        (DeliveryState::Pending, 2),
        "waiting is no attempt"
    );
}

async fn a_replay_keeps_what_was_sent_unless_it_may_repeat(on: &Backend) {
    let (f, id) = one(on).await;
    let items = Bytes::from_static(b"items");
    f.store
        .outbox()
        .begin_sending(vec![(id, items.clone())])
        .await
        .unwrap();
    f.store.outbox().record(vec![delivered(id, 1100)]).await.unwrap();
    let request = |may_repeat| ReplayRequest {
        filter: DeliveryFilter {
            states: vec![DeliveryState::Delivered, DeliveryState::Pending],
            ..DeliveryFilter::default()
        },
        at: at(2000),
        who: "ops".into(),
        what: String::new(),
        rate: None,
        may_repeat,
    };
    f.store.admin().replay(request(false)).await.unwrap();
    assert_eq!(sent(&f.store, id).await, Some(items.clone()));
    // It is pending, perhaps under way: nobody takes that from it.
    f.store.admin().replay(request(true)).await.unwrap();
    assert_eq!(sent(&f.store, id).await, Some(items));
    f.store.outbox().record(vec![delivered(id, 2100)]).await.unwrap();
    f.store.admin().replay(request(true)).await.unwrap();
    assert_eq!(sent(&f.store, id).await, None);
}

async fn what_was_sent_goes_with_its_delivery(on: &Backend) {
    let (f, id) = one(on).await;
    f.store
        .outbox()
        .begin_sending(vec![(id, Bytes::from_static(b"items"))])
        .await
        .unwrap();
    f.store.outbox().record(vec![delivered(id, 1100)]).await.unwrap();
    let details = f.store.ledger().delivery(f_event()).await.unwrap();
    assert_eq!(details[0].sent, Some(Bytes::from_static(b"items")));
    f.store.admin().trim_all(at(1 << 40), || true).await.unwrap();
    assert!(f.store.ledger().delivery(f_event()).await.unwrap().is_empty());
    // Its number is never used again, so this is the only way to see that nothing is left of it.
    assert_eq!(f.store.outbox().pending_rows(vec![id]).await.unwrap(), []);
}

async fn what_is_included_is_what_was_configured_when_the_event_came(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let ids: Vec<EndpointId> = f
        .store
        .outbox()
        .endpoints()
        .await
        .unwrap()
        .iter()
        .map(|e| e.id)
        .collect();
    let part = |allocations| Include {
        allocations,
        addresses: allocations > 9,
    };
    let commit = async |n: u64| {
        let event = event(n, n * 1000, 0, n * 1000, "anna", false);
        let made = f
            .store
            .state()
            .commit(f.commit(n * 1000, vec![event]))
            .await
            .unwrap();
        made.deliveries.iter().map(|d| d.id).collect::<Vec<_>>()
    };
    let before = commit(1).await;
    f.store
        .outbox()
        .set_included(vec![(ids[0], part(25))])
        .await
        .unwrap();
    let first = commit(2).await;
    f.store
        .outbox()
        .set_included(vec![(ids[0], part(3)), (ids[1], part(0))])
        .await
        .unwrap();
    // Configured and taken back before anything came of it.
    f.store
        .outbox()
        .set_included(vec![(ids[0], part(4))])
        .await
        .unwrap();
    let second = commit(3).await;
    let included = f
        .store
        .outbox()
        .set_included(vec![(ids[0], part(4))])
        .await
        .unwrap();
    assert_eq!(f.store.outbox().included().await.unwrap(), included);
    let of = |deliveries: &[DeliveryId]| {
        let mut found: Vec<_> = deliveries
            .iter()
            .map(|id| (id.endpoint(), included.of(*id)))
            .collect();
        found.sort_by_key(|(id, _)| *id);
        [found[0].1, found[1].1]
    };
    let (a, b) = if ids[0] < ids[1] { (0, 1) } else { (1, 0) };
    assert_eq!([of(&before)[a], of(&before)[b]], [None, None]);
    assert_eq!([of(&first)[a], of(&first)[b]], [Some(part(25)), None]);
    assert_eq!([of(&second)[a], of(&second)[b]], [Some(part(4)), Some(part(0))]);
}

fn f_event() -> turnhook_reducer::event::EventId {
    event(1, 1000, 0, 1000, "anna", false).id
}
