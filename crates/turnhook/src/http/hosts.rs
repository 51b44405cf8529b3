//! By which names the port may be called. A page in somebody's browser can have a name of its own lead to this
//! machine (DNS rebinding); what it then asks for still bears that name.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

/// Names besides `localhost` and addresses.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// In the configuration, for whoever is refused.
    table: &'static str,
    names: Arc<[String]>,
}

impl Hosts {
    pub(crate) fn new(table: &'static str, names: &[String]) -> Hosts {
        let names = names.iter().map(|name| plain(name)).collect();
        Hosts { table, names }
    }

    fn allows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let host = plain(authority.host());
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<IpAddr>().is_ok() || self.names.contains(&host)
    }
}

/// As names are compared.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Refuses requests to other names. Those that name none come from no browser.
pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut named = Vec::new();
    named.extend(request.uri().authority().map(Authority::as_str));
    for value in request.headers().get_all(header::HOST) {
        named.push(value.to_str().unwrap_or("?"));
    }
    match named.iter().find(|name| !hosts.allows(name)) {
        None => next.run(request).await,
        Some(name) => {
            let shown: String = name.chars().take(100).collect();
            let message = format!(
                "turnhook does not answer to the name {shown:?}: call it by its address, or add the name to `[{}] hosts`\n",
                hosts.table
            );
            (StatusCode::MISDIRECTED_REQUEST, message).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_what_is_configured() {
        let hosts = Hosts::new("http", &["Turnhook.Example.com".to_owned()]);
        for fine in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "10.0.0.7:8080",
            "[::1]:8080",
            "[2001:db8::7]",
            "turnhook.example.com",
            "turnhook.example.com.:8080",
        ] {
            assert!(hosts.allows(fine), "{fine}");
        }
        for wrong in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "turnhook.example.com.evil.example",
            "xturnhook.example.com",
            "[evil]",
            "?",
        ] {
            assert!(!hosts.allows(wrong), "{wrong}");
        }
    }
}
