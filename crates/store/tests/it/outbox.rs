//! What may be attempted, and what has to wait: by whatever path, only the first pending delivery of a session.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::event::SessionId;
use turnhook_store::{Delivery, DeliveryId, Recorded};

use crate::support::{Backend, Fixture, T0, at, dead, delivered, event, retry, session};

crate::support::on_both! {
    a_session_waits_for_its_first,
    outcomes_that_come_too_late_change_nothing,
    the_outbox_agrees_with_a_model,
}

/// By endpoint and session: sequence, delivery, due time.
type Model = BTreeMap<(u16, SessionId), BTreeMap<u32, (Delivery, u64)>>;

fn names(deliveries: &[Delivery]) -> Vec<(SessionId, u32)> {
    deliveries.iter().map(|d| (d.session_id, d.sequence)).collect()
}

async fn a_session_waits_for_its_first(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let billing = f.endpoints[0];
    let (one, two) = (session(1, 0), session(2, 1));
    let events = (0..3)
        .flat_map(|s| [event(1, 0, s, 10, "a", false), event(2, 1, s, 10, "b", false)])
        .collect();
    let made = f
        .store
        .state()
        .commit(f.commit(10, events))
        .await
        .unwrap()
        .deliveries;
    let of = |id: SessionId, sequence: u32| {
        made.iter()
            .find(|d| (d.session_id, d.sequence) == (id, sequence))
            .unwrap()
            .id
    };
    let newest = async |ms: u64| names(&f.store.outbox().newest_due(billing, at(ms), 10).await.unwrap());
    assert_eq!(newest(10).await, [(two, 0), (one, 0)]);

    // The first of session one has to wait until 500, and its others with it.
    f.store
        .outbox()
        .record(vec![retry(of(one, 0), 20, 500)])
        .await
        .unwrap();
    assert_eq!(newest(499).await, [(two, 0)]);
    assert_eq!(newest(500).await, [(two, 0), (one, 0)]);
    let all = f
        .store
        .outbox()
        .pending_after(billing, DeliveryId(0), 100)
        .await
        .unwrap();
    assert_eq!(names(&all), names(&made), "those that wait are among them");
    assert_eq!(
        (all[0].attempts, all[0].first_attempt_at, all[0].next_attempt_at),
        (1, Some(at(20)), at(500))
    );

    // Dead ones are passed over; what comes behind is the first now.
    f.store
        .outbox()
        .record(vec![dead(of(one, 0), 510)])
        .await
        .unwrap();
    assert_eq!(newest(510).await, [(one, 1), (two, 0)]);
    f.store
        .outbox()
        .record(vec![delivered(of(one, 1), 910), retry(of(one, 2), 20, 500)])
        .await
        .unwrap();
    assert_eq!(newest(510).await, [(one, 2), (two, 0)]);
    f.store
        .outbox()
        .record(vec![delivered(of(one, 2), 910)])
        .await
        .unwrap();
    assert_eq!(newest(510).await, [(two, 0)]);

    let ids = vec![of(two, 1), of(one, 0), of(two, 0)];
    assert_eq!(
        names(&f.store.outbox().pending_rows(ids.clone()).await.unwrap()),
        [(two, 1), (two, 0)]
    );
    assert_eq!(
        f.store.outbox().still_pending(ids).await.unwrap(),
        [of(two, 1), of(two, 0)]
    );
    let backlog = f.store.outbox().backlog().await.unwrap()[&billing];
    assert_eq!(
        (backlog.pending, backlog.dead, backlog.oldest),
        (3, 1, Some(at(10)))
    );
}

async fn outcomes_that_come_too_late_change_nothing(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let made = f
        .store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 0, "a", false)]))
        .await
        .unwrap()
        .deliveries;
    let id = made[0].id;
    assert_eq!(
        f.store.outbox().record(vec![delivered(id, 5)]).await.unwrap(),
        Recorded { ignored: 0 }
    );
    assert_eq!(
        f.store
            .outbox()
            .record(vec![retry(id, 6, 9), dead(id, 7), delivered(id, 8)])
            .await
            .unwrap(),
        Recorded { ignored: 3 }
    );
    let shown = &f.store.ledger().delivery(made[0].event_id).await.unwrap()[0];
    assert_eq!(
        (shown.row.attempts, shown.row.finished_at, shown.attempts.len()),
        (1, Some(at(12)), 1)
    );
    let backlog = f.store.outbox().backlog().await.unwrap()[&f.endpoints[0]];
    assert_eq!((backlog.pending, backlog.dead, backlog.oldest), (0, 0, None));
}

/// Random outcomes against a model, read in pages of odd sizes: nothing is missing, nothing out of order.
async fn the_outbox_agrees_with_a_model(on: &Backend) {
    let mut f = Fixture::new(on, &["billing", "audit"]).await;
    let mut seed = 7u64;
    let mut random = move |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let mut model = Model::new();
    let mut sequences = BTreeMap::<u64, u32>::new();
    for now in (0..200u64).map(|n| n * 10) {
        let events = (0..random(8)).map(|_| {
            let n = random(25);
            let sequence = *sequences.entry(n).and_modify(|s| *s += 1).or_insert(0);
            event(n, n, sequence, now, "a", false)
        });
        let events = events.collect::<Vec<_>>();
        for d in f
            .store
            .state()
            .commit(f.commit(now, events))
            .await
            .unwrap()
            .deliveries
        {
            model
                .entry((d.endpoint.0, d.session_id))
                .or_default()
                .insert(d.sequence, (d, now));
        }
        let mut outcomes = Vec::new();
        for (_, queue) in model.iter_mut().filter(|(_, q)| !q.is_empty()) {
            let (sequence, (first, due)) = queue.first_key_value().map(|(s, d)| (*s, d.clone())).unwrap();
            if due > now {
                continue;
            }
            match random(10) {
                0 => {
                    outcomes.push(dead(first.id, now));
                    queue.remove(&sequence);
                }
                1..4 => {
                    let next = now + random(200);
                    outcomes.push(retry(first.id, now, next));
                    queue.get_mut(&sequence).unwrap().1 = next;
                }
                4..7 => {
                    outcomes.push(delivered(first.id, now));
                    queue.remove(&sequence);
                }
                _ => {}
            }
        }
        assert_eq!(f.store.outbox().record(outcomes).await.unwrap().ignored, 0);
        if now % 70 == 0 {
            compare(&f, &model, now, 1 + usize::try_from(random(20)).unwrap()).await;
        }
        if now % 500 == 490 {
            f = f.reopen().await;
        }
    }
}

async fn compare(f: &Fixture, model: &Model, now: u64, limit: usize) {
    for endpoint in &f.endpoints {
        let mut due = BTreeSet::new();
        let mut pending = 0;
        for ((e, _), queue) in model.iter().filter(|((e, _), _)| *e == endpoint.0) {
            assert_eq!(*e, endpoint.0);
            pending += queue.len() as u64;
            due.extend(
                queue
                    .values()
                    .next()
                    .filter(|(_, when)| *when <= now)
                    .map(|(d, _)| d.id),
            );
        }
        let mut seen: Vec<Delivery> = Vec::new();
        loop {
            let after = seen.last().map_or(DeliveryId(0), |d| d.id);
            let page = f
                .store
                .outbox()
                .pending_after(*endpoint, after, limit)
                .await
                .unwrap();
            let end = page.len() < limit;
            seen.extend(page);
            if end {
                break;
            }
        }
        let expected: BTreeMap<DeliveryId, (&[u8], u64)> = model
            .iter()
            .filter(|((e, _), _)| *e == endpoint.0)
            .flat_map(|(_, q)| q.values())
            .map(|(d, when)| (d.id, (&d.body[..], *when)))
            .collect();
        assert!(seen.is_sorted_by_key(|d| d.id));
        let seen: Vec<_> = seen
            .iter()
            .map(|d| (d.id, (&d.body[..], d.next_attempt_at.0 - T0)))
            .collect();
        assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        let newest = f
            .store
            .outbox()
            .newest_due(*endpoint, at(now), 10_000)
            .await
            .unwrap();
        assert!(newest.is_sorted_by_key(|d| std::cmp::Reverse(d.id)));
        assert_eq!(newest.iter().map(|d| d.id).collect::<BTreeSet<_>>(), due);
        let backlog = f
            .store
            .outbox()
            .backlog()
            .await
            .unwrap()
            .get(endpoint)
            .copied()
            .unwrap_or_default();
        assert_eq!(backlog.pending, pending);
        let oldest = model
            .iter()
            .filter(|((e, _), _)| *e == endpoint.0)
            .flat_map(|(_, q)| q.values())
            .min_by_key(|(d, _)| d.id)
            .map(|(d, _)| d.timestamp);
        assert_eq!(backlog.oldest, oldest);
    }
}
