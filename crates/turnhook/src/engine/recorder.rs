//! Where `turnhook record` asks: a Unix socket beside the store, which only its owner can use, since a history holds
//! usernames and addresses. One recording at a time.
//!
//! Operators may ask for the same at `[admin] listen`.
//!
//! The client sends a line, `{"record":"<source>"}`. The answer is `{"recording":"<source>"}` or `{"error":"…"}`; after the
//! former come the lines of the history (`tap.rs`), and at the end `{"ended":"…"}`.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    deadline::Stop,
    fault,
    recording::{self, Reason, Stream},
    supervisor::{Ended, note_panic},
    tap::Taps,
};
use crate::config::{Config, StoreKind};

/// How long a client may take to say what it wants, and how long a line that is.
const ASKING: Duration = Duration::from_secs(5);
const QUESTION: u64 = 4096;

/// As it is called in the log.
const RECORDING: &str = "a connection of the recorder";

/// Clients at once, those that are refused included.
const CLIENTS: usize = 16;

/// How long what waits is still written to one that was too slow.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a client asks for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The source's name.
    pub record: String,
}

/// What is said besides the history's lines.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The source is recorded from now on.
    Recording(String),
    /// It is not, and why.
    Error(String),
    /// Nothing more comes, and why.
    Ended(String),
}

/// Where the turnhook with this configuration can be asked: beside its file; in the folder for temporary files, under
/// the name of its `[http] listen`, if its store is a database.
#[must_use]
pub fn socket_path(config: &Config) -> PathBuf {
    match &config.store.kind {
        StoreKind::Sqlite(path) => {
            // Beside the file itself, as all that belongs to it, by whatever name it is called.
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let mut path = path.into_os_string();
            path.push(".sock");
            path.into()
        }
        StoreKind::Postgres(_) => {
            let address = config.http.to_string().replace([':', '[', ']'], "-");
            std::env::temp_dir().join(format!("turnhook-{address}.sock"))
        }
    }
}

/// The recordings of this process: one at a time, by whichever way it is asked for.
#[derive(Clone)]
pub(crate) struct Recordings {
    taps: Arc<Mutex<Taps>>,
    one: Arc<Semaphore>,
}

/// Why a recording does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotBegun {
    /// There is another one.
    Busy,
    /// No such source runs here.
    Unknown,
}

/// A recording that has begun; the next may begin once it is dropped.
pub(crate) struct Begun {
    pub(crate) stream: Stream,
    _one: OwnedSemaphorePermit,
}

impl Recordings {
    pub(crate) fn new(taps: Taps) -> Recordings {
        Recordings {
            taps: Arc::new(Mutex::new(taps)),
            one: Arc::new(Semaphore::new(1)),
        }
    }

    pub(crate) async fn begin(&self, source: &str) -> Result<Begun, NotBegun> {
        let one = Arc::clone(&self.one)
            .try_acquire_owned()
            .map_err(|_| NotBegun::Busy)?;
        let (sink, stream) = recording::channel();
        if !self.taps.lock().await.record(source, sink).await {
            return Err(NotBegun::Unknown);
        }
        Ok(Begun { stream, _one: one })
    }
}

impl NotBegun {
    /// What is said.
    pub(crate) fn words(self, source: &str) -> String {
        match self {
            NotBegun::Busy => {
                "another recording is under way: there is one at a time, end that one first".to_owned()
            }
            NotBegun::Unknown => format!("no source named {source:?} is running here"),
        }
    }
}

pub(crate) struct Recorder {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
    recordings: Recordings,
}

impl Recorder {
    /// Takes the path. Whoever runs on the store is alone with it: a socket that is there was left behind.
    pub(crate) fn bind(path: PathBuf, recordings: Recordings) -> io::Result<Recorder> {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::symlink_metadata(&path)?.uid();
        Ok(Recorder {
            listener,
            path,
            owner,
            recordings,
        })
    }

    /// Serves until `stop`.
    pub(crate) async fn run(self, stop: Stop) -> Ended {
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.begun() => break,
                Some(ended) = clients.join_next(), if !clients.is_empty() => {
                    note_panic(ended, RECORDING);
                    continue;
                }
                accepted = self.listener.accept(), if clients.len() < CLIENTS => accepted,
            };
            match accepted {
                // Between the making of the socket and the setting of its mode somebody else may have connected.
                Ok((stream, _)) if may_ask(&stream, self.owner) => {
                    let recordings = self.recordings.clone();
                    clients.spawn(fault::inside(RECORDING, async move {
                        recordings.serve(stream).await;
                    }));
                }
                Ok(_) => warn!("somebody else's program asked for a recording, and was not answered"),
                Err(error) => {
                    // Out of file descriptors, most likely: some will come free.
                    warn!(%error, "the recorder cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        remove(&self.path);
        // The sources say last why nothing more comes.
        let words = async {
            while let Some(ended) = clients.join_next().await {
                note_panic(ended, RECORDING);
            }
        };
        let _ = timeout(LAST_WORDS, stop.deadline().within(words)).await;
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        debug!(%error, path = %path.display(), "the recorder's socket cannot be removed");
    }
}

fn may_ask(stream: &UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| is_one_of(peer.uid(), owner))
}

/// Root can read it all anyway.
fn is_one_of(user: u32, owner: u32) -> bool {
    user == owner || user == 0
}

impl Recordings {
    async fn serve(&self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader.take(QUESTION));
        let mut line = String::new();
        let Ok(Ok(1..)) = timeout(ASKING, reader.read_line(&mut line)).await else {
            return;
        };
        let Ok(Question { record: source }) = serde_json::from_str(&line) else {
            say(
                &mut writer,
                &Answer::Error("not a question that this turnhook knows".to_owned()),
            )
            .await;
            return;
        };
        let mut begun = match self.begin(&source).await {
            Ok(begun) => begun,
            Err(why) => {
                say(&mut writer, &Answer::Error(why.words(&source))).await;
                return;
            }
        };
        info!(source, "a recording begins");
        say(&mut writer, &Answer::Recording(source.clone())).await;
        let mut rest = reader.into_inner().into_inner();
        let gone = async {
            // It says nothing more: what can be read is its end.
            let mut byte = [0; 64];
            while rest.read(&mut byte).await.is_ok_and(|n| n > 0) {}
        };
        tokio::select! {
            reason = write(&mut begun.stream, &mut writer) => match reason {
                Some(reason) => warn!(source, reason = reason.as_str(), "a recording has ended"),
                None => info!(source, "a recording has ended: its reader has gone"),
            },
            () = gone => info!(source, "a recording has ended: its reader has gone"),
        }
    }
}

/// Writes what comes until nothing more does. Why; `None` if it could not be written.
async fn write(stream: &mut Stream, writer: &mut OwnedWriteHalf) -> Option<Reason> {
    let mut until = None;
    let ended = stream.ended();
    tokio::pin!(ended);
    loop {
        let chunk = tokio::select! {
            chunk = stream.recv() => chunk,
            reason = &mut ended, if until.is_none() => {
                until = Some((reason, tokio::time::Instant::now() + LAST_WORDS));
                continue;
            }
        };
        let Some(chunk) = chunk else { break };
        let bytes = chunk.len();
        let mut writing = std::pin::pin!(writer.write_all(chunk.as_bytes()));
        loop {
            tokio::select! {
                written = &mut writing => {
                    written.ok()?;
                    break;
                }
                reason = &mut ended, if until.is_none() => {
                    until = Some((reason, tokio::time::Instant::now() + LAST_WORDS));
                }
                () = sleep_until(until.map(|(_, at)| at)), if until.is_some() => return until.map(|(reason, _)| reason),
            }
        }
        stream.written(bytes);
    }
    let reason = until.map_or(Reason::Stopped, |(reason, _)| reason);
    say(writer, &Answer::Ended(reason.as_str().to_owned())).await;
    Some(reason)
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn say(writer: &mut OwnedWriteHalf, answer: &Answer) {
    let line = match serde_json::to_string(answer) {
        Ok(line) => line + "\n",
        Err(error) => {
            debug!(%error, "an answer of the recorder cannot be written");
            return;
        }
    };
    // Whoever does not read it has ended the recording.
    let _ = timeout(LAST_WORDS, writer.write_all(line.as_bytes())).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn its_owner_and_root_may_ask_and_nobody_else() {
        let us = rustix::process::geteuid().as_raw();
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(may_ask(&stream, us));
        assert_eq!(may_ask(&stream, us + 1), us == 0);
        assert!(is_one_of(0, 1000) && is_one_of(1000, 1000));
        assert!(!is_one_of(1001, 1000) && !is_one_of(1000, 0));
    }
}
