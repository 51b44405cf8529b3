//! How much a user may use before he is blocked: what is configured of it.

use turnhook_dispatcher::filter::Filter;

use super::Size;

/// A `[[quota]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// In which time.
    pub per: Per,
    /// How much.
    pub most: Most,
    /// Whose sessions it looks at.
    pub filter: Filter,
    /// Whether what a name has used in several realms is one sum.
    pub across_realms: bool,
}

/// The time that a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A day, UTC.
    Day,
    /// A month, UTC.
    Month,
    /// A session, with what it continues.
    Session,
}

impl Per {
    /// All of them.
    pub const ALL: [Per; 3] = [Per::Day, Per::Month, Per::Session];

    /// As in the file and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Per::Day => "day",
            Per::Month => "month",
            Per::Session => "session",
        }
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// That were relayed.
    Bytes(u64),
    /// That sessions lasted, in milliseconds.
    Millis(u64),
}

impl Quota {
    /// What it is called: how much, in which time.
    #[must_use]
    pub fn name(&self) -> String {
        let per = self.per.as_str();
        match self.most {
            Most::Bytes(bytes) => format!("{} a {per}", Size(bytes)),
            Most::Millis(millis) => format!("{} seconds a {per}", millis / 1000),
        }
    }

    /// For people: the reason of a block.
    #[must_use]
    pub fn words(&self) -> String {
        format!("quota: {}", self.name())
    }
}

/// As it stands in the file.
pub(super) mod file {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::Per;
    use crate::config::Size;

    /// A `[[quota]]`.
    #[derive(Clone, Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    pub struct Quota {
        /// In which time.
        pub per: Per,
        /// How much may be relayed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bytes: Option<Size>,
        /// How long sessions may last.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub seconds: Option<u64>,
        /// Whose sessions: `*` stands for anything.
        #[serde(default = "every")]
        pub realms: Vec<String>,
        /// With which labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String>,
        /// Whether what a name has used in several realms is one sum.
        #[serde(default)]
        pub across_realms: bool,
    }

    fn every() -> Vec<String> {
        vec!["*".to_owned()]
    }
}
