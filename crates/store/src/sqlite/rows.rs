//! Groups of columns that several tables share.

use rusqlite::{
    Connection, Row, params_from_iter,
    types::{Type, ValueRef},
};
use turnhook_reducer::time::Timestamp;

use super::{most::Adding, nat};
pub(super) use crate::codes::{
    DEAD, DELIVERED, DISCARDED, PENDING, USAGE, event_type, type_code, usage_values,
};
use crate::{
    query::{Query, Value},
    record::{Columns, Record},
};

/// As wide in the file as most latencies, so that a row does not grow when it is delivered.
pub(super) const NO_LATENCY: i64 = -1000;

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(|ms: i64| Timestamp(nat(ms)))
}

pub(super) fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get(column)
        .map(|ms: Option<i64>| ms.map(|ms| Timestamp(nat(ms))))
}

/// A block that does not unpack: the file is damaged.
pub(super) fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("a damaged {what}").into())
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Value::Null => rusqlite::types::Null.to_sql(),
            Value::Int(v) => v.to_sql(),
            Value::Text(v) => v.to_sql(),
            Value::Bytes(v) => v.to_sql(),
        }
    }
}

impl Columns for Row<'_> {
    type Error = rusqlite::Error;

    fn int(&self, column: usize) -> rusqlite::Result<Option<i64>> {
        self.get(column)
    }

    fn text(&self, column: usize) -> rusqlite::Result<Option<&str>> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            value => Ok(Some(value.as_str()?)),
        }
    }

    fn bytes(&self, column: usize) -> rusqlite::Result<Option<&[u8]>> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            value => Ok(Some(value.as_blob()?)),
        }
    }

    fn is_null(&self, column: usize) -> rusqlite::Error {
        let name = self.as_ref().column_name(column).unwrap_or("?");
        rusqlite::Error::InvalidColumnType(column, name.to_owned(), Type::Null)
    }

    fn damaged(what: &str) -> rusqlite::Error {
        damaged(what)
    }
}

/// The rows that answer a query.
pub(super) fn all<T: Record>(conn: &Connection, (sql, values): &Query) -> rusqlite::Result<Vec<T>> {
    conn.prepare_cached(sql)?
        .query_map(params_from_iter(values), |row| T::read(row))?
        .collect()
}

/// Of rows that are a user and a number: the users with the largest sums. SQLite would sort the rows by user to add them
/// up, which takes three times as long as to read them.
pub(super) fn with_most(
    conn: &Connection,
    (sql, values): &Query,
    most: usize,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut adding = Adding::default();
    let mut stmt = conn.prepare_cached(sql)?;
    let mut rows = stmt.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        adding.add(row.get_ref(0)?.as_blob()?, nat(row.get(1)?));
    }
    Ok(adding.most(most))
}
