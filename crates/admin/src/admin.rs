//! What everything here is shown from.

use std::sync::Arc;

use crate::{Engine, History};

/// What everything here is shown from.
#[derive(Clone)]
pub struct Admin {
    /// What is on record.
    pub ledger: turnhook_store::Ledger,
    /// What the command line can change, too.
    pub changes: turnhook_store::Admin,
    /// What the running program says of itself.
    pub engine: Arc<dyn Engine>,
    /// The last day.
    pub history: Arc<History>,
}
