//! How far removing has come.

use std::sync::{Mutex, PoisonError};

/// How far the pass under way has come; what may not be removed is passed over once in a pass.
#[derive(Clone, Copy, Default)]
pub(super) struct Pass {
    pub(super) event: [u8; 16],
    pub(super) session: [u8; 16],
    pub(super) block: i64,
    pub(super) events_done: bool,
    pub(super) sessions_done: bool,
}

/// The pass of this process.
#[derive(Default)]
pub(super) struct Trim(Mutex<Pass>);

impl Trim {
    pub(super) fn get(&self) -> Pass {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, pass: Pass) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pass;
    }
}
