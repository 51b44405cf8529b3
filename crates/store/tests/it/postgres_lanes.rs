//! Deliveries of nodes that share a PostgreSQL: each sees those of its lanes, and what the others commit.

use std::time::Instant;

use turnhook_store::{Commit, DeliveryId, Lanes, NewEvent};

use crate::{
    postgres_cluster::{Database, LONG, PATIENCE},
    support::{Backend, at, body, delivered, event, run_on_postgres},
};

#[test]
fn lanes() {
    run_on_postgres(&[
        ("lanes_part_the_outbox", |on| Box::pin(lanes_part_the_outbox(on))),
        ("what_others_committed_is_found_once", |on| {
            Box::pin(what_others_committed_is_found_once(on))
        }),
    ]);
}

async fn lanes_part_the_outbox(on: &Backend) {
    let db = Database::new(on);
    let (a, b) = (db.node(LONG).await, db.node(LONG).await);
    let source = a.state().source("eu-1").await.unwrap();
    let endpoint = a.outbox().set_endpoints(&["billing"], at(0)).await.unwrap()[0];
    let events = (0..300u64).map(|n| {
        let event = event(n % 100, 0, (n / 100) as u32, n, "a", false);
        NewEvent {
            body: body(&event),
            event,
            endpoints: vec![endpoint].into(),
        }
    });
    let commit = Commit {
        events: events.collect(),
        ..Commit::new(source, at(1))
    };
    let all = a.state().commit(commit).await.unwrap().deliveries;
    let ids: Vec<DeliveryId> = all.iter().map(|d| d.id).collect();
    let even: Lanes = (0..Lanes::COUNT).filter(|n| n % 2 == 0).collect();
    a.outbox().set_lanes(even);
    b.outbox().set_lanes(Lanes(!even.0));
    let mut parts = Vec::new();
    for (store, lanes) in [(&a, even), (&b, Lanes(!even.0))] {
        let expected: Vec<_> = all
            .iter()
            .filter(|d| lanes.contains(Lanes::of(d.session_id)))
            .cloned()
            .collect();
        assert!(expected.len() > 50, "the sessions spread over the lanes");
        assert_eq!(
            store
                .outbox()
                .pending_after(endpoint, DeliveryId(0), 1000)
                .await
                .unwrap(),
            expected
        );
        assert_eq!(store.outbox().pending_rows(ids.clone()).await.unwrap(), expected);
        let expected: Vec<_> = expected.into_iter().map(|d| d.id).collect();
        assert_eq!(
            store.outbox().pending_since(DeliveryId(0), 1000).await.unwrap(),
            expected
        );
        assert_eq!(store.outbox().still_pending(ids.clone()).await.unwrap(), expected);
        let mut due: Vec<_> = store
            .outbox()
            .newest_due(endpoint, at(1000), 1000)
            .await
            .unwrap()
            .into_iter()
            .map(|d| (d.sequence, d.id))
            .collect();
        due.sort_unstable();
        assert_eq!(due.len(), expected.len() / 3);
        assert!(
            due.iter()
                .all(|(sequence, id)| *sequence == 0 && expected.contains(id))
        );
        parts.push(expected);
        // For people, all of them.
        assert_eq!(store.outbox().backlog().await.unwrap()[&endpoint].pending, 300);
    }
    a.outbox().set_lanes(Lanes::NONE);
    assert_eq!(
        a.outbox()
            .pending_after(endpoint, DeliveryId(0), 1000)
            .await
            .unwrap(),
        []
    );
    a.outbox().set_lanes(Lanes::ALL);
    assert_eq!(
        a.outbox()
            .pending_after(endpoint, DeliveryId(0), 1000)
            .await
            .unwrap()
            .len(),
        300
    );
}

/// Two nodes commit at once, a third reads on from what it has seen: it misses none, whatever came in between.
async fn what_others_committed_is_found_once(on: &Backend) {
    let db = Database::new(on);
    let (a, b, reader) = (db.node(LONG).await, db.node(LONG).await, db.node(LONG).await);
    let endpoint = a.outbox().set_endpoints(&["billing"], at(0)).await.unwrap()[0];
    let mut writers = Vec::new();
    for (store, name, base) in [(a, "eu-1", 0u64), (b, "us-1", 1000)] {
        writers.push(tokio::spawn(async move {
            let source = store.state().source(name).await.unwrap();
            for n in 0..60 {
                let event = event(base + n, 0, 0, n, "a", false);
                let commit = Commit {
                    events: vec![NewEvent {
                        body: body(&event),
                        event,
                        endpoints: vec![endpoint].into(),
                    }],
                    ..Commit::new(source, at(n))
                };
                store.state().commit(commit).await.unwrap();
            }
        }));
    }
    let mut seen = reader.outbox().newest_delivery().await.unwrap();
    let mut found: Vec<DeliveryId> = reader
        .outbox()
        .pending_after(endpoint, DeliveryId(0), 1000)
        .await
        .unwrap()
        .iter()
        .map(|d| d.id)
        .filter(|id| *id <= seen)
        .collect();
    let until = Instant::now() + PATIENCE;
    while found.len() < 120 {
        assert!(Instant::now() < until, "{} found", found.len());
        let newest = reader.outbox().newest_delivery().await.unwrap();
        let page = reader.outbox().pending_since(seen, 7).await.unwrap();
        assert!(page.len() == 7 || page.last().is_none_or(|last| *last > seen));
        if let Some(last) = page.last() {
            seen = *last;
        } else {
            seen = seen.max(newest);
        }
        found.extend(page);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(found.is_sorted() && found.windows(2).all(|w| w[0] != w[1]));
    let outcomes = found.iter().map(|id| delivered(*id, 1)).collect();
    assert_eq!(reader.outbox().record(outcomes).await.unwrap().ignored, 0);
    assert_eq!(
        reader.outbox().pending_since(DeliveryId(0), 10).await.unwrap(),
        []
    );
    assert!(reader.outbox().newest_delivery().await.unwrap() > *found.last().unwrap());
}
