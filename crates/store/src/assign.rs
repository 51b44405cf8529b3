//! Who should hold which lease.
use crate::cluster::{LeaseName, NodeId, View};
use std::collections::BTreeMap;

/// The node that should hold each lease.
#[must_use]
pub fn assign(_view: &View) -> BTreeMap<LeaseName, NodeId> {
    BTreeMap::new()
}
