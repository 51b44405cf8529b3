//! Why the program cannot run, or ended.

use std::io;

use turnhook_dispatcher::config::ConfigError;
use turnhook_reducer::RestoreError;
use turnhook_subscriber::error::{SubscriberError, listen_cure};

/// Why the program cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] turnhook_store::Error),
    /// An endpoint's configuration cannot be used.
    #[error("{0}")]
    Endpoint(#[from] ConfigError),
    /// A source's configuration cannot be used.
    #[error("source \"{name}\": {error}")]
    Source {
        /// The name of the source.
        name: String,
        /// What is wrong.
        error: SubscriberError,
    },
    /// `user_pattern` cannot be used.
    #[error("[session] user_pattern: {0}")]
    UserPattern(turnhook_reducer::rules::PatternError),
    /// The state of a source cannot be read.
    #[error("source \"{name}\": {error}; restore a backup, or give the source another name to begin anew")]
    State {
        /// Its name.
        name: String,
        /// The row, and what is wrong with it.
        error: RestoreError,
    },
    /// The address of `[http] listen` or `[admin] listen` cannot be used.
    #[error(
        "[{table}] listen: cannot listen on {address}: {error}; {}",
        listen_cure(error)
    )]
    Listen {
        /// Whose.
        table: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Something of `[admin]` cannot be used.
    #[error("[admin]: {problem}")]
    Admin {
        /// What.
        problem: String,
    },
    /// A part of the program ended before its time.
    #[error("the {part} has ended before its time ({cause}): stopped, so that all of it can be started anew")]
    Part {
        /// The name of the part.
        part: String,
        /// The cause of its end.
        cause: String,
    },
    /// A last commit could not be made.
    #[error("stopped, but the last commit could not be made: see the log")]
    Unfinished,
}

impl RunError {
    /// Whether changing the configuration is what helps (exit 78).
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            RunError::Endpoint(_) | RunError::UserPattern(_) | RunError::Admin { .. } => true,
            RunError::Source { error, .. } => !matches!(error, SubscriberError::Listen { .. }),
            RunError::Store(error) => {
                matches!(
                    error,
                    turnhook_store::Error::Newer { .. }
                        | turnhook_store::Error::NotAStore { .. }
                        | turnhook_store::Error::Unmigrated { .. }
                        | turnhook_store::Error::BadUrl { .. }
                        | turnhook_store::Error::Copied { .. }
                        | turnhook_store::Error::NoTls { .. }
                )
            }
            RunError::State { .. }
            | RunError::Listen { .. }
            | RunError::Part { .. }
            | RunError::Unfinished => false,
        }
    }
}
