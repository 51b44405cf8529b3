//! A real coturn, on the listener and on Redis.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use secrecy::SecretString;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use turnhook_reducer::{
    message::{AllocationId, Kind, Leg},
    usage::Counters,
};
use turnhook_subscriber::{decode, direct::DirectConfig, redis::RedisConfig, source::SourceConfig};

use crate::{
    direct::config,
    support::{Coturn, Ear, Redis, certificate, local, start, status},
};

/// By leg: the sum of the deltas, and the total.
type Book = HashMap<Leg, (Counters, Option<Counters>)>;

/// What was heard of each server's allocations.
fn books(ear: &Ear) -> HashMap<(Option<String>, AllocationId), Book> {
    let mut books: HashMap<_, Book> = HashMap::new();
    for heard in &ear.messages {
        let Ok(message) = decode::decode(&heard.channel, &heard.payload) else {
            assert_eq!(
                heard.channel, b"__XXX__",
                "a refused message of a real coturn: {heard:?}"
            );
            continue;
        };
        let legs = books.entry((heard.server.clone(), message.id)).or_default();
        match message.kind {
            Kind::Traffic(leg, c) => {
                let entry = legs.entry(leg).or_default();
                entry.0 = entry.0.plus(c);
            }
            Kind::TotalTraffic(leg, c) => legs.entry(leg).or_default().1 = Some(c),
            _ => {}
        }
    }
    books
}

/// Clients over UDP, TCP and TLS; all that closed is heard to the byte.
async fn three_clients(ear: &mut Ear, coturn: &Coturn, tls_port: u16) {
    let tls = tls_port.to_string();
    let clients = [
        coturn.client("udp", &["-n", "10"]),
        coturn.client("tcp", &["-n", "10", "-t"]),
        coturn.client("tls", &["-n", "10", "-t", "-S", "-p", &tls]),
    ];
    for user in ["udp", "tcp", "tls"] {
        ear.until(&format!("the end of {user}"), |e| {
            let totals = e
                .kinds(user)
                .iter()
                .filter(|k| matches!(k, Kind::TotalTraffic(Leg::Peer, _)))
                .count();
            totals >= 2
        })
        .await;
        let kinds = ear.kinds(user);
        let status = |k: &Kind<'_>| matches!(k, Kind::New(s) | Kind::Refreshed(s) if s.transport.is_some());
        assert!(status(&kinds[0]), "{kinds:?}");
        let over_tls = kinds
            .iter()
            .any(|k| matches!(k, Kind::New(s) if s.tls_version.is_some()));
        assert_eq!(over_tls, user == "tls", "{kinds:?}");
        assert!(kinds.contains(&Kind::Deleted));
    }
    drop(clients);
    let mut relayed = 0;
    for ((server, id), legs) in books(ear) {
        for (leg, (deltas, total)) in legs {
            if let Some(total) = total {
                assert_eq!(deltas, total, "{server:?} {id} {leg:?}");
                relayed += if leg == Leg::Peer { total.sent_bytes } else { 0 };
            }
        }
    }
    // Two of each three at least sent their ten messages of 170 bytes.
    assert!(relayed >= 3 * 2 * 10 * 170, "{relayed}");
}

fn tls_args(dir: &std::path::Path, port: u16) -> Vec<String> {
    let (cert, key) = certificate(dir);
    vec![
        // Over UDP the client of 4.17 leaves without a word: its allocations are over when their lifetime is.
        "--max-allocate-lifetime=20".to_owned(),
        format!("--cert={}", cert.display()),
        format!("--pkey={}", key.display()),
        format!("--tls-listening-port={port}"),
    ]
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_listener_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let config = DirectConfig {
        password: Some(SecretString::from("pw")),
        ..config()
    };
    let mut ear = start(SourceConfig::Direct(config)).await;
    let tls_port = crate::support::free_port();
    let args = tls_args(dir.path(), tls_port);
    let statsdb = format!("port={} dbname=5 password=pw", ear.port());
    let coturn = Coturn::start(&statsdb, &strs(&args)).await;
    three_clients(&mut ear, &coturn, tls_port).await;
    assert!(
        ear.messages
            .iter()
            .all(|m| m.server.as_deref() == Some("127.0.0.1/-/5"))
    );
    assert!(ear.gaps.is_empty(), "{:?}", ear.gaps);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.hearing().await;
    let tls_port = crate::support::free_port();
    let args = tls_args(dir.path(), tls_port);
    let coturn = Coturn::start(&format!("port={} dbname=0", redis.port), &strs(&args)).await;
    three_clients(&mut ear, &coturn, tls_port).await;
    assert!(ear.gaps.is_empty(), "{:?}", ear.gaps);
}

/// An allocation that is open and stays so.
pub async fn open_allocation(ear: &mut Ear, coturn: &Coturn, user: &str) -> crate::support::Process {
    let client = coturn.client(user, &["-n", "100000", "-z", "50"]);
    ear.until("an allocation", |e| {
        e.kinds(user).iter().any(|k| matches!(k, Kind::New(_)))
    })
    .await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_or_terminated_it_has_stopped_and_no_other_has() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    // A thread has numbers of its own.
    let args = ["--relay-threads=1"];
    let mut first = Coturn::start(&format!("port={} dbname=1", ear.port()), &args).await;
    let second = Coturn::start(&format!("port={} dbname=2", ear.port()), &args).await;
    let _clients = [
        open_allocation(&mut ear, &first, "one").await,
        open_allocation(&mut ear, &second, "two").await,
    ];
    // The same ids, kept apart by their servers.
    let ids: Vec<AllocationId> = books(&ear).keys().map(|(_, id)| *id).collect();
    assert!(
        ids.iter()
            .any(|id| ids.iter().filter(|other| *other == id).count() > 1),
        "{ids:?}"
    );

    first.process.kill();
    ear.until("the first to have stopped", |e| {
        e.count("stopped 127.0.0.1/-/1") == 1
    })
    .await;
    second.process.signal("TERM");
    ear.until("the second to have stopped", |e| {
        e.count("stopped 127.0.0.1/-/2") == 1
    })
    .await;
    assert_eq!(
        (ear.count("stopped"), ear.count("restarted")),
        (2, 0),
        "{:?}",
        ear.told
    );

    // Long after, another life: nothing is left of the first that could end.
    first.process = Coturn::spawn(
        &first.dir,
        first.port,
        &format!("port={} dbname=1", ear.port()),
        &[],
    );
    assert!(first.serves().await);
    let _client = open_allocation(&mut ear, &first, "three").await;
    assert_eq!(
        (ear.count("stopped"), ear.count("restarted")),
        (2, 0),
        "{:?}",
        ear.told
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn started_again_at_once_it_has_restarted() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let statsdb = format!("port={} dbname=1", ear.port());
    let mut coturn = Coturn::start(&statsdb, &[]).await;
    let _client = open_allocation(&mut ear, &coturn, "one").await;
    coturn.process.kill();
    coturn.process = Coturn::spawn(&coturn.dir, coturn.port, &statsdb, &[]);
    ear.until("the restart", |e| e.count("restarted 127.0.0.1/-/1") == 1)
        .await;
    assert!(coturn.serves().await);
    let _client = open_allocation(&mut ear, &coturn, "two").await;
    // And that life can stop, too.
    coturn.process.kill();
    ear.until("the stop", |e| e.count("stopped 127.0.0.1/-/1") == 1)
        .await;
    assert_eq!(ear.count("restarted"), 1, "{:?}", ear.told);
}

/// A way between coturn and the listener that can be cut.
struct Cuttable {
    port: u16,
    cut: watch::Sender<u32>,
}

impl Cuttable {
    async fn to(port: u16) -> Cuttable {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(local(port)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Cuttable { port: here, cut }
    }

    fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

/// All connections of a live coturn cut, twice: it has not stopped, and what it says later is heard.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_twice_it_has_not_stopped() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let way = Cuttable::to(ear.port()).await;
    let coturn = Coturn::start(
        &format!("port={} dbname=1", way.port),
        &["--max-allocate-lifetime=15"],
    )
    .await;
    let _client = open_allocation(&mut ear, &coturn, "one").await;
    for _ in 0..2 {
        way.cut();
        // Well past the time in which a server that is gone would be known to be.
        ear.listen(Duration::from_secs(8)).await;
    }
    assert_eq!(
        (ear.count("stopped"), ear.count("restarted")),
        (0, 0),
        "{:?}",
        ear.told
    );
    assert!(!ear.gaps.is_empty(), "the cuts are gaps");
    assert!(
        ear.gaps
            .iter()
            .all(|g| g.server.as_deref() == Some(b"127.0.0.1/-/1")),
        "{:?}",
        ear.gaps
    );
    let before = ear.messages.len();
    let _client = coturn.client("two", &["-n", "3"]);
    ear.until("messages after the cuts", |e| e.messages.len() > before + 3)
        .await;
}

/// The listener itself goes and comes back: coturn finds it again, and nothing is taken for a stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_restarts_is_found_again() {
    let ear = start(SourceConfig::Direct(config())).await;
    let port = ear.port();
    let coturn = Coturn::start(&format!("port={port} dbname=1"), &[]).await;
    let mut ear = ear;
    let _client = open_allocation(&mut ear, &coturn, "one").await;
    ear.source.stop().await;
    let mut ear = start(SourceConfig::Direct(DirectConfig::new(local(port)))).await;
    let clients = Mutex::new(Vec::new());
    crate::support::until("messages again", async || {
        clients.lock().unwrap().push(coturn.client("two", &["-n", "3"]));
        ear.listen(Duration::from_secs(1)).await;
        (!ear.kinds("two").is_empty()).then_some(())
    })
    .await;
    ear.listen(Duration::from_secs(7)).await;
    assert_eq!(
        (ear.count("stopped"), ear.count("restarted")),
        (0, 0),
        "{:?}",
        ear.told
    );
}

/// Both sources beside each other: coturn's own keys make up the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn its_keys_are_the_snapshot() {
    let redis = Redis::start(&[]).await;
    let coturn = Coturn::start(&format!("port={} dbname=2", redis.port), &[]).await;
    let mut early = start(SourceConfig::Redis(RedisConfig::new(format!(
        "{}/2",
        redis.url()
    ))))
    .await;
    early.hearing().await;
    let _client = open_allocation(&mut early, &coturn, "one").await;
    let mut late = start(SourceConfig::Redis(RedisConfig::new(format!(
        "{}/2",
        redis.url()
    ))))
    .await;
    late.until("the snapshot", |e| e.count("snapshot ended true") == 1)
        .await;
    assert!(!late.entries.is_empty());
    for entry in &late.entries {
        let names = decode::decode_key(&entry.key).unwrap();
        let message = decode::decode(&entry.key, &entry.value).unwrap();
        assert!(
            names.username.ends_with(b"one") && matches!(message.kind, Kind::New(_) | Kind::Refreshed(_))
        );
        assert!(entry.idle_seconds.is_some());
    }
    // Another database has other keys, and the same messages.
    let mut other = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    other
        .until("the snapshot", |e| e.count("snapshot ended true") == 1)
        .await;
    assert!(other.entries.is_empty());
    redis.client().await.publish(&status("bob", 1), b"deleted").await;
    other.until("a message", |e| e.heard("deleted")).await;
}
