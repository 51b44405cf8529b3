//! The reducer's state as rows, for a store that neither knows nor needs to know what is in them.

/// The tables of a source's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Open and closing allocations.
    Allocation = 1,
    /// Sessions that have not ended.
    Session = 2,
    /// Ended allocations that may be heard of again.
    Tombstone = 3,
    /// What belongs to the whole source.
    Source = 4,
    /// What groups have left over.
    Leftover = 5,
}

impl Table {
    /// From its number in the store; `None` for one that this version does not know.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Table> {
        let tables = [
            Table::Allocation,
            Table::Session,
            Table::Tombstone,
            Table::Source,
            Table::Leftover,
        ];
        tables.into_iter().find(|t| *t as u8 == n)
    }
}

/// One row to write (`Some`) or to remove (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The row's key in its table; keys are reused.
    pub key: u64,
    /// The row.
    pub value: Option<Vec<u8>>,
}
