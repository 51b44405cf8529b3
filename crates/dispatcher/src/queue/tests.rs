#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use turnhook_reducer::{
    event::{EventId, EventType},
    outbox::{Delivery, EndpointId},
};

use super::*;
use crate::{config::RateLimit, signature::Secret};

mod model;
mod moved;
mod standstill;
mod withdrawn;

const T0: Timestamp = Timestamp(1_795_327_234_000);
const OK: Option<StatusCode> = Some(StatusCode::OK);
const DOWN: Option<StatusCode> = None;
const ERROR: Option<StatusCode> = Some(StatusCode::INTERNAL_SERVER_ERROR);

fn config() -> EndpointConfig {
    let (secret, _) = Secret::generate().unwrap();
    let mut config = EndpointConfig::new("e", "https://example.com/".parse().unwrap(), vec![secret]);
    config.concurrency = 4;
    config
}

fn delivery(id: i64, session: u128, sequence: u32) -> Queued {
    let session_id = SessionId(session.to_be_bytes());
    Queued {
        delivery: Delivery {
            id: DeliveryId(id),
            endpoint: EndpointId(1),
            event_id: EventId([0; 16]),
            session_id,
            sequence,
            event_type: EventType::Usage,
            body: Bytes::from_static(b"{}"),
            timestamp: Timestamp::default(),
            sent: None,
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: Timestamp::default(),
        },
        ordering_key: session_id,
        began_at: None,
        due_at: None,
    }
}

/// A queue that has read an empty outbox.
fn level(config: &EndpointConfig, bounds: Bounds) -> Queue {
    let mut queue = Queue::new(config, Vec::new(), bounds, T0);
    assert!(matches!(
        queue.wanted(T0),
        Some(Wanted::Oldest {
            after: DeliveryId::MIN,
            ..
        })
    ));
    queue.answer(
        Some(Page {
            deliveries: Vec::new(),
            end: true,
        }),
        T0,
    );
    assert!(!queue.is_behind());
    queue
}

fn ids(queue: &mut Queue, now: Timestamp) -> Vec<i64> {
    std::iter::from_fn(|| queue.claim(now)).map(|d| d.id.0).collect()
}

#[test]
fn sessions_take_turns_and_each_keeps_its_order() {
    let mut queue = level(&config(), Bounds::default());
    // One session with much, two with little.
    let many = (1..=6).map(|n| delivery(n.into(), 1, n));
    queue.offer(many.chain([delivery(7, 2, 0), delivery(8, 3, 0)]), T0);
    let mut order = Vec::new();
    while let Some(d) = queue.claim(T0) {
        order.push(d.id.0);
        assert_eq!(queue.finish(d, OK, None, T0, 0), Next::Done);
    }
    assert_eq!(order, [1, 7, 8, 2, 3, 4, 5, 6]);
    assert_eq!((queue.in_memory(), queue.in_flight()), (0, 0));
}

#[test]
fn one_delivery_of_a_session_at_a_time_within_the_concurrency() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(1, 1, 0), delivery(2, 1, 1)], T0);
    queue.offer((3..10).map(|n| delivery(n, n as u128, 0)), T0);
    assert_eq!(ids(&mut queue, T0), [1, 3, 4, 5]);
    assert_eq!(queue.next_wake(T0), None, "not before one comes back");
}

#[test]
fn a_retry_holds_its_session_up_and_no_other() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(1, 1, 0), delivery(2, 1, 1), delivery(3, 2, 0)], T0);
    let first = queue.claim(T0).unwrap();
    let Next::Retry(due) = queue.finish(first, ERROR, None, T0, u64::MAX) else {
        panic!()
    };
    assert_eq!(due, T0.plus(1000));
    assert_eq!(ids(&mut queue, T0), [3]);
    assert_eq!(queue.next_wake(T0), Some(due));
    let again = queue.claim(due).unwrap();
    assert_eq!((again.id.0, again.attempts, again.began_at), (1, 1, Some(T0)));
    assert_eq!(queue.finish(again, OK, None, due, 0), Next::Done);
    assert_eq!(ids(&mut queue, due), [2]);
}

#[test]
fn dead_letters_are_passed_over() {
    let mut config = config();
    config.retry.give_up_after = Duration::ZERO;
    let mut queue = level(&config, Bounds::default());
    queue.offer((1..=3).map(|n| delivery(n.into(), 1, n)), T0);
    let first = queue.claim(T0).unwrap();
    assert_eq!(
        queue.finish(first, Some(StatusCode::UNPROCESSABLE_ENTITY), None, T0, 0),
        Next::REJECTED
    );
    let second = queue.claim(T0).unwrap();
    assert_eq!(queue.finish(second, ERROR, None, T0, 0), Next::GAVE_UP);
    assert_eq!(ids(&mut queue, T0), [3]);
}

#[test]
fn a_replayed_event_goes_out_although_later_ones_have() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(9, 1, 5)], T0);
    let later = queue.claim(T0).unwrap();
    queue.offer([delivery(4, 1, 2), delivery(10, 1, 6)], T0);
    assert_eq!(queue.claim(T0), None, "one at a time");
    queue.finish(later, OK, None, T0, 0);
    let replayed = queue.claim(T0).unwrap();
    assert_eq!(replayed.id.0, 4);
    queue.finish(replayed, OK, None, T0, 0);
    assert_eq!(ids(&mut queue, T0), [10]);
}

#[test]
fn a_410_pauses_and_keeps_everything() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(1, 1, 0), delivery(2, 2, 0)], T0);
    let first = queue.claim(T0).unwrap();
    assert_eq!(
        queue.finish(first, Some(StatusCode::GONE), None, T0, 0),
        Next::Paused
    );
    let standstill = queue.standstill(T0).unwrap();
    assert_eq!(
        (standstill.kind, standstill.since, standstill.until),
        (StandstillKind::Paused, T0, None)
    );
    assert!(standstill.reason.contains("410"), "{}", standstill.reason);
    assert_eq!(
        (queue.claim(T0), queue.next_wake(T0), queue.wanted(T0)),
        (None, None, None)
    );
    queue.resume(T0.plus(5));
    assert_eq!(ids(&mut queue, T0.plus(5)), [2, 1]);
}

#[test]
fn retry_after_on_429_and_503_holds_the_whole_endpoint() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let mut queue = level(&config(), Bounds::default());
        queue.offer([delivery(1, 1, 0), delivery(2, 2, 0)], T0);
        let first = queue.claim(T0).unwrap();
        let until = T0.plus(30_000);
        assert_eq!(
            queue.finish(first, Some(status), Some(30_000), T0, 0),
            Next::Retry(until)
        );
        let standstill = queue.standstill(T0).unwrap();
        assert_eq!(
            (standstill.kind, standstill.since, standstill.until),
            (StandstillKind::Held, T0, Some(until))
        );
        assert!(
            standstill.reason.contains(status.as_str()),
            "{}",
            standstill.reason
        );
        assert_eq!(queue.standstill(until), None, "it is over then");
        assert_eq!(
            (queue.claim(T0.plus(29_999)), queue.next_wake(T0)),
            (None, Some(until))
        );
        assert_eq!(queue.claim(until).unwrap().id.0, 2);
    }
    // On another status it delays this delivery alone, and never beyond the cap.
    let mut queue = level(&config(), Bounds::default());
    queue.offer([delivery(1, 1, 0), delivery(2, 2, 0)], T0);
    let first = queue.claim(T0).unwrap();
    let six_hours = T0.plus(6 * 3_600_000);
    assert_eq!(
        queue.finish(first, ERROR, Some(u64::MAX), T0, 0),
        Next::Retry(six_hours)
    );
    assert_eq!(ids(&mut queue, T0), [2]);
}

#[test]
fn a_dead_endpoint_is_probed_by_one_and_served_in_full_when_it_is_back() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer((1..=100).map(|n| delivery(n, n as u128, 0)), T0);
    let mut now = T0;
    let mut requests = 0;
    // Ten hours: long enough for the first ones to have reached the longest wait.
    while now < T0.plus(36_000_000) {
        let flying: Vec<_> = std::iter::from_fn(|| queue.claim(now)).collect();
        requests += flying.len();
        for d in flying {
            queue.finish(d, DOWN, None, now, u64::MAX);
        }
        while let Some(Wanted::Rows(rows)) = queue.wanted(now) {
            let rows = rows
                .into_iter()
                .map(|id| delivery(id.0, id.0 as u128, 0))
                .collect();
            queue.answer(
                Some(Page {
                    deliveries: rows,
                    end: true,
                }),
                now,
            );
        }
        now = queue
            .next_wake(now)
            .expect("something is always to be done")
            .max(now.plus(1));
    }
    assert!(
        (3000 - 30..=3000 + 30).contains(&requests),
        "five a minute: {requests}"
    );
    // It is back: everything is delivered as soon as a probe came through.
    let back = now;
    let mut delivered = 0;
    while delivered < 100 {
        while let Some(d) = queue.claim(now) {
            queue.finish(d, OK, None, now, 0);
            delivered += 1;
        }
        while let Some(Wanted::Rows(rows)) = queue.wanted(now) {
            let rows = rows
                .into_iter()
                .map(|id| delivery(id.0, id.0 as u128, 0))
                .collect();
            queue.answer(
                Some(Page {
                    deliveries: rows,
                    end: true,
                }),
                now,
            );
        }
        if delivered < 100 {
            now = queue.next_wake(now).unwrap();
        }
    }
    assert!(now.since(back) <= 12_000, "{} ms", now.since(back));
    assert_eq!(queue.breaker(), BreakerState::Closed);
}

#[test]
fn the_rate_limit_spaces_claims() {
    let mut config = config();
    config.rate_limit = Some(RateLimit {
        count: 2,
        per: Duration::from_secs(1),
    });
    let mut queue = level(&config, Bounds::default());
    queue.offer((1..=4).map(|n| delivery(n, n as u128, 0)), T0);
    assert_eq!(ids(&mut queue, T0), [1, 2]);
    assert_eq!(queue.next_wake(T0), Some(T0.plus(500)));
    assert_eq!(ids(&mut queue, T0.plus(500)), [3]);
}

#[test]
fn withdrawn_deliveries_are_not_sent() {
    let mut queue = level(&config(), Bounds::default());
    queue.offer((1..=3).map(|n| delivery(n.into(), 1, n)), T0);
    let flying = queue.claim(T0).unwrap();
    queue.withdraw(&[1, 2].map(DeliveryId), T0);
    assert_eq!(queue.in_memory(), 2, "what is under way goes on");
    queue.finish(flying, OK, None, T0, 0);
    assert_eq!(ids(&mut queue, T0), [3]);
}

/// An endpoint that fails most events, but is there often enough to keep the breaker closed: a hundred
/// thousand deliveries wait for retries, and memory holds no more of them than it may.
#[test]
fn a_hundred_thousand_failing() {
    let bounds = Bounds {
        bodies: 200,
        bytes: 1 << 20,
        stubs: 300,
        page: 50,
    };
    let mut queue = Queue::new(&config(), Vec::new(), bounds, T0);
    // As the store has them: due at, or not failed yet.
    let mut due: Vec<Option<Timestamp>> = vec![None; 100_001];
    let mut over = vec![false; 100_001];
    let (mut now, mut good, mut failed) = (T0, 0, 0usize);
    let mut committed = 1_000;
    let mut most = 0;
    while failed < 20_000 {
        while let Some(wanted) = queue.wanted(now) {
            let pending = |id: &i64| !over[*id as usize];
            let (found, limit): (Vec<i64>, usize) = match wanted {
                Wanted::Oldest { after, limit } => {
                    ((after.0.max(0) + 1..=committed).take(limit).collect(), limit)
                }
                Wanted::Newest { limit } => {
                    let ready = |id: &i64| due[*id as usize].is_none_or(|at| at <= now);
                    (
                        (1..=committed)
                            .rev()
                            .take(2000)
                            .filter(pending)
                            .filter(ready)
                            .take(limit)
                            .collect(),
                        limit,
                    )
                }
                Wanted::Rows(ids) => (ids.iter().map(|id| id.0).collect(), usize::MAX),
            };
            let end = found.len() < limit;
            let row = |id: i64| Queued {
                due_at: due[id as usize],
                ..delivery(id, id as u128, 0)
            };
            queue.answer(
                Some(Page {
                    deliveries: found.into_iter().map(row).collect(),
                    end,
                }),
                now,
            );
            most = most.max(queue.in_memory());
        }
        if let Some(d) = queue.claim(now) {
            let id = d.id.0;
            // Every fourth answer finds somebody there, so that the breaker stays closed.
            good = (good + 1) % 4;
            if good == 0 {
                over[id as usize] = true;
                queue.finish(d, Some(StatusCode::PAYLOAD_TOO_LARGE), None, now, 0);
            } else {
                let Next::Retry(at) = queue.finish(d, ERROR, None, now, u64::MAX) else {
                    panic!()
                };
                due[id as usize] = Some(at.plus(3_600_000));
                failed += 1;
            }
            queue.written(queue.mark().as_slice());
        } else {
            now = queue.next_wake(now).unwrap_or(now.plus(1)).max(now.plus(1));
        }
        if committed < 100_000 {
            committed += 1;
            queue.offer([delivery(committed, committed as u128, 0)], now);
        }
        most = most.max(queue.in_memory());
    }
    assert!(
        most <= bounds.bodies + bounds.stubs + 2 * bounds.page,
        "{most} in memory"
    );
}

/// A million pending deliveries of a million sessions: memory stays within its bounds, and the events of
/// sessions of now, ends included, are delivered among the first.
#[test]
fn a_million_behind() {
    const MILLION: i64 = 1_000_000;
    let bounds = Bounds::default();
    let mut queue = Queue::new(&config(), Vec::new(), bounds, T0);
    let mut over = vec![false; MILLION as usize + 11];
    let (mut delivered, mut first_new, mut last_new) = (0, None, None);
    let (mut offered, mut newest_read) = (false, 0);
    // The new ones are starts and ends in turn.
    let row = |id: i64| match id - MILLION - 1 {
        new @ 0.. => delivery(id, (MILLION + new / 2) as u128 + 1, (new % 2) as u32),
        _ => delivery(id, id as u128, 0),
    };
    while delivered < MILLION + 10 {
        while let Some(wanted) = queue.wanted(T0) {
            if !offered {
                queue.offer((1..=10).map(|n| row(MILLION + n)), T0);
                offered = true;
            }
            let pending = |id: &i64| !over[*id as usize];
            let (found, limit): (Vec<i64>, usize) = match wanted {
                Wanted::Oldest { after, limit } => (
                    (after.0.max(0) + 1..=MILLION + 10)
                        .filter(pending)
                        .take(limit)
                        .collect(),
                    limit,
                ),
                Wanted::Newest { limit } => {
                    newest_read += 1;
                    (
                        (1..=MILLION + 10)
                            .rev()
                            .take(5000)
                            .filter(pending)
                            .filter(|id| row(*id).sequence == 0 || over[*id as usize - 1])
                            .take(limit)
                            .collect(),
                        limit,
                    )
                }
                Wanted::Rows(_) => panic!("nothing failed"),
            };
            let end = found.len() < limit;
            let deliveries = found.into_iter().map(row).collect();
            queue.answer(Some(Page { deliveries, end }), T0);
            assert!(
                queue.in_memory() <= bounds.bodies + bounds.page,
                "{}",
                queue.in_memory()
            );
        }
        let d = queue.claim(T0).expect("never idle");
        assert!(!std::mem::replace(&mut over[d.id.0 as usize], true), "twice");
        delivered += 1;
        if d.id.0 > MILLION {
            first_new.get_or_insert(delivered);
            last_new = Some(delivered);
        }
        queue.finish(d, OK, None, T0, 0);
        queue.written(queue.mark().as_slice());
    }
    assert!(!queue.is_behind() && queue.in_memory() == 0);
    assert!(
        last_new.unwrap() < 3 * bounds.page as i64,
        "{first_new:?} to {last_new:?}"
    );
    // Each of these reads costs more than one of the backlog, which is not read from its newest end.
    assert!(newest_read <= 12, "{newest_read}");
}
