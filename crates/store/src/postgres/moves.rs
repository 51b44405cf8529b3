//! What a transaction changes in `backlog`: written once, at its end, in one order, so that transactions wait for each
//! other briefly and never in a circle.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;

use super::connection::Fault;
use crate::{
    codes::{DEAD, PENDING},
    ids::EndpointId,
};

/// Changes by endpoint and lane: pending, dead.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(i32, i32), (i64, i64)>);

/// The lane of a delivery, from `delivery.session`.
pub(super) fn lane(session: i64) -> i32 {
    i32::try_from(session & i64::from(crate::cluster::Lanes::COUNT - 1)).unwrap_or(0)
}

impl Moves {
    /// A delivery goes from one `delivery.state` to another; `None` before it was there, and after it was removed.
    pub(super) fn add(&mut self, endpoint: EndpointId, session: i64, from: Option<i64>, to: Option<i64>) {
        let is = |state: Option<i64>, code: i64| i64::from(state == Some(code));
        let change = (is(to, PENDING) - is(from, PENDING), is(to, DEAD) - is(from, DEAD));
        if change != (0, 0) {
            let sum = self.0.entry((i32::from(endpoint.0), lane(session))).or_default();
            sum.0 += change.0;
            sum.1 += change.1;
        }
    }

    /// Columns to unnest: endpoint, lane, pending, dead.
    pub(super) fn columns(&self) -> (Vec<i32>, Vec<i32>, Vec<i64>, Vec<i64>) {
        let changed = self.0.iter().filter(|(_, change)| **change != (0, 0));
        let (mut endpoints, mut lanes, mut pending, mut dead) = (vec![], vec![], vec![], vec![]);
        for ((endpoint, lane), change) in changed {
            endpoints.push(*endpoint);
            lanes.push(*lane);
            pending.push(change.0);
            dead.push(change.1);
        }
        (endpoints, lanes, pending, dead)
    }

    /// Writes them. Call it last before the transaction's commit.
    pub(super) async fn write(&self, client: &impl GenericClient) -> Result<(), Fault> {
        let (endpoints, lanes, pending, dead) = self.columns();
        if !endpoints.is_empty() {
            let statement = client.prepare_cached(ADD).await?;
            client
                .execute(&statement, &[&endpoints, &lanes, &pending, &dead])
                .await?;
        }
        Ok(())
    }
}

/// With the columns of [`Moves::columns`].
pub(super) const ADD: &str = "INSERT INTO backlog AS b (endpoint, lane, pending, dead) \
     SELECT m.endpoint, m.lane, m.pending, m.dead \
     FROM unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[]) AS m (endpoint, lane, pending, dead) \
     ORDER BY m.endpoint, m.lane \
     ON CONFLICT (endpoint, lane) DO UPDATE SET pending = b.pending + excluded.pending, dead = b.dead + excluded.dead";
