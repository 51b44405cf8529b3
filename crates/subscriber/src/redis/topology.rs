//! Which server to listen to: the one named, Sentinel's master, or a node of a Cluster. Asked anew before each
//! connection, so that a failover is followed.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        Builder, ConnectHandle, Value,
        cluster::ClusterRouting,
        config::{Config, Server, ServerConfig},
    },
};

use tokio::{net::TcpStream, time::timeout};

use super::config::{Node, Target};

/// A client of fred's that is gone when it is dropped.
pub(super) struct Connected {
    pub(super) client: Client,
    task: ConnectHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects once: trying again is the caller's business.
pub(super) async fn connect(config: Config, patience: Duration) -> Result<Connected, String> {
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|c| {
        c.connection_timeout = patience;
        c.internal_command_timeout = patience;
        c.max_command_attempts = 1;
    });
    builder.with_performance_config(|c| c.default_command_timeout = patience);
    let client = builder.build().map_err(|e| said(&e))?;
    match client.init().await {
        Ok(task) => Ok(Connected { client, task }),
        Err(e) => Err(said(&e)),
    }
}

/// For people: of an error of the system, fred keeps only how a debugger shows it.
fn said(error: &fred::error::Error) -> String {
    let of_system = || {
        let rest = error.details().strip_prefix("Os { code: ")?;
        let (code, rest) = rest.split_once(", kind: ")?;
        let (_, message) = rest.split_once("message: \"")?;
        let message = message.strip_suffix("\" }")?;
        Some(format!("cannot connect: {message} (os error {code})"))
    };
    of_system().unwrap_or_else(|| error.to_string())
}

/// Finds the server to listen to. `known`: nodes of a Cluster besides those configured.
pub(super) async fn find(target: &Target, known: &[Server], patience: Duration) -> Result<Node, String> {
    match &target.fred.server {
        ServerConfig::Centralized { server } => Ok(Node::Tcp(server.clone())),
        ServerConfig::Unix { path } => Ok(Node::Unix(path.clone())),
        ServerConfig::Sentinel { service_name, .. } => {
            let config = Config {
                fail_fast: true,
                ..target.fred.clone()
            };
            let connected = connect(config, patience)
                .await
                .map_err(|e| format!("Sentinel: {e}"))?;
            let master = connected.client.active_connections().into_iter().next();
            let _ = connected.client.quit().await;
            master
                .map(Node::Tcp)
                .ok_or_else(|| format!("Sentinel knows no master of `{service_name}`"))
        }
        ServerConfig::Clustered { hosts, .. } => {
            // Any node hears all that is published on any other, even while some are down, so the first that
            // answers will do. But only the one that coturn talks to has its keys, and that is more likely the
            // first one of the URL.
            for server in hosts.iter().chain(known) {
                if reachable(server, patience / 4).await {
                    return Ok(Node::Tcp(server.clone()));
                }
            }
            Err(format!(
                "none of the {} known nodes of the Cluster answers",
                hosts.len() + known.len()
            ))
        }
    }
}

async fn reachable(server: &Server, patience: Duration) -> bool {
    let host = server.host.trim_start_matches('[').trim_end_matches(']');
    timeout(patience, TcpStream::connect((host, server.port)))
        .await
        .is_ok_and(|r| r.is_ok())
}

/// The other masters of a Cluster, as one of its nodes knows them: for when those of the URL are gone.
pub(super) fn masters(slots: Value, node: &Node) -> Vec<Server> {
    let Node::Tcp(server) = node else {
        return Vec::new();
    };
    let mut masters = ClusterRouting::from_cluster_slots(slots, server.host.clone())
        .map(|routing| routing.unique_primary_nodes())
        .unwrap_or_default();
    masters.sort();
    masters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_sentences() {
        let refused = fred::error::Error::from(std::io::Error::from_raw_os_error(111));
        assert_eq!(
            said(&refused),
            "cannot connect: Connection refused (os error 111)"
        );
        let other = fred::error::Error::new(fred::error::ErrorKind::Auth, "WRONGPASS invalid password");
        assert!(said(&other).contains("WRONGPASS invalid password"));
    }
}
