//! Which server to listen to: the one named, Sentinel's master, or a node of a Cluster. Asked anew before each
//! connection, so that a failover is followed.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        Builder, ConnectHandle,
        config::{Config, Server, ServerConfig},
    },
};

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
    let client = builder.build().map_err(|e| e.to_string())?;
    match client.init().await {
        Ok(task) => Ok(Connected { client, task }),
        Err(e) => Err(e.to_string()),
    }
}

/// Finds the server to listen to.
pub(super) async fn find(target: &Target, patience: Duration) -> Result<Node, String> {
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
            let config = Config {
                fail_fast: true,
                database: None,
                ..target.fred.clone()
            };
            let connected = connect(config, patience)
                .await
                .map_err(|e| format!("Cluster: {e}"))?;
            let nodes = connected.client.active_connections();
            let _ = connected.client.quit().await;
            choose(hosts, nodes)
                .await
                .map(Node::Tcp)
                .ok_or_else(|| "the Cluster has no masters".to_owned())
        }
    }
}

/// Any node hears everything that is published on any other; but only the one that coturn talks to has its keys,
/// and that is more likely the first one of the URL.
async fn choose(hosts: &[Server], mut nodes: Vec<Server>) -> Option<Server> {
    nodes.sort();
    for host in hosts {
        if let Some(node) = nodes.iter().find(|n| n.host == host.host && n.port == host.port) {
            return Some(node.clone());
        }
        let addresses = resolve(host).await;
        for node in &nodes {
            if !resolve(node).await.is_disjoint(&addresses) {
                return Some(node.clone());
            }
        }
    }
    nodes.into_iter().next()
}

async fn resolve(server: &Server) -> HashSet<SocketAddr> {
    match tokio::net::lookup_host((&*server.host, server.port)).await {
        Ok(found) => found.collect(),
        Err(_) => HashSet::new(),
    }
}
