//! A recording over `[admin] listen`, from any machine.

use std::{fs, path::Path, time::Duration};

use serde::Deserialize;

use super::super::error::CliError;

/// Until it begins: the state of the moment comes first, and is made by slices.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Asks for it with the token in that file.
pub(super) async fn ask(url: &str, token: &Path, source: &str) -> Result<reqwest::Response, CliError> {
    let token = fs::read_to_string(token)
        .map_err(|error| CliError::failed(format!("{}: {error}", token.display())))?;
    let wrong = |what: &dyn std::fmt::Display| {
        CliError::failed(format!(
            "{url}: {what}; write it like https://turnhook.example.com"
        ))
    };
    let mut at = reqwest::Url::parse(url).map_err(|error| wrong(&error))?;
    at.path_segments_mut()
        .map_err(|()| wrong(&"is no address of a server"))?
        .pop_if_empty()
        .extend(["api", "v1", "sources", source, "record"]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(PATIENCE)
        .build()
        .map_err(CliError::failed)?;
    let asked = client.get(at).bearer_auth(token.trim()).send();
    let answer = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let what = if error.is_connect() {
                "nobody answers there, or not with a certificate that this machine trusts"
            } else {
                "the answer broke off"
            };
            return Err(CliError::failed(format!("{url}: {what}")));
        }
        Err(_) => return Err(CliError::failed(format!("{url}: no answer in time"))),
    };
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.bytes().await.unwrap_or_default();
    let said = serde_json::from_slice::<Refused>(&body).map_or_else(
        |_| "is that the address of turnhook's page?".to_owned(),
        |refused| refused.error,
    );
    Err(CliError::failed(format!("{url} answers {status}: {said}")))
}
