//! A map of customers changes while deliveries are known: what is read again then says another line than it was put in.

use super::*;
use crate::provider::batch::Conclusion;

/// The same, as it is read once the map knows its customer.
fn moved(id: i64, session: u128, sequence: u32) -> Queued {
    Queued {
        ordering_key: SessionId([9; 16]),
        ..delivery(id, session, sequence)
    }
}

fn page(deliveries: Vec<Queued>) -> Option<Page> {
    Some(Page {
        deliveries,
        end: true,
    })
}

fn billing() -> Queue {
    let mut queue = level(&config(), Bounds::default());
    queue.batch(1, Duration::ZERO);
    queue
}

#[test]
fn what_waited_for_its_customer_is_sent_and_what_follows_too() {
    let mut queue = billing();
    queue.offer([delivery(1, 1, 0), delivery(2, 1, 1)], T0);
    let first = queue.claim_batch(T0).remove(0);
    queue.conclude(first, Conclusion::Waits, false, T0, 0);
    queue.batch_done(DeliveryId(1), T0);
    queue.customers_changed(T0);
    assert_eq!(queue.wanted(T0), Some(Wanted::Rows(vec![DeliveryId(1)])));
    queue.answer(page(vec![moved(1, 1, 0)]), T0);
    for id in [1, 2] {
        let sent = queue.claim_batch(T0).pop().expect("it is sent");
        assert_eq!(sent.id.0, id);
        queue.conclude(sent, Conclusion::Done("delivered"), false, T0, 0);
        queue.batch_done(DeliveryId(id), T0);
    }
    assert_eq!((queue.in_memory(), queue.in_flight()), (0, 0));
}

#[test]
fn what_is_under_way_and_read_again_is_not_moved() {
    let mut queue = billing();
    queue.offer([delivery(1, 1, 0), delivery(2, 1, 1)], T0);
    let first = queue.claim_batch(T0).remove(0);
    queue.read_again();
    assert!(matches!(queue.wanted(T0), Some(Wanted::Oldest { .. })));
    queue.answer(page(vec![moved(1, 1, 0), moved(2, 1, 1)]), T0);
    queue.conclude(first, Conclusion::Done("delivered"), false, T0, 0);
    queue.batch_done(DeliveryId(1), T0);
    let second = queue.claim_batch(T0).pop().expect("what follows is sent");
    assert_eq!(second.id.0, 2);
}
