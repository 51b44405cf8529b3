//! Redis pub/sub on one server, however it is reached.

use std::process::Command;

use secrecy::SecretString;
use turnhook_subscriber::{redis::RedisConfig, source::SourceConfig};

use crate::support::{Redis, certificate, start, status};

#[tokio::test]
async fn both_grammars_once_each_and_nothing_else() {
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.hearing().await;
    let mut coturn = redis.client().await;
    coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    coturn
        .publish(
            b"turn/user//allocation/000000000000000002/traffic",
            b"rcvp=0, rcvb=0, sentp=0, sentb=0",
        )
        .await;
    // Would match both, were the patterns less strict.
    coturn
        .publish(
            b"turn/realm/r/user/turn/user/x/allocation/000000000000000003/status",
            b"deleted",
        )
        .await;
    coturn.publish(b"__XXX__", b"__YYY__").await;
    coturn.publish(b"elsewhere", b"x").await;
    coturn
        .publish(b"turn/user/u/allocation/000000000000000004/status", b"last")
        .await;
    ear.until("the last", |e| e.heard("last")).await;
    let payloads: Vec<String> = ear
        .messages
        .iter()
        .map(|m| String::from_utf8_lossy(&m.payload).into_owned())
        .collect();
    assert_eq!(
        payloads,
        [
            "new lifetime=600",
            "rcvp=0, rcvb=0, sentp=0, sentb=0",
            "deleted",
            "last"
        ]
    );
    assert!(ear.messages.iter().all(|m| m.server.is_none()));
}

#[tokio::test]
async fn a_channel_that_is_not_utf8_is_heard() {
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.hearing().await;
    let channel = b"turn/realm/\xc3\x28/user/\xff\x00\xfe/allocation/000000000000000001/status";
    redis.client().await.publish(channel, b"deleted \xff").await;
    ear.until("the message", |e| e.messages.len() == 1).await;
    assert_eq!(ear.messages[0].channel, channel);
    assert_eq!(ear.messages[0].payload, b"deleted \xff");
}

#[tokio::test]
async fn a_huge_foreign_message_is_passed_over() {
    let redis = Redis::start(&[]).await;
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    ear.hearing().await;
    let mut other = redis.client().await;
    other.publish(b"turn/user/photo", &vec![b'x'; 4_000_000]).await;
    other.publish(&status("bob", 1), b"deleted").await;
    ear.until("what comes after", |e| e.heard("deleted")).await;
    assert_eq!((ear.messages.len(), ear.refused), (1, 1));
    assert!(ear.gaps.is_empty() && ear.count("deaf") == 0);
}

#[tokio::test]
async fn with_a_password() {
    let redis = Redis::start(&["--requirepass", "pw:1/@"]).await;
    let url = format!("redis://:pw%3A1%2F%40@127.0.0.1:{}", redis.port);
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(url))).await;
    ear.hearing().await;
    let mut config = RedisConfig::new(redis.url());
    config.password = Some(SecretString::from("pw:1/@"));
    start(SourceConfig::Redis(config)).await.hearing().await;

    let mut wrong = RedisConfig::new(redis.url());
    wrong.password = Some(SecretString::from("hunter2"));
    let mut ear = start(SourceConfig::Redis(wrong)).await;
    ear.until("the refusal", |e| e.count("deaf") > 0).await;
    assert!(ear.told[0].contains("login refused: WRONGPASS"), "{:?}", ear.told);
    assert!(!ear.told[0].contains("hunter2"));
    let mut none = start(SourceConfig::Redis(RedisConfig::new(redis.url()))).await;
    none.until("the refusal", |e| e.count("deaf") > 0).await;
    assert!(none.told[0].contains("NOAUTH"), "{:?}", none.told);
}

/// The least that a user must be allowed.
#[tokio::test]
async fn as_a_user_of_few_rights() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.client().await;
    let rights = [
        "ACL",
        "SETUSER",
        "turnhook",
        "on",
        ">pw",
        "resetchannels",
        "allchannels",
        "+psubscribe",
        "+ping",
    ];
    assert_eq!(admin.call(&rights).await, "+OK");
    let url = format!("redis://turnhook:pw@127.0.0.1:{}", redis.port);
    let mut config = RedisConfig::new(url);
    config.patience.ping = std::time::Duration::from_millis(50);
    let mut ear = start(SourceConfig::Redis(config.clone())).await;
    ear.hearing().await;
    admin.publish(&status("bob", 1), b"deleted").await;
    ear.until("the message", |e| e.heard("deleted")).await;
    // No right to scan: said in the log, and no harm done.
    ear.until("the end of the attempt", |e| e.count("snapshot ended false") > 0)
        .await;
    assert_eq!(ear.count("deaf"), 0);

    assert_eq!(
        admin
            .call(&["ACL", "SETUSER", "turnhook", "resetchannels", "&other"])
            .await,
        "+OK"
    );
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.until("the refusal", |e| e.count("deaf") > 0).await;
    assert!(
        ear.told[0].contains("subscription refused: NOPERM"),
        "{:?}",
        ear.told
    );
}

#[tokio::test]
async fn over_tls() {
    let certs = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(certs.path());
    let (cert_text, key_text) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let redis = Redis::start(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        cert_text,
        "--tls-key-file",
        key_text,
        "--tls-ca-cert-file",
        cert_text,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://127.0.0.1:{}", redis.port);
    let mut config = RedisConfig::new(&url);
    config.ca_file = Some(cert.clone());
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    let port = redis.port.to_string();
    let (channel, ca) = (String::from_utf8(status("bob", 1)).unwrap(), cert.clone());
    tokio::task::spawn_blocking(move || {
        let mut cli = Command::new("redis-cli");
        cli.args([
            "-p",
            &port,
            "--tls",
            "--cacert",
            ca.to_str().unwrap(),
            "PUBLISH",
            &channel,
            "deleted",
        ]);
        assert!(cli.output().unwrap().status.success());
    })
    .await
    .unwrap();
    ear.until("the message", |e| e.heard("deleted")).await;
    ear.until("a snapshot", |e| e.count("snapshot ended true") == 1)
        .await;

    // Not trusted: never connected, and said why.
    let other = tempfile::tempdir().unwrap();
    let mut config = RedisConfig::new(&url);
    config.ca_file = Some(certificate(other.path()).0);
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.until("the refusal", |e| e.count("deaf") > 0).await;
    assert!(ear.told[0].contains("certificate"), "{:?}", ear.told);
}

#[tokio::test]
async fn over_a_unix_socket() {
    let redis = Redis::start(&["--unixsocket", "{dir}/redis.sock"]).await;
    let url = format!("redis+unix://{}/redis.sock?db=3", redis.dir.path().display());
    let mut admin = redis.client().await;
    assert_eq!(admin.call(&["SELECT", "3"]).await, "+OK");
    let key = String::from_utf8(status("bob", 1)).unwrap();
    assert_eq!(admin.call(&["SET", &key, "new lifetime=600"]).await, "+OK");
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(url))).await;
    ear.hearing().await;
    admin.publish(&status("bob", 1), b"deleted").await;
    ear.until("the message", |e| e.heard("deleted")).await;
    ear.until("the key of that database", |e| e.entries.len() == 1)
        .await;
}

#[tokio::test]
async fn tls_to_a_redis_without_it_says_what_to_write() {
    let redis = Redis::start(&[]).await;
    let mut config = RedisConfig::new(format!("rediss://127.0.0.1:{}", redis.port));
    config.patience.answer = std::time::Duration::from_secs(2);
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.until("the refusal", |e| e.count("deaf") > 0).await;
    assert!(ear.told[0].contains("begins with redis://"), "{:?}", ear.told);
}
