//! Receivers that misbehave, each in its way.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use turnhook_dispatcher::client::KEPT;
use turnhook_reducer::outbox::{Next, Outcome};

use crate::{
    delivering::sequences,
    harness::{Harness, config, deliveries, delivery},
    receiver::{Receiver, Reply, wait_for},
};

/// Sends one delivery to a receiver that does `fault` with the first request and takes the second. The
/// first outcome.
async fn after_fault(fault: Reply, timeout: Duration) -> Outcome {
    let count = AtomicUsize::new(0);
    let reply = fault.clone();
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => reply.clone(),
        _ => Reply::Status(200),
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.timeout = timeout;
    let harness = Harness::start(vec![config]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.drained("billing").await;
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.last().unwrap().next, Next::Done, "{fault:?}");
    let received = receiver.received();
    assert_eq!(received.len(), outcomes.len(), "{fault:?}");
    assert!(
        received
            .iter()
            .all(|r| r.id() == received[0].id() && r.body == received[0].body),
        "{fault:?}"
    );
    outcomes[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_retried_with_the_same_id_and_bytes() {
    let long = Duration::from_secs(20);
    let short = Duration::from_millis(300);
    for (fault, timeout, status, error) in [
        (Reply::Close, long, None, "the connection broke"),
        (Reply::Reset, long, None, "the connection broke"),
        (Reply::ResetInHead, long, None, "the connection broke"),
        (Reply::Garbage, long, None, "the connection broke"),
        (Reply::Hang, short, None, "no answer within 300ms"),
        (Reply::Late(3 * short), short, None, "no answer within 300ms"),
        (Reply::Status(500), long, Some(500), "answered 500"),
        (Reply::Status(404), long, Some(404), "answered 404"),
        (Reply::Status(408), long, Some(408), "answered 408"),
        (Reply::Status(425), long, Some(425), "answered 425"),
        (
            Reply::Headers(307, "location: http://127.0.0.1:1/\r\n".into()),
            long,
            Some(307),
            "redirects are not followed",
        ),
    ] {
        let outcome = after_fault(fault.clone(), timeout).await;
        assert_eq!(outcome.status, status, "{fault:?}");
        let told = outcome.error.unwrap();
        assert!(told.contains(error), "{fault:?}: {told}");
        assert!(matches!(outcome.next, Next::Retry(_)), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_counts_whatever_becomes_of_its_body() {
    for (fault, timeout) in [
        (Reply::Endless, Duration::from_secs(20)),
        (Reply::ResetInBody, Duration::from_secs(20)),
        (Reply::Drip, Duration::from_millis(500)),
        (Reply::Body(vec![b'y'; 100_000]), Duration::from_secs(20)),
    ] {
        let outcome = after_fault(fault.clone(), timeout).await;
        assert_eq!(
            (outcome.next, outcome.status),
            (Next::Done, Some(200)),
            "{fault:?}"
        );
        assert!(
            !outcome.answer.is_empty() && outcome.answer.len() <= KEPT,
            "{fault:?}"
        );
    }
}

/// Proxies add some, and tracing adds more: a hundred was once the most that was taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_many_header_fields_is_an_answer() {
    let lines: String = (0..300).map(|n| format!("x-{n}: y\r\n")).collect();
    let outcome = after_fault(Reply::Headers(204, lines), Duration::from_secs(20)).await;
    assert_eq!(
        (outcome.next, outcome.status),
        (Next::Done, Some(204)),
        "{outcome:?}"
    );
}

/// A receiver that says over and over that its answer is about to come: nothing bounds that but the time for an answer, and
/// with it the connection is over, so that nobody reads on.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_come_without_end_end_with_the_time() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Interim,
        _ => Reply::Status(200),
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.timeout = Duration::from_millis(300);
    let harness = Harness::start(vec![config]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.drained("billing").await;
    let outcomes = harness.outcomes();
    let told = outcomes[0].error.as_deref().unwrap_or_default();
    assert_eq!((outcomes[0].status, told), (None, "no answer within 300ms"));
    assert_eq!(outcomes.last().unwrap().next, Next::Done);
    assert!(
        receiver.connections() > 1,
        "the one that never ended is not used again"
    );
    wait_for(|| receiver.is_over(0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_under_it_loses_nothing() {
    let receiver = Receiver::start(|_| Reply::CloseAfter).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    harness.commit("billing", deliveries(5, 20));
    harness.drained("billing").await;
    let connections: HashSet<_> = receiver
        .received()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(
        connections.len(),
        receiver.received().len(),
        "each brought one request"
    );
    for (session, sequence) in sequences(&receiver.received()) {
        assert_eq!(sequence, (0..20).collect::<Vec<_>>(), "session {session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_kept_in_both_forms() {
    for status in [429, 503] {
        let outcome = after_fault(
            Reply::Headers(status, "retry-after: 1\r\n".into()),
            Duration::from_secs(20),
        )
        .await;
        let Next::Retry(at) = outcome.next else {
            panic!("{outcome:?}")
        };
        // Both clocks tell whole milliseconds: from one to the other, one can be lost.
        assert!(at.since(outcome.at) >= 999, "{status}: {}", at.since(outcome.at));

        // Whole seconds: between one and two from now.
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
        let until = httpdate::parse_http_date(&date)
            .unwrap()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let outcome = after_fault(
            Reply::Headers(status, format!("retry-after: {date}\r\n")),
            Duration::from_secs(20),
        )
        .await;
        let Next::Retry(at) = outcome.next else {
            panic!("{outcome:?}")
        };
        let waited_for = u128::from(at.0) + 1 >= until.as_millis();
        assert!(waited_for, "{status}: asked for {date}, retried at {at:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_receiver_never_takes_is_a_dead_letter_at_once() {
    for status in [413, 422] {
        let receiver = Receiver::start(move |request| match request.body.ends_with(b"\"sequence\":0}") {
            true => Reply::Headers(status, String::new()),
            false => Reply::Status(200),
        })
        .await;
        let harness = Harness::start(vec![config("billing", &receiver.url())]);
        harness.commit("billing", deliveries(1, 2));
        harness.drained("billing").await;
        let outcomes = harness.outcomes();
        assert_eq!(
            outcomes.iter().map(|o| o.next).collect::<Vec<_>>(),
            [Next::REJECTED, Next::Done],
            "{status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_given_up_in_the_end_and_the_next_one_follows() {
    let receiver = Receiver::start(move |request| match request.body.ends_with(b"\"sequence\":0}") {
        true => Reply::Status(500),
        false => Reply::Status(200),
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.retry.give_up_after = Duration::from_millis(300);
    let harness = Harness::start(vec![config]);
    harness.commit("billing", deliveries(1, 2));
    harness.drained("billing").await;
    let outcomes = harness.outcomes();
    let [.., gave_up, done] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!((gave_up.next, done.next), (Next::GAVE_UP, Next::Done));
    assert!(gave_up.tried_for >= Duration::from_millis(300) && gave_up.attempt >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_nowhere_and_ports_that_refuse() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    receiver.go_down();
    let mut nowhere = config("nowhere", "https://turnhook.invalid/");
    nowhere.timeout = Duration::from_secs(20);
    let harness = Harness::start(vec![nowhere, config("refused", &receiver.url())]);
    harness.commit("nowhere", vec![delivery(1, 1, 0)]);
    harness.commit("refused", vec![delivery(1, 1, 0)]);
    let error = |name: &'static str| {
        let harness = &harness;
        async move {
            harness
                .outcome(move |o| &*o.endpoint == name)
                .await
                .error
                .unwrap()
        }
    };
    let told = error("nowhere").await;
    assert!(
        told.contains("turnhook.invalid could not be resolved") || told.contains("no answer within"),
        "{told}"
    );
    let told = error("refused").await;
    assert!(
        told.contains("could not connect") && told.contains("refused"),
        "{told}"
    );
}

/// Everything at once: each event arrives at least once, always with the same id and bytes, in sequence for its session.
#[tokio::test(flavor = "multi_thread")]
async fn a_random_mix() {
    let count = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        // A fixed mix in a scrambled order.
        match n.wrapping_mul(2_654_435_761) >> 7 & 31 {
            0 => Reply::Close,
            1 => Reply::Reset,
            2 => Reply::ResetInHead,
            3 => Reply::Garbage,
            4 => Reply::Late(Duration::from_millis(400)),
            5 | 6 => Reply::Status(500),
            7 => Reply::Status(302),
            8 => Reply::Endless,
            9 => Reply::Drip,
            10 | 11 => Reply::CloseAfter,
            12 => Reply::ResetInBody,
            _ => Reply::Status(200),
        }
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.timeout = Duration::from_millis(300);
    let harness = Harness::start(vec![config]);
    for part in deliveries(40, 10).chunks(50) {
        harness.commit("billing", part.to_vec());
    }
    harness.drained("billing").await;
    let received = receiver.received().clone();
    let mut bodies: HashMap<&str, &[u8]> = HashMap::new();
    for request in &received {
        assert_eq!(
            *bodies.entry(request.id()).or_insert(&request.body),
            &request.body[..]
        );
    }
    assert_eq!(bodies.len(), 400);
    for (session, sequence) in sequences(&received) {
        assert_eq!(sequence, (0..10).collect::<Vec<_>>(), "session {session}");
    }
    let done = harness.outcomes().iter().filter(|o| o.next == Next::Done).count();
    assert_eq!(done, 400, "each is finished once");
}
