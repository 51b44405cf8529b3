//! How much of an event each endpoint is sent.

use deadpool_postgres::GenericClient;

use super::rows::{Read as _, one};
use super::{Fault, Postgres, attempt};
use crate::{
    error::Result,
    ids::EndpointId,
    included::{Included, Part},
};

impl Postgres {
    pub(crate) async fn set_included(&self, wanted: Vec<(EndpointId, Part)>) -> Result<Included> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            // Whoever numbers events waits: those that come next are sent by what is written here.
            let last: i64 = one(&tx, "SELECT value FROM counter WHERE name = 'event' FOR UPDATE", &[])
                .await?
                .read(0)?;
            for (endpoint, part) in read(&tx).await?.changed(&wanted) {
                tx.execute(
                    "INSERT INTO included (endpoint, from_event, allocations, addresses) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (endpoint, from_event) DO UPDATE SET allocations = excluded.allocations, \
                     addresses = excluded.addresses",
                    &[
                        &i32::from(endpoint.0),
                        &(last + 1),
                        &i64::from(part.allocations),
                        &i64::from(part.addresses),
                    ],
                )
                .await?;
            }
            let included = read(&tx).await?;
            tx.commit().await?;
            Ok(included)
        })
    }

    pub(crate) async fn included(&self) -> Result<Included> {
        attempt!(&self.db, client => { read(client).await })
    }
}

async fn read(client: &impl GenericClient) -> Result<Included, Fault> {
    let sql =
        "SELECT endpoint, from_event, allocations, addresses FROM included ORDER BY endpoint, from_event";
    let mut included = Included::default();
    for row in client.query(sql, &[]).await? {
        let (endpoint, allocations, addresses): (i32, i64, i64) = (row.read(0)?, row.read(2)?, row.read(3)?);
        let endpoint = u16::try_from(endpoint).map_err(|_| Fault::damaged("included"))?;
        let part = Part {
            allocations: u32::try_from(allocations).unwrap_or(u32::MAX),
            addresses: addresses != 0,
        };
        included.add(EndpointId(endpoint), row.read(1)?, part);
    }
    Ok(included)
}
