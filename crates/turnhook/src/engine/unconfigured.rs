//! What the store holds of sources that are not configured: said at every start and by `check`, since nothing else
//! would ever mention it.

use std::{collections::BTreeSet, fmt};

use tracing::warn;
use turnhook_store::{SourceId, Store};

use crate::config::Config;

/// A source that is in the store, has something open, and is not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unconfigured {
    name: String,
    allocations: u64,
    sessions: u64,
}

impl fmt::Display for Unconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store holds open sessions of a source that is not configured: they stay open, and nothing more of them is \
             billed. Configure it again until they have ended; if it is to have another name, stop turnhook and run \
             `turnhook sources rename {name} NEW` before the first start with that name, or the source of the new name bills \
             the same calls once more",
            name = self.name
        )
    }
}

impl Unconfigured {
    /// For people who look at no fields.
    pub(crate) fn warning(&self) -> String {
        let Unconfigured {
            name,
            allocations,
            sessions,
        } = self;
        format!("source {name} ({sessions} sessions, {allocations} allocations): {self}")
    }
}

/// Each of them.
pub(crate) async fn find(config: &Config, store: &Store) -> turnhook_store::Result<Vec<Unconfigured>> {
    let elsewhere: BTreeSet<SourceId> = match store.cluster() {
        // Another node may have it.
        Some(cluster) => {
            let nodes = cluster.view().await?.nodes;
            nodes
                .into_iter()
                .filter(|node| node.live)
                .flat_map(|node| node.sources)
                .collect()
        }
        None => BTreeSet::new(),
    };
    let mut found = Vec::new();
    for (name, id) in store.ledger().sources().await? {
        if config.sources.iter().any(|source| source.name == name) || elsewhere.contains(&id) {
            continue;
        }
        let (allocations, sessions) = store.state().open_in(id).await?;
        if (allocations, sessions) != (0, 0) {
            found.push(Unconfigured {
                name,
                allocations,
                sessions,
            });
        }
    }
    Ok(found)
}

/// Says so in the log.
pub(super) async fn warn_of(config: &Config, store: &Store) -> turnhook_store::Result<()> {
    for one in find(config, store).await? {
        warn!(
            source = one.name,
            sessions = one.sessions,
            allocations = one.allocations,
            "{one}"
        );
    }
    Ok(())
}
