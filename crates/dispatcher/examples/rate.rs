//! How fast deliveries are made, beside a bare reqwest loop with the same concurrency and body against the
//! same receiver, the two taking turns:
//!
//!     cargo run --release -p turnhook-dispatcher --example rate [deliveries] [concurrency] [rounds]
//!
//! There is no store behind it: what is measured is the queue, the signature and the request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Handle,
    sync::mpsc,
};
use turnhook_dispatcher::{
    clock::Clocks,
    config::EndpointConfig,
    dispatcher::Dispatcher,
    outbox::{Asked, Outbox},
    queue::Wanted,
    signature::Secret,
};
use turnhook_reducer::{
    event::{EventId, EventType, SessionId},
    outbox::{Delivery, DeliveryId, EndpointId, Next, Outcome},
};

#[tokio::main]
async fn main() {
    // The bare client asks for it; the dispatcher brings its own.
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|a| a.parse().expect("a number"))
        .collect();
    let number = |at: usize, default| arguments.get(at).copied().unwrap_or(default);
    let (count, concurrency, rounds) = (number(0, 100_000), number(1, 16), number(2, 5));
    let address = receiver();
    let url = format!("http://{address}/turn");
    // About what a session.end with one allocation has.
    let body = Bytes::from(vec![b'x'; 1400]);

    bare(&url, concurrency, count / 5, &body).await;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let bare = bare(&url, concurrency, count, &body).await;
        // A task, as the engine is: the main thread would be woken for each outcome.
        let ours = tokio::spawn(dispatched(url.clone(), concurrency, count, body.clone()))
            .await
            .unwrap();
        println!(
            "bare reqwest {bare:.0}/s   dispatcher {ours:.0}/s   ratio {:.2}",
            ours / bare
        );
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

/// Reads requests and answers 200, in threads of its own.
fn receiver() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let mut buffer = Vec::with_capacity(16 * 1024);
                    while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                        if let Some(whole) = request_length(&buffer).filter(|whole| *whole <= buffer.len()) {
                            buffer.drain(..whole);
                            if stream
                                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                                .await
                                .is_err()
                            {
                                return;
                            }
                        }
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let length = text
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + 4 + length.parse::<usize>().ok()?)
}

/// Requests a second.
async fn bare(url: &str, concurrency: u64, count: u64, body: &Bytes) -> f64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let left = Arc::new(AtomicU64::new(count));
    let start = Instant::now();
    let tasks: Vec<_> = (0..concurrency)
        .map(|_| {
            let (client, left, url, body) = (client.clone(), Arc::clone(&left), url.to_owned(), body.clone());
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let request = client
                        .post(&url)
                        .header("content-type", "application/json")
                        .body(body.clone());
                    let answer = request.send().await.unwrap();
                    assert!(answer.status().is_success());
                    answer.bytes().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Deliveries a second.
async fn dispatched(url: String, concurrency: u64, count: u64, body: Bytes) -> f64 {
    let (secret, _) = Secret::generate().unwrap();
    let mut config = EndpointConfig::new("rate", url.parse().unwrap(), vec![secret]);
    config.concurrency = u32::try_from(concurrency).unwrap();
    let (recorded, mut inbox) = mpsc::channel(1024);
    let endpoints = vec![(config, Vec::new())];
    let outbox = Arc::new(Nothing(recorded));
    let (dispatcher, writer) =
        Dispatcher::start(endpoints, &Clocks::system(), outbox, &Handle::current()).unwrap();
    tokio::spawn(writer.run());
    // It begins by reading the outbox, which is empty. From then on everything fits into memory.
    while dispatcher.status()[0].behind {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    let mut next = 0u64;
    let mut done = 0;
    let mut batch: Vec<Vec<Outcome>> = Vec::new();
    while done < count {
        // As commits would bring them: what was delivered is followed by as much.
        let offered: Vec<_> = (next..count.min(done + 2048))
            .map(|id| delivery(id, &body))
            .collect();
        next += offered.len() as u64;
        dispatcher.offer("rate", offered);
        inbox.recv_many(&mut batch, 1024).await;
        for outcome in batch.drain(..).flatten() {
            assert_eq!(outcome.next, Next::Done);
            done += 1;
        }
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn delivery(id: u64, body: &Bytes) -> Delivery {
    Delivery {
        id: DeliveryId(i64::try_from(id).unwrap()),
        endpoint: EndpointId(1),
        event_id: EventId([0; 16]),
        // Each session has five events.
        session_id: SessionId(u128::from(id / 5).to_be_bytes()),
        sequence: u32::try_from(id % 5).unwrap(),
        event_type: EventType::Usage,
        body: body.clone(),
        timestamp: Default::default(),
        sent: None,
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: Default::default(),
    }
}

/// An outbox with nothing in it.
struct Nothing(mpsc::Sender<Vec<Outcome>>);

impl Outbox for Nothing {
    fn read(&self, _: &Arc<str>, _: Wanted) -> Asked<Option<Vec<Delivery>>> {
        Box::pin(std::future::ready(Some(Vec::new())))
    }

    fn begin(&self, _: Vec<(DeliveryId, Bytes)>) -> Asked<bool> {
        Box::pin(std::future::ready(true))
    }

    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()> {
        let recorded = self.0.clone();
        Box::pin(async move {
            // Nobody listens at the end.
            let _ = recorded.send(outcomes).await;
        })
    }
}
