//! Statements that are sent one after the other without waiting for each other's answers.

use deadpool_postgres::Client;
use futures_util::future::join_all;
use tokio_postgres::{Row, types::ToSql};

use super::Fault;

/// Rows that one statement deals with.
pub(super) const ROWS: usize = 4096;

type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Some of them, with their values, in order.
#[derive(Default)]
pub(super) struct Pipeline<'a>(Vec<(&'a str, Vec<Param<'a>>)>);

impl<'a> Pipeline<'a> {
    /// Adds one; its place.
    pub(super) fn add(&mut self, sql: &'a str, params: Vec<Param<'a>>) -> usize {
        self.0.push((sql, params));
        self.0.len() - 1
    }

    /// Runs them, and gives the rows of each. Inside of a transaction the first that fails undoes all; a `COMMIT` among
    /// them does no more then than to end it.
    pub(super) async fn run(&self, client: &Client) -> Result<Vec<Vec<Row>>, Fault> {
        let mut prepared = Vec::with_capacity(self.0.len());
        for (sql, _) in &self.0 {
            prepared.push(client.prepare_cached(sql).await?);
        }
        let params: Vec<Vec<&(dyn ToSql + Sync)>> = self
            .0
            .iter()
            .map(|(_, params)| params.iter().map(|p| &**p as &(dyn ToSql + Sync)).collect())
            .collect();
        // Sent when they are first polled, which is in this order; the answers come in the same.
        let answers = prepared
            .iter()
            .zip(&params)
            .map(|(statement, params)| client.query(statement, params));
        // The first that failed by their order says why: an answer to a later one, which says only that all is undone, may be
        // seen sooner, where both come while this is being polled.
        let answers = join_all(answers).await.into_iter().collect::<Result<_, _>>();
        Ok(answers?)
    }
}

/// As parameters of one statement.
macro_rules! params {
    ($($param:expr),* $(,)?) => {
        vec![$(Box::new($param) as Box<dyn tokio_postgres::types::ToSql + Sync + Send + '_>),*]
    };
}
pub(super) use params;

/// Ends a transaction that has failed. If even that does, the connection is closed.
pub(super) async fn undo<T>(client: &Client, result: Result<T, Fault>) -> Result<T, Fault> {
    match result {
        Ok(value) => Ok(value),
        Err(fault) => match client.batch_execute("ROLLBACK").await {
            Ok(()) => Err(fault),
            Err(_) => Err(match fault {
                Fault::Sql(e) => Fault::Lost(e.to_string()),
                other => other,
            }),
        },
    }
}
