//! The gate among strangers: a coturn that knows the password is answered, whoever else is there.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use turnhook_control::gate::{Answer, Config, Doorkeeper, Gate, RealmOptions, RestSecret};

use crate::support::{PATIENCE, local};

struct Open;

impl Doorkeeper for Open {
    fn is_open(&self) -> bool {
        true
    }

    fn is_blocked(&self, _username: &[u8]) -> bool {
        false
    }

    fn now(&self) -> u64 {
        0
    }

    fn answered(&self, _answer: Answer) {}
}

async fn start() -> u16 {
    let config = Config {
        listen: local(0),
        realm: b"example.org".as_slice().into(),
        secrets: RestSecret::parse_all("north").unwrap(),
        password: Some(SecretString::from("gate-tests-only")),
        options: RealmOptions::default(),
    };
    let gate = Gate::bind(config, Arc::new(Open)).await.unwrap();
    let port = gate.local_addr().unwrap().port();
    tokio::spawn(gate.run());
    port
}

async fn asked(port: u16) -> String {
    let mut coturn = TcpStream::connect(local(port)).await.unwrap();
    let question = "turn/realm/example.org/user/1795712096:cust_42/key";
    let said = format!(
        "*2\r\n$4\r\nAUTH\r\n$15\r\ngate-tests-only\r\n*2\r\n$3\r\nget\r\n${}\r\n{question}\r\n",
        question.len()
    );
    coturn.write_all(said.as_bytes()).await.unwrap();
    let mut answer = [0; 44];
    timeout(PATIENCE, coturn.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Until it is closed.
async fn closed(mut stranger: TcpStream) {
    let mut rest = Vec::new();
    // An end and a reset are the same here.
    let _ = timeout(PATIENCE, stranger.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_crowd_that_says_nothing_displaces_itself() {
    let port = start().await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(local(port)).await.unwrap());
    }
    assert_eq!(
        asked(port).await,
        "+OK\r\n$32\r\n781de225c71818eb2469effcba7e7ba6\r\n"
    );
    // The first of them left for others, long before they had taken too long.
    for stranger in crowd.drain(..100) {
        timeout(Duration::from_secs(3), closed(stranger)).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_dawdles_over_a_password_is_sent_away() {
    let port = start().await;
    let (mut from, mut to) = TcpStream::connect(local(port)).await.unwrap().into_split();
    // Always a letter more, so that no wait for the next one is long.
    let dawdling = tokio::spawn(async move {
        to.write_all(b"*2\r\n$4\r\nAUTH\r\n$4000\r\n").await.unwrap();
        while to.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    });
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, from.read_to_end(&mut rest)).await.unwrap();
    dawdling.abort();
    assert!(rest.is_empty());
}
