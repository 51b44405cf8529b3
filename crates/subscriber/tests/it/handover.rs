//! A listener that stops reading, and another one that goes on with its connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::TcpStream};
use turnhook_reducer::{source::GapReason, time::Timestamp};
use turnhook_subscriber::{direct::handover::Suspended, signal::Clock, source::SourceConfig};

use crate::{
    direct::config,
    support::{Client, Ear, clock, command, start, status},
};

/// A coturn of three relay threads that has just started: `KEYS`, and a connection each.
async fn coturn(port: u16, database: &str) -> Vec<Client<TcpStream>> {
    let mut threads = Vec::new();
    for _ in 0..3 {
        let mut thread = Client::connect(port).await.unwrap();
        assert_eq!(thread.call(&["SELECT", database]).await, "+OK");
        threads.push(thread);
    }
    let mut auth = Client::connect(port).await.unwrap();
    auth.call(&["SELECT", database]).await;
    auth.call(&["KEYS", "turn/*"]).await;
    for (number, thread) in threads.iter_mut().enumerate() {
        let id = number as u64 * 1_000_000_000_000_000 + 1;
        thread.publish(&status("ann", id), b"new lifetime=600").await;
    }
    threads
}

fn said(number: usize) -> String {
    format!("refreshed lifetime={}", 1000 + number)
}

/// A clock by hand, ahead of the real one.
fn by_hand() -> (Arc<AtomicU64>, Clock) {
    let now = Arc::new(AtomicU64::new((clock())().0 + 3_600_000));
    let read = Arc::clone(&now);
    (now, Arc::new(move || Timestamp(read.load(Ordering::Relaxed))))
}

fn at(suspended: &Suspended) -> Timestamp {
    suspended.state.as_ref().unwrap().at
}

#[tokio::test]
async fn nothing_is_lost_or_heard_twice_wherever_reading_stops() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let mut threads = coturn(ear.port(), "0").await;
    ear.until("all", |e| e.messages.len() == 3).await;
    let mut heard = std::mem::take(&mut ear.messages);
    let message = |number: usize| command(&[b"PUBLISH", &status("ann", 1), said(number).as_bytes()]);
    let mut said_so_far = 0;
    // Commands are cut at each of their bytes.
    for cut in 0..=message(0).len() {
        let messages: Vec<Vec<u8>> = (0..3).map(|place| message(said_so_far + place)).collect();
        said_so_far += 3;
        for (thread, message) in threads.iter_mut().zip(&messages) {
            thread.stream.write_all(&message[..cut]).await.unwrap();
        }
        // Sometimes the beginning is read before reading stops, sometimes not.
        ear.listen(Duration::from_millis(cut as u64 % 3)).await;
        let (suspended, rest) = ear.suspend().await;
        heard.extend(rest);
        for (thread, message) in threads.iter_mut().zip(&messages) {
            thread.stream.write_all(&message[cut..]).await.unwrap();
        }
        ear = Ear::resume(suspended, clock(), |_| true).await;
    }
    let before = heard.len();
    ear.until("all that was said", |e| {
        before + e.messages.len() >= 3 + said_so_far
    })
    .await;
    ear.listen(Duration::from_millis(50)).await;
    heard.extend(std::mem::take(&mut ear.messages));
    let mut words: Vec<String> = heard
        .iter()
        .map(|m| String::from_utf8_lossy(&m.payload).into_owned())
        .filter(|p| p.starts_with("refreshed"))
        .collect();
    words.sort();
    assert_eq!(words, (0..said_so_far).map(said).collect::<Vec<_>>());
    assert!(ear.gaps.is_empty() && ear.count("hearing") == 0, "{:?}", ear.told);
    assert_eq!(ear.count("resumed"), 1);
    // Each relay thread has its connection, and that is known.
    assert_eq!(ear.count("+"), 3, "{:?}", ear.told);
    // Each was answered once.
    for thread in &mut threads {
        for _ in 0..said_so_far / 3 {
            assert_eq!(thread.reply().await.unwrap(), ":1");
        }
        assert_eq!(thread.call(&["PING"]).await, "+PONG");
    }
}

#[tokio::test]
async fn what_had_waited_is_heard_as_of_the_stop_and_before_time_goes_on() {
    let (now, clock) = by_hand();
    let mut ear =
        crate::support::start_with(SourceConfig::Direct(config()), Arc::clone(&clock), 1 << 20).await;
    let mut threads = coturn(ear.port(), "0").await;
    ear.until("all", |e| e.messages.len() == 3).await;
    let (suspended, _) = ear.suspend().await;
    let stopped = at(&suspended);
    let bytes = command(&[b"PUBLISH", &status("ann", 1), b"deleted"]);
    threads[0].stream.write_all(&bytes).await.unwrap();
    // An hour later.
    now.fetch_add(3_600_000, Ordering::Relaxed);
    let mut ear = Ear::resume(suspended, clock, |_| true).await;
    ear.until("what was said meanwhile", |e| e.heard("deleted")).await;
    assert_eq!(ear.times, [stopped]);
    // Its connections are open: it has neither stopped nor gone.
    threads[1]
        .publish(&status("ann", 1), b"refreshed lifetime=77")
        .await;
    ear.until("what is said now", |e| e.heard("refreshed lifetime=77"))
        .await;
    assert_eq!(ear.times[1], stopped.plus(3_600_000));
    let bad = ["stopped", "gone", "restarted", "gap"];
    assert!(bad.iter().all(|word| ear.count(word) == 0), "{:?}", ear.told);
}

#[tokio::test]
async fn a_coturn_that_was_started_anew_meanwhile_has_ended_before() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let port = ear.port();
    let mut threads = coturn(port, "0").await;
    ear.until("all", |e| e.messages.len() == 3).await;
    let (suspended, _) = ear.suspend().await;
    // The last words of the first life, its end, and the second life: all of it waits.
    let bytes = command(&[b"PUBLISH", &status("ann", 1), b"deleted"]);
    threads[0].stream.write_all(&bytes).await.unwrap();
    drop(threads);
    let second = tokio::spawn(async move { coturn(port, "0").await });
    // Until it waits for its first answer.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut ear = Ear::resume(suspended, clock(), |_| true).await;
    let threads = second.await.unwrap();
    ear.until("the second life", |e| e.messages.len() == 4).await;
    ear.until("its start", |e| e.count("restarted 127.0.0.1/-/0") == 1)
        .await;
    assert_eq!(ear.messages[0].payload, b"deleted", "the first life's last words");
    let place = |word: &str| ear.told.iter().position(|t| t.starts_with(word)).unwrap();
    assert!(place("-0 ") < place("restarted"), "{:?}", ear.told);
    assert_eq!(ear.count("gap"), 0, "{:?}", ear.told);
    drop(threads);
}

#[tokio::test]
async fn a_connection_that_was_not_kept_is_a_gap_when_it_comes_back() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let port = ear.port();
    let mut threads = coturn(port, "0").await;
    ear.until("all", |e| e.messages.len() == 3).await;
    let (suspended, _) = ear.suspend().await;
    let stopped = at(&suspended);
    // In which order they are handed over nobody says, and not each is a relay thread's.
    let thread = threads[0].stream.local_addr().unwrap();
    let of_thread = |stream: &std::net::TcpStream| stream.peer_addr().unwrap() == thread;
    let lost = suspended.streams.iter().position(of_thread).unwrap();
    let mut ear = Ear::resume(suspended, clock(), |place| place != lost).await;
    ear.until("two are left", |e| e.count("-") == 1).await;
    // Its thread comes back.
    let mut again = Client::connect(port).await.unwrap();
    again.call(&["SELECT", "0"]).await;
    ear.until("the gap", |e| !e.gaps.is_empty()).await;
    let gap = &ear.gaps[0];
    assert_eq!((gap.reason, gap.from), (GapReason::Reconnect, stopped));
    assert_eq!(gap.server.as_deref(), Some(&b"127.0.0.1/-/0"[..]));
    drop((threads.pop(), again));
}

#[tokio::test]
async fn who_had_not_logged_in_yet_may_go_on_to() {
    let password = || turnhook_subscriber::direct::DirectConfig {
        password: Some("pw".into()),
        ..config()
    };
    let ear = start(SourceConfig::Direct(password())).await;
    let mut client = Client::connect(ear.port()).await.unwrap();
    let login = command(&[b"AUTH", b"pw"]);
    let (first, second) = login.split_at(10);
    client.stream.write_all(first).await.unwrap();
    let mut ear = ear;
    ear.listen(Duration::from_millis(20)).await;
    let (suspended, _) = ear.suspend().await;
    // Suspended and gone on with twice, without having read anything in between.
    let ear = Ear::resume_with(suspended, password(), clock(), |_| true).await;
    let (suspended, _) = ear.suspend().await;
    let mut ear = Ear::resume_with(suspended, password(), clock(), |_| true).await;
    client.stream.write_all(second).await.unwrap();
    assert_eq!(client.reply().await.unwrap(), "+OK");
    client.publish(&status("bob", 1), b"new lifetime=600").await;
    ear.until("the message", |e| e.messages.len() == 1).await;
    // A stranger is not let in by any of it.
    let mut stranger = Client::connect(ear.port()).await.unwrap();
    assert!(stranger.call(&["PING"]).await.starts_with("-NOAUTH"));
}
