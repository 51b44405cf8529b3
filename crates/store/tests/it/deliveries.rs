//! Deliveries as people see them: listed, shown, replayed, discarded; with turnhook running or not.

use turnhook_reducer::event::EventType;
use turnhook_store::{
    DeliveryCursor, DeliveryFilter, DeliveryId, DeliveryRow, DeliveryState, Error, ReplayRequest, Store,
};

use crate::support::{Backend, Fixture, at, body, dead, delivered, event, retry, session};

crate::support::on_both! {
    filters_and_pages,
    a_delivery_shows_all_of_its_attempts,
    a_replay_queues_the_same_bytes_again,
    a_replay_with_a_rate_falls_due_bit_by_bit,
    discarded_ones_are_finished,
}

pub(crate) fn filter() -> DeliveryFilter {
    DeliveryFilter::default()
}

fn request(filter: DeliveryFilter) -> ReplayRequest {
    ReplayRequest {
        filter,
        at: at(9000),
        who: "ops".into(),
        what: "--state dead".into(),
        rate: None,
        may_repeat: false,
    }
}

/// Three sessions of two users to two endpoints; of the first endpoint's, some are delivered and some dead.
async fn some(on: &Backend) -> (Fixture, Vec<DeliveryId>) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let mut ids = Vec::new();
    for (n, user) in [(1, "anna"), (2, "ben"), (3, "anna")] {
        for sequence in 0..3u32 {
            let ms = n * 1000 + u64::from(sequence) * 100;
            let commit = f.commit(ms, vec![event(n, n * 1000, sequence, ms, user, sequence == 2)]);
            let made = f.store.state().commit(commit).await.unwrap().deliveries;
            let first = made[0].id;
            ids.push(first);
            match (n, sequence) {
                (1, _) => drop(
                    f.store
                        .outbox()
                        .record(vec![delivered(first, ms + 5)])
                        .await
                        .unwrap(),
                ),
                (2, 1) => {
                    f.store
                        .outbox()
                        .record(vec![retry(first, ms + 5, ms + 10)])
                        .await
                        .unwrap();
                    f.store.outbox().record(vec![dead(first, ms + 10)]).await.unwrap();
                }
                _ => {}
            }
        }
    }
    (f, ids)
}

async fn list(store: &Store, filter: DeliveryFilter) -> Vec<(u32, u64, String)> {
    let rows = store.ledger().deliveries(filter, None, 100).await.unwrap();
    let n = |row: &DeliveryRow| (1..4).find(|n| session(*n, n * 1000) == row.session_id).unwrap();
    rows.iter()
        .map(|r| (r.sequence, n(r), r.endpoint.clone()))
        .collect()
}

async fn filters_and_pages(on: &Backend) {
    let (f, ids) = some(on).await;
    assert_eq!(list(&f.store, filter()).await.len(), 18);
    let billing = || DeliveryFilter {
        endpoint: Some("billing".into()),
        ..filter()
    };
    let of = |rows: &[(u32, u64)]| {
        rows.iter()
            .map(|(s, n)| (*s, *n, "billing".to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list(&f.store, billing()).await,
        of(&[
            (2, 3),
            (1, 3),
            (0, 3),
            (2, 2),
            (1, 2),
            (0, 2),
            (2, 1),
            (1, 1),
            (0, 1)
        ]),
        "newest first"
    );
    let states = |state| DeliveryFilter {
        states: vec![state],
        ..billing()
    };
    assert_eq!(list(&f.store, states(DeliveryState::Dead)).await, of(&[(1, 2)]));
    assert_eq!(
        list(&f.store, states(DeliveryState::Delivered)).await,
        of(&[(2, 1), (1, 1), (0, 1)])
    );
    assert_eq!(
        list(&f.store, states(DeliveryState::Pending)).await,
        of(&[(2, 3), (1, 3), (0, 3), (2, 2), (0, 2)])
    );
    assert_eq!(list(&f.store, states(DeliveryState::Discarded)).await, of(&[]));
    let two = DeliveryFilter {
        session: Some(session(2, 2000)),
        ..billing()
    };
    assert_eq!(list(&f.store, two).await, of(&[(2, 2), (1, 2), (0, 2)]));
    let anna = DeliveryFilter {
        user: Some(b"anna".to_vec()),
        event_types: vec![EventType::End],
        ..billing()
    };
    assert_eq!(list(&f.store, anna.clone()).await, of(&[(2, 3), (2, 1)]));
    assert_eq!(
        list(
            &f.store,
            DeliveryFilter {
                states: vec![DeliveryState::Delivered],
                ..anna
            }
        )
        .await,
        of(&[(2, 1)])
    );
    let time = DeliveryFilter {
        since: Some(at(1200)),
        until: Some(at(2100)),
        ..billing()
    };
    assert_eq!(list(&f.store, time).await, of(&[(0, 2), (2, 1)]));
    let id = f.store.ledger().deliveries(billing(), None, 1).await.unwrap()[0].event_id;
    assert_eq!(
        list(
            &f.store,
            DeliveryFilter {
                ids: vec![id],
                ..filter()
            }
        )
        .await
        .len(),
        2
    );
    let nobody = DeliveryFilter {
        endpoint: Some("biling".into()),
        ..filter()
    };
    let error = f.store.ledger().deliveries(nobody, None, 1).await.unwrap_err();
    assert_eq!(
        error,
        Error::UnknownEndpoint {
            name: "biling".into(),
            known: "audit, billing".into()
        }
    );

    for filter in [
        filter(),
        billing(),
        states(DeliveryState::Pending),
        DeliveryFilter {
            user: Some(b"anna".to_vec()),
            ..filter()
        },
    ] {
        let whole = f
            .store
            .ledger()
            .deliveries(filter.clone(), None, 100)
            .await
            .unwrap();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = f
                .store
                .ledger()
                .deliveries(filter.clone(), after, 2)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(DeliveryCursor {
                event_id: last.event_id,
                id: last.id,
            });
            paged.extend(page);
        }
        assert_eq!(paged, whole);
    }
    assert_eq!(ids.len(), 9);
}

async fn a_delivery_shows_all_of_its_attempts(on: &Backend) {
    let (f, ids) = some(on).await;
    let row = f
        .store
        .ledger()
        .deliveries(
            DeliveryFilter {
                states: vec![DeliveryState::Dead],
                ..filter()
            },
            None,
            1,
        )
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (row.id, row.attempts, row.first_attempt_at, row.finished_at),
        (ids[4], 2, Some(at(2105)), Some(at(2117)))
    );
    assert_eq!(
        row.reason.as_deref(),
        Some("the receiver will never take it (422)")
    );
    let shown = f.store.ledger().delivery(row.event_id).await.unwrap();
    assert_eq!(
        shown.iter().map(|d| d.row.endpoint.as_str()).collect::<Vec<_>>(),
        ["billing", "audit"]
    );
    assert_eq!(shown[0].body, body(&event(2, 2000, 1, 2100, "ben", false)));
    let attempts = &shown[0].attempts;
    assert_eq!(
        attempts
            .iter()
            .map(|a| (a.number, a.at, a.latency_ms, a.status))
            .collect::<Vec<_>>(),
        [(1, at(2105), 7, Some(503)), (2, at(2110), 7, Some(422))]
    );
    assert_eq!(
        attempts[0].answer.as_ref().map(bytes::Bytes::len),
        Some(1024),
        "the first KiB of the answer"
    );
    assert_eq!(attempts[0].error.as_deref(), Some("503 Service Unavailable"));

    // A plain success leaves no row of its own, and is shown all the same.
    let done = f
        .store
        .ledger()
        .delivery(event(1, 1000, 0, 1000, "anna", false).id)
        .await
        .unwrap()
        .remove(0);
    let attempt = &done.attempts[0];
    assert_eq!(
        (attempt.number, attempt.at, attempt.latency_ms, attempt.status),
        (1, at(1005), 7, Some(200))
    );
    assert_eq!(
        (done.row.first_attempt_at, done.row.finished_at),
        (Some(at(1005)), Some(at(1012)))
    );
    assert!(
        f.store
            .ledger()
            .delivery(event(9, 0, 0, 0, "x", false).id)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_replay_queues_the_same_bytes_again(on: &Backend) {
    let (f, ids) = some(on).await;
    let anna = DeliveryFilter {
        user: Some(b"anna".to_vec()),
        endpoint: Some("billing".into()),
        states: vec![DeliveryState::Delivered, DeliveryState::Dead],
        ..filter()
    };
    assert!(!f.store.outbox().changed_by_others().await.unwrap());
    let other = f.shared().await;
    assert_eq!(other.ledger().count_deliveries(anna.clone()).await.unwrap(), 3);
    let replay = other.admin().replay(request(anna.clone())).await.unwrap();
    assert_eq!((replay.total, replay.pending), (3, 3));
    assert!(
        f.store.outbox().changed_by_others().await.unwrap(),
        "the running turnhook finds out"
    );
    assert!(!f.store.outbox().changed_by_others().await.unwrap());
    let backlog = f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]];
    assert_eq!(
        (backlog.pending, backlog.dead, backlog.oldest),
        (8, 1, Some(at(1000)))
    );

    let again = f
        .store
        .outbox()
        .pending_after(f.endpoints[0], DeliveryId(0), 3)
        .await
        .unwrap();
    assert_eq!(again.iter().map(|d| d.id).collect::<Vec<_>>(), ids[..3]);
    let first = event(1, 1000, 0, 1000, "anna", false);
    assert_eq!((again[0].event_id, &again[0].body), (first.id, &body(&first)));
    assert_eq!(
        (
            again[0].attempts,
            again[0].first_attempt_at,
            again[0].next_attempt_at
        ),
        (0, None, at(9000))
    );

    // Asked for once more, there is nothing left to queue.
    assert_eq!(
        other
            .admin()
            .replay(request(DeliveryFilter {
                states: vec![],
                ..anna
            }))
            .await
            .unwrap()
            .total,
        0
    );
    f.store
        .outbox()
        .record(vec![retry(ids[0], 9001, 9002)])
        .await
        .unwrap();
    f.store
        .outbox()
        .record(vec![delivered(ids[0], 9003)])
        .await
        .unwrap();
    let shown = f.store.ledger().delivery(first.id).await.unwrap().remove(0);
    assert_eq!(
        shown
            .attempts
            .iter()
            .map(|a| (a.number, a.status))
            .collect::<Vec<_>>(),
        [(1, Some(200)), (2, Some(503)), (3, Some(200))]
    );
    assert_eq!(
        (shown.row.replay, shown.row.attempts, shown.row.first_attempt_at),
        (Some(replay.id), 3, Some(at(9001)))
    );
    let on_record = other
        .ledger()
        .replays(Some(replay.id), 10)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (
            on_record.total,
            on_record.pending,
            on_record.who.as_str(),
            on_record.at
        ),
        (3, 2, "ops", at(9000))
    );
    assert_eq!(other.ledger().replays(None, 10).await.unwrap().len(), 2);
}

async fn a_replay_with_a_rate_falls_due_bit_by_bit(on: &Backend) {
    let (f, _) = some(on).await;
    let dead = DeliveryFilter {
        states: vec![DeliveryState::Delivered],
        ..filter()
    };
    f.store
        .admin()
        .replay(ReplayRequest {
            rate: Some(2.0),
            may_repeat: false,
            ..request(dead)
        })
        .await
        .unwrap();
    let due: Vec<_> = f
        .store
        .outbox()
        .pending_after(f.endpoints[0], DeliveryId(0), 3)
        .await
        .unwrap()
        .iter()
        .map(|d| d.next_attempt_at)
        .collect();
    assert_eq!(due, [at(9000), at(9500), at(10_000)]);
}

async fn discarded_ones_are_finished(on: &Backend) {
    let (f, ids) = some(on).await;
    let two = DeliveryFilter {
        session: Some(session(2, 2000)),
        endpoint: Some("billing".into()),
        ..filter()
    };
    assert_eq!(
        f.shared()
            .await
            .admin()
            .discard(two.clone(), at(9000))
            .await
            .unwrap(),
        3
    );
    assert!(f.store.outbox().changed_by_others().await.unwrap());
    let backlog = f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]];
    assert_eq!((backlog.pending, backlog.dead), (3, 0));
    assert_eq!(
        f.store.outbox().still_pending(ids.clone()).await.unwrap(),
        ids[6..]
    );
    assert_eq!(f.store.admin().discard(two, at(9000)).await.unwrap(), 0);
    // One was under way meanwhile; the endpoint has it.
    assert_eq!(
        f.store
            .outbox()
            .record(vec![delivered(ids[3], 9001), retry(ids[4], 9001, 9002)])
            .await
            .unwrap()
            .ignored,
        1
    );
    let states: Vec<_> = f
        .store
        .ledger()
        .deliveries(
            DeliveryFilter {
                session: Some(session(2, 2000)),
                endpoint: Some("billing".into()),
                ..filter()
            },
            None,
            9,
        )
        .await
        .unwrap()
        .iter()
        .map(|r| r.state)
        .collect();
    assert_eq!(
        states,
        [
            DeliveryState::Discarded,
            DeliveryState::Discarded,
            DeliveryState::Delivered
        ]
    );
}
