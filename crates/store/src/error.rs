//! What can go wrong with a store, and what to do about it.

use std::path::{Path, PathBuf};

/// Why the store did not do what it was asked to. Nothing is ever half done: a request that fails has
/// changed nothing, but for [`Error::Unavailable`], after which all of it may have been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process runs on this file.
    #[error("{}: another `turnhook run` uses this store; stop it first, or give this one a path of its own", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// There is no store at this path.
    #[error("{}: there is no store here; `turnhook run` makes one", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Written by a newer version (the program exits 78).
    #[error("{}: written by a newer turnhook (schema {found}, this one knows up to {known}); run that version, or restore a backup made before the upgrade", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// The version of its schema.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Written by an older version that is running on it, so that it can not be migrated now.
    #[error("{}: in use by an older turnhook (schema {found}, this one needs {known}); use the same version, or restart that one with this version", path.display())]
    Older {
        /// The store.
        path: PathBuf,
        /// The version of its schema.
        found: u32,
        /// The version that this program needs.
        known: u32,
    },
    /// The file is something else.
    #[error("{}: {}", path.display(), no_store(path))]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error("{}: belongs to user {owner}, and this is user {us}; run turnhook as its owner, or give the file to this user (chown)", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// The user that this program runs as.
        us: u32,
    },
    /// The file has more than one name.
    #[error("{}: has another name, too (a hard link), by which another turnhook could run on it unnoticed; remove one of the names", path.display())]
    Linked {
        /// The store.
        path: PathBuf,
    },
    /// A write-ahead log without its store.
    #[error("{}: there is a write-ahead log ({}), but the store that it belongs to is missing or empty; put the store back beside it, or move the log away to begin anew", path.display(), wal.display())]
    Orphan {
        /// The store.
        path: PathBuf,
        /// The log.
        wal: PathBuf,
    },
    /// A backup never overwrites.
    #[error("{}: exists already; a backup never overwrites a file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// No room on the disk (or in the quota). Try again later.
    #[error("{}: no room left on its disk; make room, and turnhook goes on by itself", path.display())]
    Full {
        /// The store.
        path: PathBuf,
    },
    /// Another process held the store for too long. Try again.
    #[error("{}: another process holds the store; try again", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// Reading or writing failed. Try again later.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The words of the system.
        message: String,
    },
    /// The file is damaged.
    #[error("{}: damaged ({message}); restore a backup", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// No endpoint of this name was ever configured.
    #[error("no endpoint named {name:?} in the store; known: {known}")]
    UnknownEndpoint {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A block names nobody.
    #[error("a block needs a user: an empty name is that of all who have none, and would be nobody's")]
    NoUser,
    /// No source of this name is in the store.
    #[error("no source named {name:?} in the store; known: {known}")]
    UnknownSource {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A source of this name is in the store already.
    #[error("a source named {name:?} is in the store already: two sources cannot become one")]
    SourceExists {
        /// The name.
        name: String,
    },
    /// Nodes run on this database.
    #[error("{store}: a turnhook runs on it; stop all nodes first")]
    Running {
        /// Host and database.
        store: String,
    },
    /// The URL of a database is not one.
    #[error("`[store] url`: {problem}")]
    BadUrl {
        /// What is wrong; never quotes it.
        problem: String,
    },
    /// The database does not let us in, or not do that.
    #[error(
        "{store}: refused: {message}; check user, password, database, certificates and the role's rights"
    )]
    Refused {
        /// Host and database.
        store: String,
        /// The words of the database.
        message: String,
    },
    /// The server speaks no TLS.
    #[error(
        "{store}: the server does not speak TLS, and beyond loopback turnhook wants it: set `ssl = on` there, or add ?sslmode=disable to the URL if the way to it is safe"
    )]
    NoTls {
        /// Host and database.
        store: String,
    },
    /// The database's schema is older than this program needs, and it may not change it (the program exits 78).
    #[error(
        "{store}: its schema is {found}, this turnhook needs {known}: run `turnhook migrate` with a role that may create tables"
    )]
    Unmigrated {
        /// Host and database.
        store: String,
        /// Its schema; 0: there is none.
        found: u32,
        /// The version that this program needs.
        known: u32,
    },
    /// The database is away, too slow, or in conflict with others. Try again later: what was asked for may have been done,
    /// and is harmless to repeat.
    #[error("{store}: {message}; trying again may help")]
    Unavailable {
        /// Host and database.
        store: String,
        /// What happened.
        message: String,
    },
    /// Another node has taken the lease, or it was released: nothing was written, and this one has to take it again.
    #[error("{lease}: the lease is lost; another node may have it")]
    LeaseLost {
        /// The lease that was lost.
        lease: crate::cluster::LeaseName,
    },
    /// This kind of store has no such function.
    #[error("{store}: not possible on this kind of store: {advice}")]
    Unsupported {
        /// The store.
        store: String,
        /// What to do instead.
        advice: String,
    },
    /// A store can be copied only into one that has nothing in it.
    #[error("{store}: not empty; copy into a new database, or drop this one and create it again")]
    NotEmpty {
        /// Host and database.
        store: String,
    },
    /// The store is there already.
    #[error(
        "{store}: holds a copy of this very store already; point `[store] url` at it, and do not run on the original any more"
    )]
    AlreadyCopied {
        /// Host and database.
        store: String,
    },
    /// To run on the original as well would send each of its events twice.
    #[error(
        "{}: was copied to {to}, or a copy of it was begun; run there. To go on here instead, drop that database, and remove {}",
        path.display(), mark.display()
    )]
    Copied {
        /// The original.
        path: PathBuf,
        /// Host and database of the copy.
        to: String,
        /// The file that says so.
        mark: PathBuf,
    },
    /// The database will never take this, however often it is asked: a value that is too large for it, or breaks one of its
    /// rules.
    #[error("{store}: the database does not take it: {message}")]
    Unstorable {
        /// The store.
        store: String,
        /// The words of the database.
        message: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A bug, in all likelihood: the database refused a statement.
    #[error("{}: {message}", path.display())]
    Database {
        /// The store.
        path: PathBuf,
        /// The words of the database.
        message: String,
    },
}

impl Error {
    /// Whether the same request may succeed later without anything being changed in configuration or code.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Full { .. } | Error::Busy { .. } | Error::Io { .. } | Error::Unavailable { .. }
        )
    }

    pub(crate) fn unknown_source(name: &str, known: &[String]) -> Error {
        Error::UnknownSource {
            name: name.into(),
            known: listed(known),
        }
    }

    pub(crate) fn unknown_endpoint(name: &str, mut known: Vec<String>) -> Error {
        known.sort();
        Error::UnknownEndpoint {
            name: name.into(),
            known: listed(&known),
        }
    }

    /// Whether it is for the values themselves.
    pub(crate) fn is_unstorable(&self) -> bool {
        matches!(self, Error::Unstorable { .. })
    }
}

fn no_store(path: &Path) -> &'static str {
    if path.is_dir() {
        return "is a directory; name a file in it, like `path = \"/var/lib/turnhook/turnhook.db\"`";
    }
    "not a turnhook store; give `[store] path` another name, or move that file away"
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.join(", ")
}

/// What the store's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
