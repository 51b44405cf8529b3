//! A webhook receiver on real sockets that can misbehave in every way that receivers do. It knows HTTP/1.1
//! just well enough to be wrong about it on purpose.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Long enough for any machine; nothing is expected to take as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers with this status, and an empty body.
    Status(u16),
    /// Answers with this status and these header lines, each ended by `\r\n`.
    Headers(u16, String),
    /// Answers 200 with this body.
    Body(Vec<u8>),
    /// Answers 200 after a while.
    Late(Duration),
    /// Never answers.
    Hang,
    /// Closes the connection instead of answering.
    Close,
    /// Resets it.
    Reset,
    /// Resets it in the middle of the answer's head.
    ResetInHead,
    /// Says 200, and resets the connection in the middle of the answer's body.
    ResetInBody,
    /// Answers with something that is not HTTP.
    Garbage,
    /// Says 200, and sends a body that never ends.
    Endless,
    /// Says 200, and sends a body a byte at a time.
    Drip,
    /// Says that the answer is about to come, over and over.
    Interim,
    /// Answers 200, promises to keep the connection, and closes it.
    CloseAfter,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection brought it, counted from 0.
    pub(crate) connection: usize,
    /// `POST /path HTTP/1.1`
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// A header's value, or "".
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

type Decide = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

struct Shared {
    decide: Decide,
    tls: Option<TlsAcceptor>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    /// The numbers of those that are over.
    over: Mutex<Vec<usize>>,
}

/// A receiver; it stops when dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Mutex<Option<AbortHandle>>,
}

impl Receiver {
    /// Listens on a free loopback port; `decide` says what to do with each request.
    pub(crate) async fn start(decide: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::start_on("127.0.0.1:0".parse().unwrap(), None, decide).await
    }

    /// The same, behind TLS.
    pub(crate) async fn start_tls(
        tls: ServerConfig,
        decide: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::start_on("127.0.0.1:0".parse().unwrap(), Some(Arc::new(tls).into()), decide).await
    }

    /// The same, at an address.
    pub(crate) async fn start_on(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        decide: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared {
            decide: Arc::new(decide),
            tls,
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            over: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let receiver = Receiver {
            address,
            shared,
            listening: Mutex::default(),
        };
        receiver.listen(listener);
        receiver
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            // Ends with the task: connections are cut when the receiver stops.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(Arc::clone(&shared), stream, number));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.listening.lock().unwrap() = Some(task.abort_handle());
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub(crate) fn go_down(&self) {
        if let Some(task) = self.listening.lock().unwrap().take() {
            task.abort();
        }
    }

    /// Listens again, at the same address.
    pub(crate) async fn come_back(&self) {
        let listener = wait_for(|| std::net::TcpListener::bind(self.address).ok()).await;
        listener.set_nonblocking(true).unwrap();
        self.listen(TcpListener::from_std(listener).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        let (scheme, host) = if self.shared.tls.is_some() {
            ("https", "localhost")
        } else {
            ("http", "127.0.0.1")
        };
        format!("{scheme}://{host}:{}/turn", self.address.port())
    }

    /// All requests so far, in the order in which they were complete.
    pub(crate) fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Whether a connection is over, counted from 0.
    pub(crate) fn is_over(&self, connection: usize) -> bool {
        let over = self.shared.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.contains(&connection)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_down();
    }
}

/// Asks until there is an answer; gives up after [`DEADLINE`].
pub(crate) async fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, number: usize) {
    stream.set_nodelay(true).unwrap();
    // Whatever the other side does to the connection ends it.
    let _ = match &shared.tls {
        None => {
            // The stream's own handle on its socket, to be reset.
            converse(&shared, stream, number, |stream: &TcpStream| {
                stream.set_zero_linger()
            })
            .await
        }
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => {
                converse(&shared, stream, number, |stream| {
                    stream.get_ref().0.set_zero_linger()
                })
                .await
            }
            Err(error) => Err(error),
        },
    };
    shared
        .over
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(number);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    mut stream: S,
    number: usize,
    reset: impl Fn(&S) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer, number).await? else {
            return Ok(());
        };
        let reply = (shared.decide)(&request);
        shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        match reply {
            Reply::Status(status) => answer(&mut stream, status, "", b"").await?,
            Reply::Headers(status, lines) => answer(&mut stream, status, &lines, b"").await?,
            Reply::Body(body) => answer(&mut stream, 200, "", &body).await?,
            Reply::Late(wait) => {
                tokio::time::sleep(wait).await;
                answer(&mut stream, 200, "", b"").await?;
            }
            Reply::Hang => std::future::pending::<()>().await,
            Reply::Close => return Ok(()),
            Reply::Reset => return reset(&stream),
            Reply::ResetInHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await?;
                stream.flush().await?;
                return reset(&stream);
            }
            Reply::ResetInBody => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhal")
                    .await?;
                stream.flush().await?;
                // Late enough to be read first, on any machine: the client asks for the rest.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return reset(&stream);
            }
            Reply::Garbage => {
                stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
                stream.flush().await?;
                return Ok(());
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'x'; 4096]).await?;
                }
            }
            Reply::Drip => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                    .await?;
                loop {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Reply::Interim => loop {
                let some = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
                stream.write_all(some.as_bytes()).await?;
                stream.flush().await?;
            },
            Reply::CloseAfter => {
                answer(&mut stream, 200, "connection: keep-alive\r\n", b"").await?;
                return Ok(());
            }
        }
    }
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    lines: &str,
    body: &[u8],
) -> io::Result<()> {
    let mut bytes = format!(
        "HTTP/1.1 {status} Said So\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// The next request, or `None` if the other side is done.
async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Received>> {
    let head = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let (line, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    let headers: Vec<(String, String)> = rest
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Received {
        connection,
        line: line.to_owned(),
        headers,
        body: Vec::new(),
    };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    while buffer.len() < head + 4 + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer[head + 4..head + 4 + length].to_vec();
    buffer.drain(..head + 4 + length);
    Ok(Some(request))
}
