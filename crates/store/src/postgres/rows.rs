//! Columns, and groups of them, that several tables share.

use deadpool_postgres::GenericClient;
use tokio_postgres::{
    Column, Row,
    types::{FromSql, ToSql},
};
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
    usage::Usage,
};

use super::{Fault, fault::chain};
use crate::codes::{nat, usage_of};

/// Reads a column, and says which one it was that is not what it should be. (`Row::get` panics there.)
pub(super) trait Read {
    fn read<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Fault>;
}

impl Read for Row {
    fn read<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Fault> {
        self.try_get(column).map_err(|error| {
            let name = self.columns().get(column).map_or("?", Column::name);
            Fault::Answer(format!("column {column} ({name}): {}", chain(&error)))
        })
    }
}

/// The one row that there must be.
pub(super) async fn one(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Row, Fault> {
    let mut rows = client.query(sql, params).await?;
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        (found, _) => Err(Fault::Answer(format!(
            "one row was to come, and there were {}: {sql}",
            rows.len() + usize::from(found.is_some())
        ))),
    }
}

/// A small number as `integer`: two that do not fit must not become the same.
pub(super) fn id32(n: u32) -> Result<i32, Fault> {
    i32::try_from(n)
        .map_err(|_| Fault::Answer(format!("the number {n} is larger than the database's `integer`")))
}

pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp(nat(row.read(column)?)))
}

pub(super) fn maybe_time(row: &Row, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.read::<Option<i64>>(column)?.map(|ms| Timestamp(nat(ms))))
}

/// A number that is kept wider than it is.
pub(super) fn number<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T, Fault> {
    T::try_from(row.read::<i64>(column)?).map_err(|_| Fault::damaged("number"))
}

/// A `smallint`.
pub(super) fn code(row: &Row, column: usize) -> Result<i64, Fault> {
    Ok(row.read::<i16>(column)?.into())
}

/// A `smallint` that may not be there.
pub(super) fn maybe_code(row: &Row, column: usize) -> Result<Option<i64>, Fault> {
    Ok(row.read::<Option<i16>>(column)?.map(i64::from))
}

/// An HTTP status.
pub(super) fn status(row: &Row, column: usize) -> Result<Option<u16>, Fault> {
    let status: Option<i32> = row.read(column)?;
    Ok(status.and_then(|s| u16::try_from(s).ok()))
}

pub(super) fn event_id(row: &Row, column: usize) -> Result<EventId, Fault> {
    let id: &[u8] = row.read(column)?;
    id.try_into().map(EventId).map_err(|_| Fault::damaged("id"))
}

pub(super) fn session_id(row: &Row, column: usize) -> Result<SessionId, Fault> {
    maybe_session_id(row, column)?.ok_or_else(|| Fault::damaged("id"))
}

/// A session's that may not be there.
pub(super) fn maybe_session_id(row: &Row, column: usize) -> Result<Option<SessionId>, Fault> {
    let id: Option<&[u8]> = row.read(column)?;
    id.map(|id| id.try_into().map(SessionId).map_err(|_| Fault::damaged("id")))
        .transpose()
}

/// A usage from nine columns.
pub(super) fn usage(row: &Row, first: usize) -> Result<Usage, Fault> {
    let mut columns = [0i64; 9];
    for (i, column) in columns.iter_mut().enumerate() {
        *column = row.read(first + i)?;
    }
    Ok(usage_of(columns))
}
