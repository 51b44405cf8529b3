//! Why a request failed inside of its transaction.

use std::path::Path;

use super::connection::error_from;
use crate::error::Error;

/// The database, or a finding of our own.
#[derive(Debug)]
pub(crate) enum Fault {
    /// To be translated with the path.
    Sql(rusqlite::Error),
    /// As it is.
    Own(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Fault {
        Fault::Sql(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::Own(e)
    }
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Fault::Sql(e) => error_from(path, &e),
            Fault::Own(e) => e,
        }
    }
}
