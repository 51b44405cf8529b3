//! Real coturns with their CLI, and clients of theirs.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use secrecy::SecretString;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use turnhook_control::{Config, Target};
use turnhook_reducer::message::AllocationId;

/// The subscriber's own.
#[path = "../../../subscriber/tests/it/support/ports.rs"]
mod ports;
#[path = "../../../subscriber/tests/it/support/udp.rs"]
mod udp;

use ports::free_port;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PASSWORD: &str = "cli-tests-only";

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub fn config(port: u16) -> Config {
    Config {
        address: local(port),
        password: SecretString::from(PASSWORD),
        timeout: Duration::from_secs(10),
    }
}

pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A real coturn with its CLI on.
pub struct Coturn {
    process: Process,
    pub port: u16,
    pub cli: u16,
    program: String,
    _dir: TempDir,
}

/// Every coturn that there is to be tested with: the one on the PATH, and the one that `TURNBIN` names.
pub fn turnservers() -> Vec<String> {
    let newer = std::env::var("TURNBIN").ok();
    std::iter::once("turnserver".to_owned()).chain(newer).collect()
}

impl Coturn {
    pub async fn start(program: &str, args: &[&str]) -> Coturn {
        Coturn::start_on(program, None, args).await
    }

    pub async fn start_on(program: &str, cli: Option<u16>, args: &[&str]) -> Coturn {
        for _ in 0..5 {
            let (dir, port) = (TempDir::new().unwrap(), free_port());
            let cli = cli.unwrap_or_else(free_port);
            let mut command = Command::new(program);
            command.args([
                "-n",
                "--listening-ip=127.0.0.1",
                "--relay-ip=127.0.0.1",
                "--no-tls",
                "--no-dtls",
            ]);
            command.args([
                "--realm=example.org",
                "--use-auth-secret",
                "--static-auth-secret=tests-only",
            ]);
            command.args(["--allow-loopback-peers", "--simple-log", "--cli-ip=127.0.0.1"]);
            command.arg(format!("--log-file={}", dir.path().join("log").display()));
            command.arg(format!("--pidfile={}", dir.path().join("pid").display()));
            command.arg(format!("--userdb={}", dir.path().join("db").display()));
            command.arg(format!("--listening-port={port}"));
            command.arg(format!("--cli-port={cli}"));
            command.arg(format!("--cli-password={PASSWORD}"));
            if program != "turnserver" {
                // From 4.10 on it is off unless it is asked for.
                command.arg("--cli");
            }
            command.args(args);
            let mut coturn = Coturn {
                process: spawn(&mut command, &dir.path().join("out")),
                port,
                cli,
                program: program.to_owned(),
                _dir: dir,
            };
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && matches!(coturn.process.0.try_wait(), Ok(None)) {
                if TcpStream::connect(local(port)).await.is_ok()
                    && TcpStream::connect(local(cli)).await.is_ok()
                    && udp::is_open(port)
                {
                    return coturn;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("turnserver does not start");
    }

    /// A client that relays to itself, slowly and for longer than a test takes.
    pub fn client(&self, user: &str, args: &[&str]) -> Process {
        // The one that comes with the server: 4.17 refuses the channel numbers of 4.6's.
        let mut command = Command::new(Path::new(&self.program).with_file_name("turnutils_uclient"));
        command.args([
            "-W",
            "tests-only",
            "-u",
            user,
            "-y",
            "-m",
            "2",
            "-l",
            "100",
            "-z",
            "100",
            "-n",
            "10000",
            "-c",
        ]);
        command
            .args(args)
            .args(["-p", &self.port.to_string(), "127.0.0.1"]);
        spawn(&mut command, &self._dir.path().join(format!("client-{user}")))
    }

    /// What its CLI lists, by a way of the tests' own.
    pub async fn list(&self) -> Vec<Target> {
        self.list_of(|_| true).await
    }

    async fn list_of(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Target> {
        let mut stream = TcpStream::connect(local(self.cli)).await.unwrap();
        let mut text = String::new();
        for (line, until) in [
            ("", "Enter password: "),
            (PASSWORD, "> "),
            ("ps", "Total sessions"),
        ] {
            if !line.is_empty() {
                stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            }
            text.clear();
            while !text.contains(until) {
                let mut piece = [0; 65536];
                let n = stream.read(&mut piece).await.unwrap();
                assert!(n > 0, "the CLI has closed: {text}");
                text.push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        }
        let between = |s: &str, from: &str, to: &str| -> Box<[u8]> {
            let rest = s.split_once(from).unwrap().1;
            rest.split_once(to).unwrap().0.as_bytes().into()
        };
        let entries = text.split(") id=").skip(1).filter(|entry| is_wanted(entry));
        entries
            .map(|entry| Target {
                id: AllocationId(entry[..18].parse().unwrap()),
                username: between(entry, "user <", ">:"),
                realm: between(entry, "realm: ", "\r\n"),
                client: Some(between(entry, "client addr ", ",")),
                server: Some(between(entry, "server addr ", "\r\n")),
                age: None,
            })
            .collect()
    }

    /// Those of a user that have a peer, once there are as many. (Each client tries whether it can allocate first.)
    pub async fn sessions_of(&self, user: &str, at_least: usize) -> Vec<Target> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut found = self.list_of(|entry| entry.contains("peers:")).await;
            found.retain(|t| t.username.ends_with(user.as_bytes()));
            if found.len() >= at_least {
                return found;
            }
            assert!(Instant::now() < deadline, "no sessions of {user}: {found:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn spawn(command: &mut Command, log: &Path) -> Process {
    let log = File::create(log).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Process(command.spawn().unwrap())
}
