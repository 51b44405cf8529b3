//! A receiver that answers 204 at once, and notes when what arrived.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::fixture::Result;

#[derive(Default)]
pub struct Seen {
    pub requests: AtomicU64,
    /// Records of a billing product in them.
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    /// When which user's event arrived first: only if asked for, since it costs.
    pub arrivals: Mutex<HashMap<(String, &'static str), Instant>>,
    pub noting: bool,
}

pub struct Receiver {
    pub port: u16,
    pub seen: Arc<Seen>,
    _runtime: Runtime,
}

impl Receiver {
    pub fn start(noting: bool) -> Result<Receiver> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen { noting, ..Seen::default() });
        let router = Router::new().route("/", post(receive)).route("/api/v1/events", post(receive_records)).with_state(Arc::clone(&seen));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Receiver { port, seen, _runtime: runtime })
    }
}

async fn receive_records(State(seen): State<Arc<Seen>>, body: Bytes) -> StatusCode {
    let records = String::from_utf8_lossy(&body).matches("\"specversion\"").count();
    seen.records.fetch_add(records as u64, Ordering::Relaxed);
    seen.requests.fetch_add(1, Ordering::Relaxed);
    StatusCode::NO_CONTENT
}

async fn receive(State(seen): State<Arc<Seen>>, body: Bytes) -> StatusCode {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    seen.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    if seen.noting {
        let now = Instant::now();
        let text = String::from_utf8_lossy(&body);
        let event = if text.contains("\"session.end\"") { "end" } else { "start" };
        if let Some((_, rest)) = text.split_once("\"user\":\"")
            && let Some((user, _)) = rest.split_once('"')
        {
            let mut arrivals = seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.entry((user.to_owned(), event)).or_insert(now);
        }
    }
    StatusCode::NO_CONTENT
}
