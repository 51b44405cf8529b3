//! Who is let in at the listener, who is turned away, and what is said of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet, time::timeout};
use turnhook_reducer::{message::Kind, source::GapReason};
use turnhook_subscriber::{
    direct::{DirectConfig, DirectLimits},
    queue::DEFAULT_BOUND,
    signal::Clock,
    source::SourceConfig,
};

use crate::{
    direct::config,
    support::{Client, Coturn, Ear, PATIENCE, clock, command, start, start_with, status, turnservers},
};

fn locked(limits: DirectLimits) -> SourceConfig {
    SourceConfig::Direct(DirectConfig {
        password: Some(SecretString::from("right")),
        limits,
        ..config()
    })
}

async fn log_in(mut client: Client<TcpStream>) -> Client<TcpStream> {
    assert_eq!(client.call(&["AUTH", "right"]).await, "+OK");
    assert_eq!(client.call(&["SELECT", "0"]).await, "+OK");
    client
}

/// Everything that the listener says until it closes the connection.
async fn until_closed(client: &mut Client<TcpStream>) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, client.stream.read_to_end(&mut answer))
        .await
        .expect("never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// coturn itself says nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_coturn_with_a_wrong_password_or_none_is_said() {
    for program in turnservers() {
        for (given, reason) in [("password=wrong", "wrong_password"), ("", "no_password")] {
            let mut ear = start(locked(DirectLimits::default())).await;
            let coturn = Coturn::start_as(&program, &format!("port={} {given}", ear.port()), &[]).await;
            ear.until(reason, |e| !e.refusals.is_empty()).await;
            let first = ear.refusals[0];
            assert_eq!((first.reason.as_str(), first.count), (reason, 1), "{program}");
            assert_eq!(first.peer.to_string(), "127.0.0.1");
            let _client = coturn.client("bob", &["-n", "3"]);
            ear.until("another connection of it", |e| e.turned_away[reason] > 1)
                .await;
            assert!(ear.messages.is_empty(), "{:?}", ear.messages);
            assert_eq!(ear.turned_away.keys().collect::<Vec<_>>(), [&reason], "{program}");
            assert_eq!(ear.count("connected"), 0);
        }
    }
}

/// Its password is put right: what lies between is on record as that server's.
#[tokio::test]
async fn once_it_is_let_in_what_it_could_not_say_is_a_gap() {
    let mut ear = start(locked(DirectLimits::default())).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert!(coturn.call(&["AUTH", "wrong"]).await.starts_with("-WRONGPASS"));
    ear.until("the refusal", |e| e.refusals.len() == 1).await;
    let mut coturn = log_in(Client::connect(ear.port()).await.unwrap()).await;
    coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    ear.until("the gap", |e| !e.gaps.is_empty()).await;
    let gap = &ear.gaps[0];
    assert_eq!(
        (gap.reason, gap.server.as_deref()),
        (GapReason::TurnedAway, Some(&b"127.0.0.1/-/0"[..]))
    );
    assert!(gap.from <= ear.refusals[0].to && gap.to >= gap.from, "{gap:?}");
}

/// Strangers hold all places, and go on taking them: whoever has the password gets in, and nobody of those who have is
/// sent away. That somebody may have been is on record.
#[tokio::test]
async fn strangers_do_not_take_the_places_of_those_who_log_in() {
    let limits = DirectLimits {
        handshakes: 8,
        connections: 8,
        ..DirectLimits::default()
    };
    let mut ear = start(locked(limits)).await;
    let mut known = log_in(Client::connect_from(1, ear.port()).await.unwrap()).await;
    let mut strangers = Vec::new();
    for n in 0..64 {
        strangers.push(Client::connect_from(2 + n % 2, ear.port()).await.unwrap());
    }
    let mut late = log_in(Client::connect_from(1, ear.port()).await.unwrap()).await;
    late.publish(&status("bob", 1), b"new lifetime=600").await;
    known.publish(&status("bob", 2), b"new lifetime=600").await;
    ear.until("both", |e| e.messages.len() == 2).await;
    // The oldest had to leave.
    assert_eq!(until_closed(&mut strangers[0]).await, "");
    ear.until("who left", |e| e.turned_away["no_place"] >= 64 - 8)
        .await;
    ear.until("the time in which there was no place", |e| !e.unheard.is_empty())
        .await;
    let unheard = &ear.unheard[0];
    assert_eq!(
        (unheard.reason, unheard.server.as_deref()),
        (GapReason::TurnedAway, None)
    );
    assert!(unheard.from <= unheard.to);
    // It is no server's gap: nothing waits for it, and nothing is less exact.
    assert!(ear.gaps.is_empty(), "{:?}", ear.gaps);
    drop(strangers);
}

/// Those who have the password can be too many, too: half of the places are one address's at most.
#[tokio::test]
async fn one_address_has_its_share_and_no_more() {
    let limits = DirectLimits {
        connections: 4,
        ..DirectLimits::default()
    };
    let mut ear = start(locked(limits)).await;
    let mut known = Vec::new();
    for _ in 0..2 {
        known.push(log_in(Client::connect_from(1, ear.port()).await.unwrap()).await);
    }
    let mut third = Client::connect_from(1, ear.port()).await.unwrap();
    third.send(&[b"AUTH", b"right"]).await.unwrap();
    assert_eq!(
        until_closed(&mut third).await,
        "+OK\r\n-ERR max number of clients reached\r\n"
    );
    let mut other = log_in(Client::connect_from(2, ear.port()).await.unwrap()).await;
    other.publish(&status("bob", 1), b"deleted").await;
    ear.until("the other's", |e| e.heard("deleted")).await;
    assert_eq!(ear.turned_away["no_place"], 1);
    known.pop();
    crate::support::until("a place", async || {
        let mut again = Client::connect_from(1, ear.port()).await.unwrap();
        let _ = again.send(&[b"AUTH", b"right"]).await;
        let _ = again.send(&[b"PING"]).await;
        (again.reply().await.is_ok() && again.reply().await.is_ok_and(|r| r == "+PONG")).then_some(())
    })
    .await;
}

/// Without a password, those who say nothing make room for those who do.
#[tokio::test]
async fn without_a_password_the_silent_leave_first() {
    let limits = DirectLimits {
        connections: 8,
        ..DirectLimits::default()
    };
    let mut ear = start(SourceConfig::Direct(DirectConfig { limits, ..config() })).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(Client::connect(ear.port()).await.unwrap());
    }
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    coturn.publish(&status("bob", 1), b"deleted").await;
    ear.until("the message", |e| e.heard("deleted")).await;
    assert_eq!(until_closed(&mut silent[0]).await, "");
}

#[tokio::test]
async fn before_the_login_little_is_listened_to() {
    let ear = start(locked(DirectLimits::default())).await;
    // Few commands.
    let mut client = Client::connect(ear.port()).await.unwrap();
    let _ = client.stream.try_write(&command(&[b"PING"]).repeat(100));
    assert_eq!(until_closed(&mut client).await.matches("-NOAUTH").count(), 8);
    // Few bytes, even if they are of commands that may be.
    let mut client = Client::connect(ear.port()).await.unwrap();
    let user = "u".repeat(2000);
    let mut answers = 0;
    while client.send(&[b"AUTH", b"a", b"b", user.as_bytes()]).await.is_ok() && client.reply().await.is_ok() {
        answers += 1;
        assert!(answers < 100, "still listened to");
    }
}

/// A user's name is part of the server's, which is kept.
#[tokio::test]
async fn a_user_with_a_name_without_end_is_not_let_in() {
    let ear = start(locked(DirectLimits::default())).await;
    let mut client = Client::connect(ear.port()).await.unwrap();
    assert!(
        client
            .call(&["AUTH", &"u".repeat(129), "right"])
            .await
            .starts_with("-WRONGPASS")
    );
    assert_eq!(client.call(&["AUTH", &"u".repeat(128), "right"]).await, "+OK");
}

/// Strangers on a coturn's own address (behind one NAT, on one machine) come without a pause, hold what they have and guess:
/// a coturn that restarts meanwhile is heard.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_beside_a_coturn_do_not_keep_it_out() {
    for program in turnservers() {
        let mut ear = start(locked(DirectLimits::default())).await;
        let statsdb = format!("port={} dbname=1 password=right", ear.port());
        let mut coturn = Coturn::start_as(&program, &statsdb, &[]).await;
        ear.until("the server", |e| e.count("connected 127.0.0.1/-/1") == 1)
            .await;
        let port = ear.port();
        let strangers = tokio::spawn(async move {
            let mut held = std::collections::VecDeque::new();
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                if let Ok(mut stranger) = Client::connect(port).await {
                    let _ = stranger.send(&[b"AUTH", b"guess"]).await;
                    held.push_back(stranger);
                }
                // More than there are places, and fewer than there are descriptors.
                if held.len() > 400 {
                    held.pop_front();
                }
            }
        });
        // More than there are places for.
        ear.until("strangers", |e| e.turned_away.get("wrong_password") >= Some(&200))
            .await;
        coturn.process.kill();
        ear.until("its end", |e| e.count("gone 127.0.0.1/-/1") == 1).await;
        coturn.process = Coturn::spawn_as(&program, &coturn.dir, coturn.port, &statsdb, &[]);
        assert!(coturn.serves().await);
        let clients = std::sync::Mutex::new(Vec::new());
        crate::support::until("its messages", async || {
            clients.lock().unwrap().push(coturn.client("bob", &["-n", "3"]));
            ear.listen(Duration::from_secs(1)).await;
            (!ear.kinds("bob").is_empty()).then_some(())
        })
        .await;
        assert!(!strangers.is_finished());
        strangers.abort();
    }
}

/// Guesses as fast as they can be made, from 127.0.0.`n`, until the task is dropped.
fn guess(tasks: &mut JoinSet<()>, n: u8, port: u16) {
    for _ in 0..4 {
        tasks.spawn(async move {
            loop {
                let Ok(mut client) = Client::connect_from(n, port).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                for _ in 0..3 {
                    // Whoever has no answer at once tries over another connection.
                    let answer = client.try_call(&["AUTH", "guess"]);
                    if !matches!(timeout(Duration::from_millis(20), answer).await, Ok(Ok(_))) {
                        break;
                    }
                }
            }
        });
    }
}

/// While somebody guesses, guesses are few, what is said of them is bounded, and a coturn that is started is heard: at
/// once where it has another address, and on the same one as soon as that is over.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slow_and_keeps_no_coturn_out() {
    for program in turnservers() {
        let mut ear = start(locked(DirectLimits::default())).await;
        let statsdb = format!("port={} dbname=1 password=right", ear.port());
        for n in [2, 1] {
            let mut guessers = JoinSet::new();
            guess(&mut guessers, n, ear.port());
            let before = (ear.turned_away.clone(), ear.refusals.len(), Instant::now());
            ear.listen(Duration::from_secs(10)).await;
            let count =
                |e: &Ear| e.turned_away["wrong_password"] - before.0.get("wrong_password").unwrap_or(&0);
            let seconds = usize::try_from(before.2.elapsed().as_secs()).unwrap();
            // From an address where a coturn has logged in the turns are shorter.
            assert!(count(&ear) < if n == 2 { 60 } else { 2_500 }, "{}", count(&ear));
            assert!(
                ear.refusals.len() - before.1 <= 3 * (seconds + 2),
                "{}",
                ear.refusals.len()
            );
            assert!(ear.unheard.len() <= 1 + seconds / 60);
            if n == 1 {
                guessers.shutdown().await;
            }
            let coturn = Coturn::start_as(&program, &statsdb, &[]).await;
            ear.until("the server", |e| e.count("connected 127.0.0.1/-/1") > 0)
                .await;
            let user = format!("bob{n}");
            let heard = |e: &Ear| e.kinds(&user).iter().any(|k| matches!(k, Kind::New(_)));
            let clients = std::sync::Mutex::new(Vec::new());
            crate::support::until("its messages", async || {
                clients.lock().unwrap().push(coturn.client(&user, &["-n", "3"]));
                ear.listen(Duration::from_secs(1)).await;
                heard(&ear).then_some(())
            })
            .await;
            guessers.shutdown().await;
        }
    }
}

/// What a connection lost by breaking off is in no gap: whoever watches over the source must hear of it.
#[tokio::test]
async fn a_panic_in_a_connection_ends_the_source() {
    let broken = Arc::new(AtomicBool::new(false));
    let (breaks, time) = (Arc::clone(&broken), clock());
    let clock: Clock = Arc::new(move || {
        assert!(!breaks.load(Ordering::Relaxed), "a clock that breaks");
        time()
    });
    let mut ear = start_with(SourceConfig::Direct(config()), clock, DEFAULT_BOUND).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    ear.until("the message", |e| e.heard("new lifetime=600")).await;
    broken.store(true, Ordering::Relaxed);
    let topic = status("bob", 1);
    coturn.send(&[b"PUBLISH", &topic, b"deleted"]).await.unwrap();
    let ended = timeout(PATIENCE, ear.source.ended()).await.expect("never ended");
    assert!(ended.unwrap_err().is_panic());
}
