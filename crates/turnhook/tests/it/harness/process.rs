//! A running program.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::ioctl_fionbio,
};

use super::eventually;

/// A program that is killed when this is dropped, and whose output is kept.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

impl Process {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name}: {error} (tests/run.sh installs what is needed)")
            });
        let stdout = Stream::of(child.stdout.take().unwrap().into());
        let stderr = Stream::of(child.stderr.take().unwrap().into());
        Process {
            name,
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it has written so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.read().lines.clone()
    }

    /// The lines that it has written so far.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.read().lines.clone()
    }

    /// Waits for a line on stdout or stderr that `find` makes something of.
    #[track_caller]
    pub(crate) fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        match self.line_or_end(find) {
            Some(found) => found,
            None => panic!(
                "waited for {what} from {}: it ended\n{}",
                self.name,
                self.output()
            ),
        }
    }

    /// The same; `None` if the program ended without writing it.
    #[track_caller]
    pub(crate) fn line_or_end<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        eventually(&format!("a line from {}", self.name), || {
            // Asked first: what it wrote before its end is then found below.
            let ended = self.has_ended();
            let (out, err) = (self.stdout.read(), self.stderr.read());
            let found = out.lines.iter().chain(&err.lines).find_map(|line| find(line));
            let over = ended && out.ended && err.ended;
            found.map(Some).or_else(|| over.then_some(None))
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} {}", self.name);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, || self.child.try_wait().unwrap())
    }

    /// All that it wrote, for a message.
    pub(crate) fn output(&self) -> String {
        format!(
            "--- stdout\n{}\n--- stderr\n{}",
            self.stdout().join("\n"),
            self.stderr().join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("=== {}\n{}", self.name, self.output());
        }
    }
}

/// An output, which is read as it comes, so that the program never waits for it.
struct Stream(Arc<Mutex<Lines>>);

struct Lines {
    from: File,
    /// What follows the last of them.
    rest: Vec<u8>,
    lines: Vec<String>,
    ended: bool,
}

impl Stream {
    fn of(output: OwnedFd) -> Stream {
        ioctl_fionbio(&output, true).unwrap();
        let watched = output.try_clone().unwrap();
        let lines = Arc::new(Mutex::new(Lines {
            from: output.into(),
            rest: Vec::new(),
            lines: Vec::new(),
            ended: false,
        }));
        let stream = Stream(Arc::clone(&lines));
        std::thread::spawn(move || {
            let reader = Stream(lines);
            while !reader.read().ended {
                let _ = poll(
                    &mut [PollFd::from_borrowed_fd(watched.as_fd(), PollFlags::IN)],
                    None,
                );
            }
        });
        stream
    }

    /// All that was written before this was called is in it.
    fn read(&self) -> MutexGuard<'_, Lines> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.catch_up();
        lines
    }
}

impl Lines {
    fn catch_up(&mut self) {
        let mut buffer = [0; 8192];
        while !self.ended {
            match self.from.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.rest.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("an output cannot be read: {error}"),
            }
        }
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let text: Vec<u8> = self.rest.drain(..whole).collect();
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        self.lines
            .extend(lines.map(|line| String::from_utf8_lossy(line).trim_end_matches('\n').to_owned()));
        if self.ended && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.lines.push(String::from_utf8_lossy(&rest).into_owned());
        }
    }
}
