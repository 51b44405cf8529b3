//! Strangers on the listener's port: none of them costs memory, time or another's messages.

use std::time::Duration;

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use turnhook_subscriber::{
    direct::{DirectConfig, DirectLimits},
    source::SourceConfig,
};

use crate::{
    direct::config,
    support::{Client, Ear, PATIENCE, command, local, start, status},
};

fn locked(limits: DirectLimits) -> SourceConfig {
    let password = Some(SecretString::from("pw"));
    SourceConfig::Direct(DirectConfig {
        password,
        limits,
        ..config()
    })
}

/// Sends bytes, and gives all that is answered until the listener closes.
async fn answered(ear: &Ear, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(local(ear.port())).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A coturn that is let in is heard.
async fn still_serves(ear: &mut Ear, mark: &str) {
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert_eq!(coturn.call(&["AUTH", "pw"]).await, "+OK");
    coturn.publish(&status("bob", 1), mark.as_bytes()).await;
    ear.until(mark, |e| e.heard(mark)).await;
}

#[tokio::test]
async fn what_is_no_resp_is_refused_and_closed() {
    let mut ear = start(locked(DirectLimits::default())).await;
    for (bytes, want) in [
        (
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            "-ERR Protocol error: expected '*', got 'G'\r\n",
        ),
        (b"PING\r\n", "-ERR Protocol error: expected '*', got 'P'\r\n"),
        (b"*9999999\r\n", "-ERR Protocol error: too many arguments\r\n"),
        (b"*1\r\n$500000000\r\n", "-ERR Protocol error: too large\r\n"),
        (b"*1\r\n$-5\r\n", "-ERR Protocol error: invalid length\r\n"),
        (b"*2\r\n*1\r\n", "-ERR Protocol error: expected '$', got '*'\r\n"),
        (
            b"\x16\x03\x01\x02\x00\x01",
            "-ERR Protocol error: expected '*', got '\\x16'\r\n",
        ),
    ] {
        assert_eq!(answered(&ear, bytes).await, want, "{}", bytes.escape_ascii());
    }
    still_serves(&mut ear, "after").await;
    assert_eq!(ear.messages.len(), 1);
}

#[tokio::test]
async fn nothing_of_a_stranger_is_heard() {
    let mut ear = start(locked(DirectLimits::default())).await;
    let mut stranger = Client::connect(ear.port()).await.unwrap();
    stranger
        .send(&[b"PUBLISH", b"turn/user/x", b"forged"])
        .await
        .unwrap();
    assert_eq!(
        stranger.reply().await.unwrap(),
        "-NOAUTH Authentication required."
    );
    let wrong = command(&[b"AUTH", b"guess"]).repeat(10);
    let answer = answered(&ear, &wrong).await;
    assert_eq!(answer.matches("WRONGPASS").count(), 3, "{answer}");
    // A stranger's commands are shorter, too.
    let large = command(&[b"AUTH", &[b'x'; 5000]]);
    assert_eq!(answered(&ear, &large).await, "-ERR Protocol error: too large\r\n");
    still_serves(&mut ear, "after").await;
    assert_eq!(ear.messages.len(), 1);
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let limits = DirectLimits {
        handshake: Duration::from_millis(200),
        ..DirectLimits::default()
    };
    let mut ear = start(locked(limits)).await;
    assert_eq!(answered(&ear, b"").await, "");
    assert_eq!(answered(&ear, b"*2\r\n$4\r\nAU").await, "");
    still_serves(&mut ear, "after").await;
    // Once let in, one may be silent for as long as one likes.
    let mut coturn = Client::connect(ear.port()).await.unwrap();
    assert_eq!(coturn.call(&["AUTH", "pw"]).await, "+OK");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(coturn.call(&["PING"]).await, "+PONG");
}

/// coturn may never read an answer again after it has reconnected: it must be listened to all the same.
#[tokio::test]
async fn unread_answers_never_stop_the_reading() {
    const MESSAGES: usize = 200_000;
    let mut ear = start(SourceConfig::Direct(config())).await;
    let mut stream = TcpStream::connect(local(ear.port())).await.unwrap();
    let one = [
        command(&[b"SET", b"k", b"v"]),
        command(&[b"PUBLISH", &status("bob", 1), b"refreshed lifetime=600"]),
        // An answer of some size, to fill the socket's buffers well.
        command(&[b"ECHO", &[b'x'; 100]]),
    ]
    .concat();
    let writer = tokio::spawn(async move {
        for _ in 0..MESSAGES / 100 {
            timeout(PATIENCE, stream.write_all(&one.repeat(100)))
                .await
                .expect("not read any more")
                .unwrap();
        }
        stream
    });
    ear.until("all messages", |e| e.messages.len() >= MESSAGES).await;
    let mut stream = writer.await.unwrap();
    // Most answers were dropped: far fewer come than were asked for, and each of them is whole.
    stream.shutdown().await.unwrap();
    let mut answers = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answers)).await.unwrap();
    let whole = MESSAGES * (b"+OK\r\n:1\r\n$100\r\n\r\n".len() + 100);
    assert!(answers.len() < whole, "{} of {whole}", answers.len());
    assert!(ear.gaps.is_empty(), "{:?}", ear.gaps);
}

/// One byte at a time is still a command; a thousand connections at once are still served.
#[tokio::test(flavor = "multi_thread")]
async fn slow_and_many() {
    let mut ear = start(SourceConfig::Direct(config())).await;
    let mut slow = TcpStream::connect(local(ear.port())).await.unwrap();
    for byte in command(&[b"PUBLISH", b"turn/user/slow", b"slowly"]) {
        slow.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    ear.until("the slow one", |e| e.heard("slowly")).await;
    let mut many = Vec::new();
    for _ in 0..500 {
        many.push(Client::connect(ear.port()).await.unwrap());
    }
    for (i, client) in many.iter_mut().enumerate() {
        client.publish(&status("bob", i as u64), b"deleted").await;
    }
    ear.until("all of them", |e| e.messages.len() == 501).await;
}
