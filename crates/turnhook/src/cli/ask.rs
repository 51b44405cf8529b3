//! Asks the running program over its HTTP port.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::error::CliError;

/// What it answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Where it is asked on this machine.
pub(super) fn base(http: SocketAddr) -> String {
    // One that listens everywhere is reached here, too.
    let ip = match http.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::new(ip, http.port()))
}

/// Asks, and says what to do where there is no answer.
pub(super) async fn get(url: &str, patience: Duration) -> Result<Answer, CliError> {
    // It never speaks TLS here, but is not built without knowing how to.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().timeout(patience).build()?;
        let answer = client.get(url).send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            body: answer.text().await?,
        })
    };
    asked.await.map_err(|error: reqwest::Error| {
        let what = if error.is_connect() {
            "nobody answers there: is turnhook running, with this configuration? (--url says where else)"
        } else if error.is_timeout() {
            "no answer in time"
        } else if error.is_builder() {
            "is no URL; write it like http://127.0.0.1:8080"
        } else {
            "the answer broke off"
        };
        CliError::failed(format!("{url}: {what}"))
    })
}

/// The address that was given, or that of the configuration.
pub(super) fn at(given: Option<&str>, config: &super::args::ConfigArgs) -> Result<String, CliError> {
    match given {
        Some(url) => Ok(url.trim_end_matches('/').to_owned()),
        None => Ok(base(config.load_for_store()?.http)),
    }
}
