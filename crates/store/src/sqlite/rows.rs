//! Groups of columns that several tables share.

use rusqlite::{Row, types::Type};
use turnhook_reducer::{time::Timestamp, usage::Usage};

use super::nat;
use crate::codes::usage_of;
pub(super) use crate::codes::{
    DEAD, DELIVERED, DISCARDED, PENDING, USAGE, event_type, state, type_code, usage_values,
};
use crate::query::Value;

/// As wide in the file as most latencies, so that a row does not grow when it is delivered.
pub(super) const NO_LATENCY: i64 = -1000;

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(|ms: i64| Timestamp(nat(ms)))
}

pub(super) fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get(column)
        .map(|ms: Option<i64>| ms.map(|ms| Timestamp(nat(ms))))
}

/// A usage from nine columns.
pub(super) fn usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    let mut columns = [0; 9];
    for (i, column) in columns.iter_mut().enumerate() {
        *column = row.get(first + i)?;
    }
    Ok(usage_of(columns))
}

/// A block that does not unpack: the file is damaged.
pub(super) fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("a damaged {what}").into())
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Value::Int(v) => v.to_sql(),
            Value::Text(v) => v.to_sql(),
            Value::Bytes(v) => v.to_sql(),
        }
    }
}
