//! The bytes of a row, read: also those that an earlier program wrote.

use serde::{Deserialize, de::DeserializeOwned};

use super::rows::{FORMAT, FORMAT_MORE};
use crate::state::Table;

/// A row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// The row's table.
    pub table: Table,
    /// The row's key.
    pub key: u64,
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RestoreError { table, key } = self;
        write!(
            f,
            "row {key} of the {table:?} state cannot be read: it is damaged, or of another version of turnhook"
        )
    }
}

impl std::error::Error for RestoreError {}

/// So many fields may have come to a row's second part since it was written.
const LEARNT_SINCE: usize = 8;

/// A row without a second part, or the first part of one.
pub(crate) fn read<'r, T: Deserialize<'r>>(bytes: &'r [u8], bad: RestoreError) -> Result<T, RestoreError> {
    match bytes.split_first() {
        Some((&(FORMAT | FORMAT_MORE), bytes)) => postcard::take_from_bytes(bytes).map(|(row, _)| row),
        _ => return Err(bad),
    }
    .map_err(|_| bad)
}

/// A row, and its second part, if it has one.
pub(crate) fn read_with<'r, T, M>(bytes: &'r [u8], bad: RestoreError) -> Result<(T, Option<M>), RestoreError>
where
    T: Deserialize<'r>,
    M: DeserializeOwned,
{
    // That of an earlier program ends earlier: what it does not say is zero.
    let read_more = |rest: &[u8]| {
        postcard::from_bytes(rest).or_else(|_| {
            let mut whole = rest.to_vec();
            whole.resize(rest.len() + LEARNT_SINCE, 0);
            postcard::from_bytes(&whole)
        })
    };
    match bytes.split_first() {
        Some((&FORMAT, bytes)) => postcard::from_bytes(bytes).map(|row| (row, None)),
        Some((&FORMAT_MORE, bytes)) => postcard::take_from_bytes(bytes)
            .and_then(|(row, rest)| read_more(rest).map(|more| (row, Some(more)))),
        _ => return Err(bad),
    }
    .map_err(|_| bad)
}
