//! Redis goes away, stands still, or throws the subscription out: noticed, told, and survived.

use std::time::Duration;

use turnhook_reducer::source::GapReason;
use turnhook_subscriber::{
    queue::{self, SignalReceiver},
    redis::RedisConfig,
    source::SourceConfig,
};

use crate::support::{Client, Redis, clock, free_port, start, start_on, status};

fn config(redis: &Redis) -> RedisConfig {
    let mut config = RedisConfig::new(redis.url());
    config.patience.ping = Duration::from_millis(100);
    config
}

#[tokio::test]
async fn killed_and_restarted() {
    let mut redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(config(&redis))).await;
    ear.hearing().await;
    redis.client().await.publish(&status("bob", 1), b"before").await;
    ear.until("a message", |e| e.heard("before")).await;
    let before = clock()();
    redis.process.kill();
    ear.until("the loss", |e| e.count("deaf") > 0).await;
    let down = clock()();
    redis.restart().await;
    ear.hearing().await;
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    let gap = &ear.gaps[0];
    assert_eq!((gap.reason, gap.server.as_deref()), (GapReason::Reconnect, None));
    // It starts where hearing was certain, and is over when it is again.
    assert!(gap.from <= down && gap.to >= down, "{gap:?} {down:?}");
    assert!(before.since(gap.from) < 30_000, "{gap:?} {before:?}");
    redis.client().await.publish(&status("bob", 1), b"after").await;
    ear.until("a message", |e| e.heard("after")).await;
    assert_eq!(ear.messages.len(), 2);
}

#[tokio::test]
async fn down_at_the_start() {
    let port = free_port();
    let mut early = RedisConfig::new(format!("redis://127.0.0.1:{port}"));
    early.patience.backoff = Duration::from_millis(200);
    let mut ear = start(SourceConfig::Redis(early)).await;
    ear.until("the complaint", |e| e.count("deaf cannot connect") > 0)
        .await;
    let _redis = Redis::start_at(port, &[]).await.unwrap();
    ear.hearing().await;
    // What was before the start is the engine's to know.
    assert!(ear.gaps.is_empty());
    // Said once, not at every attempt.
    assert_eq!(ear.count("deaf"), 1);
    let mut coturn = Client::connect(port).await.unwrap();
    coturn.publish(&status("bob", 1), b"deleted").await;
    ear.until("a message", |e| e.heard("deleted")).await;
}

/// Stopped and resumed: deaf meanwhile, but the connection is kept, and with it all that was published.
#[tokio::test]
async fn stands_still_and_goes_on() {
    let redis = Redis::start(&[]).await;
    let mut config = config(&redis);
    config.patience.deaf = Duration::from_millis(500);
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    redis.process.signal("STOP");
    let mut coturn = redis.client().await;
    coturn
        .send(&[b"PUBLISH", &status("bob", 1), b"meanwhile"])
        .await
        .unwrap();
    ear.until("silence", |e| e.count("deaf Redis has not answered") == 1)
        .await;
    redis.process.signal("CONT");
    ear.until("hearing again", |e| {
        e.told.contains(&"hearing Redis answers again".to_owned())
    })
    .await;
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    assert_eq!(ear.gaps[0].reason, GapReason::Stall);
    ear.until("what was published meanwhile", |e| e.heard("meanwhile"))
        .await;
    assert_eq!(ear.count("hearing subscribed"), 1);
}

/// Never resumed: the connection is given up.
#[tokio::test]
async fn stands_still_for_good() {
    let redis = Redis::start(&[]).await;
    let mut config = config(&redis);
    config.patience.deaf = Duration::from_millis(300);
    config.patience.dead = Duration::from_millis(1500);
    config.patience.answer = Duration::from_millis(1000);
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    redis.process.signal("STOP");
    ear.until("no answer to a new connection", |e| {
        e.told.contains(&"deaf no answer within 1 s".to_owned())
    })
    .await;
    redis.process.signal("CONT");
    ear.hearing().await;
    ear.until("the gap", |e| {
        e.gaps.iter().any(|g| g.reason == GapReason::Reconnect)
    })
    .await;
    redis.client().await.publish(&status("bob", 1), b"after").await;
    ear.until("a message", |e| e.heard("after")).await;
}

#[tokio::test]
async fn closed_by_an_administrator() {
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(config(&redis))).await;
    ear.hearing().await;
    assert_eq!(
        redis
            .client()
            .await
            .call(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await,
        ":1"
    );
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    assert_eq!(ear.gaps[0].reason, GapReason::Reconnect);
}

/// A whole runtime that does not run for a while, as on a machine without a spare core: its backlog fills Redis's
/// buffer for it, and Redis closes it.
#[tokio::test(flavor = "multi_thread")]
async fn thrown_out_by_its_output_buffer() {
    let redis = Redis::start(&["--client-output-buffer-limit", "pubsub", "1mb", "1mb", "1"]).await;
    let (sender, receiver) = queue::channel(queue::DEFAULT_BOUND);
    let (stall, stalled) = std::sync::mpsc::channel::<()>();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let (stand, stands) = std::sync::mpsc::channel::<std::time::Instant>();
    let source = config(&redis);
    let ping = source.patience.ping;
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let handle = SourceConfig::Redis(source).start(clock(), sender).await.unwrap();
            while stalled.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The source's next tick is due when the runtime looks at its timers again, and so is this, which comes first:
            // when the runtime goes on, the tick is seen before what has come meanwhile.
            let mut due = std::pin::pin!(tokio::time::sleep(ping / 10));
            std::future::poll_fn(|context| {
                let _ = due.as_mut().poll(context);
                std::task::Poll::Ready(())
            })
            .await;
            std::thread::sleep(ping + ping / 2);
            due.await;
            // Blocks the runtime, and with it the source.
            stand.send(std::time::Instant::now()).unwrap();
            let _ = resumed.recv();
            // Runs on until it is told to end.
            while resumed.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            handle.stop().await;
        });
    });
    let mut ear = elsewhere(receiver).await;
    ear.hearing().await;
    stall.send(()).unwrap();
    let since = crate::support::until("the runtime to stand still", async || stands.try_recv().ok()).await;
    let mut coturn = redis.client().await;
    let payload = [b"new lifetime=600, x=".as_slice(), &[b'x'; 8000]].concat();
    crate::support::until("Redis to throw it out", async || {
        for _ in 0..100 {
            coturn.publish(&status("bob", 1), &payload).await;
        }
        coturn
            .call(&["CLIENT", "LIST", "TYPE", "pubsub"])
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    crate::support::until("some PINGs to be overdue", async || {
        (since.elapsed() > 4 * ping).then_some(())
    })
    .await;
    resume.send(()).unwrap();
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    assert_eq!(
        ear.gaps[0].reason,
        GapReason::ThrownOut,
        "{:?} {} messages",
        ear.told,
        ear.messages.len()
    );
    assert!(
        ear.told
            .contains(&"deaf the connection was closed by Redis".to_owned()),
        "{:?}",
        ear.told
    );
    assert!(
        ear.messages.len() > 100,
        "all that was on its way is heard: {}",
        ear.messages.len()
    );
    coturn.publish(&status("bob", 1), b"after").await;
    ear.until("a message", |e| e.heard("after")).await;
    resume.send(()).unwrap();
    thread.join().unwrap();
}

/// An ear for a source that runs elsewhere; its own source is an idle listener.
async fn elsewhere(receiver: SignalReceiver) -> crate::support::Ear {
    let (sender, _) = queue::channel(1);
    start_on(
        SourceConfig::Direct(crate::direct::config()),
        clock(),
        sender,
        receiver,
    )
    .await
}
