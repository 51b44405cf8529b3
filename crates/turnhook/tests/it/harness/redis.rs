//! A real redis-server.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::{eventually, free_port, process::Process};

pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Redis {
    #[track_caller]
    pub(crate) fn start(directory: &Path, more: &[&str]) -> Redis {
        Redis::start_on(free_port(), directory, more)
    }

    /// On a port that was promised to somebody already.
    #[track_caller]
    pub(crate) fn start_on(port: u16, directory: &Path, more: &[&str]) -> Redis {
        let mut arguments: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.extend(
            [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
                "--dir",
            ]
            .map(str::to_owned),
        );
        arguments.extend([
            directory.display().to_string(),
            "--port".to_owned(),
            port.to_string(),
        ]);
        let process = launch(&arguments);
        Redis {
            process,
            port,
            arguments,
        }
    }

    /// Starts it again on its port, after it was stopped.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.process.wait();
        self.process = launch(&self.arguments);
    }

    /// Runs `redis-cli`.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What `redis-cli` answers, without its line break.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// What is published from now on, and matches, as lines of its standard output.
    #[track_caller]
    pub(crate) fn subscribe(&self, pattern: &str) -> Process {
        let port = self.port.to_string();
        let mut subscriber =
            Process::start(Command::new("redis-cli").args(["-p", &port, "psubscribe", pattern]));
        subscriber.line("its subscription", |line| (line == "psubscribe").then_some(()));
        subscriber
    }

    /// As coturn wants it.
    pub(crate) fn statsdb(&self) -> String {
        format!("ip=127.0.0.1 port={} dbname=0 connect_timeout=5", self.port)
    }
}

#[track_caller]
fn launch(arguments: &[String]) -> Process {
    // Another program may have taken the port between its choice and now: once more is enough in practice,
    // and a port that stays taken is said by redis-server itself.
    eventually("redis-server to start", || {
        let mut process = Process::start(Command::new("redis-server").args(arguments));
        process
            .line_or_end(|line| line.contains("Ready to accept connections").then_some(()))
            .map(|()| process)
    })
}
