//! Columns, and groups of them, that several tables share.

use std::{error::Error, pin::pin};

use bytes::BytesMut;
use deadpool_postgres::GenericClient;
use futures_util::TryStreamExt;
use tokio_postgres::{
    Column, Row,
    types::{FromSql, IsNull, ToSql, Type, WrongType},
};
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use super::{Fault, fault::chain};
use crate::{
    codes::nat,
    query::{Query, Value},
    record::{Columns, Record},
};

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

pub(super) fn event_id(row: &Row, column: usize) -> Result<EventId, Fault> {
    let id: &[u8] = row.read(column)?;
    id.try_into().map(EventId).map_err(|_| Fault::damaged("id"))
}

pub(super) fn session_id(row: &Row, column: usize) -> Result<SessionId, Fault> {
    let id: &[u8] = row.read(column)?;
    id.try_into().map(SessionId).map_err(|_| Fault::damaged("id"))
}

impl Columns for Row {
    type Error = Fault;

    fn int(&self, column: usize) -> Result<Option<i64>, Fault> {
        Ok(match self.columns().get(column).map(Column::type_) {
            Some(&Type::BOOL) => self.read::<Option<bool>>(column)?.map(i64::from),
            Some(&Type::INT2) => self.read::<Option<i16>>(column)?.map(i64::from),
            Some(&Type::INT4) => self.read::<Option<i32>>(column)?.map(i64::from),
            _ => self.read(column)?,
        })
    }

    fn text(&self, column: usize) -> Result<Option<&str>, Fault> {
        self.read(column)
    }

    fn bytes(&self, column: usize) -> Result<Option<&[u8]>, Fault> {
        self.read(column)
    }

    fn is_null(&self, column: usize) -> Fault {
        let name = self.columns().get(column).map_or("?", Column::name);
        Fault::Answer(format!("column {column} ({name}): it is NULL"))
    }

    fn damaged(what: &str) -> Fault {
        Fault::damaged(what)
    }
}

/// As PostgreSQL takes it: it knows no NUL in a text.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// As wide as the statement has it there.
impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, kind) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Int(v), &Type::INT2) => i16::try_from(*v)?.to_sql(kind, out),
            (Value::Int(v), &Type::INT4) => i32::try_from(*v)?.to_sql(kind, out),
            (Value::Int(v), _) => v.to_sql(kind, out),
            (Value::Text(v), _) => text(v).to_sql(kind, out),
            (Value::Bytes(v), _) => v.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let fits = match self {
            Value::Null => true,
            Value::Int(_) => [Type::INT2, Type::INT4, Type::INT8].contains(kind),
            Value::Text(_) => <String as ToSql>::accepts(kind),
            Value::Bytes(_) => <Vec<u8> as ToSql>::accepts(kind),
        };
        if !fits {
            return Err(Box::new(WrongType::new::<Value>(kind.clone())));
        }
        self.to_sql(kind, out)
    }
}

/// As parameters of a statement.
pub(super) fn params(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The rows that answer a query, of which there may be a million.
pub(super) async fn all<T: Record>(
    client: &impl GenericClient,
    (sql, values): &Query,
) -> Result<Vec<T>, Fault> {
    let mut found = pin!(client.query_raw(sql, params(values)).await?);
    let mut all = Vec::new();
    while let Some(row) = found.try_next().await? {
        all.push(T::read(&row)?);
    }
    Ok(all)
}
