//! What is asked of both databases in the same words, and what only this one is asked.

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::IsolationLevel;

use super::{
    Fault, Postgres, attempt,
    rows::{Read as _, all, one, params},
};
use crate::{
    codes::nat,
    details,
    error::Result,
    query::{Query, Value},
    record::Record,
    session,
};

/// All that is read in it is of one moment.
async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Fault> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true);
    Ok(snapshot.start().await?)
}

impl Postgres {
    /// The rows that answer a query.
    pub(crate) async fn list<T: Record>(&self, query: Query) -> Result<Vec<T>> {
        attempt!(&self.db, client => { all(client, &query).await })
    }

    /// Of rows that are a user and a number: the users with the largest sums.
    pub(crate) async fn with_most(&self, (rows, values): Query, most: usize) -> Result<Vec<Vec<u8>>> {
        // Sums of bigint would be decimal numbers, which are slow to add.
        let sql = format!(
            "SELECT p.who, sum(CAST(p.bytes AS double precision)) FROM ({rows}) p GROUP BY p.who ORDER BY 2 DESC LIMIT {most}"
        );
        let found: Vec<(Vec<u8>,)> = self.list((sql, values)).await?;
        Ok(found.into_iter().map(|(user,)| user).collect())
    }

    /// What a session is shown by.
    pub(crate) async fn session(
        &self,
        [row, events, deliveries, gaps]: [Query; 4],
    ) -> Result<session::Shown> {
        attempt!(&self.db, client => {
            let tx = snapshot(client).await?;
            let (row, events) = (all(&tx, &row).await?, all(&tx, &events).await?);
            let shown = (row, events, all(&tx, &deliveries).await?, all(&tx, &gaps).await?);
            tx.commit().await?;
            Ok(shown)
        })
    }

    /// What an event's deliveries are shown by.
    pub(crate) async fn delivery(&self, [deliveries, attempts]: [Query; 2]) -> Result<details::Found> {
        attempt!(&self.db, client => {
            let tx = snapshot(client).await?;
            let found = (all(&tx, &deliveries).await?, all(&tx, &attempts).await?);
            tx.commit().await?;
            Ok(found)
        })
    }

    /// Does a statement once for each of these values, in one transaction: how many rows it changed.
    pub(crate) async fn execute(&self, sql: &str, values: &[Vec<Value>]) -> Result<u64> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let mut changed = 0;
            for values in values {
                changed += tx.execute(sql, &params(values)).await?;
            }
            tx.commit().await?;
            Ok(changed)
        })
    }

    /// The server's version, and its clock in milliseconds since the epoch.
    pub(crate) async fn about(&self) -> Result<(String, u64)> {
        let sql = format!(
            "SELECT current_setting('server_version'), {}",
            super::cluster::NOW
        );
        attempt!(&self.db, client => {
            let row = one(client, &sql, &[]).await?;
            Ok((row.read(0)?, nat(row.read(1)?)))
        })
    }
}
