//! A receiver that misbehaves over HTTP/2, where one connection has many requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use turnhook_reducer::outbox::Next;

use crate::{
    harness::{Harness, config, delivery},
    receiver::wait_for,
    security::Pki,
};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status`, as HPACK has it: 103 in letters, 200 by its number in the static table.
const TO_COME: &[u8] = &[0x08, 0x03, b'1', b'0', b'3'];
const OK: &[u8] = &[0x88];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// To the first request it says over and over that its answer is about to come; to all others it answers.
struct Flood {
    port: u16,
    /// Nobody reads any more what it says without end.
    over: Arc<AtomicBool>,
}

impl Flood {
    async fn start(pki: &Pki) -> Flood {
        let mut tls = pki.server(false);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        tokio::spawn(async move {
            for first in std::iter::once(true).chain(std::iter::repeat(false)) {
                let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                let (reads, mut writes) = tokio::io::split(stream);
                let (says, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
                tokio::spawn(read(reads, says, first));
                let is_over = Arc::clone(&is_over);
                tokio::spawn(async move {
                    let mut flood = None;
                    loop {
                        let next = match &flood {
                            None => said.recv().await,
                            Some(flood) => Some(said.try_recv().unwrap_or_else(|_| Vec::clone(flood))),
                        };
                        let Some(next) = next else { return };
                        if next.is_empty() {
                            flood = Some(frame(HEADERS, END_HEADERS, 1, TO_COME).repeat(100));
                        } else if writes.write_all(&next).await.is_err() {
                            return is_over.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        Flood { port, over }
    }
}

/// Reads frames, and says what is to be answered to them: nothing, where the flood is to begin.
async fn read(
    mut stream: impl tokio::io::AsyncRead + Unpin,
    says: mpsc::UnboundedSender<Vec<u8>>,
    mut floods: bool,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let _ = says.send(frame(SETTINGS, 0, 0, &[]));
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream_id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        let answer = match kind {
            HEADERS if std::mem::take(&mut floods) => Vec::new(),
            HEADERS => frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                u32::from_be_bytes(stream_id),
                OK,
            ),
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload),
            _ => continue,
        };
        let _ = says.send(answer);
    }
}

/// As over HTTP/1: the time for an answer ends it, and nobody reads for ever what is said without end.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_come_without_end_end_with_the_time() {
    let pki = Pki::new();
    let flood = Flood::start(&pki).await;
    let mut config = config("billing", &format!("https://localhost:{}/", flood.port));
    config.ca_file = Some(pki.ca_file());
    config.timeout = std::time::Duration::from_millis(300);
    let harness = Harness::start(vec![config]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.drained("billing").await;
    let outcomes = harness.outcomes();
    let told = outcomes[0].error.as_deref().unwrap_or_default();
    assert_eq!((outcomes[0].status, told), (None, "no answer within 300ms"));
    let last = outcomes.last().unwrap();
    assert_eq!((last.status, &last.next), (Some(200), &Next::Done));
    wait_for(|| flood.over.load(Ordering::SeqCst).then_some(())).await;
}
