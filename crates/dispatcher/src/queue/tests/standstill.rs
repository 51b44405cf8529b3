//! What stops an endpoint, and what lets it go on.

use super::*;

/// One event that a receiver answers with 400, among others that it takes: for an hour it may be a mistake that is mended.
#[test]
fn a_400_is_tried_again_for_an_hour_and_is_dead_then() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(1, 1, 0), delivery(2, 2, 0)], T0);
    let bad = Some(StatusCode::BAD_REQUEST);
    let first = queue.claim(T0).unwrap();
    assert!(matches!(queue.finish(first, bad, None, T0, 0), Next::Retry(_)));
    let good = queue.claim(T0).unwrap();
    queue.finish(good, OK, None, T0, 0);
    let again = queue.claim(T0.plus(3_599_999)).unwrap();
    let next = queue.finish(again, bad, None, T0.plus(3_599_999), 0);
    assert!(matches!(next, Next::Retry(_)), "{next:?}");
    let hour = T0.plus(3_600_000);
    let last = queue.claim(hour).unwrap();
    assert_eq!(queue.finish(last, bad, None, hour, 0), Next::REJECTED);
    assert_eq!(queue.standstill(hour), None);
}

/// Each event is answered with 400, as after a rotation of secrets that went wrong: the endpoint stands still, nothing is
/// lost, and all goes on when one is taken.
#[test]
fn twenty_400s_in_a_row_hold_the_endpoint_and_kill_nothing() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer((1..=100).map(|n| delivery(n, n as u128, 0)), T0);
    let bad = Some(StatusCode::BAD_REQUEST);
    for _ in 0..20 {
        let d = queue.claim(T0).expect("not held yet");
        assert!(matches!(queue.finish(d, bad, None, T0, u64::MAX), Next::Retry(_)));
    }
    let standstill = queue.standstill(T0).unwrap();
    assert_eq!(standstill.kind, StandstillKind::BreakerOpen);
    let mut now = T0;
    while now < T0.plus(3 * 3_600_000) {
        while let Some(d) = queue.claim(now) {
            let next = queue.finish(d, bad, None, now, u64::MAX);
            assert!(matches!(next, Next::Retry(_)), "{next:?}");
        }
        while let Some(Wanted::Rows(rows)) = queue.wanted(now) {
            let deliveries = rows
                .into_iter()
                .map(|id| delivery(id.0, id.0 as u128, 0))
                .collect();
            queue.answer(
                Some(Page {
                    deliveries,
                    end: true,
                }),
                now,
            );
        }
        now = queue.next_wake(now).unwrap().max(now.plus(1));
    }
    // The secret is right again.
    while queue
        .claim(now)
        .map(|d| queue.finish(d, OK, None, now, 0))
        .is_none()
    {
        now = queue.next_wake(now).unwrap().max(now.plus(1));
        while let Some(Wanted::Rows(rows)) = queue.wanted(now) {
            let deliveries = rows
                .into_iter()
                .map(|id| delivery(id.0, id.0 as u128, 0))
                .collect();
            queue.answer(
                Some(Page {
                    deliveries,
                    end: true,
                }),
                now,
            );
        }
    }
    assert_eq!(queue.standstill(now), None);
}

/// Before a restart the clock was a month ahead when a retry was written down.
#[test]
fn a_retry_that_was_dated_by_a_clock_that_was_ahead_waits_no_longer_than_any() {
    let mut queue = level(&config(), Bounds::default());
    let month = T0.plus(30 * 86_400_000);
    let mut retry = delivery(1, 1, 0);
    retry.attempts = 1;
    let mut replayed = delivery(2, 2, 0);
    (retry.due_at, replayed.due_at) = (Some(month), Some(month));
    queue.offer([retry, replayed], T0);
    assert_eq!(queue.next_wake(T0), Some(T0.plus(3_600_000)));
    queue.withdraw(&[DeliveryId(1)], T0);
    assert_eq!(queue.next_wake(T0), Some(month), "a slow replay may take as long");
}

/// What a person resumes is sent at once, whatever held it back: without a pause before, too.
#[test]
fn resuming_lets_go_of_a_retry_after_and_of_an_open_breaker() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer((1..=20).map(|n| delivery(n, n as u128, 0)), T0);
    let first = queue.claim(T0).unwrap();
    queue.finish(
        first,
        Some(StatusCode::SERVICE_UNAVAILABLE),
        Some(86_400_000),
        T0,
        0,
    );
    assert_eq!(queue.claim(T0), None);
    queue.resume(T0);
    assert_eq!(queue.standstill(T0), None);
    let flying: Vec<_> = std::iter::from_fn(|| queue.claim(T0)).collect();
    assert_eq!(flying.len(), 4, "as many as it may have at once");

    for delivery in flying {
        queue.finish(delivery, DOWN, None, T0, 0);
    }
    let last = queue.claim(T0).unwrap();
    queue.finish(last, DOWN, None, T0, 0);
    let standstill = queue.standstill(T0.plus(1)).unwrap();
    assert_eq!(
        (standstill.kind, standstill.since),
        (StandstillKind::BreakerOpen, T0)
    );
    assert!(standstill.until.unwrap() > T0, "the next probe");
    assert_eq!(queue.claim(T0.plus(1)), None);
    queue.resume(T0.plus(1));
    assert_eq!(queue.standstill(T0.plus(1)), None);
    assert_eq!(ids(&mut queue, T0.plus(1)).len(), 4);
}
