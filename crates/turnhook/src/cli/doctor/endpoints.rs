//! Endpoints: names, TLS, an answer.

use std::net::IpAddr;

use turnhook_dispatcher::{client::Client, config::EndpointConfig};

use super::{
    super::error::CliError,
    clocks::Clocks,
    report::{PATIENCE, Report},
};

pub(super) async fn look(
    endpoint: &EndpointConfig,
    clocks: &mut Clocks,
    report: &mut Report,
) -> Result<(), CliError> {
    let what = format!("endpoint {}", endpoint.name);
    let host = endpoint
        .url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let is_name = host.parse::<IpAddr>().is_err();
    // A proxy resolves names itself.
    if is_name && endpoint.proxy.is_none() {
        let port = endpoint.url.port_or_known_default().unwrap_or(443);
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), port))).await;
        match found {
            Ok(Ok(addresses)) => {
                let mut all: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
                all.sort_unstable();
                all.dedup();
                report.ok(&what, format!("{host} is {}", all.join(", ")))?;
            }
            Ok(Err(error)) => {
                return report.fail(
                    &what,
                    format!("the name {host} cannot be resolved: {error}"),
                    "is it spelled right, and does /etc/resolv.conf name a server that knows it?",
                );
            }
            Err(_) => {
                return report.fail(
                    &what,
                    format!("no answer about the name {host}"),
                    "does the DNS server answer?",
                );
            }
        }
    }
    let client = Client::new(endpoint).map_err(|error| CliError::Unusable(error.to_string()))?;
    match client.probe().await {
        Ok(probe) => {
            if let Some(clock) = probe.clock {
                clocks.add(what.clone(), clock, true);
            }
            let status = probe.status;
            let tls = if endpoint.url.scheme() == "https" {
                " over TLS"
            } else {
                ""
            };
            if status.is_server_error() {
                report.warn(
                    &what,
                    format!("answers{tls}, with {status} to a HEAD"),
                    "`turnhook endpoints test` sends it a signed ping",
                )
            } else {
                // 404 or 405 to a HEAD is what most receivers say.
                report.ok(&what, format!("answers{tls}"))
            }
        }
        Err(error) => report.fail(
            &what,
            error,
            "is the receiver running, is the URL right, does a firewall let it through?",
        ),
    }
}
