//! Processes that end with their test, a client that speaks RESP, a real coturn, and an ear for signals.

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
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

mod coturn;
mod ear;
mod ports;
mod udp;

pub use coturn::{Coturn, turnservers};
pub use ear::{Ear, start, start_on, start_with};
pub(crate) use ports::free_port;

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

/// A status channel.
pub fn status(username: &str, id: u64) -> Vec<u8> {
    format!("turn/realm/example.org/user/{username}/allocation/{id:018}/status").into_bytes()
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
