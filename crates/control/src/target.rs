//! The allocation that is meant.

use std::time::Duration;

use turnhook_reducer::message::AllocationId;

/// An allocation, as the stream named it. Its number alone names nobody: numbers begin anew when coturn does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// coturn's number.
    pub id: AllocationId,
    /// The whole username.
    pub username: Box<[u8]>,
    /// Empty if there is none.
    pub realm: Box<[u8]>,
    /// `remote=`; `None` before coturn 4.6: then its age has to do.
    pub client: Option<Box<[u8]>>,
    /// `local=`, the same.
    pub server: Option<Box<[u8]>>,
    /// Since its `new` was heard; `None` where that was not.
    pub age: Option<Duration>,
}
