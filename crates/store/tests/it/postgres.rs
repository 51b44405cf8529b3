//! A PostgreSQL of the tests' own: a temporary cluster on a free loopback port, stopped and removed with the value,
//! and also when the test's process dies in whatever way. Knows nothing of the store.
#![allow(dead_code, reason = "whoever includes it uses a part of it")]

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

const USER: &str = "turnhook";
const PASSWORD: &str = "not a secret";
/// Longer than any of it takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. It must be started by a thread that outlives it (the test's own): the kernel takes the end of
/// that thread for the parent's death, and stops the server.
#[derive(Debug)]
pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// One that does not wait for the disk: what is to survive a crash of the machine is not tested with it.
    pub(crate) fn start() -> Postgres {
        Postgres::with(&["fsync=off", "full_page_writes=off"])
    }

    /// One with these settings (`name=value`), and PostgreSQL's defaults else.
    pub(crate) fn with(settings: &[&str]) -> Postgres {
        let bin = binaries();
        let dir = tempfile::Builder::new().prefix("turnhook-pg-").tempdir().unwrap();
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some((uid, gid)) = other_user() {
            for path in [dir.path(), &password] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        let mut initdb = as_user(&bin.join("initdb"), None);
        initdb
            .args(["--no-sync", "--locale=C", "--encoding=UTF8", "--username", USER])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(dir.path().join("data"))
            .current_dir(dir.path());
        run(&mut initdb);
        let mut made = Postgres {
            dir,
            bin,
            port: 0,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        // Somebody else may take the port between here and there.
        for _ in 0..20 {
            made.port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            if made.try_go() {
                return made;
            }
        }
        panic!("PostgreSQL does not start:\n{}", made.log());
    }

    /// A new, empty database; its name.
    pub(crate) fn database(&self) -> String {
        let name = format!("case_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Removes a database, whoever is connected to it.
    pub(crate) fn drop_database(&self, name: &str) {
        self.sql(
            "postgres",
            &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        );
    }

    /// As an operator would write it, for the owner of everything.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(USER, PASSWORD, database)
    }

    /// As an operator would write it, for another role.
    pub(crate) fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        let password = password.replace(' ', "%20");
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens on 127.0.0.1; the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The server's process, whose children its others are.
    pub(crate) fn pid(&self) -> u32 {
        self.server().as_ref().map(Child::id).unwrap()
    }

    /// The folder with its socket; certificates can be put there, too (with [`Postgres::give`]).
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a file the server's own, as it wants keys to be: readable to it alone.
    pub(crate) fn give(&self, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// Runs what one would type into psql as a superuser, with its own commands (`\connect`).
    pub(crate) fn typed(&self, text: &str) {
        let file = self.dir.path().join("typed.sql");
        fs::write(&file, text).unwrap();
        let mut psql = Command::new(client(&self.bin, "psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres"])
            .arg("-f")
            .arg(file)
            .arg("-h")
            .arg(self.dir.path())
            .args(["-p", &self.port.to_string()]);
        run(&mut psql);
    }

    /// Runs statements past the store; the rows it gives, columns parted by `|`.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(client(&self.bin, "psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            USER,
            "-d",
            database,
            "-c",
            sql,
        ])
        .arg("-h")
        .arg(self.dir.path())
        .args(["-p", &self.port.to_string()]);
        run(&mut psql).trim_end().to_owned()
    }

    /// Cuts all connections to a database; how many there were.
    pub(crate) fn cut(&self, database: &str) -> usize {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        self.sql("postgres", &sql).parse().unwrap()
    }

    /// Stops as on a shutdown of the machine: transactions under way are rolled back.
    pub(crate) fn stop(&self) {
        self.end("INT");
    }

    /// Ends at once, without a word to anybody: what was committed is recovered at the next start.
    pub(crate) fn crash(&self) {
        self.end("QUIT");
    }

    /// Starts again what was stopped, on the same port.
    pub(crate) fn go(&self) {
        for _ in 0..20 {
            if self.try_go() {
                return;
            }
        }
        panic!("PostgreSQL does not start again:\n{}", self.log());
    }

    /// Stands still, with all its connections, until this is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        let server = self.pid();
        // First the one that would start others.
        signal("STOP", &[server]);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let children = processes.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            (parent == server).then_some(pid)
        });
        let pids: Vec<u32> = children.chain([server]).collect();
        signal("STOP", &pids);
        Frozen(pids)
    }

    /// Stops and starts again.
    pub(crate) fn restart(&self) {
        self.stop();
        self.go();
    }

    /// Whether the server wrote this, ever.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        fs::read_to_string(self.dir.path().join("log"))
            .unwrap()
            .contains(text)
    }

    /// What the server wrote last, for the words of a failure.
    pub(crate) fn log(&self) -> String {
        let all = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = all.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn try_go(&self) -> bool {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = as_user(&self.bin.join("postgres"), Some("QUIT"));
        command
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(self.dir.path());
        for setting in [
            "max_connections=100",
            "shared_buffers=32MB",
            "log_line_prefix=%m [%p] %d ",
            "log_lock_waits=on",
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let ready = Command::new(client(&self.bin, "pg_isready"))
                .args([
                    "-q",
                    "-t",
                    "1",
                    "-U",
                    USER,
                    "-d",
                    "postgres",
                    "-p",
                    &self.port.to_string(),
                    "-h",
                ])
                .arg(self.dir.path())
                .status()
                .unwrap();
            if ready.success() {
                *self.server() = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn end(&self, signal: &str) {
        let Some(mut child) = self.server().take() else {
            return;
        };
        let told = Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        let until = Instant::now() + PATIENCE;
        while told.is_ok() && Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A server that stands still.
pub(crate) struct Frozen(Vec<u32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let _ = Command::new("kill").arg(format!("-{name}")).args(pids).status();
}

/// A client's program: what `PGBIN` names may hold the server alone, and any client speaks to any server.
fn client(bin: &Path, name: &str) -> PathBuf {
    let beside = bin.join(name);
    if beside.exists() {
        beside
    } else {
        PathBuf::from(name)
    }
}

/// Where PostgreSQL's programs are: `PGBIN`, for another version than the machine's; else where Debian keeps them, off the
/// PATH.
fn binaries() -> PathBuf {
    if let Some(bin) = std::env::var_os("PGBIN") {
        return PathBuf::from(bin);
    }
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut versions: Vec<_> = debian
        .filter_map(|v| {
            v.file_name()
                .to_str()?
                .parse::<u32>()
                .ok()
                .map(|n| (n, v.path().join("bin")))
        })
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .rev()
        .map(|(_, bin)| bin)
        .chain(std::env::split_paths(&path))
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .expect("PostgreSQL is not installed; on Debian: apt install postgresql")
}

/// PostgreSQL refuses to run as root: then it runs as a user that is there for such things.
fn other_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    };
    Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .expect("a user other than root"),
    )
}

fn as_user(program: &Path, death_signal: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = other_user() {
        command.args([
            &format!("--reuid={uid}"),
            &format!("--regid={gid}"),
            "--clear-groups",
        ]);
    }
    if let Some(signal) = death_signal {
        command.args(["--pdeathsig", signal]);
    }
    command.arg("--").arg(program).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{:?} failed:\n{}{}",
        command.get_program(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
