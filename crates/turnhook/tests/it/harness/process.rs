//! A running program.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use super::eventually;

/// A program that is killed when this is dropped, and whose output is kept.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    /// Each is held by its reader until the end of the stream.
    stdout_reader: Arc<()>,
    stderr_reader: Arc<()>,
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
        let (stdout, stdout_reader) = collect(child.stdout.take().unwrap());
        let (stderr, stderr_reader) = collect(child.stderr.take().unwrap());
        Process {
            name,
            child,
            stdout,
            stderr,
            stdout_reader,
            stderr_reader,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it has written so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// The lines that it has written so far.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
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
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        let search = || {
            let (out, err) = (stdout.lock().unwrap(), stderr.lock().unwrap());
            out.iter().chain(err.iter()).find_map(|line| find(line))
        };
        eventually(&format!("a line from {}", self.name), || {
            // Asked first: what it wrote before its end is then found below.
            let ended = self.has_ended() && self.is_read();
            search().map(Some).or_else(|| ended.then_some(None))
        })
    }

    /// Whether both of its outputs were read to their ends.
    fn is_read(&self) -> bool {
        Arc::strong_count(&self.stdout_reader) == 1 && Arc::strong_count(&self.stderr_reader) == 1
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

/// The lines of a stream, and what is shared with their reader while it reads.
fn collect(stream: impl Read + Send + 'static) -> (Arc<Mutex<Vec<String>>>, Arc<()>) {
    let (lines, reading) = (Arc::new(Mutex::new(Vec::new())), Arc::new(()));
    let (kept, reader) = (lines.clone(), reading.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            kept.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&line).into_owned());
        }
        drop(reader);
    });
    (lines, reading)
}
