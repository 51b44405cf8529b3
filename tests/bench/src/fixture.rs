//! Processes on free ports, and what can be read of them. Dropping one kills it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Process(child.map_err(|error| format!("{name}: {error}"))?))
    }

    /// CPU time that it has used, user and system.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(cpu_of(&std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?))
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Bytes that it caused to be written to the disk.
    pub fn written(&self) -> Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.0.id()))?;
        let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).ok_or("no write_bytes")?;
        Ok(line.parse()?)
    }

    pub fn terminate(mut self) -> Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        self.0.wait()?;
        Ok(())
    }
}

/// CPU time, user and system, of a process or a thread by its `stat`.
fn cpu_of(stat: &str) -> Duration {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // Linux counts in hundredths of a second everywhere that matters.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// CPU time of a process and of its children, those that have ended included.
pub fn cpu_of_family(parent: u32) -> Result<Duration> {
    let own = std::fs::read_to_string(format!("/proc/{parent}/stat"))?;
    let fields = |stat: &str| -> Vec<u64> {
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.map(|field| field.parse().unwrap_or(0)).collect()
    };
    let ended: u64 = fields(&own).iter().skip(13).take(2).sum();
    let mut sum = cpu_of(&own) + Duration::from_millis(ended * 10);
    for process in std::fs::read_dir("/proc")? {
        // Whatever has just ended counts as that of its parent the next time.
        let Ok(stat) = std::fs::read_to_string(process?.path().join("stat")) else { continue };
        if fields(&stat).get(1) == Some(&u64::from(parent)) {
            sum += cpu_of(&stat);
        }
    }
    Ok(sum)
}

/// CPU time of this process's threads of that name.
pub fn cpu_of_threads(name: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        if stat.contains(&format!("({name})")) {
            sum += cpu_of(&stat);
        }
    }
    Ok(sum)
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Ports that differ.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            return Err(format!("waited in vain: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A Redis that keeps nothing.
pub fn redis() -> Result<(Process, u16)> {
    let port = free_port()?;
    let process = Process::start(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            // A subscriber that lags is measured, not thrown out.
            .args(["--client-output-buffer-limit", "pubsub", "0", "0", "0"]),
    )?;
    wait_for("Redis", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok((process, port))
}

/// A turnhook with a store in `dir`.
pub struct Turnhook {
    pub process: Process,
    pub http: u16,
    pub started: Instant,
}

impl Turnhook {
    /// `sources` and `endpoints` are TOML; `session` the lines of `[session]`.
    pub fn start(dir: &Path, sources: &str, session: &str, endpoints: &str) -> Result<Turnhook> {
        let store = format!("path = \"{}\"", dir.join("turnhook.db").display());
        Turnhook::start_on(dir, &store, sources, session, endpoints)
    }

    /// The same, with the lines of `[store]`.
    pub fn start_on(dir: &Path, store: &str, sources: &str, session: &str, endpoints: &str) -> Result<Turnhook> {
        let http = free_port()?;
        let config = dir.join(format!("turnhook-{http}.toml"));
        let text = format!(
            "{sources}\n[session]\n{session}\n[store]\n{store}\n[http]\nlisten = \"127.0.0.1:{http}\"\n\
             [log]\nlevel = \"error\"\n{endpoints}\n"
        );
        std::fs::write(&config, text)?;
        let program = std::env::var("TURNHOOK").map_err(|_| "TURNHOOK must name the program")?;
        let started = Instant::now();
        let process = Process::start(Command::new(program).arg("run").arg("--config").arg(config))?;
        let turnhook = Turnhook { process, http, started };
        wait_for("turnhook", || turnhook.get("/readyz").is_ok_and(|(ready, _)| ready))?;
        Ok(turnhook)
    }

    /// Whether the answer was 200, and its body.
    pub fn get(&self, path: &str) -> Result<(bool, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Ok((answer.starts_with("HTTP/1.1 200"), body))
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics")?;
        let lines = text.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        // No line at all is 0, and not the -0 that a sum of nothing is.
        Ok(lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value))
    }

    pub fn wait_for_metric(&self, name: &str, at_least: f64) -> Result<()> {
        let mut next = Instant::now();
        wait_for(name, || {
            // A scrape costs CPU too: not more than a few a second.
            if Instant::now() < next {
                return false;
            }
            next = Instant::now() + Duration::from_millis(50);
            self.metric(name).is_ok_and(|value| value >= at_least)
        })
    }
}
