//! Why coturn's CLI did not do what was asked.

use std::{io, net::SocketAddr};

/// Each is something that an operator can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or the network does not lead there.
    #[error(
        "coturn's CLI at {address} cannot be reached: {error}; it is on where coturn has `cli`, `cli-ip`, `cli-port` and `cli-password`"
    )]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The password is not the one of `cli-password`.
    #[error("coturn's CLI at {address} refuses the password: it must be that of its `cli-password`")]
    Password {
        /// Where.
        address: SocketAddr,
    },
    /// Whatever listens there did not greet as coturn does.
    #[error("what listens at {address} is not coturn's CLI: it did not greet as coturn does")]
    NoCoturn {
        /// Where.
        address: SocketAddr,
    },
    /// It did not answer in time.
    #[error("coturn's CLI at {address} did not answer in time ({waiting_for})")]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// The answer that did not come.
        waiting_for: &'static str,
    },
    /// It went on for longer than any answer is.
    #[error("coturn's CLI at {address} gave a longer answer than is read ({waiting_for})")]
    TooLong {
        /// Where.
        address: SocketAddr,
        /// The answer that did not end.
        waiting_for: &'static str,
    },
    /// The connection was closed, or broke.
    #[error("coturn's CLI at {address} has closed the connection ({waiting_for})")]
    Closed {
        /// Where.
        address: SocketAddr,
        /// The answer that did not come.
        waiting_for: &'static str,
    },
    /// An answer that cannot be read.
    #[error("coturn's CLI at {address} gave an answer that cannot be read: {what}")]
    Unreadable {
        /// Where.
        address: SocketAddr,
        /// What is wrong about it.
        what: &'static str,
    },
    /// The username has bytes that the CLI would take for something else.
    #[error("a username with blanks, quotes or control characters cannot be given to coturn's CLI")]
    Name,
}

impl Error {
    /// Whether a new connection may do better at once: coturn may have been restarted since this one was made.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Error::Closed { .. })
    }
}
