//! The two databases behind the handles, and what is asked of both in the same words.

use std::sync::Arc;

use crate::{
    error::Result,
    postgres::Postgres,
    query::{Dialect, Query, Value},
    record::Record,
    sqlite::Sqlite,
};

#[derive(Clone)]
pub(crate) enum Backend {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

/// The same request, whatever stands behind a handle.
macro_rules! on {
    ($handle:expr, $db:ident => $request:expr) => {
        match &$handle.0 {
            $crate::Backend::Sqlite($db) => $request,
            $crate::Backend::Postgres($db) => $request,
        }
    };
}
pub(crate) use on;

impl Backend {
    pub(crate) fn dialect(&self) -> &'static Dialect {
        match self {
            Backend::Sqlite(_) => &crate::sqlite::DIALECT,
            Backend::Postgres(_) => &crate::postgres::DIALECT,
        }
    }

    /// Brings the ledger up to date: SQLite writes it later than the events.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        match self {
            Backend::Sqlite(db) => db.catch_up().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// The rows that answer a query.
    pub(crate) async fn list<T: Record + Send + 'static>(&self, query: Query) -> Result<Vec<T>> {
        match self {
            Backend::Sqlite(db) => db.list(query).await,
            Backend::Postgres(db) => db.list(query).await,
        }
    }

    /// Of rows that are a user and a number: the users with the largest sums.
    pub(crate) async fn with_most(&self, query: Query, most: usize) -> Result<Vec<Vec<u8>>> {
        match self {
            Backend::Sqlite(db) => db.with_most(query, most).await,
            Backend::Postgres(db) => db.with_most(query, most).await,
        }
    }

    /// The rows that answer a statement that has its values in the places `?1`, `?2` …
    pub(crate) async fn ask<T: Record + Send + 'static>(
        &self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<T>> {
        self.list((self.dialect().say(sql), values)).await
    }

    /// Does a statement once for each of these values, in one transaction: how many rows it changed.
    pub(crate) async fn execute(&self, sql: &str, values: Vec<Vec<Value>>) -> Result<u64> {
        let sql = self.dialect().say(sql);
        match self {
            Backend::Sqlite(db) => db.execute(sql, values).await,
            Backend::Postgres(db) => db.execute(&sql, &values).await,
        }
    }
}
