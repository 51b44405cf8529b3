//! Columns, and groups of them, that several tables share.

use tokio_postgres::Row;
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
    usage::Usage,
};

use super::Fault;
use crate::codes::{nat, usage_of};

pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp(nat(row.try_get(column)?)))
}

pub(super) fn maybe_time(row: &Row, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row
        .try_get::<_, Option<i64>>(column)?
        .map(|ms| Timestamp(nat(ms))))
}

/// A number that is kept wider than it is.
pub(super) fn number<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T, Fault> {
    T::try_from(row.try_get::<_, i64>(column)?).map_err(|_| Fault::damaged("number"))
}

/// A `smallint`.
pub(super) fn code(row: &Row, column: usize) -> Result<i64, Fault> {
    Ok(row.try_get::<_, i16>(column)?.into())
}

/// A `smallint` that may not be there.
pub(super) fn maybe_code(row: &Row, column: usize) -> Result<Option<i64>, Fault> {
    Ok(row.try_get::<_, Option<i16>>(column)?.map(i64::from))
}

/// An HTTP status.
pub(super) fn status(row: &Row, column: usize) -> Result<Option<u16>, Fault> {
    let status: Option<i32> = row.try_get(column)?;
    Ok(status.and_then(|s| u16::try_from(s).ok()))
}

pub(super) fn event_id(row: &Row, column: usize) -> Result<EventId, Fault> {
    let id: &[u8] = row.try_get(column)?;
    id.try_into().map(EventId).map_err(|_| Fault::damaged("id"))
}

pub(super) fn session_id(row: &Row, column: usize) -> Result<SessionId, Fault> {
    maybe_session_id(row, column)?.ok_or_else(|| Fault::damaged("id"))
}

/// A session's that may not be there.
pub(super) fn maybe_session_id(row: &Row, column: usize) -> Result<Option<SessionId>, Fault> {
    let id: Option<&[u8]> = row.try_get(column)?;
    id.map(|id| id.try_into().map(SessionId).map_err(|_| Fault::damaged("id")))
        .transpose()
}

/// A usage from nine columns.
pub(super) fn usage(row: &Row, first: usize) -> Result<Usage, Fault> {
    let mut columns = [0i64; 9];
    for (i, column) in columns.iter_mut().enumerate() {
        *column = row.try_get(first + i)?;
    }
    Ok(usage_of(columns))
}
