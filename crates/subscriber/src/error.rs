//! What can be wrong with a source's configuration, or keep it from starting.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a source cannot be started. What goes wrong later is a [`crate::signal::Signal`] and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SubscriberError {
    /// The URL of a Redis is not one that can be used. Never shows the URL: it may hold a password.
    #[error("the Redis URL cannot be used: {reason}")]
    Url {
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A `direct` source would let anybody on the network write bills.
    #[error(
        "a direct source that listens beyond loopback ({listen}) needs a password: set `password`, or listen on 127.0.0.1"
    )]
    OpenToAll {
        /// Where it would listen.
        listen: SocketAddr,
    },
    /// A user without a password says nothing.
    #[error("`user` is set without `password`: set both, or neither")]
    UserWithoutPassword,
    /// The address is taken, or is not one of this machine.
    #[error("cannot listen on {listen}: {error}; {}", listen_cure(error))]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// A certificate, key or CA file cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What to do about an address that cannot be listened on.
#[must_use]
pub fn listen_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has it (`ss -ltnp` names it): stop that, or take another port"
        }
        io::ErrorKind::AddrNotAvailable => "no address of this machine: take one of `ip addr`, or 0.0.0.0",
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's: take a higher one",
        _ => "take another address",
    }
}
