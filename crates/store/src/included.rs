//! How much of an event each endpoint is sent, and from which event on.

use std::collections::BTreeMap;

use crate::ids::{DeliveryId, EndpointId};

/// How much of an event an endpoint is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Allocations at most.
    pub allocations: u32,
    /// Whether clients' addresses are in them.
    pub addresses: bool,
}

/// What was configured when: what is sent of an event depends on that, and not on what is configured when it is repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Included(pub(crate) BTreeMap<EndpointId, Vec<(i64, Part)>>);

impl Included {
    /// How much of its event a delivery sends. `None`: all of it, since nothing was configured then.
    #[must_use]
    pub fn of(&self, delivery: DeliveryId) -> Option<Part> {
        let parts = self.0.get(&delivery.endpoint())?;
        let found = parts.iter().rev().find(|(from, _)| *from <= delivery.event());
        found.map(|(_, part)| *part)
    }

    pub(crate) fn add(&mut self, endpoint: EndpointId, from_event: i64, part: Part) {
        self.0.entry(endpoint).or_default().push((from_event, part));
    }

    /// Those that differ from what holds now.
    pub(crate) fn changed(&self, wanted: &[(EndpointId, Part)]) -> Vec<(EndpointId, Part)> {
        let differs = |(endpoint, part): &&(EndpointId, Part)| {
            let last = self.0.get(endpoint).and_then(|parts| parts.last());
            last.map(|(_, part)| part) != Some(part)
        };
        wanted.iter().filter(differs).copied().collect()
    }
}
