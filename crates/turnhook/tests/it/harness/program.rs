//! A program that runs: `turnhook run` with a `direct` source, on ports that stay the same over restarts.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Output,
    time::Duration,
};

use serde_json::Value;

use super::{DEADLINE, eventually, free_port, manager::Manager, process::Process, turnhook};

/// A secret for the endpoints of tests.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A folder with a configuration, and the program that runs on it.
pub(crate) struct Program {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) http: u16,
    /// Where its source listens.
    pub(crate) source: u16,
    /// What stands before the endpoints.
    base: String,
    process: Option<Process>,
}

impl Program {
    /// Configured with `more` (endpoints, `[session]`), not yet running. Sessions of one allocation each
    /// that end as soon as their totals are there, unless `more` has a `[session]` of its own.
    pub(crate) fn new(more: &str) -> Program {
        let (http, source) = (free_port(), free_port());
        let base = format!(
            "shutdown_grace = \"5s\"\n\
             [[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{source}\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n"
        );
        let program = Program {
            directory: tempfile::tempdir().unwrap(),
            http,
            source,
            base,
            process: None,
        };
        program.configure(more);
        program
    }

    /// Writes another configuration, for the next start.
    pub(crate) fn configure(&self, more: &str) {
        let session = if more.contains("[session]") {
            ""
        } else {
            "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\n"
        };
        let text = format!("{}{session}{more}", self.base);
        fs::write(self.directory.path().join("turnhook.toml"), text).unwrap();
    }

    /// Starts it, and does not wait for anything.
    pub(crate) fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with these variables in its environment.
    pub(crate) fn launch_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = turnhook::command(self.directory.path());
        command.arg("run").envs(environment.iter().copied());
        self.process = Some(Process::start(&mut command));
    }

    /// Waits for it to end by itself: its status, and what it logged.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> (Option<i32>, Vec<String>) {
        let mut process = self.process.take().unwrap();
        let status = process.wait();
        (status.code(), process.stderr())
    }

    /// Starts it with these variables in its environment, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = turnhook::command(self.directory.path());
        command.arg("run").envs(environment.iter().copied());
        self.process = Some(Process::start(&mut command));
        self.line("\"running\"");
    }

    /// Starts it with so many file descriptors at most, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_with_descriptors(&mut self, most: u32) {
        let mut command = turnhook::command_with_descriptors(self.directory.path(), most);
        self.process = Some(Process::start(command.arg("run")));
        self.line("\"running\"");
    }

    /// Starts it as a service, with what its manager has kept, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_under(&mut self, manager: &Manager) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = turnhook::command(self.directory.path());
        command.arg("run");
        self.process = Some(Process::start(&mut manager.service(&command)));
        self.line("\"running\"");
    }

    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.launch();
        self.line("\"running\"");
    }

    /// Waits for a line of its log that contains this.
    #[track_caller]
    pub(crate) fn line(&mut self, text: &str) {
        let process = self.process.as_mut().unwrap();
        process.line(text, |line| line.contains(text).then_some(()));
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.as_ref().unwrap().stderr()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Ends it with SIGKILL. What it logged until then.
    #[track_caller]
    pub(crate) fn kill(&mut self) -> Vec<String> {
        let mut process = self.process.take().unwrap();
        assert!(!process.has_ended(), "it ended by itself\n{}", process.output());
        process.signal("KILL");
        process.wait();
        process.stderr()
    }

    /// Ends it with SIGTERM, as it should be ended. What it logged.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Vec<String> {
        let mut process = self.process.take().unwrap();
        process.signal("TERM");
        let status = process.wait();
        assert!(status.success(), "{status}\n{}", process.output());
        process.stderr()
    }

    /// Runs a command on its configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        turnhook::run(self.directory.path(), arguments)
    }

    /// Runs a command that must succeed, and gives what it printed.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            turnhook::stderr(&output)
        );
        turnhook::stdout(&output).to_owned()
    }

    /// The same, of a command that prints an object a line.
    #[track_caller]
    pub(crate) fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ask(&[arguments, &["--format", "json"]].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Deliveries in a state.
    #[track_caller]
    pub(crate) fn deliveries(&self, state: &str) -> Vec<Value> {
        self.objects(&["deliveries", "list", "--limit", "1000000", "--state", state])
    }

    /// Waits until nothing is on its way, by the store itself: `pending` of `/status` is measured now and then, and may be
    /// from before there was anything.
    #[track_caller]
    pub(crate) fn nothing_pending(&self) {
        eventually("the outbox to be empty", || {
            self.deliveries("pending").is_empty().then_some(())
        });
    }

    /// `GET`: the status and the body.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        eventually(&format!("an answer to {path}"), || self.try_get(path))
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).unwrap()
    }

    /// Waits until something holds of `/status`.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let status: Value = serde_json::from_str(&self.try_get("/status")?.1).ok()?;
            holds(&status).then_some(status)
        })
    }

    /// What of `/proc/<pid>/status` is in KiB, such as `VmRSS` and `VmHWM`.
    pub(crate) fn memory(&mut self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process().id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// A configuration of an endpoint: quick to try again; `more` are further lines.
pub(crate) fn endpoint(name: &str, url: &str, more: &str) -> String {
    let or = |key: &str, line: &str| {
        let given = more.lines().any(|one| one.starts_with(key));
        if given { String::new() } else { format!("{line}\n") }
    };
    format!(
        "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n{}{}{}{more}\n",
        or("secrets", &format!("secrets = [\"{SECRET}\"]")),
        or("rate_limit", "rate_limit = \"unlimited\""),
        or("retry", "retry = { initial = \"50ms\", max = \"200ms\" }"),
    )
}

/// For a test that shows that something does not happen: long enough for it to happen on most machines,
/// and never needed to pass.
pub(crate) const WHILE: Duration = Duration::from_millis(1500);

/// A file's path, for a command line.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
