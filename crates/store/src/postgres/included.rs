//! How much of an event each endpoint is sent.

use deadpool_postgres::GenericClient;

use super::rows::{Read as _, all, one};
use super::{Fault, Postgres, attempt};
use crate::{
    error::Result,
    ids::EndpointId,
    included::{Include, Included},
};

impl Postgres {
    pub(crate) async fn set_included(&self, wanted: Vec<(EndpointId, Include)>) -> Result<Included> {
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
}

async fn read(client: &impl GenericClient) -> Result<Included, Fault> {
    Ok(Included::new(
        all(client, &(Included::SQL.to_owned(), Vec::new())).await?,
    ))
}
