//! Balancers before the listener, health checks beside it: who a coturn is, and when it is gone.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};
use turnhook_reducer::{message::Kind, source::GapReason};
use turnhook_subscriber::source::SourceConfig;

use crate::{
    coturn::open_allocation,
    direct::config,
    support::{Coturn, Ear, local, start, turnservers},
};

/// A balancer: what comes to its port goes on to the listener from an address of its own.
struct Balancer {
    port: u16,
    /// Which, 127.0.0.n; 0 while it is down.
    address: watch::Sender<u8>,
}

impl Balancer {
    async fn to(listener: u16) -> Balancer {
        let (address, at) = watch::channel(11);
        let here = TcpListener::bind(local(0)).await.unwrap();
        let port = here.local_addr().unwrap().port();
        tokio::spawn(balance(here, listener, at));
        Balancer { port, address }
    }

    /// All its connections are closed; those that come are sent on from there, or refused (0).
    fn switch(&self, n: u8) {
        self.address.send_replace(n);
    }
}

async fn until(address: &mut watch::Receiver<u8>, holds: impl Fn(u8) -> bool) {
    address.wait_for(|n| holds(*n)).await.map(drop).unwrap();
}

async fn balance(mut here: TcpListener, listener: u16, mut address: watch::Receiver<u8>) {
    let port = here.local_addr().unwrap();
    let mut down = address.clone();
    loop {
        let near = tokio::select! {
            accepted = here.accept() => accepted.unwrap().0,
            () = until(&mut down, |n| n == 0) => {
                drop(here);
                until(&mut address, |n| n != 0).await;
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                socket.bind(port).unwrap();
                here = socket.listen(64).unwrap();
                continue;
            }
        };
        let mut switched = address.clone();
        let n = *switched.borrow_and_update();
        if n == 0 {
            // It came in the very moment.
            continue;
        }
        tokio::spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, n], 0))).unwrap();
            let (mut near, mut far) = (near, socket.connect(local(listener)).await.unwrap());
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = switched.changed() => {}
            }
        });
    }
}

/// Where in what was told this stands.
fn position(ear: &Ear, word: &str) -> usize {
    ear.told
        .iter()
        .position(|t| t.starts_with(word))
        .unwrap_or_else(|| panic!("no {word} in {:?}", ear.told))
}

/// Its connections come back from the other of two balancers: it has not stopped, its thread is where it now is, and what
/// was missed is on record for both names.
#[tokio::test(flavor = "multi_thread")]
async fn a_coturn_whose_address_changes_has_not_stopped() {
    for program in turnservers() {
        let mut ear = start(SourceConfig::Direct(config())).await;
        let balancer = Balancer::to(ear.port()).await;
        let args = ["--relay-threads=1"];
        let coturn = Coturn::start_as(&program, &format!("port={} dbname=1", balancer.port), &args).await;
        let _client = open_allocation(&mut ear, &coturn, "one").await;
        assert!(position(&ear, "connected 127.0.0.11/-/1") < position(&ear, "+0 127.0.0.11/-/1"));
        balancer.switch(12);
        ear.until("its thread to be gone from there", |e| {
            e.count("-0 127.0.0.11/-/1") == 1
        })
        .await;
        let clients = std::sync::Mutex::new(Vec::new());
        crate::support::until("messages from there", async || {
            clients.lock().unwrap().push(coturn.client("two", &["-n", "3"]));
            ear.listen(Duration::from_secs(1)).await;
            (ear.count("+0 127.0.0.12/-/1") > 0).then_some(())
        })
        .await;
        // Well past the time in which it would be told as stopped.
        ear.until("it to be gone from there", |e| {
            e.count("gone 127.0.0.11/-/1") == 1
        })
        .await;
        ear.listen(Duration::from_secs(2)).await;
        assert_eq!(
            (ear.count("stopped"), ear.count("restarted")),
            (0, 0),
            "{program}: {:?}",
            ear.told
        );
        for name in ["127.0.0.11/-/1", "127.0.0.12/-/1"] {
            let gap = |g: &turnhook_reducer::source::Gap| {
                g.server.as_deref() == Some(name.as_bytes()) && g.reason == GapReason::Reconnect
            };
            assert!(ear.gaps.iter().any(gap), "{program}: {name}: {:?}", ear.gaps);
        }
    }
}

/// A balancer restarts, and takes longer than a live server would be away: that it had not stopped is said as soon as it
/// is heard again, before its message, and the absence is a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_coturn_behind_a_balancer_that_restarts_had_not_stopped() {
    for program in turnservers() {
        let mut ear = start(SourceConfig::Direct(config())).await;
        let balancer = Balancer::to(ear.port()).await;
        let args = ["--relay-threads=1"];
        let mut coturn = Coturn::start_as(&program, &format!("port={} dbname=1", balancer.port), &args).await;
        let _client = open_allocation(&mut ear, &coturn, "one").await;
        balancer.switch(0);
        ear.until("the stop", |e| e.count("stopped 127.0.0.11/-/1") == 1)
            .await;
        balancer.switch(11);
        let clients = std::sync::Mutex::new(Vec::new());
        crate::support::until("it to be heard again", async || {
            clients.lock().unwrap().push(coturn.client("two", &["-n", "3"]));
            ear.listen(Duration::from_secs(1)).await;
            ear.kinds("two")
                .iter()
                .any(|k| matches!(k, Kind::New(_) | Kind::Refreshed(_)))
                .then_some(())
        })
        .await;
        assert_eq!(
            ear.count("returned 127.0.0.11/-/1"),
            1,
            "{program}: {:?}",
            ear.told
        );
        let absences = ear.gaps.iter().filter(|g| g.reason == GapReason::Reconnect);
        let longest = absences.map(|g| g.to.since(g.from)).max().unwrap_or(0);
        assert!(longest >= 5_000, "{program}: {:?}", ear.gaps);
        let returned = position(&ear, "returned");
        assert!(
            ear.told[returned..].iter().any(|t| t.starts_with("+0 ")),
            "its thread comes after: {:?}",
            ear.told
        );

        // A coturn that does stop, and is started after as long, had.
        coturn.process.kill();
        ear.until("the true stop", |e| e.count("gone 127.0.0.11/-/1") > 1)
            .await;
        coturn.process = Coturn::spawn_as(
            &program,
            &coturn.dir,
            coturn.port,
            &format!("port={} dbname=1", balancer.port),
            &args,
        );
        assert!(coturn.serves().await);
        let _client = open_allocation(&mut ear, &coturn, "three").await;
        assert_eq!(ear.count("returned"), 1, "{program}: {:?}", ear.told);
    }
}

/// Health checks are open at any second, now old ones, now new ones; a coturn that dies is noticed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_noticed_beside_health_checks() {
    for program in turnservers() {
        let mut ear = start(SourceConfig::Direct(config())).await;
        let port = ear.port();
        let _old = TcpStream::connect(local(port)).await.unwrap();
        let checks = tokio::spawn(async move {
            let mut last = None;
            loop {
                let next = TcpStream::connect(local(port)).await.unwrap();
                // Each is open until the next one is.
                tokio::time::sleep(Duration::from_millis(300)).await;
                last.replace(next);
            }
        });
        let mut coturn = Coturn::start_as(&program, &format!("port={port} dbname=1"), &[]).await;
        let _client = open_allocation(&mut ear, &coturn, "one").await;
        assert_eq!(ear.count("connected 127.0.0.1/-/1"), 1);
        coturn.process.kill();
        ear.until("the stop", |e| e.count("stopped 127.0.0.1/-/1") == 1)
            .await;
        assert_eq!(ear.count("gone 127.0.0.1/-/1"), 1);
        checks.abort();
    }
}
