//! `/api/v1/…`: the same questions as on the page, for programs.

pub(crate) mod operation;
pub(crate) mod reads;
mod writes;

use crate::{Admin, Routes, trial};

/// All of them.
pub(crate) fn routes(admin: &Admin) -> Routes {
    trial::add(admin, writes::add(admin, reads::add(admin, Routes::default())))
}
