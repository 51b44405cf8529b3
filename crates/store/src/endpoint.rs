//! Endpoints as the store knows them: also those that are no longer configured.

pub use turnhook_reducer::outbox::Pause;
use turnhook_reducer::time::Timestamp;

use crate::{
    ids::EndpointId,
    record::{Columns, Record},
};

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// Its name in the configuration.
    pub name: String,
    /// When it was first configured.
    pub created_at: Timestamp,
    /// When it was first missing in the configuration; `None` while it is configured.
    pub removed_at: Option<Timestamp>,
    /// Its pauses, oldest first, that retention has not trimmed. It is paused if the last has no `to`.
    pub pauses: Vec<Pause>,
}

impl Endpoint {
    /// The pause that holds now.
    #[must_use]
    pub fn paused(&self) -> Option<&Pause> {
        self.pauses.last().filter(|p| p.to.is_none())
    }
}

/// What an endpoint still has to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries that are pending.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// The timestamp of the oldest pending delivery's event (the one that was committed first).
    pub oldest: Option<Timestamp>,
}

/// An endpoint without its pauses, and one of these.
pub(crate) struct PausedRow(Endpoint, Option<Pause>);

impl PausedRow {
    /// Asks for all of them.
    pub(crate) const SQL: &str = "SELECT p.id, p.name, p.created_at, p.removed_at, z.from_at, z.to_at, z.reason \
         FROM endpoint p LEFT JOIN endpoint_pause z ON z.endpoint = p.id ORDER BY p.id, z.id";

    pub(crate) fn endpoints(rows: Vec<PausedRow>) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for PausedRow(endpoint, pause) in rows {
            match endpoints.last_mut().filter(|last| last.id == endpoint.id) {
                Some(last) => last.pauses.extend(pause),
                None => endpoints.push(Endpoint {
                    pauses: pause.into_iter().collect(),
                    ..endpoint
                }),
            }
        }
        // Not by the database, whose collation may be anything.
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }
}

impl Record for PausedRow {
    fn read<R: Columns>(row: &R) -> Result<PausedRow, R::Error> {
        let endpoint = Endpoint {
            id: row.value(0)?,
            name: row.value(1)?,
            created_at: row.value(2)?,
            removed_at: row.maybe(3)?,
            pauses: Vec::new(),
        };
        let pause = match row.maybe(4)? {
            Some(from) => Some(Pause {
                from,
                to: row.maybe(5)?,
                reason: row.value::<&str>(6)?.into(),
            }),
            None => None,
        };
        Ok(PausedRow(endpoint, pause))
    }
}
