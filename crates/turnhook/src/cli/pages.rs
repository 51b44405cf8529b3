//! Lists that are read by the page.

use super::args::Format;

/// Rows read at once: memory does not grow with the ledger.
pub(super) const PAGE: usize = 1000;
/// Rows of a table that nobody said the length of.
const SCREEN: u32 = 50;

/// How many rows are wanted at most.
pub(super) fn limit(given: Option<u32>, format: Format) -> usize {
    match (given, format) {
        (Some(limit), _) => limit as usize,
        (None, Format::Text) => SCREEN as usize,
        (None, Format::Json) => usize::MAX,
    }
}

/// A list that is read page after page, up to as many rows as are wanted. `C` is what names a row, to go on after it.
pub(super) struct Pages<C> {
    after: Option<C>,
    left: usize,
    /// Whether there are more rows than were read.
    more: bool,
}

impl<C: Copy> Pages<C> {
    pub(super) fn new(after: Option<C>, wanted: usize) -> Pages<C> {
        Pages {
            after,
            left: wanted,
            more: true,
        }
    }

    /// What the next page begins after, and how many rows to ask for; none once all that is wanted was read. One row more
    /// than is wanted shows whether there are more.
    pub(super) fn ask(&self) -> Option<(Option<C>, usize)> {
        (self.more && self.left > 0).then(|| (self.after, self.left.saturating_add(1).min(PAGE)))
    }

    /// The rows of a page that are wanted.
    pub(super) fn wanted<'p, T>(&mut self, page: &'p [T], name: impl Fn(&T) -> C) -> &'p [T] {
        let rows = page.get(..self.left).unwrap_or(page);
        self.more = page.len() > self.left || page.len() == PAGE;
        self.left -= rows.len();
        self.after = rows.last().map(name).or(self.after);
        rows
    }

    /// The last row that was wanted, where there are more.
    pub(super) fn more_after(&self) -> Option<C> {
        self.after.filter(|_| self.more)
    }
}
