//! Why a command fails.

use crate::config::ConfigError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Status 78.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Status 78, found only when it was used.
    #[error("{0}")]
    Unusable(String),
    /// Status 1.
    #[error("{0}")]
    Failed(String),
    /// Status 2.
    #[error("{0}")]
    Usage(String),
    /// Status 1, and all has been said.
    #[error("")]
    Reported,
    /// The reader of stdout has gone (`| head`): nobody to say it to, and nothing wrong.
    #[error("nobody reads the output")]
    Unread,
}

impl CliError {
    pub(super) fn failed(what: impl std::fmt::Display) -> CliError {
        CliError::Failed(what.to_string())
    }
}
