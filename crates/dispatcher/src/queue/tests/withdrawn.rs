//! Deliveries are withdrawn while the outbox is read, or all of it is to be read again.

use super::*;

/// What is offered while a page is read waits for it. Where what goes before it is withdrawn meanwhile, as when another
/// node makes the deliveries of its session, it must not go first.
#[test]
fn what_goes_after_a_withdrawn_one_is_read_anew() {
    for rows in [vec![], vec![delivery(1, 1, 0), delivery(2, 1, 1)]] {
        let mut queue = level(&config(), Bounds::default());
        queue.offer([delivery(1, 1, 0)], T0);
        queue.read_again();
        assert!(matches!(queue.wanted(T0), Some(Wanted::Oldest { .. })));
        queue.offer([delivery(2, 1, 1)], T0);
        queue.withdraw(&[DeliveryId(1)], T0);
        let page = |deliveries| Page {
            deliveries,
            end: true,
        };
        queue.answer(Some(page(rows)), T0);
        assert_eq!(queue.claim(T0), None, "it goes before what was withdrawn");
        // The newest end is looked at as well: there only what goes first.
        let mut wanted = queue.wanted(T0);
        if matches!(wanted, Some(Wanted::Newest { .. })) {
            queue.answer(Some(page(Vec::new())), T0);
            wanted = queue.wanted(T0);
        }
        let Some(Wanted::Oldest { after, .. }) = wanted else {
            panic!("it is not read anew: {wanted:?}");
        };
        assert!(after < DeliveryId(1));
        queue.answer(Some(page(vec![delivery(1, 1, 0), delivery(2, 1, 1)])), T0);
        assert_eq!(ids(&mut queue, T0), [1]);
    }
}

/// A page was asked for while its sessions' deliveries were this node's to make, and comes when they are another's. None of
/// them was known before.
#[test]
fn what_is_read_of_another_nodes_is_thrown_away() {
    let mut queue = level(&config(), Bounds::default());
    queue.read_again();
    assert!(matches!(queue.wanted(T0), Some(Wanted::Oldest { .. })));
    queue.offer([delivery(3, 2, 0)], T0);
    queue.drop_read();
    let page = |deliveries| Page {
        deliveries,
        end: true,
    };
    queue.answer(
        Some(page(vec![
            delivery(1, 1, 0),
            delivery(2, 1, 1),
            delivery(3, 2, 0),
        ])),
        T0,
    );
    assert_eq!(queue.claim(T0), None, "it is another node's");
    let mut wanted = queue.wanted(T0);
    if matches!(wanted, Some(Wanted::Newest { .. })) {
        queue.answer(Some(page(Vec::new())), T0);
        wanted = queue.wanted(T0);
    }
    assert!(matches!(wanted, Some(Wanted::Oldest { .. })), "{wanted:?}");
    queue.answer(Some(page(vec![delivery(3, 2, 0)])), T0);
    assert_eq!(ids(&mut queue, T0), [3]);
}

/// What was committed after a page was read, and before its session's deliveries were this node's to make, is found when all
/// is read again: what goes after it, and was offered meanwhile, waits for that.
#[test]
fn what_goes_after_a_missing_one_waits_until_all_is_read_again() {
    let mut queue = level(&config(), Bounds::default());
    queue.read_again();
    assert!(matches!(queue.wanted(T0), Some(Wanted::Oldest { .. })));
    queue.offer([delivery(2, 1, 1)], T0);
    queue.read_again();
    let page = |deliveries| Page {
        deliveries,
        end: true,
    };
    queue.answer(Some(page(Vec::new())), T0);
    assert_eq!(queue.claim(T0), None, "the one before it may be missing");
    let mut wanted = queue.wanted(T0);
    if matches!(wanted, Some(Wanted::Newest { .. })) {
        queue.answer(Some(page(Vec::new())), T0);
        wanted = queue.wanted(T0);
    }
    assert!(matches!(wanted, Some(Wanted::Oldest { .. })), "{wanted:?}");
    queue.answer(Some(page(vec![delivery(1, 1, 0), delivery(2, 1, 1)])), T0);
    assert_eq!(ids(&mut queue, T0), [1]);
}
