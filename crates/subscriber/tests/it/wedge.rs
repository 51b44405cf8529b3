//! A real coturn whose relay threads are wedged by a Redis that stood still (TRAPS.md, trap 11), and healed.
//!
//! Only a full send buffer wedges a thread, and on loopback buffers are megabytes. In a network namespace of its own
//! they can be made small:
//!
//! ```text
//! unshare --net --map-root-user cargo test -p turnhook-subscriber --test it wedge -- --ignored
//! ```

use std::{collections::HashMap, fs, process::Command, time::Duration};

use tokio::time::Instant;
use turnhook_subscriber::{
    decode,
    redis::{Healing, RedisConfig, SilentThread},
    source::SourceConfig,
};

use crate::support::{Coturn, Ear, Process, Redis, start, until};

/// Small buffers for all connections of this namespace, and of none that is anybody else's.
fn small_buffers() {
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let own = interfaces
        .lines()
        .skip(2)
        .all(|line| line.trim_start().starts_with("lo:"));
    assert!(
        own,
        "this test changes the namespace it runs in: run it under `unshare --net --map-root-user`"
    );
    assert!(
        Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap()
            .success()
    );
    for direction in ["tcp_wmem", "tcp_rmem"] {
        fs::write(format!("/proc/sys/net/ipv4/{direction}"), "4096 8192 16384").unwrap();
    }
}

/// Traffic without end: allocations that are refreshed every few seconds, and others that come and go.
struct Load(Vec<Process>);

impl Load {
    async fn on(&mut self, coturn: &Coturn, ear: &mut Ear, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.0.retain_mut(Process::running);
            if self.0.is_empty() {
                self.0
                    .push(coturn.client("load", &["-m", "200", "-n", "200000", "-z", "100"]));
            }
            if self.0.len() < 3 {
                self.0.push(coturn.client("churn", &["-m", "20", "-n", "2"]));
            }
            ear.listen(Duration::from_millis(250)).await;
        }
    }
}

/// When each relay thread was last heard.
#[derive(Default)]
struct Threads {
    last: HashMap<u16, Instant>,
    seen: usize,
}

impl Threads {
    fn note(&mut self, ear: &Ear) {
        for message in &ear.messages[self.seen..] {
            if let Ok(m) = decode::decode(&message.channel, &message.payload) {
                self.last.insert(m.id.relay_thread(), Instant::now());
            }
        }
        self.seen = ear.messages.len();
    }

    fn silent(&self) -> Vec<Duration> {
        self.last
            .values()
            .map(Instant::elapsed)
            .filter(|s| *s > Duration::from_secs(8))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a network namespace of its own: see the top of the file"]
async fn a_wedged_relay_thread_is_revived() {
    small_buffers();
    let redis = Redis::start(&[]).await;
    let mut config = RedisConfig::new(redis.url());
    config.patience.heal = Duration::ZERO;
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    let coturn = Coturn::start(&format!("port={}", redis.port), &["--max-allocate-lifetime=6"]).await;
    let (mut load, mut threads) = (Load(Vec::new()), Threads::default());
    load.on(&coturn, &mut ear, Duration::from_secs(10)).await;
    threads.note(&ear);
    assert!(threads.last.len() > 1, "{:?}", threads.last);

    redis.process.signal("STOP");
    load.on(&coturn, &mut ear, Duration::from_secs(25)).await;
    assert!(ear.count("deaf Redis has not answered") == 1, "{:?}", ear.told);
    redis.process.signal("CONT");
    ear.until("the gap", |e| e.told.contains(&"gap stall".to_owned()))
        .await;
    // Nothing is heard of a wedged thread, though its allocations should be refreshed every few seconds.
    load.on(&coturn, &mut ear, Duration::from_secs(4)).await;
    threads.note(&ear);
    load.on(&coturn, &mut ear, Duration::from_secs(12)).await;
    threads.note(&ear);
    let wedged = threads.silent().len();
    assert!(wedged > 0, "no thread is wedged: {:?}", threads.last);

    let control = ear.source.redis().unwrap().clone();
    let mut closed = Vec::new();
    until("all threads to be heard again", async || {
        load.on(&coturn, &mut ear, Duration::from_secs(1)).await;
        threads.note(&ear);
        let silent = threads.silent();
        if silent.is_empty() {
            return Some(());
        }
        // One at a time: the next one's turn comes when this one had time to speak.
        let thread = SilentThread {
            server_address: Some(b"127.0.0.1:3478".to_vec()),
            silent: silent[0],
        };
        if let Healing::Closed { connection } = control.close_relay_connection(thread).await {
            closed.push(connection);
            load.on(&coturn, &mut ear, Duration::from_secs(5)).await;
        }
        None
    })
    .await;
    // One for each, and no live one.
    assert_eq!(closed.len(), wedged, "{closed:?}");
}
