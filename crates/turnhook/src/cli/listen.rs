//! `turnhook listen`: a receiver for trying out.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, sync::mpsc};
use turnhook_dispatcher::{
    clock::wall_clock,
    signature::{self, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Secret},
};
use turnhook_subscriber::error::listen_cure;

use super::{args::Format, error::CliError, output::print};
use crate::{http::server, shutdown};

mod show;

/// Receive webhooks, verify their signatures and print them
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook listen --listen 127.0.0.1:9000 --secret whsec_…
  $ turnhook listen --json | jq .body.data.usage.billable_bytes

  Answers 204 to what verifies and 401 to what does not. Without a secret it makes one and says
  which. The address that it listens on is the first line on stderr; port 0 takes a free one.")]
pub(super) struct Listen {
    /// The address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// A secret of the endpoint; any number of them
    #[arg(
        long,
        value_name = "WHSEC",
        env = "TURNHOOK_LISTEN_SECRET",
        hide_env_values = true
    )]
    secret: Vec<SecretString>,
    /// A file with one secret a line
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How to print them; json: each webhook as one line, all of it, not only what a person looks at
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How long requests under way may take after a stop was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// Larger than any webhook of turnhook.
const BODY_LIMIT: usize = 4 << 20;

struct Receiver {
    secrets: Vec<Secret>,
    printer: mpsc::Sender<show::Received>,
}

impl Listen {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let secrets = self.secrets()?;
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            let cure = listen_cure(&error);
            CliError::failed(format!("cannot listen on {}: {error}; {cure}", self.listen))
        })?;
        let address = listener.local_addr().map_err(CliError::failed)?;
        eprintln!("listening on http://{address}/");
        let secrets = match secrets {
            Some(secrets) => secrets,
            None => {
                let (secret, text) = Secret::generate().map_err(CliError::failed)?;
                eprintln!("the secret: {}", text.expose_secret());
                vec![secret]
            }
        };
        let (printer, mut received) = mpsc::channel(64);
        let router = Router::new()
            .fallback(axum::routing::post(receive))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::new(Receiver { secrets, printer }));
        let shutdown = shutdown::on_signals().map_err(CliError::failed)?;
        let stop = shutdown.clone();
        let mut server = tokio::spawn(server::serve(listener, None, router, GRACE, stop));
        loop {
            tokio::select! {
                // What was answered is printed before the program ends.
                biased;
                Some(webhook) = received.recv() => {
                    let line = if self.json || self.format == Format::Json { show::json(&webhook) } else { show::text(&webhook) };
                    print(&line)?;
                }
                done = &mut server => return match done {
                    Ok(()) => Ok(()),
                    Err(error) => Err(CliError::failed(error)),
                },
            }
        }
    }

    fn secrets(&self) -> Result<Option<Vec<Secret>>, CliError> {
        let mut texts = self.secret.clone();
        if let Some(file) = &self.secret_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| CliError::failed(format!("cannot read {}: {error}", file.display())))?;
            texts.extend(
                text.lines()
                    .filter(|line| !line.trim().is_empty())
                    .map(SecretString::from),
            );
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let secrets: Result<Vec<_>, _> = texts
            .iter()
            .map(|text| Secret::parse(text.expose_secret()))
            .collect();
        secrets.map(Some).map_err(CliError::failed)
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let (id, timestamp) = (header(HEADER_ID), header(HEADER_TIMESTAMP));
    let at = wall_clock();
    let verified = signature::verify(
        &receiver.secrets,
        &id,
        &timestamp,
        &header(HEADER_SIGNATURE),
        &body,
        at.0 / 1000,
    );
    let status = if verified.is_ok() {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::UNAUTHORIZED
    };
    match receiver
        .printer
        .send(show::Received {
            at,
            id,
            timestamp,
            body,
            verified,
        })
        .await
    {
        Ok(()) => status,
        // Nobody prints any more: the sender shall come again.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
