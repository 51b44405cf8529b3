//! The listener, spoken to as coturn and as people do.

use std::process::Command;

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use turnhook_reducer::source::GapReason;
use turnhook_subscriber::{direct::DirectConfig, error::SubscriberError, queue, source::SourceConfig};

use crate::support::{self, Client, PATIENCE, certificate, clock, local, start, status};

pub fn config() -> DirectConfig {
    DirectConfig::new(local(0))
}

#[tokio::test]
async fn messages_come_with_their_server() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert_eq!(coturn.call(&["AUTH", ""]).await, "+OK");
    assert_eq!(coturn.call(&["select", "7"]).await, "+OK");
    assert_eq!(coturn.call(&["SET", "k", "v"]).await, "+OK");
    coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    coturn
        .publish(
            b"turn/user/\xff\xfe/allocation/000000000000000002/status",
            b"deleted",
        )
        .await;
    ear.until("two messages", |e| e.messages.len() == 2).await;
    assert_eq!(ear.messages[0].server.as_deref(), Some("127.0.0.1/-/7"));
    assert_eq!(ear.messages[0].channel, status("bob", 1));
    assert_eq!(
        ear.messages[1].channel,
        b"turn/user/\xff\xfe/allocation/000000000000000002/status"
    );
    ear.until("the server", |e| e.count("connected 127.0.0.1/-/7") == 1)
        .await;
    assert!(
        ear.told[0].starts_with("hearing listening on 127.0.0.1:"),
        "{:?}",
        ear.told
    );
}

#[tokio::test]
async fn two_servers_on_one_listener_are_told_apart() {
    let config = DirectConfig {
        password: Some(SecretString::from("pw")),
        ..config()
    };
    let mut ear = start(SourceConfig::Direct(config)).await;
    for (user, number) in [("a", "0"), ("a", "1"), ("b", "0")] {
        let mut coturn = Client::connect(ear.port()).await.unwrap();
        assert_eq!(coturn.call(&["AUTH", user, "pw"]).await, "+OK");
        assert_eq!(coturn.call(&["SELECT", number]).await, "+OK");
        coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    }
    ear.until("all", |e| e.messages.len() == 3).await;
    let servers: Vec<&str> = ear.messages.iter().filter_map(|m| m.server.as_deref()).collect();
    assert_eq!(servers, ["127.0.0.1/a/0", "127.0.0.1/a/1", "127.0.0.1/b/0"]);
}

fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(args)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_is_happy() {
    let config = DirectConfig {
        password: Some(SecretString::from("pw")),
        ..config()
    };
    let ear = start(SourceConfig::Direct(config)).await;
    let port = ear.port();
    tokio::task::spawn_blocking(move || {
        assert_eq!(cli(port, &["PING"]), "NOAUTH Authentication required.\n\n");
        let with = |args: &[&str]| cli(port, &[&["--no-auth-warning", "-a", "pw"], args].concat());
        assert_eq!(with(&["PING"]), "PONG\n");
        assert_eq!(with(&["-n", "3", "PING", "hi"]), "hi\n");
        assert_eq!(with(&["PUBLISH", "c", "p"]), "1\n");
        assert_eq!(with(&["KEYS", "*"]), "\n");
        assert!(with(&["GET", "x"]).starts_with("ERR unknown command 'GET'"));
        assert!(cli(port, &["-a", "wrong", "--no-auth-warning", "PING"]).contains("WRONGPASS"));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let tls = Some((cert.clone(), key));
    let config = DirectConfig {
        tls,
        password: Some(SecretString::from("pw")),
        ..config()
    };
    let mut ear = start(SourceConfig::Direct(config)).await;
    let port = ear.port().to_string();
    let published = tokio::task::spawn_blocking(move || {
        let output = Command::new("redis-cli")
            .args([
                "-p",
                &port,
                "--tls",
                "--cacert",
                cert.to_str().unwrap(),
                "--sni",
                "localhost",
            ])
            .args([
                "-a",
                "pw",
                "--no-auth-warning",
                "PUBLISH",
                "turn/user/x",
                "secretly",
            ])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(published.await.unwrap(), "1\n");
    ear.until("the message", |e| e.heard("secretly")).await;
    // Whoever does not speak TLS is not listened to.
    let mut plain = TcpStream::connect(local(ear.port())).await.unwrap();
    plain
        .write_all(&support::command(&[b"PUBLISH", b"c", b"p"]))
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer))
        .await
        .expect("still open");
    assert!(!answer.starts_with(b":1"), "{answer:?}");
    assert_eq!(ear.messages.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_said_at_once() {
    let (signals, _rx) = queue::channel(1000);
    let open = DirectConfig::new("0.0.0.0:0".parse().unwrap());
    let error = SourceConfig::Direct(open)
        .start(clock(), signals.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, SubscriberError::OpenToAll { .. }), "{error}");
    let user = DirectConfig {
        user: Some("u".into()),
        ..config()
    };
    assert!(matches!(
        user.validate(),
        Err(SubscriberError::UserWithoutPassword)
    ));
    let tls = DirectConfig {
        tls: Some(("/no/cert".into(), "/no/key".into())),
        ..config()
    };
    assert!(tls.validate().unwrap_err().to_string().contains("/no/cert"));

    let taken = start(SourceConfig::Direct(config())).await;
    let error = SourceConfig::Direct(DirectConfig::new(local(taken.port())));
    let error = error.start(clock(), signals).await.unwrap_err();
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{}", taken.port())),
        "{error}"
    );
}

#[tokio::test]
async fn a_stopped_listener_frees_its_address_and_connections() {
    let ear = start(SourceConfig::Direct(config())).await;
    let port = ear.port();
    let mut client = Client::connect(port).await.unwrap();
    assert_eq!(client.call(&["PING"]).await, "+PONG");
    ear.source.stop().await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, client.stream.read_to_end(&mut rest))
        .await
        .expect("still open");
    let again = DirectConfig::new(local(port));
    start(SourceConfig::Direct(again)).await.hearing().await;
}

#[tokio::test]
async fn an_engine_that_stands_still_costs_a_gap_and_no_connection() {
    let mut ear = support::start_with(SourceConfig::Direct(config()), clock(), 100_000).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    for i in 0..3000u64 {
        coturn
            .publish(&status("bob", i), b"new lifetime=600, type=UDP")
            .await;
    }
    ear.until("the gap", |e| !e.gaps.is_empty()).await;
    assert_eq!(ear.gaps[0].reason, GapReason::Overflow);
    assert_eq!(ear.gaps[0].server.as_deref(), Some(&b"127.0.0.1/-/0"[..]));
    let heard = ear.messages.len();
    assert!(heard > 0 && heard < 3000, "{heard}");
    coturn.publish(&status("bob", 9999), b"deleted").await;
    ear.until("what comes after", |e| e.heard("deleted")).await;
}

#[tokio::test]
async fn a_connection_that_comes_back_leaves_a_gap_of_that_server() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert_eq!(coturn.call(&["SELECT", "2"]).await, "+OK");
    coturn.publish(&status("bob", 1), b"new lifetime=600").await;
    drop(coturn);
    ear.until("its end", |e| e.count("-0 127.0.0.1/-/2") == 1).await;
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert_eq!(coturn.call(&["SELECT", "2"]).await, "+OK");
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    assert_eq!(ear.gaps[0].reason, GapReason::Reconnect);
    assert_eq!(ear.gaps[0].server.as_deref(), Some(&b"127.0.0.1/-/2"[..]));
}
