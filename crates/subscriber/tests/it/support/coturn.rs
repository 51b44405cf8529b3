//! A real coturn and its clients.

use super::*;

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
            if TcpStream::connect(local(self.port)).await.is_ok() && udp::is_open(self.port) {
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
