//! Snapshots of the status keys, and healing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use turnhook_subscriber::{
    redis::{Healing, RedisConfig, SilentThread},
    source::SourceConfig,
};

use crate::support::{Redis, command, start, status, until};

#[tokio::test]
async fn only_wanted_keys_are_read_and_their_idle_time_first() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.client().await;
    for (key, value) in [
        (status("bob", 1), "new lifetime=600"),
        (
            b"turn/user/alice/allocation/000000000000000002/status".to_vec(),
            "refreshed lifetime=600",
        ),
        (status("unwanted", 3), "new lifetime=600"),
        (b"turn/realm/r/user/u/allocation/1/status".to_vec(), "no id"),
        (b"turn/other/status".to_vec(), "foreign"),
        (b"session:17".to_vec(), "somebody else's"),
    ] {
        admin.send(&[b"SET", &key, value.as_bytes()]).await.unwrap();
        assert_eq!(admin.reply().await.unwrap(), "+OK");
    }
    let unwanted = String::from_utf8(status("unwanted", 3)).unwrap();
    let bob = String::from_utf8(status("bob", 1)).unwrap();
    // Let some whole seconds pass, so that an idle time can be told from none.
    until("the keys to age", async || {
        (admin.call(&["OBJECT", "IDLETIME", &bob]).await != ":0"
            && admin.call(&["OBJECT", "IDLETIME", &unwanted]).await != ":0")
            .then_some(())
    })
    .await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.wants = |key| !key.windows(8).any(|w| w == b"unwanted");
    ear.until("the end", |e| e.count("snapshot ended") == 1).await;
    assert!(ear.told.contains(&"snapshot ended true".to_owned()));
    let mut names: Vec<String> = ear
        .entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.key).into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            bob.as_str(),
            "turn/user/alice/allocation/000000000000000002/status"
        ]
    );
    assert!(
        ear.entries
            .iter()
            .all(|e| e.idle_seconds.is_some_and(|idle| idle >= 1)),
        "{:?}",
        ear.entries
    );
    // Reading set the clock of what was read back; what nobody wanted was not touched.
    assert_eq!(admin.call(&["OBJECT", "IDLETIME", &bob]).await, ":0");
    assert_ne!(admin.call(&["OBJECT", "IDLETIME", &unwanted]).await, ":0");
    // The order of things: subscribed first, so that nothing falls between.
    let order: Vec<&str> = ear
        .told
        .iter()
        .map(|t| t.split(' ').take(2).last().unwrap())
        .collect();
    assert_eq!(order[..2], ["subscribed", "began"]);
}

#[tokio::test]
async fn after_each_gap_and_when_asked() {
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.until("the first", |e| e.count("snapshot ended true") == 1)
        .await;
    redis
        .client()
        .await
        .call(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    ear.until("the second", |e| e.count("snapshot ended true") == 2)
        .await;
    // One that does not lead takes none; one that begins to lead takes one.
    let control = ear.source.redis().unwrap().clone();
    control.take_snapshots(false);
    redis
        .client()
        .await
        .call(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    ear.until("hearing again", |e| e.count("hearing") == 3).await;
    ear.listen(Duration::from_millis(300)).await;
    assert_eq!(ear.count("snapshot began"), 2);
    control.take_snapshots(true);
    ear.until("the third", |e| e.count("snapshot ended true") == 3)
        .await;
}

#[tokio::test]
async fn where_no_idle_times_are_kept_there_are_none() {
    let redis = Redis::start(&["--maxmemory-policy", "allkeys-lfu"]).await;
    let mut admin = redis.client().await;
    let key = String::from_utf8(status("bob", 1)).unwrap();
    admin.call(&["SET", &key, "new lifetime=600"]).await;
    // Not a string: passed over.
    let list = String::from_utf8(status("list", 2)).unwrap();
    admin.call(&["RPUSH", &list, "x"]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.until("the end", |e| e.count("snapshot ended true") == 1)
        .await;
    assert_eq!(ear.entries.len(), 1);
    assert_eq!(
        (&ear.entries[0].value[..], ear.entries[0].idle_seconds),
        (&b"new lifetime=600"[..], None)
    );
}

/// Redis goes on serving others while a snapshot walks through a great many keys, and messages are heard all along.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_stall_nobody() {
    const KEYS: u64 = 200_000;
    let redis = Redis::start(&[]).await;
    let mut admin = redis.client().await;
    for first in (0..KEYS).step_by(1000) {
        let batch: Vec<u8> = (first..first + 1000)
            .flat_map(|id| command(&[b"SET", &status("bob", id), b"new lifetime=600"]))
            .collect();
        admin.stream.write_all(&batch).await.unwrap();
        for _ in 0..1000 {
            assert_eq!(admin.reply().await.unwrap(), "+OK");
        }
    }
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.wants = |key| key.ends_with(b"7/status");
    ear.until("the walk", |e| e.count("snapshot scanned") > 3).await;
    let mut during = 0;
    while ear.count("snapshot ended") == 0 {
        let mark = format!("during {during}");
        admin.publish(&status("eve", during), mark.as_bytes()).await;
        ear.until(&mark, |e| e.heard(&mark)).await;
        during += 1;
        ear.listen(Duration::from_millis(5)).await;
    }
    assert!(during > 3, "{during}");
    assert!(ear.told.contains(&"snapshot ended true".to_owned()));
    assert_eq!(ear.entries.len() as u64, KEYS / 10);
    // In many small steps, and reading nothing that nobody wanted.
    let stats = admin.call(&["INFO", "commandstats"]).await;
    let calls = |command: &str| -> u64 {
        let line = stats
            .lines()
            .find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |l| l.split(',').next().unwrap().parse().unwrap())
    };
    assert!(calls("scan") >= KEYS / 1000, "{stats}");
    assert_eq!(
        (calls("get"), calls("object|idletime"), calls("keys")),
        (KEYS / 10, KEYS / 10, 0),
        "{stats}"
    );
}

#[tokio::test]
async fn the_connection_of_a_silent_thread_is_closed_and_no_other() {
    let redis = Redis::start(&[]).await;
    let mut config = RedisConfig::new(redis.url());
    config.patience.heal = Duration::from_secs(3600);
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    let control = ear.source.redis().unwrap().clone();
    let silent = |seconds| SilentThread {
        server_address: Some(b"127.0.0.1:3478".to_vec()),
        silent: Duration::from_secs(seconds),
    };
    // Nobody there, or nobody idle for that long.
    assert_eq!(
        control.close_relay_connection(silent(600)).await,
        Healing::NoneFits { looked_at: 0 }
    );
    let mut wedged = redis.client().await;
    wedged.publish(&status("bob", 1), b"new lifetime=600").await;
    assert_eq!(
        control.close_relay_connection(silent(600)).await,
        Healing::NoneFits { looked_at: 1 }
    );
    // Others on the same Redis, idle for as long.
    let mut application = redis.client().await;
    assert_eq!(application.call(&["GET", "x"]).await, "(null)");
    let mut subscriber = redis.client().await;
    assert_eq!(subscriber.call(&["SUBSCRIBE", "x"]).await, "subscribe x :1");
    until("it to be idle", async || {
        let list = application.call(&["CLIENT", "LIST"]).await;
        list.lines()
            .any(|l| l.contains("cmd=publish") && !l.contains("idle=0"))
            .then_some(())
    })
    .await;
    let mut lively = redis.client().await;
    lively
        .publish(&status("eve", 1_000_000_000_000_001), b"new lifetime=600")
        .await;
    let Healing::Closed { connection } = control.close_relay_connection(silent(5)).await else {
        panic!()
    };
    assert!(connection.contains("last command publish"), "{connection}");
    assert!(
        wedged.try_call(&["PING"]).await.is_err(),
        "the idle one is closed"
    );
    assert_eq!(lively.call(&["PING"]).await, "+PONG");
    assert_eq!(application.call(&["PING"]).await, "+PONG");
    assert_eq!(subscriber.call(&["UNSUBSCRIBE", "x"]).await, "unsubscribe x :0");
    // Not again so soon.
    assert_eq!(control.close_relay_connection(silent(5)).await, Healing::TooSoon);
    assert_eq!(ear.count("deaf"), 0);
}

#[tokio::test]
async fn without_a_connection_healing_says_so() {
    let config = RedisConfig::new(format!("redis://127.0.0.1:{}", crate::support::free_port()));
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.until("the complaint", |e| e.count("deaf") > 0).await;
    let control = ear.source.redis().unwrap().clone();
    let thread = SilentThread {
        server_address: None,
        silent: Duration::from_secs(600),
    };
    assert!(matches!(
        control.close_relay_connection(thread).await,
        Healing::Unavailable { .. }
    ));
}
