//! What a user of Redis must be allowed: missed by name, by a running source and by an examination.

use tokio::{io::AsyncWriteExt, net::TcpListener};
use turnhook_subscriber::{redis::RedisConfig, source::SourceConfig};

use crate::support::{Redis, local, start};

const RIGHTS: [&str; 7] = [
    "+psubscribe",
    "+ping",
    "+info",
    "+time",
    "+scan",
    "+object|idletime",
    "+get",
];

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.client().await;
    let channels = ["&turn/realm/*", "&turn/user/*"];
    let config = RedisConfig::new(format!("redis://turnhook:pw@127.0.0.1:{}", redis.port));
    let mut allow = async |channels: &[&str], rights: &[&str]| {
        let mut command = vec!["ACL", "SETUSER", "turnhook", "reset", "on", ">pw", "~turn/*"];
        command.extend(channels);
        command.extend(rights);
        assert_eq!(admin.call(&command).await, "+OK");
    };

    allow(
        &channels,
        &[&RIGHTS[..], &["+client|list", "+client|kill"]].concat(),
    )
    .await;
    let all = config.examine(true).await.unwrap();
    for (what, found) in &all.looks {
        assert!(found.is_ok(), "{what}: {found:?}");
    }
    assert_eq!(all.looks.len(), 7, "{all:?}");
    assert!(all.clock.is_some() && all.warnings.is_empty(), "{all:?}");

    // Patterns are compared to the letter.
    allow(&["&turn/*"], &RIGHTS).await;
    let narrow = config.examine(false).await.unwrap();
    let (what, found) = &narrow.looks[0];
    let error = found.as_ref().unwrap_err();
    assert_eq!(*what, "subscription");
    assert!(error.contains("&turn/realm/* &turn/user/*"), "{error}");
    assert!(
        narrow.looks[1..].iter().all(|(_, found)| found.is_ok()),
        "{narrow:?}"
    );

    for (without, what) in [
        ("+scan", "scan"),
        ("+object|idletime", "object|idletime"),
        ("+get", "get"),
    ] {
        let rights: Vec<&str> = RIGHTS.into_iter().filter(|right| *right != without).collect();
        allow(&channels, &rights).await;
        let examined = config.examine(true).await.unwrap();
        let missing: Vec<_> = examined
            .looks
            .iter()
            .filter_map(|(what, found)| Some((*what, found.as_ref().err()?)))
            .collect();
        let names: Vec<&str> = missing.iter().map(|(what, _)| *what).collect();
        assert_eq!(names, [what, "client|list", "client|kill"]);
        assert!(
            missing[0].1.contains("+scan +object|idletime +get ~turn/*"),
            "{missing:?}"
        );
        assert!(missing[1].1.contains("+client|list +client|kill"), "{missing:?}");
    }

    // A running source goes on hearing, and its snapshot does not pass for one that found nothing.
    allow(&channels, &["+psubscribe", "+ping", "+scan", "+get"]).await;
    admin
        .call(&[
            "SET",
            "turn/realm/example.org/user/bob/allocation/000000000000000001/status",
            "new lifetime=600",
        ])
        .await;
    let mut ear = start(SourceConfig::Redis(config)).await;
    ear.hearing().await;
    ear.until("the end of the attempt", |e| e.count("snapshot ended false") > 0)
        .await;
}

/// What a Redis without a password says to whoever comes from another machine, before it is asked anything; then it closes.
const DENIED: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is set \
    for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
    external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the command \
    'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is running\r\n";

/// Redis advises to let everybody in; what is told is to give it a password.
#[tokio::test]
async fn a_redis_without_a_password_that_lets_nobody_in_is_explained() {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(DENIED).await;
        }
    });
    let config = RedisConfig::new(format!("redis://127.0.0.1:{port}"));
    let examined = config.examine(false).await.unwrap();
    let (what, found) = &examined.looks[0];
    let error = found.as_ref().unwrap_err();
    assert_eq!(*what, "subscription");
    assert!(
        error.contains(": DENIED Redis is running in protected mode")
            && error.contains("give it one (`requirepass`"),
        "{error}"
    );
    assert!(!error.contains("CONFIG SET"), "{error}");
    let mut ear = start(SourceConfig::Redis(config)).await;
    let told = format!("deaf 127.0.0.1:{port}: DENIED Redis is running in protected mode");
    ear.until("the reason", |e| e.count(&told) > 0).await;
}
