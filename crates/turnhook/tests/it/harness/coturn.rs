//! A real coturn, its clients, and what its own log says that it carried.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Command,
};

use super::{eventually, free_port, process::Process, udp};

/// The secret of the TURN REST API.
pub(crate) const AUTH_SECRET: &str = "north";
/// Peers on the address of a configured database are refused by newer versions, hence the other one.
pub(crate) const PEER_ADDRESS: &str = "127.0.0.2";

/// How a client talks to coturn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

pub(crate) struct Coturn {
    pub(crate) process: Process,
    /// Those of earlier lives, for what they logged.
    before: Vec<Process>,
    arguments: Vec<String>,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    /// What it shows to clients over TLS.
    pub(crate) certificate: PathBuf,
    _peer: Process,
    peer_port: u16,
}

/// The program: the one on the PATH, or the one that `TURNBIN` names.
pub(crate) fn turnserver() -> Command {
    Command::new(std::env::var_os("TURNBIN").unwrap_or_else(|| "turnserver".into()))
}

/// One of the programs that come with it: 4.17 refuses the channel numbers of the `turnutils_uclient` of 4.6.
fn utility(name: &str) -> Command {
    let beside = std::env::var_os("TURNBIN").map(|program| Path::new(&program).with_file_name(name));
    Command::new(beside.unwrap_or_else(|| name.into()))
}

/// What coturn's log says of an allocation, both legs: packets and bytes received, packets and bytes sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) client: [u64; 4],
    pub(crate) peer: [u64; 4],
}

impl Coturn {
    /// Starts it with `statsdb` as its `redis-statsdb`, and a peer that sends back whatever it gets.
    #[track_caller]
    pub(crate) fn start(directory: &Path, statsdb: &str, more: &[&str]) -> Coturn {
        let (port, tls_port, peer_port) = (free_port(), free_port(), free_port());
        let (certificate, key) = (directory.join("turn-cert.pem"), directory.join("turn-key.pem"));
        if !key.exists() {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        }
        let mut arguments: Vec<String> = [
            "-n",
            "--verbose",
            "--no-dtls",
            "--listening-ip=127.0.0.1",
            "--relay-ip=127.0.0.1",
            "--allow-loopback-peers",
        ]
        .map(str::to_owned)
        .to_vec();
        if !more.iter().any(|argument| argument.starts_with(LOG_FILE)) {
            arguments.push("--log-file=stdout".to_owned());
        }
        if !more.iter().any(|argument| argument.starts_with("--cli-port=")) {
            arguments.push("--no-cli".to_owned());
        } else if std::env::var_os("TURNBIN").is_some() {
            // From 4.10 on it is off unless it is asked for.
            arguments.push("--cli".to_owned());
        }
        // Accounts, where it has a database of them; else the TURN REST API.
        if !more.contains(&"--lt-cred-mech") {
            arguments.push("--use-auth-secret".to_owned());
            arguments.push(format!("--static-auth-secret={AUTH_SECRET}"));
        }
        arguments.extend([
            format!("--listening-port={port}"),
            format!("--tls-listening-port={tls_port}"),
            format!("--cert={}", certificate.display()),
            format!("--pkey={}", key.display()),
            format!(
                "--pidfile={}",
                directory.join(format!("turnserver-{port}.pid")).display()
            ),
            format!(
                "--userdb={}",
                directory.join(format!("turnserver-{port}.db")).display()
            ),
            format!("--redis-statsdb={statsdb}"),
        ]);
        if !more.iter().any(|argument| argument.starts_with("--realm=")) {
            arguments.push("--realm=example.org".to_owned());
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let process = launch(&arguments, tls_port);
        let peer = Process::start(utility("turnutils_peer").args([
            "-L",
            PEER_ADDRESS,
            "-p",
            &peer_port.to_string(),
        ]));
        Coturn {
            process,
            before: Vec::new(),
            arguments,
            port,
            tls_port,
            certificate,
            _peer: peer,
            peer_port,
        }
    }

    /// Starts it again on its ports, after it was ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.process.wait();
        let process = launch(&self.arguments, self.tls_port);
        self.before.push(std::mem::replace(&mut self.process, process));
    }

    /// Its version, as it logs it: 4.6.1 is `[4, 6, 1]`.
    #[track_caller]
    pub(crate) fn version(&self) -> Vec<u32> {
        let lines = match log_file(&self.arguments) {
            Some(log) => lines_of(log),
            None => self.process.stdout(),
        };
        let version = lines
            .iter()
            .find_map(|line| line.split_once("Version Coturn-")?.1.split(' ').next())
            .unwrap();
        version.split('.').map(|number| number.parse().unwrap()).collect()
    }

    /// How many bytes it counts for each packet of ChannelData that went to a peer, beyond its payload: the header,
    /// from 4.11 on.
    pub(crate) fn channel_header(&self) -> u64 {
        if self.version() >= vec![4, 11] { 4 } else { 0 }
    }

    /// Where its peer sends back whatever it gets.
    pub(crate) fn peer_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(PEER_ADDRESS.parse().unwrap(), self.peer_port)
    }

    /// A client that sends `packets` packets of `length` bytes on two channels and hangs up.
    pub(crate) fn client(&self, user: &str, transport: Transport, packets: u32, length: u32) -> Process {
        let mut command = utility("turnutils_uclient");
        command.args([
            "-W",
            AUTH_SECRET,
            "-u",
            user,
            "-e",
            PEER_ADDRESS,
            "-c",
            "-m",
            "2",
            "-z",
            "5",
        ]);
        command.args([
            "-r",
            &self.peer_port.to_string(),
            "-n",
            &packets.to_string(),
            "-l",
            &length.to_string(),
        ]);
        match transport {
            Transport::Udp => {}
            Transport::Tcp => {
                command.arg("-t");
            }
            Transport::Tls => {
                command.args(["-t", "-S"]);
            }
        }
        let port = if transport == Transport::Tls {
            self.tls_port
        } else {
            self.port
        };
        command.args(["-p", &port.to_string(), "127.0.0.1"]);
        Process::start(&mut command)
    }

    /// Sums of the log's `usage:` and `peer usage:` lines, by allocation and username.
    pub(crate) fn logged(&self) -> BTreeMap<(String, String), Logged> {
        logged(&self.process)
    }

    /// The same of all of its lives, life by life.
    pub(crate) fn logged_in_all_lives(&self) -> Vec<BTreeMap<(String, String), Logged>> {
        let lives = self.before.iter().chain([&self.process]);
        lives.map(logged).collect()
    }
}

#[track_caller]
fn launch(arguments: &[String], tls_port: u16) -> Process {
    let last = format!("TCP listener opened on : 127.0.0.1:{tls_port}");
    let has_udp = || {
        let port = arguments.iter().find_map(|a| a.strip_prefix("--listening-port="));
        eventually("its UDP port", || {
            udp::is_open(port.unwrap().parse().unwrap()).then_some(())
        });
    };
    let Some(log) = log_file(arguments) else {
        let mut process = Process::start(turnserver().args(arguments));
        process.line("its last listener", |line| line.contains(&last).then_some(()));
        has_udp();
        return process;
    };
    // Beside a file its output is held back.
    let opened = || lines_of(log).iter().filter(|line| line.contains(&last)).count();
    let before = opened();
    let process = Process::start(turnserver().args(arguments));
    eventually("its last listener", || (opened() > before).then_some(()));
    has_udp();
    process
}

const LOG_FILE: &str = "--log-file=";

/// The file that it logs into, if that is not its output.
fn log_file(arguments: &[String]) -> Option<&Path> {
    let log = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix(LOG_FILE))?;
    (log != "stdout").then(|| Path::new(log))
}

fn lines_of(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn logged(process: &Process) -> BTreeMap<(String, String), Logged> {
    let mut sums: BTreeMap<(String, String), Logged> = BTreeMap::new();
    for line in process.stdout() {
        let Some((_, rest)) = line.split_once("session ") else {
            continue;
        };
        let Some((id, rest)) = rest.split_once(": ") else {
            continue;
        };
        let Some((kind, rest)) = rest.split_once("usage: ") else {
            continue;
        };
        let username = between(rest, "username=<", ">, rp=").unwrap_or_default();
        let number = |name: &str| -> u64 {
            let digits = rest.split(name).nth(1).unwrap().split(',').next().unwrap();
            digits.trim().parse().unwrap()
        };
        let counters = [number(" rp="), number(" rb="), number(" sp="), number(" sb=")];
        let sum = sums.entry((id.to_owned(), username.to_owned())).or_default();
        let leg = if kind == "peer " {
            &mut sum.peer
        } else {
            &mut sum.client
        };
        for (sum, counter) in leg.iter_mut().zip(counters) {
            *sum += counter;
        }
    }
    sums
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    text.split_once(from)?.1.split_once(to).map(|(inner, _)| inner)
}
