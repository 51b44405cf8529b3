//! Whether a source's coturn reports the peer leg, as far as is known.

use serde::{Deserialize, Serialize};

/// What was heard so far of whether it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) reported: Option<bool>,
    pub(crate) closed_without: u8,
}
