//! A receiver that takes everything, as fast as it can, and only keeps count.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// What came so far.
#[derive(Default)]
pub(crate) struct Counts {
    /// Events, each as often as it came.
    pub(crate) events: u64,
    /// The next sequence number of each session.
    pub(crate) sessions: HashMap<String, u64>,
    /// How many events came before each of the user `newcomer`.
    pub(crate) newcomer: Vec<u64>,
    /// Events of a session that did not come in sequence.
    pub(crate) out_of_order: u64,
}

pub(crate) struct Counter {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Mutex<Counts>>,
    listening: AbortHandle,
}

impl Counter {
    pub(crate) async fn start() -> Counter {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Mutex<Counts>>::default();
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Counter {
            address,
            counts,
            listening: task.abort_handle(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/turn", self.address)
    }

    pub(crate) fn events(&self) -> u64 {
        self.counts.lock().unwrap().events
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(mut stream: TcpStream, counts: Arc<Mutex<Counts>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = between(&text, "content-length:", "\r\n");
        let length: usize = length.and_then(|one| one.trim().parse().ok()).unwrap_or(0);
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = String::from_utf8_lossy(&buffer[head..head + length]);
        let session = between(&body, "\"session_id\":\"", "\"")
            .unwrap_or_default()
            .to_owned();
        let sequence = between(&body, "\"sequence\":", ",")
            .and_then(|one| one.parse().ok())
            .unwrap_or(0);
        {
            let mut counts = counts.lock().unwrap();
            if body.contains("\"user\":\"newcomer\"") {
                let before = counts.events;
                counts.newcomer.push(before);
            }
            counts.events += 1;
            let next = counts.sessions.entry(session).or_default();
            let in_order = sequence <= *next;
            *next = (sequence + 1).max(*next);
            counts.out_of_order += u64::from(!in_order);
        }
        buffer.drain(..head + length);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await?;
    }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    Some(rest.split_once(to)?.0)
}
