//! Endpoint policy: whom one endpoint's trouble concerns.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc};
use turnhook_dispatcher::{
    breaker::BreakerState,
    clock::Clocks,
    dispatcher::Dispatcher,
    endpoint::Gate,
    outbox::{Asked, Outbox},
    queue::{StandstillKind, Wanted},
};
use turnhook_reducer::outbox::{Delivery, DeliveryId, Next, Outcome, Pause};

use crate::{
    delivering::sequences,
    harness::{Harness, config, deliveries, delivery},
    receiver::{Receiver, Reply, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoints_trouble_never_delays_another() {
    let hanging = Receiver::start(|_| Reply::Hang).await;
    let well = Receiver::start(|_| Reply::Status(200)).await;
    let harness = Harness::start(vec![
        config("hanging", &hanging.url()),
        config("well", &well.url()),
    ]);
    harness.commit("hanging", deliveries(50, 10));
    harness.commit("well", deliveries(50, 10));
    harness.drained("well").await;
    // Some came twice, where the machine was too busy to answer in time.
    let received: HashSet<_> = well
        .received()
        .iter()
        .map(|request| request.body.clone())
        .collect();
    assert_eq!(received.len(), 500);
    assert_eq!(harness.pending("hanging"), 500);
    assert_eq!(harness.status("hanging").in_flight, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sessions_trouble_never_delays_another() {
    let receiver = Receiver::start(|request| match request.body.starts_with(b"{\"session\":7,") {
        true => Reply::Status(500),
        false => Reply::Status(200),
    })
    .await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    harness.commit("billing", deliveries(10, 5));
    wait_for(|| (harness.pending("billing") == 5).then_some(())).await;
    // Session 7 goes on failing, and others go on arriving at once.
    harness.outcome(|o| o.attempt >= 8).await;
    assert_eq!(harness.status("billing").breaker, BreakerState::Closed);
    harness.commit("billing", vec![delivery(1000, 99, 0)]);
    harness
        .outcome(|o| o.delivery.0 == 1000 && o.next == Next::Done)
        .await;
    assert!(
        receiver
            .received()
            .iter()
            .filter(|r| r.body.starts_with(b"{\"session\":7,"))
            .all(|r| { r.body.ends_with(b"\"sequence\":0}") })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_pauses_until_somebody_resumes() {
    let back = std::sync::Arc::new(AtomicBool::new(false));
    let answer = std::sync::Arc::clone(&back);
    let receiver = Receiver::start(move |_| match answer.load(Ordering::SeqCst) {
        false => Reply::Status(410),
        true => Reply::Status(200),
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.concurrency = 1;
    let harness = Harness::start(vec![config]);
    harness.commit("billing", deliveries(3, 2));
    let outcome = harness.outcome(|_| true).await;
    assert_eq!(outcome.next, Next::Paused);
    let standstill = harness.status("billing").standstill.unwrap();
    assert_eq!(standstill.kind, StandstillKind::Paused);
    assert!(standstill.reason.contains("410"), "{}", standstill.reason);
    harness.commit("billing", vec![delivery(100, 50, 0)]);
    assert_eq!((harness.pending("billing"), receiver.received().len()), (7, 1));
    back.store(true, Ordering::SeqCst);
    assert!(harness.dispatcher.resume("billing"));
    harness.drained("billing").await;
    assert_eq!(harness.status("billing").standstill, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_restart() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let pause = Pause {
        from: Clocks::system().wall(),
        to: None,
        reason: "database upgrade".into(),
    };
    let harness = Harness::start_paused(vec![(config("billing", &receiver.url()), vec![pause])]);
    harness.commit("billing", deliveries(3, 3));
    let standstill = harness.status("billing").standstill.unwrap();
    assert_eq!(
        (standstill.kind, &*standstill.reason),
        (StandstillKind::Paused, "database upgrade")
    );
    harness.dispatcher.resume("billing");
    harness.drained("billing").await;
    assert!(!harness.dispatcher.resume("nobody") && !harness.dispatcher.offer("nobody", Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_opens_the_breaker_and_its_return_closes_it() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    receiver.go_down();
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    harness.commit("billing", deliveries(20, 5));
    wait_for(|| (harness.status("billing").breaker == BreakerState::Open).then_some(())).await;
    // Only what was under way already, and probes.
    assert!(harness.outcomes().len() <= 16 + 5, "{}", harness.outcomes().len());
    receiver.come_back().await;
    harness.drained("billing").await;
    assert_eq!(harness.status("billing").breaker, BreakerState::Closed);
    for (session, sequence) in sequences(&receiver.received()) {
        assert_eq!(sequence, (0..5).collect::<Vec<_>>(), "session {session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_kept() {
    let now = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&now);
    let receiver = Receiver::start(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        Reply::Hang
    })
    .await;
    let mut config = config("billing", &receiver.url());
    config.concurrency = 3;
    let harness = Harness::start(vec![config]);
    harness.commit("billing", deliveries(20, 1));
    wait_for(|| (now.load(Ordering::SeqCst) == 3).then_some(())).await;
    assert_eq!(harness.status("billing").in_flight, 3);
    // Cut at the end of the grace; nothing more is begun, and nothing is called done.
    harness.dispatcher.shutdown(Duration::from_millis(50)).await;
    assert_eq!(now.load(Ordering::SeqCst), 3);
    assert_eq!(harness.outcomes(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_is_under_way() {
    let receiver = Receiver::start(|_| Reply::Late(Duration::from_millis(300))).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    harness.commit("billing", deliveries(4, 2));
    wait_for(|| (receiver.received().len() == 4).then_some(())).await;
    harness.dispatcher.shutdown(Duration::from_secs(60)).await;
    wait_for(|| (harness.pending("billing") == 4).then_some(())).await;
    assert_eq!(receiver.received().len(), 4);
}

/// Answers reads with what a test puts in, one after the other, and hands the outcomes to it.
struct Scripted {
    pages: tokio::sync::Mutex<mpsc::Receiver<Option<Vec<Delivery>>>>,
    outcomes: mpsc::Sender<Outcome>,
}

type Pages = mpsc::Sender<Option<Vec<Delivery>>>;

/// The outbox, where to put pages, and where outcomes come out.
fn scripted() -> (Arc<dyn Outbox>, Pages, mpsc::Receiver<Outcome>) {
    let (put, pages) = mpsc::channel(1);
    let (outcomes, recorded) = mpsc::channel(16);
    let pages = tokio::sync::Mutex::new(pages);
    let scripted: &'static Scripted = Box::leak(Box::new(Scripted { pages, outcomes }));
    (Arc::new(scripted), put, recorded)
}

impl Outbox for &'static Scripted {
    fn read(&self, _: &Arc<str>, wanted: Wanted) -> Asked<Option<Vec<Delivery>>> {
        assert!(matches!(wanted, Wanted::Oldest { .. }));
        let this = *self;
        Box::pin(async move { this.pages.lock().await.recv().await.flatten() })
    }

    fn begin(&self, _: Vec<(DeliveryId, bytes::Bytes)>) -> Asked<bool> {
        panic!("a webhook has no batches")
    }

    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()> {
        let this = *self;
        Box::pin(async move {
            for outcome in outcomes {
                this.outcomes.send(outcome).await.unwrap();
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_asked_for_again() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let (outbox, put, mut recorded) = scripted();
    let endpoints = vec![(config("billing", &receiver.url()), Vec::new())];
    let (dispatcher, writer) =
        Dispatcher::start(endpoints, &Clocks::system(), outbox, &Handle::current()).unwrap();
    let writer = tokio::spawn(writer.run());
    for page in [None, None, Some(vec![delivery(1, 1, 0)])] {
        put.send(page).await.unwrap();
    }
    assert_eq!(recorded.recv().await.unwrap().next, Next::Done);
    // Whoever has the outbox may close it once the writer has ended.
    drop(dispatcher);
    writer.await.unwrap().unwrap();
}

/// The store takes no outcome for a while: what is wanted is read all the same, and what was delivered meanwhile, of which
/// the rows do not know yet, is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_writes() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    let closed = harness.store.records.acquire().await.unwrap();
    harness.commit("billing", deliveries(10, 1));
    wait_for(|| (receiver.received().len() == 10).then_some(())).await;
    harness.store.insert("billing", &[delivery(100, 100, 0)]);
    harness.dispatcher.read_again("billing");
    wait_for(|| (receiver.received().len() == 11).then_some(())).await;
    assert_eq!(harness.pending("billing"), 11, "nothing is on record");
    drop(closed);
    harness.drained("billing").await;
    assert_eq!(receiver.received().len(), 11, "nothing was sent twice");
}

#[tokio::test]
async fn wrong_configurations_start_nothing() {
    let fine = config("billing", "http://127.0.0.1:1/");
    let mut wrong = config("other", "http://127.0.0.1:1/");
    wrong.concurrency = 0;
    for (second, key) in [(fine.clone(), "name"), (wrong, "concurrency")] {
        let (outbox, _put, _recorded) = scripted();
        let endpoints = vec![(fine.clone(), Vec::new()), (second, Vec::new())];
        let started = Dispatcher::start(
            endpoints,
            &Clocks::system(),
            Arc::clone(&outbox),
            &Handle::current(),
        );
        assert_eq!(started.err().unwrap().key, key);
        assert_eq!(Arc::strong_count(&outbox), 1, "nothing runs");
    }
}

/// Requests begin only while the gate is open, and what waited goes on once it opens.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_while_the_gate_is_closed() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    let open = Arc::new(AtomicBool::new(true));
    let gate = Arc::clone(&open);
    harness
        .dispatcher
        .only_while(&(Arc::new(move || gate.load(Ordering::SeqCst)) as Gate));
    harness.commit("billing", deliveries(2, 1));
    harness.drained("billing").await;
    open.store(false, Ordering::SeqCst);
    harness.commit("billing", vec![delivery(100, 9, 0)]);
    // Whatever is changed meanwhile begins nothing: each of these looks for what may be begun.
    for _ in 0..100 {
        harness.dispatcher.read_again("billing");
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (receiver.received().len(), harness.status("billing").in_flight),
        (2, 0)
    );
    open.store(true, Ordering::SeqCst);
    harness.drained("billing").await;
    assert_eq!(receiver.received().len(), 3);
}

/// Nobody waits for the dispatcher's tasks: one that panics is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_is_told() {
    let broken = Arc::new(AtomicBool::new(false));
    let (breaks, time) = (Arc::clone(&broken), Clocks::system());
    let here = std::thread::current().id();
    let wall = time.clone();
    let clocks = Clocks::new(
        move || wall.wall(),
        move || {
            assert!(
                !breaks.load(Ordering::SeqCst) || std::thread::current().id() == here,
                "this clock is broken"
            );
            time.steady()
        },
    );
    let (outbox, put, _recorded) = scripted();
    let endpoints = vec![(config("billing", "http://127.0.0.1:1/"), Vec::new())];
    let (dispatcher, _writer) = Dispatcher::start(endpoints, &clocks, outbox, &Handle::current()).unwrap();
    let failed = dispatcher.failed();
    // The first thing that it does is to read its outbox. Who reads looks at the clock once the answer is there.
    broken.store(true, Ordering::SeqCst);
    put.send(Some(Vec::new())).await.unwrap();
    let said = failed.await;
    assert!(
        said.contains("\"billing\"") && said.contains("panicked"),
        "{said}"
    );
    // It is told to whoever asks later, too.
    assert_eq!(dispatcher.failed().await, said);
    broken.store(false, Ordering::SeqCst);
}

/// An event without a payload is not signed, whatever became of it on the way: an assertion here, an error in a release.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_empty_is_signed() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    let mut empty = delivery(1, 1, 0);
    empty.body = bytes::Bytes::new();
    let failed = harness.dispatcher.failed();
    harness.commit("billing", vec![empty]);
    tokio::select! {
        _ = failed => assert!(cfg!(debug_assertions)),
        outcome = harness.outcome(|o| o.delivery.0 == 1) => {
            assert!(outcome.error.unwrap().contains("has no payload"));
        }
    }
    assert!(receiver.received().is_empty());
}
