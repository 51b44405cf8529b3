//! Why a request failed, by kinds that a caller can act on.

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::error::SqlState;

use crate::error::Error;

/// Why a request failed: the database, the way there, or a finding of our own.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What the driver says; to be translated with the store's name.
    Sql(tokio_postgres::Error),
    /// No connection, or no answer.
    Lost(String),
    /// A row that makes no sense.
    Damaged(String),
    /// An answer that is not what was asked for: a mistake in here, or a schema that somebody has changed.
    Answer(String),
    /// As it is.
    Own(Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(e: tokio_postgres::Error) -> Fault {
        Fault::Sql(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::Own(e)
    }
}

impl From<PoolError> for Fault {
    fn from(e: PoolError) -> Fault {
        match e {
            PoolError::Backend(e) => Fault::Sql(e),
            PoolError::PostCreateHook(HookError::Backend(e)) => Fault::Sql(e),
            PoolError::Closed => Fault::Own(Error::Closed),
            PoolError::Timeout(_) => Fault::Lost("no connection in time".into()),
            other => Fault::Lost(other.to_string()),
        }
    }
}

impl Fault {
    /// A block that does not unpack.
    pub(super) fn damaged(what: &str) -> Fault {
        Fault::Damaged(format!("a {what} that makes no sense"))
    }

    /// Whether the server refused for this reason.
    pub(super) fn is(&self, state: &SqlState) -> bool {
        matches!(self, Fault::Sql(e) if e.code() == Some(state))
    }

    /// Whether the connection can be used again.
    pub(super) fn leaves_connection(&self) -> bool {
        match self {
            // One to a server that is going, or that only reads since another took over, is of no use; nor is one whose
            // prepared statements are those of an older schema.
            Fault::Sql(e) => e.as_db_error().is_some_and(|db| {
                let code = db.code().code();
                !code.starts_with("57") && !["25006", "0A000", "26000"].contains(&code)
            }),
            Fault::Lost(_) => false,
            Fault::Own(_) | Fault::Damaged(_) | Fault::Answer(_) => true,
        }
    }

    /// In words for people, and in kinds that the caller can act on. Nothing that we were given as a secret is in what
    /// the driver says.
    pub(super) fn at(self, store: &str) -> Error {
        let store = store.to_owned();
        let e = match self {
            Fault::Own(e) => return e,
            Fault::Lost(message) => return Error::Unavailable { store, message },
            Fault::Damaged(message) => {
                return Error::Corrupt {
                    path: store.into(),
                    message,
                };
            }
            Fault::Answer(message) => {
                return Error::Database {
                    path: store.into(),
                    message,
                };
            }
            Fault::Sql(e) => e,
        };
        let Some(db) = e.as_db_error() else {
            let message = chain(&e);
            // The driver says that by nothing but its words. Were they others, it would be tried again in vain.
            if message.contains("does not support TLS") {
                return Error::NoTls { store };
            }
            return match kind(&e) {
                Kind::Certificate => Error::Refused {
                    store,
                    message: certificate(message),
                },
                Kind::Mistake => Error::Database {
                    path: store.into(),
                    message,
                },
                Kind::Way => Error::Unavailable { store, message },
            };
        };
        let message = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        match db.code().code() {
            // Insufficient privilege, wrong password or user, no such database.
            "42501" | "28000" | "28P01" | "3D000" => Error::Refused { store, message },
            // Prepared before another node changed the schema. Messages are in the server's language, routines are not.
            "0A000" if db.routine() == Some("RevalidateCachedQuery") => Error::Unavailable { store, message },
            // Cancelled by its time limit, deadlock, conflict, a lock, idle in a transaction, a standby, starting or
            // stopping.
            "57014" | "40001" | "40P01" | "40003" | "55P03" | "25P03" | "25006" | "25P04" => {
                Error::Unavailable { store, message }
            }
            code if ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Error::Unavailable { store, message }
            }
            // Data exceptions, constraints, and what is beyond the database's limits: it will say so again and again.
            code if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                Error::Unstorable { store, message }
            }
            _ => Error::Database {
                path: store.into(),
                message,
            },
        }
    }
}

/// What is known to go wrong with certificates, with what to do.
fn certificate(message: String) -> String {
    if message.contains("CaUsedAsEndEntity") {
        return "its certificate is that of an authority (CA:TRUE), as `openssl req -x509` makes it, and no server's: make it \
                with `-addext basicConstraints=critical,CA:FALSE`, or let it sign the server's"
            .to_owned();
    }
    message
}

/// What an error is that does not come from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The server is not who it says: no time will change that.
    Certificate,
    /// A value that its column does not take: ours.
    Mistake,
    /// Between us and the server.
    Way,
}

/// By the types of the errors below it; what the driver says of them may change.
fn kind(e: &(dyn std::error::Error + 'static)) -> Kind {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = e.downcast_ref::<rustls::Error>() {
            return Kind::Certificate;
        }
        if e.is::<tokio_postgres::types::WrongType>() || e.is::<tokio_postgres::types::WasNull>() {
            return Kind::Mistake;
        }
        next = match e.downcast_ref::<std::io::Error>() {
            // Its source is that of the error in it, and not the error.
            Some(io) => io.get_ref().map(|e| e as &(dyn std::error::Error + 'static)),
            None => e.source(),
        };
    }
    Kind::Way
}

pub(super) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{error::Error as StdError, fmt, io};

    use super::*;

    /// As a driver wraps what went wrong below it.
    #[derive(Debug)]
    struct Wrapped(Box<dyn StdError + Send + Sync>);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("error serializing parameter 0, invalid column, query returned")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn errors_are_distinguished_by_what_they_are() {
        let certificate = || rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(kind(&Wrapped(certificate().into())), Kind::Certificate);
        assert_eq!(
            kind(&Wrapped(io::Error::other(certificate()).into())),
            Kind::Certificate
        );
        let other = rustls::Error::HandshakeNotComplete;
        assert_eq!(kind(&Wrapped(io::Error::other(other).into())), Kind::Way);
        // Whatever the driver says of it.
        assert_eq!(kind(&Wrapped(lost().into())), Kind::Way);
        let null = tokio_postgres::types::WasNull;
        assert_eq!(kind(&Wrapped(null.into())), Kind::Mistake);
    }
}
