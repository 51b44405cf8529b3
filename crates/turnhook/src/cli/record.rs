//! `turnhook record`: what a running source feeds its reducer, line by line.

mod page;

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{args::ConfigArgs, error::CliError};
use crate::{
    engine::recorder::{self, Answer, Question},
    shutdown,
};

/// The longest first answer.
const ANSWER: usize = 64 * 1024;

/// Record what a running source hears, for support and for `turnhook simulate`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook record --source eu-1 --output history.jsonl
  $ turnhook simulate history.jsonl
  $ turnhook record --source eu-1 --url https://turnhook.example.com --token-file token

  Asks the running turnhook over its socket beside the store, as the user that it runs as or as root,
  until interrupted; there is one recording at a time. With --url it asks `[admin] listen` of one on any
  machine, with an operator's token, and what was recorded is in the record of what people did. The first lines are the rules and the state of
  the moment; then come coturn's messages as [seconds, channel, payload], and connections, gaps and
  snapshots as objects. It holds usernames and addresses: treat it accordingly.")]
pub(super) struct Record {
    #[command(flatten)]
    config: ConfigArgs,
    /// The source's name
    #[arg(long)]
    source: String,
    /// Where to write to; made readable for its owner alone [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The running turnhook's socket [default: the store's path with `.sock`; for PostgreSQL, in the folder for
    /// temporary files]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    socket: Option<PathBuf>,
    /// Ask the page of a turnhook on any machine instead, at `[admin] listen` or the proxy before it
    #[arg(long, requires = "token_file")]
    url: Option<String>,
    /// The file with an operator's token, as `turnhook admin token` has shown it
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// Where it comes from.
enum Feed {
    Socket(UnixStream),
    Page(reqwest::Response),
}

impl Feed {
    /// What comes next; `None` when it was cut off.
    async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Feed::Socket(stream) => {
                let mut read = Vec::with_capacity(64 * 1024);
                stream.read_buf(&mut read).await.ok().filter(|read| *read > 0)?;
                Some(read)
            }
            Feed::Page(answer) => Some(answer.chunk().await.ok()??.to_vec()),
        }
    }
}

impl Record {
    /// The socket of the turnhook that is configured here, which has to have the source.
    fn socket(&self) -> Result<PathBuf, CliError> {
        let config = self.config.load_for_store()?;
        if !config.sources.iter().any(|source| source.name == self.source) {
            let known: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
            let message = format!(
                "no source named {:?} is configured; known: {}",
                self.source,
                known.join(", ")
            );
            return Err(CliError::failed(message));
        }
        Ok(self
            .socket
            .clone()
            .unwrap_or_else(|| recorder::socket_path(&config)))
    }

    pub(super) async fn run(self) -> Result<(), CliError> {
        let shutdown = shutdown::on_signals().map_err(CliError::failed)?;
        let (mut feed, mut pending) = match (&self.url, &self.token_file) {
            (Some(url), Some(token)) => (Feed::Page(page::ask(url, token, &self.source).await?), Vec::new()),
            _ => {
                let (stream, read) = ask(&self.socket()?, self.source).await?;
                (Feed::Socket(stream), read)
            }
        };
        let mut out: Box<dyn Write> = match &self.output {
            None => Box::new(io::stdout()),
            Some(path) => {
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path);
                Box::new(file.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?)
            }
        };
        eprintln!("recording; Ctrl-C ends it");
        loop {
            // Whole lines only, so that an end at any time leaves a good file.
            let whole = pending
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |last| last + 1);
            let (lines, ended) = until_the_end(&pending[..whole]);
            let written = out.write_all(lines).and_then(|()| out.flush());
            pending.drain(..whole);
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(CliError::Unread),
                Err(error) => return Err(CliError::failed(error)),
            }
            if let Some(reason) = ended {
                return Err(CliError::failed(format!("the recording has ended: {reason}")));
            }
            let read = tokio::select! {
                read = feed.next() => read,
                () = shutdown.cancelled() => return Ok(()),
            };
            match read {
                Some(read) => pending.extend_from_slice(&read),
                None => {
                    return Err(CliError::failed(
                        "the recording was cut off: turnhook has gone, or this was too slow to follow",
                    ));
                }
            }
        }
    }
}

/// The history's lines, and why there are no more, if that is the last line.
fn until_the_end(lines: &[u8]) -> (&[u8], Option<String>) {
    let without_newline = lines.strip_suffix(b"\n").unwrap_or(lines);
    let start = without_newline
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let last = &without_newline[start..];
    // Cheap to distinguish from all lines of a history.
    if !last.starts_with(b"{\"ended\"") {
        return (lines, None);
    }
    match serde_json::from_slice(last) {
        Ok(Answer::Ended(reason)) => (&lines[..start], Some(reason)),
        _ => (lines, None),
    }
}

/// Asks for a recording: the stream, and what was read of it already.
async fn ask(socket: &Path, source: String) -> Result<(UnixStream, Vec<u8>), CliError> {
    let mut stream = UnixStream::connect(socket).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "only the user that turnhook runs as, and root, may record",
            _ => "does turnhook run, and with this configuration? (--socket, if its store is elsewhere)",
        };
        CliError::failed(format!(
            "no turnhook answers at {}: {error}; {advice}",
            socket.display()
        ))
    })?;
    let question = serde_json::to_string(&Question { record: source }).map_err(CliError::failed)?;
    stream
        .write_all(format!("{question}\n").as_bytes())
        .await
        .map_err(CliError::failed)?;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(newline) = read.iter().position(|byte| *byte == b'\n') {
            let answer = serde_json::from_slice(&read[..newline]).map_err(CliError::failed)?;
            read.drain(..=newline);
            return match answer {
                Answer::Recording(_) => Ok((stream, read)),
                Answer::Error(error) | Answer::Ended(error) => Err(CliError::failed(error)),
            };
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) if read.len() < ANSWER => read.extend_from_slice(&buffer[..count]),
            _ => return Err(CliError::failed("turnhook has gone without an answer")),
        }
    }
}
