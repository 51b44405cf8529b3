//! `turnhook record`: what a running source tells its reducer, line by line.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use clap::Args;
use url::Url;

use super::{CliError, ConfigArgs};
use crate::shutdown;

/// Record what a running source hears, for support and for `turnhook simulate`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook record --source eu-1 --output history.jsonl
  $ turnhook simulate history.jsonl

  Asks the running bridge at [http] listen, until interrupted. The first lines are the rules and the
  state of the moment; then come coturn's messages as [seconds, channel, payload], and connections,
  gaps and snapshots as objects. It holds usernames and addresses: treat it accordingly.")]
pub(super) struct Record {
    #[command(flatten)]
    config: ConfigArgs,
    /// The source's name
    #[arg(long)]
    source: String,
    /// Where to write to; made readable for its owner alone [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where the bridge serves http, if not at its `[http] listen`
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
}

impl Record {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load()?;
        if !config.sources.iter().any(|source| source.name == self.source) {
            let known: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
            let message = format!(
                "no source named {:?} is configured; known: {}",
                self.source,
                known.join(", ")
            );
            return Err(CliError::failed(message));
        }
        let mut url = Url::parse("http://localhost/record").map_err(CliError::failed)?;
        let address = self.http.unwrap_or(config.http);
        // One that listens everywhere is reached here, too.
        let ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let set = url
            .set_ip_host(ip)
            .and_then(|()| url.set_port(Some(address.port())));
        set.map_err(|()| CliError::failed(format!("cannot ask {address}")))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(&self.source);
        }
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
        let shutdown = shutdown::on_signals().map_err(CliError::failed)?;
        let mut response = ask(url).await?;
        eprintln!("recording; Ctrl-C ends it");
        let mut pending = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = response.chunk() => chunk,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Ok(Some(chunk)) = chunk else {
                return Err(CliError::failed(
                    "the recording was cut off: the bridge stopped, or this was too slow to follow",
                ));
            };
            // Whole lines only, so that an end at any time leaves a good file.
            pending.extend_from_slice(&chunk);
            let whole = pending
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |last| last + 1);
            let written = out.write_all(&pending[..whole]).and_then(|()| out.flush());
            pending.drain(..whole);
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(CliError::Unread),
                Err(error) => return Err(CliError::failed(error)),
            }
        }
    }
}

async fn ask(url: Url) -> Result<reqwest::Response, CliError> {
    // It never speaks TLS here, but is not built without knowing how to.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(CliError::failed)?;
    let response = client.get(url.clone()).send().await.map_err(|_| {
        CliError::failed(format!(
            "no bridge answers at {url}: is it running? (--http, if its `[http] listen` is another)"
        ))
    })?;
    if !response.status().is_success() {
        return Err(CliError::failed(format!("{url}: {}", response.status())));
    }
    Ok(response)
}
