//! Processes that end with their test, a client that speaks RESP, and an ear for signals.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use turnhook_reducer::{message::Kind, source::Gap, time::Timestamp};
use turnhook_subscriber::{
    decode,
    direct::{
        DirectConfig,
        handover::{self, Left, Suspended},
    },
    queue::{self, SignalReceiver, SignalSender},
    signal::{Clock, Signal, TurnedAway},
    source::{SourceConfig, SourceHandle},
};

/// Nothing here takes this long; what does has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(u64::try_from(now.as_millis()).unwrap())
    })
}

/// Awaits a condition.
pub async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut check: F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A process that is killed when its test is over, however it ends.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command, log: &Path) -> Process {
        let out = std::fs::File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        Process(
            command
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .spawn()
                .unwrap(),
        )
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A real `redis-server`.
pub struct Redis {
    pub process: Process,
    pub port: u16,
    pub dir: TempDir,
    args: Vec<String>,
}

impl Redis {
    pub async fn start(args: &[&str]) -> Redis {
        for _ in 0..5 {
            if let Some(redis) = Redis::start_at(free_port(), args).await {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// On that port, unless somebody else has it.
    pub async fn start_at(port: u16, args: &[&str]) -> Option<Redis> {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let dir = TempDir::new().unwrap();
        let process = Redis::spawn(&dir, port, &args);
        let mut redis = Redis {
            process,
            port,
            dir,
            args,
        };
        redis.answers().await.then_some(redis)
    }

    fn spawn(dir: &TempDir, port: u16, args: &[String]) -> Process {
        let port = port.to_string();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
        ]);
        command.arg("--dir").arg(dir.path());
        let here = dir.path().to_str().unwrap();
        command.args(
            args.iter()
                .map(|a| a.replace("{dir}", here).replace("{port}", &port)),
        );
        Process::spawn(&mut command, &dir.path().join("log"))
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.process.running() {
            // TLS only: its port does not speak plainly, but it is open.
            let tls = self.args.iter().any(|a| a == "--tls-port");
            let answer = timeout(Duration::from_secs(2), async {
                let mut client = Client::connect(self.port).await.ok()?;
                if tls {
                    Some(String::new())
                } else {
                    client.try_call(&["PING"]).await.ok()
                }
            });
            match answer.await {
                Ok(Some(answer)) if !answer.contains("LOADING") => return true,
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }

    /// Starts it again on its port, after [`Process::kill`].
    pub async fn restart(&mut self) {
        self.process = Redis::spawn(&self.dir, self.port, &self.args);
        assert!(self.answers().await, "redis-server does not start again");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn client(&self) -> Client<TcpStream> {
        Client::connect(self.port).await.unwrap()
    }
}

/// A client that speaks RESP, for both Redis and the listener.
pub struct Client<S> {
    pub stream: S,
}

impl Client<TcpStream> {
    /// From an address of its own on this machine: 127.0.0.`n`.
    pub async fn connect_from(n: u8, port: u16) -> std::io::Result<Client<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, n], 0)))?;
        let stream = socket.connect(local(port)).await?;
        Ok(Client { stream })
    }

    pub async fn connect(port: u16) -> std::io::Result<Client<TcpStream>> {
        Ok(Client {
            stream: TcpStream::connect(local(port)).await?,
        })
    }
}

pub fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend([format!("${}\r\n", arg.len()).as_bytes(), arg, b"\r\n"].concat());
    }
    out
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, args: &[&[u8]]) -> std::io::Result<()> {
        self.stream.write_all(&command(args)).await?;
        self.stream.flush().await
    }

    /// The answer as text, elements separated by spaces.
    pub async fn try_call(&mut self, args: &[&str]) -> std::io::Result<String> {
        let args: Vec<&[u8]> = args.iter().map(|a| a.as_bytes()).collect();
        self.send(&args).await?;
        self.reply().await
    }

    pub async fn call(&mut self, args: &[&str]) -> String {
        timeout(PATIENCE, self.try_call(args))
            .await
            .expect("no answer")
            .unwrap()
    }

    pub async fn publish(&mut self, channel: &[u8], payload: &[u8]) {
        self.send(&[b"PUBLISH", channel, payload]).await.unwrap();
        let reply = timeout(PATIENCE, self.reply()).await.expect("no answer").unwrap();
        assert!(reply.starts_with(':'), "{reply}");
    }

    pub async fn reply(&mut self) -> std::io::Result<String> {
        let line = self.line().await?;
        let count = || line.get(1..).and_then(|n| n.parse::<usize>().ok());
        match line.as_bytes().first() {
            Some(b'$') => match count() {
                Some(len) => {
                    let mut text = vec![0; len + 2];
                    self.stream.read_exact(&mut text).await?;
                    text.truncate(len);
                    Ok(String::from_utf8_lossy(&text).into_owned())
                }
                None => Ok("(null)".to_owned()),
            },
            Some(b'*') => {
                let mut parts = Vec::new();
                for _ in 0..count().unwrap_or(0) {
                    parts.push(Box::pin(self.reply()).await?);
                }
                Ok(parts.join(" "))
            }
            _ => Ok(line),
        }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await?);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// One message, as heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub server: Option<String>,
    pub channel: Vec<u8>,
    pub payload: Vec<u8>,
}

/// The engine's end of a running source: keeps all that it is told.
pub struct Ear {
    pub source: SourceHandle,
    receiver: SignalReceiver,
    pub messages: Vec<Heard>,
    /// As of when each of them was heard.
    pub times: Vec<Timestamp>,
    pub gaps: Vec<Gap>,
    /// Everything but messages and gaps, in words, in order.
    pub told: Vec<String>,
    pub entries: Vec<turnhook_subscriber::signal::SnapshotEntry>,
    pub refused: u64,
    /// Who was turned away, as it was told, and how many there were for each reason.
    pub refusals: Vec<TurnedAway>,
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Times in which somebody unknown was turned away.
    pub unheard: Vec<Gap>,
    /// Which of the keys of a snapshot are wanted.
    pub wants: fn(&[u8]) -> bool,
}

pub async fn start(config: SourceConfig) -> Ear {
    start_with(config, clock(), queue::DEFAULT_BOUND).await
}

pub async fn start_with(config: SourceConfig, clock: Clock, bound: usize) -> Ear {
    let (sender, receiver) = queue::channel(bound);
    start_on(config, clock, sender, receiver).await
}

pub async fn start_on(
    config: SourceConfig,
    clock: Clock,
    sender: SignalSender,
    receiver: SignalReceiver,
) -> Ear {
    let source = config.start(clock, sender).await.unwrap();
    Ear::of(source, receiver)
}

impl Ear {
    fn of(source: SourceHandle, receiver: SignalReceiver) -> Ear {
        Ear {
            source,
            receiver,
            messages: Vec::new(),
            times: Vec::new(),
            gaps: Vec::new(),
            told: Vec::new(),
            entries: Vec::new(),
            refused: 0,
            refusals: Vec::new(),
            turned_away: BTreeMap::new(),
            unheard: Vec::new(),
            wants: |_| true,
        }
    }

    /// Stops reading. What it has read by then is heard.
    pub async fn suspend(mut self) -> (Suspended, Vec<Heard>) {
        let mut heard = std::mem::take(&mut self.messages);
        let suspended = self.source.suspend().await.unwrap();
        while let Some(signal) = self.receiver.try_recv() {
            if let Signal::Messages(batch) = signal {
                heard.extend(batch.iter().map(|(channel, payload)| Heard {
                    server: None,
                    channel: channel.to_vec(),
                    payload: payload.to_vec(),
                }));
            }
        }
        (suspended, heard)
    }

    /// Another program goes on, with what has come through its hands as far as `keeps` lets it.
    pub async fn resume(suspended: Suspended, clock: Clock, keeps: impl Fn(usize) -> bool) -> Ear {
        Ear::resume_with(suspended, DirectConfig::new(local(0)), clock, keeps).await
    }

    /// The same, with a password, or whatever else is configured.
    pub async fn resume_with(
        suspended: Suspended,
        config: DirectConfig,
        clock: Clock,
        keeps: impl Fn(usize) -> bool,
    ) -> Ear {
        let state = suspended.state.unwrap();
        let state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        let sockets = suspended.streams.into_iter().enumerate();
        let sockets = sockets
            .filter(|(place, _)| keeps(*place))
            .map(|(_, stream)| (handover::identity(&stream).unwrap(), stream.into()));
        let left = Left {
            connections: Some((state, sockets.collect())),
            listener: Some(suspended.listener),
        };
        let (sender, receiver) = queue::channel(queue::DEFAULT_BOUND);
        let config = SourceConfig::Direct(config);
        Ear::of(config.resume(left, clock, sender).await.unwrap(), receiver)
    }

    pub fn port(&self) -> u16 {
        self.source.local_addr().unwrap().port()
    }

    /// Listens until the condition holds.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&Ear) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.receiver.recv()).await {
                Ok(Some(signal)) => self.take(signal),
                Ok(None) => panic!("the source is gone before: {what}"),
                Err(_) => panic!("never heard: {what}\n{:#?}\n{:?}", self.told, self.gaps),
            }
        }
    }

    /// Listens for a while.
    pub async fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(Some(signal)) = timeout(
            deadline.saturating_duration_since(Instant::now()),
            self.receiver.recv(),
        )
        .await
        {
            self.take(signal);
        }
    }

    pub async fn hearing(&mut self) {
        let before = self.count("hearing");
        self.until("hearing", |e| e.count("hearing") > before).await;
    }

    pub fn count(&self, word: &str) -> usize {
        self.told.iter().filter(|t| t.starts_with(word)).count()
    }

    pub fn heard(&self, payload: &str) -> bool {
        self.messages.iter().any(|m| m.payload == payload.as_bytes())
    }

    fn take(&mut self, signal: Signal) {
        let text = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
        match signal {
            Signal::Messages(batch) => {
                let server = batch.server.as_deref().map(text);
                self.times.extend(batch.iter().map(|_| batch.at));
                self.messages.extend(batch.iter().map(|(channel, payload)| Heard {
                    server: server.clone(),
                    channel: channel.into_owned(),
                    payload: payload.into_owned(),
                }));
            }
            Signal::Gap(gap) => {
                assert!(gap.from <= gap.to, "{gap:?}");
                self.told.push(format!("gap {}", gap.reason.as_str()));
                self.gaps.push(gap);
            }
            Signal::Refused { reason, count } => {
                self.refused += count;
                self.told.push(format!("refused {}", reason.as_str()));
            }
            Signal::Hearing { detail, .. } => self.told.push(format!("hearing {detail}")),
            Signal::Deaf { error, .. } => self.told.push(format!("deaf {error}")),
            Signal::ServerConnected { server, .. } => self.told.push(format!("connected {}", text(&server))),
            Signal::ServerGone { server, .. } => self.told.push(format!("gone {}", text(&server))),
            Signal::ServerReturned { server, .. } => self.told.push(format!("returned {}", text(&server))),
            Signal::ThreadConnected { server, thread, .. } => {
                self.told.push(format!("+{thread} {}", text(&server)));
            }
            Signal::ThreadDisconnected { server, thread, .. } => {
                self.told.push(format!("-{thread} {}", text(&server)));
            }
            Signal::TurnedAway(told) => {
                *self.turned_away.entry(told.reason.as_str()).or_default() += told.count;
                self.refusals.push(told);
            }
            Signal::Unheard(gap) => self.unheard.push(gap),
            Signal::ServerStopped { server, .. } => self.told.push(format!("stopped {}", text(&server))),
            Signal::ServerRestarted { server, .. } => self.told.push(format!("restarted {}", text(&server))),
            // Every second: no news.
            Signal::Answered { .. } | Signal::CaughtUp => {}
            Signal::Resumed { detail, .. } => self.told.push(format!("resumed {detail}")),
            Signal::SnapshotBegan { .. } => self.told.push("snapshot began".into()),
            Signal::SnapshotScanned { keys, wanted } => {
                let indexes = keys
                    .iter()
                    .enumerate()
                    .filter(|(_, k)| (self.wants)(k))
                    .map(|(i, _)| i)
                    .collect();
                let _ = wanted.send(indexes);
                self.told.push(format!("snapshot scanned {}", keys.len()));
            }
            Signal::SnapshotRead { entries, .. } => {
                self.told.push(format!("snapshot read {}", entries.len()));
                self.entries.extend(entries);
            }
            Signal::SnapshotEnded { complete, .. } => self.told.push(format!("snapshot ended {complete}")),
        }
    }

    /// What was heard, decoded: kinds of one username's messages, in order.
    pub fn kinds(&self, username: &str) -> Vec<Kind<'_>> {
        self.messages
            .iter()
            .filter_map(|m| decode::decode(&m.channel, &m.payload).ok())
            .filter(|m| m.username.ends_with(username.as_bytes()))
            .map(|m| m.kind)
            .collect()
    }
}

/// A status channel.
pub fn status(username: &str, id: u64) -> Vec<u8> {
    format!("turn/realm/example.org/user/{username}/allocation/{id:018}/status").into_bytes()
}

/// A real coturn.
pub struct Coturn {
    pub process: Process,
    pub port: u16,
    pub dir: TempDir,
    program: String,
}

pub const SECRET: &str = "tests-only";

/// The one on the PATH, or the one that `TURNBIN` names.
fn turnserver() -> String {
    std::env::var("TURNBIN").unwrap_or_else(|_| "turnserver".to_owned())
}

/// Every coturn that there is to be tested with: the one on the PATH, and the one that `TURNBIN` names.
pub fn turnservers() -> Vec<String> {
    let mut all = vec!["turnserver".to_owned(), turnserver()];
    all.dedup();
    all
}

impl Coturn {
    /// `statsdb`: what follows `ip=127.0.0.1` in `redis-statsdb`.
    pub async fn start(statsdb: &str, args: &[&str]) -> Coturn {
        Coturn::start_as(&turnserver(), statsdb, args).await
    }

    /// Of [`turnservers`].
    pub async fn start_as(program: &str, statsdb: &str, args: &[&str]) -> Coturn {
        for _ in 0..5 {
            let (dir, port) = (TempDir::new().unwrap(), free_port());
            let mut coturn = Coturn {
                process: Coturn::spawn_as(program, &dir, port, statsdb, args),
                port,
                dir,
                program: program.to_owned(),
            };
            if coturn.serves().await {
                return coturn;
            }
        }
        panic!("turnserver does not start");
    }

    pub fn spawn(dir: &TempDir, port: u16, statsdb: &str, args: &[&str]) -> Process {
        Coturn::spawn_as(&turnserver(), dir, port, statsdb, args)
    }

    pub fn spawn_as(program: &str, dir: &TempDir, port: u16, statsdb: &str, args: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.args([
            "-n",
            "--listening-ip=127.0.0.1",
            // Not that of the database: 4.17 lets nobody relay there.
            "--relay-ip=127.0.0.2",
            "--no-dtls",
            "--no-cli",
        ]);
        command.args([
            "--realm=example.org",
            "--use-auth-secret",
            "--allow-loopback-peers",
            "--verbose",
        ]);
        command.args(["--log-file=stdout", "--simple-log"]);
        command.arg(format!("--static-auth-secret={SECRET}"));
        command.arg(format!("--listening-port={port}"));
        command.arg(format!(
            "--redis-statsdb=ip=127.0.0.1 connect_timeout=5 {statsdb}"
        ));
        command.arg(format!("--pidfile={}", dir.path().join("pid").display()));
        if !args.iter().any(|a| a.starts_with("--cert")) {
            command.arg("--no-tls");
        }
        command.args(args);
        Process::spawn(&mut command, &dir.path().join("log"))
    }

    pub async fn serves(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.process.running() {
            if TcpStream::connect(local(self.port)).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// A client that relays to an echo peer; `-y` makes it talk to itself instead, so that no peer is needed.
    pub fn client(&self, user: &str, args: &[&str]) -> Process {
        // The one that comes with the server: 4.17 refuses the channel numbers of 4.6's.
        let beside = Path::new(&self.program).with_file_name("turnutils_uclient");
        let mut command = Command::new(beside);
        command.args([
            "-W", SECRET, "-u", user, "-y", "-m", "2", "-l", "170", "-z", "5", "-c",
        ]);
        command
            .args(args)
            .args(["-p", &self.port.to_string(), "127.0.0.1"]);
        Process::spawn(&mut command, &self.dir.path().join(format!("client-{user}")))
    }
}

/// A self-signed certificate for 127.0.0.1 and localhost: paths of certificate and key.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    write(&cert, made.cert.pem().as_bytes());
    write(&key, made.signing_key.serialize_pem().as_bytes());
    (cert, key)
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::File::create(path).unwrap().write_all(content).unwrap();
}
