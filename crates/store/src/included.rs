//! How much of an event each endpoint is sent, and from which event on.

use std::collections::BTreeMap;

pub use turnhook_reducer::outbox::Include;

use crate::{
    ids::{DeliveryId, EndpointId},
    record::{Columns, Record},
};

/// What was configured when: what is sent of an event depends on that, and not on what is configured when it is repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Included(pub(crate) BTreeMap<EndpointId, Vec<(i64, Include)>>);

impl Included {
    /// How much of its event a delivery sends. `None`: all of it, since nothing was configured then.
    #[must_use]
    pub fn of(&self, delivery: DeliveryId) -> Option<Include> {
        let parts = self.0.get(&delivery.endpoint())?;
        let found = parts.iter().rev().find(|(from, _)| *from <= delivery.event());
        found.map(|(_, part)| *part)
    }

    /// Asks for all of it.
    pub(crate) const SQL: &str =
        "SELECT endpoint, from_event, allocations, addresses FROM included ORDER BY endpoint, from_event";

    pub(crate) fn new(rows: Vec<IncludedRow>) -> Included {
        let mut included = Included::default();
        for IncludedRow(endpoint, from_event, part) in rows {
            included.0.entry(endpoint).or_default().push((from_event, part));
        }
        included
    }

    /// Those that differ from what holds now.
    pub(crate) fn changed(&self, wanted: &[(EndpointId, Include)]) -> Vec<(EndpointId, Include)> {
        let differs = |(endpoint, part): &&(EndpointId, Include)| {
            let last = self.0.get(endpoint).and_then(|parts| parts.last());
            last.map(|(_, part)| part) != Some(part)
        };
        wanted.iter().filter(differs).copied().collect()
    }
}

pub(crate) struct IncludedRow(EndpointId, i64, Include);

impl Record for IncludedRow {
    fn read<R: Columns>(row: &R) -> Result<IncludedRow, R::Error> {
        let part = Include {
            allocations: row.value(2)?,
            addresses: row.value(3)?,
        };
        Ok(IncludedRow(row.value(0)?, row.value(1)?, part))
    }
}
