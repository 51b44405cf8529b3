//! What is known of servers and connections, handed over to the next program.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use turnhook_reducer::time::Timestamp;

use super::{
    super::{
        guard::block,
        server::{Presence, Server},
    },
    ClosedBy, Connection, ServerTracker,
};
use crate::signal::Signal;

/// All that outlives the program, as far as its connections do.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Kept {
    servers: Vec<(Vec<u8>, Server)>,
    connections: Vec<KeptConnection>,
    refused: Vec<(IpAddr, (Timestamp, Timestamp))>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptConnection {
    id: u64,
    peer: IpAddr,
    accepted: Timestamp,
    server: Option<Vec<u8>>,
    tool: bool,
    original: bool,
    threads: Vec<u16>,
}

impl ServerTracker {
    /// Emits what was to be emitted later: there is no later here.
    pub(in super::super) fn emit_all(&mut self) {
        self.next = None;
        self.refusals.emit_all(&mut self.out);
        // The order of a map is no order.
        let mut servers: Vec<_> = self.servers.iter_mut().collect();
        servers.sort_by(|a, b| a.0.cmp(b.0));
        for (name, server) in servers {
            server.emit_back(&mut self.out);
            server.emit_unheard(name, &mut self.out);
        }
    }

    /// What there is to hand over. After [`ServerTracker::emit_all`].
    pub(in super::super) fn keep(&mut self) -> Kept {
        let servers = std::mem::take(&mut self.servers);
        let connections = std::mem::take(&mut self.connections);
        Kept {
            servers: servers.into_iter().map(|(name, s)| (name.to_vec(), s)).collect(),
            connections: connections
                .into_iter()
                .map(|(id, c)| KeptConnection {
                    id,
                    peer: c.peer,
                    accepted: c.accepted,
                    server: c.server.map(|name| name.to_vec()),
                    tool: c.tool,
                    original: c.original,
                    threads: c.threads,
                })
                .collect(),
            refused: self.refused.drain().collect(),
        }
    }

    /// Goes on from what was handed over. Connections that are not `here` any more were closed by us, and were heard up
    /// to `at`.
    pub(in super::super) fn resume(&mut self, kept: Kept, here: &HashSet<u64>, at: Timestamp) {
        self.next = None;
        self.refused = kept.refused.into_iter().collect();
        for (name, server) in kept.servers {
            let name: Arc<[u8]> = name.into();
            *self.names.entry(block(server.peer)).or_default() += 1;
            if matches!(server.presence, Presence::Present | Presence::Leaving { .. }) {
                let server = Arc::clone(&name);
                self.out.push_back(Signal::ServerConnected { at, server });
            }
            self.servers.insert(name, server);
        }
        let mut gone = Vec::new();
        for kept in kept.connections {
            let name = kept.server.map(Arc::<[u8]>::from);
            if let Some(server) = name.as_ref().and_then(|name| self.servers.get_mut(name)) {
                server.open.insert(kept.id);
            }
            if !here.contains(&kept.id) {
                gone.push(kept.id);
            }
            let connection = Connection {
                peer: kept.peer,
                accepted: kept.accepted,
                server: name,
                tool: kept.tool,
                original: kept.original,
                threads: Vec::new(),
            };
            self.connections.insert(kept.id, connection);
            for thread in kept.threads {
                self.carries(kept.id, thread, at);
            }
        }
        gone.sort_unstable();
        for id in gone {
            self.closed(id, ClosedBy::Us, at, at);
        }
    }

    /// All that had waited to be read was read, and it is `now`.
    pub(in super::super) fn resumed(&mut self, now: Timestamp) {
        self.next = None;
        for server in self.servers.values_mut() {
            server.resumed(now);
        }
    }
}
