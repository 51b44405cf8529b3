//! How rows are read, written once: from the columns of a row, whichever database gave it, to what the store's functions give.

use turnhook_reducer::{
    event::{EventId, EventType, SessionId},
    time::Timestamp,
    usage::Usage,
};

use crate::{
    codes::{self, nat, usage_of},
    delivery::DeliveryState,
    ids::{EndpointId, SourceId},
};

/// A row as a database gives it.
pub(crate) trait Columns {
    type Error;

    /// A number of whatever width, or a truth value as 0 or 1.
    fn int(&self, column: usize) -> Result<Option<i64>, Self::Error>;
    fn text(&self, column: usize) -> Result<Option<&str>, Self::Error>;
    fn bytes(&self, column: usize) -> Result<Option<&[u8]>, Self::Error>;
    /// The error of a column that is NULL and must not be.
    fn is_null(&self, column: usize) -> Self::Error;
    /// The error of what makes no sense.
    fn damaged(what: &str) -> Self::Error;

    fn value<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Self::Error>
    where
        Self: Sized,
    {
        T::read(self, column)?.ok_or_else(|| self.is_null(column))
    }

    /// One that may be NULL.
    fn maybe<'r, T: Column<'r>>(&'r self, column: usize) -> Result<Option<T>, Self::Error>
    where
        Self: Sized,
    {
        T::read(self, column)
    }

    /// A usage from nine columns.
    fn usage(&self, first: usize) -> Result<Usage, Self::Error>
    where
        Self: Sized,
    {
        Ok(usage_of(self.ints(first)?))
    }

    /// Numbers that stand side by side.
    fn ints<const N: usize>(&self, first: usize) -> Result<[i64; N], Self::Error>
    where
        Self: Sized,
    {
        let mut ints = [0; N];
        for (i, int) in ints.iter_mut().enumerate() {
            *int = self.value(first + i)?;
        }
        Ok(ints)
    }
}

/// What a column can hold.
pub(crate) trait Column<'r>: Sized {
    /// `None` where the column is NULL.
    fn read<R: Columns>(row: &'r R, column: usize) -> Result<Option<Self>, R::Error>;
}

/// What a row as a whole is.
pub(crate) trait Record: Sized {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error>;
}

/// Columns that are something else in the database: which of its kinds they are, and how they become what they are here.
macro_rules! columns {
    ($($column:ty: $kind:ident => $from:expr,)*) => {$(
        impl<'r> Column<'r> for $column {
            fn read<R: Columns>(row: &'r R, column: usize) -> Result<Option<Self>, R::Error> {
                Ok(row.$kind(column)?.map($from))
            }
        }
    )*};
}

columns! {
    i64: int => |v| v,
    u64: int => nat,
    bool: int => |v| v != 0,
    Timestamp: int => |v| Timestamp(nat(v)),
    EventType: int => codes::event_type,
    DeliveryState: int => codes::state,
    &'r str: text => |v| v,
    String: text => str::to_owned,
    &'r [u8]: bytes => |v| v,
    Vec<u8>: bytes => <[u8]>::to_vec,
    bytes::Bytes: bytes => bytes::Bytes::copy_from_slice,
}

/// Columns that do not take all that the database could hold.
macro_rules! narrow_columns {
    ($($column:ty: $kind:ident => $from:expr, $what:literal;)*) => {$(
        impl<'r> Column<'r> for $column {
            fn read<R: Columns>(row: &'r R, column: usize) -> Result<Option<Self>, R::Error> {
                let Some(value) = row.$kind(column)? else { return Ok(None) };
                $from(value).map(Some).map_err(|_| R::damaged($what))
            }
        }
    )*};
}

narrow_columns! {
    i16: int => i16::try_from, "number";
    u16: int => u16::try_from, "number";
    u32: int => u32::try_from, "number";
    EndpointId: int => |v| u16::try_from(v).map(EndpointId), "endpoint";
    SourceId: int => |v| u32::try_from(v).map(SourceId), "source";
    EventId: bytes => |v: &[u8]| v.try_into().map(EventId), "id";
    SessionId: bytes => |v: &[u8]| v.try_into().map(SessionId), "id";
}

impl<A: for<'r> Column<'r>> Record for (A,) {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok((row.value(0)?,))
    }
}

impl<A: for<'r> Column<'r>, B: for<'r> Column<'r>> Record for (A, B) {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok((row.value(0)?, row.value(1)?))
    }
}
