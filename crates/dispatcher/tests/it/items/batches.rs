//! What a batch makes of deliveries that were claimed together, by hand.

use std::{sync::Arc, time::Duration};

use turnhook_dispatcher::{
    body::body,
    config::EndpointConfig,
    provider::{
        account::{Account, Dead},
        batch::{Batch, Conclusion},
    },
    queue::{Bounds, Page, Queue, Queued},
    samples::{self, Case},
};
use turnhook_reducer::{
    event::{EventType, SessionId},
    outbox::{Delivery, DeliveryId, EndpointId, Next},
};

use super::accounts::{EVT, NOW, account};

fn delivery(id: i64, event: &str) -> Queued {
    Queued {
        delivery: Delivery {
            id: DeliveryId(id),
            endpoint: EndpointId(1),
            event_id: event.parse().unwrap(),
            session_id: SessionId([1; 16]),
            sequence: id as u32,
            event_type: EventType::Usage,
            body: body(&samples::event(EventType::Usage, Case::Exact, NOW)),
            timestamp: NOW,
            sent: None,
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: NOW,
        },
        ordering_key: SessionId([1; 16]),
        began_at: None,
        due_at: None,
    }
}

/// How many requests they make, each being taken.
fn requests(account: &Arc<Account>, deliveries: Vec<Queued>) -> usize {
    let mut batch = Batch::new(account, deliveries, NOW);
    std::iter::from_fn(|| batch.next_request()).count()
}

#[test]
fn p10_no_id_stands_twice_in_a_request() {
    let account = Arc::new(account("openmeter", "relayed"));
    let other = "evt_00000000000000000000000002";
    assert_eq!(requests(&account, vec![delivery(1, EVT), delivery(2, other)]), 1);
    assert_eq!(requests(&account, vec![delivery(1, EVT), delivery(2, EVT)]), 2);
}

#[test]
fn p5_a_request_keeps_to_the_bound_of_bytes() {
    let events: Vec<String> = (0..10).map(|n| format!("evt_{n:026}")).collect();
    let all = || {
        (1..)
            .zip(&events)
            .map(|(id, event)| delivery(id, event))
            .collect()
    };
    let mut account = account("openmeter", "relayed");
    assert_eq!(requests(&Arc::new(account.clone()), all()), 1);
    account.terms.bytes = 1;
    assert_eq!(requests(&Arc::new(account), all()), 10, "each by itself");
}

#[test]
fn p2_what_is_not_on_record_is_not_sent() {
    let account = Arc::new(account("openmeter", "relayed"));
    let mut batch = Batch::new(&account, vec![delivery(1, EVT)], NOW);
    assert_eq!(batch.to_write().len(), 1);
    batch.not_written();
    assert!(batch.next_request().is_none());
    let concluded = batch.finish();
    assert!(
        matches!(concluded[0].conclusion, Conclusion::Soon(_)),
        "{concluded:?}"
    );
    assert!(!concluded[0].uncertain);
}

#[test]
fn p2_what_is_given_up_while_it_may_have_been_counted_is_uncertain() {
    const AGE: Duration = Duration::from_secs(3600);
    let late = NOW.plus(2 * u64::try_from(AGE.as_millis()).unwrap());
    for (uncertain, reason) in [(true, "uncertain"), (false, "gave_up")] {
        let mut config = EndpointConfig::new("e", "https://example.com/".parse().unwrap(), Vec::new());
        config.retry.give_up_after = AGE;
        let mut queue = Queue::new(&config, Vec::new(), Bounds::default(), NOW);
        queue.batch(1, Duration::ZERO);
        assert!(queue.wanted(NOW).is_some());
        let deliveries = vec![delivery(1, EVT)];
        queue.answer(
            Some(Page {
                end: true,
                deliveries,
            }),
            NOW,
        );
        let claimed = queue.claim_batch(NOW).remove(0);
        let (next, dead) = queue.conclude(claimed, Conclusion::Again(None), uncertain, late, 0);
        assert_eq!(next, Next::Dead(reason));
        assert_eq!(matches!(dead, Some(Dead::Uncertain(_))), uncertain);
    }
}
