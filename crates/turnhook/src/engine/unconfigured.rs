//! What the store holds of sources that are not configured: said at every start, since nothing else would ever tell of it.

use std::collections::BTreeSet;

use tracing::warn;
use turnhook_store::{SourceId, Store};

use crate::config::Config;

/// Says so for each that has something open.
pub(super) async fn tell(config: &Config, store: &Store) -> turnhook_store::Result<()> {
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
    for (name, id) in store.sources().await? {
        if config.sources.iter().any(|source| source.name == name) || elsewhere.contains(&id) {
            continue;
        }
        let (allocations, sessions) = store.open_in(id).await?;
        if (allocations, sessions) == (0, 0) {
            continue;
        }
        warn!(
            source = name,
            sessions,
            allocations,
            "the store holds open sessions of a source that is not configured: they stay open, and nothing more of them is \
             told. Configure it again until they have ended; if it is to have another name, stop turnhook and run \
             `turnhook sources rename {name} NEW` before the first start with that name, or the source of the new name tells \
             of the same calls once more"
        );
    }
    Ok(())
}
