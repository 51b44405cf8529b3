//! Who asks, and what he may do.

use serde::Serialize;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Viewer,
    /// Also do what the command line can do.
    Operator,
}

impl Role {
    /// As in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Role, ()> {
        match text {
            "viewer" => Ok(Role::Viewer),
            "operator" => Ok(Role::Operator),
            _ => Err(()),
        }
    }
}

/// Who asks: an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Who {
    /// As in the file.
    pub name: String,
    /// What may be done.
    pub role: Role,
}
