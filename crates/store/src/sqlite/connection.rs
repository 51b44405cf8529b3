//! Opening: the settings of a connection, the schema.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, config::DbConfig};

use super::files;
use crate::{
    Mode, Options,
    error::{Error, Result},
};

/// `turn` in the file's header, so that `file` and we can distinguish it from another program's.
const APPLICATION_ID: i32 = 0x7475_726e;

/// Each brings the schema from the version before it to its own; the first makes it. Never change one that was
/// released.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
];

/// The schema that this program reads and writes.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// How long to wait for another process's small write.
const BUSY: Duration = Duration::from_secs(10);

/// What [`open`] gives.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    /// Held for as long as the store runs.
    pub(super) lock: Option<File>,
    pub(super) store_id: [u8; 16],
    pub(super) horizon: Option<i64>,
}

/// Opens the writing connection.
pub(super) fn open(path: &Path, mode: Mode, options: &Options) -> Result<Opened> {
    let path = files::resolve(path)?;
    let (lock, opened) = match mode {
        Mode::Run => {
            let lock = files::lock_to_run(&path)?;
            files::refuse_copied(&path, None)?;
            (Some(lock), Some(files::prepare(&path)?))
        }
        Mode::Shared => {
            files::look(&path)?;
            (None, None)
        }
    };
    let fail = |e: rusqlite::Error| error_from(&path, &e);
    let mut conn = connect(&path, options).map_err(fail)?;
    if let Some(file) = opened {
        file.is_still_at(&path)?;
    }
    let found = schema(&conn).map_err(fail)?;
    let found = match found {
        Found::Ours(version) => version,
        Found::Empty => 0,
        Found::Foreign => return Err(Error::NotAStore { path }),
    };
    if found > SCHEMA {
        return Err(Error::Newer {
            path,
            found,
            known: SCHEMA,
        });
    }
    if found < SCHEMA {
        // Whoever looks in may migrate only if nobody runs on the file.
        let _lock = match (&lock, files::lock(&path)) {
            (Some(_), _) => None,
            (None, Ok(Some(lock))) => Some(lock),
            (None, _) => {
                return Err(Error::Older {
                    path,
                    found,
                    known: SCHEMA,
                });
            }
        };
        migrate(&mut conn, found).map_err(fail)?;
    }
    let (store_id, horizon) = conn
        .query_row("SELECT store_id, horizon FROM store", [], |r| {
            Ok((r.get::<_, [u8; 16]>(0)?, r.get(1)?))
        })
        .map_err(fail)?;
    Ok(Opened {
        path,
        conn,
        lock,
        store_id,
        horizon,
    })
}

/// A connection to a file that is there. Not SQLITE_OPEN_READ_ONLY: a reader of a WAL may have to write to its index.
fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    // Where a column has a partial index, SQLite would plan a statement anew for each value that is bound to it: that
    // cost more than to run it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    let connect = || {
        let conn = open_file(path)?;
        conn.pragma_update(None, "query_only", true)?;
        // The queries say how they are to be walked; an index made on the fly would read a table whole.
        conn.pragma_update(None, "automatic_index", false)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.set_prepared_statement_cache_capacity(32);
        Ok(conn)
    };
    connect().map_err(|e| error_from(path, &e))
}

/// A connection that reads, and copies the WAL into the file.
pub(super) fn helper(path: &Path) -> rusqlite::Result<Connection> {
    let conn = open_file(path)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

fn connect(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let conn = open_file(path)?;
    // Only an empty file takes its page size.
    conn.pragma_update(None, "page_size", options.page_size)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -16_384)?;
    conn.set_prepared_statement_cache_capacity(128);
    if let Some(bytes) = options.max_bytes {
        let pages = bytes / u64::from(options.page_size);
        conn.pragma_update(None, "max_page_count", super::int(pages))?;
    }
    Ok(conn)
}

enum Found {
    Empty,
    Ours(u32),
    Foreign,
}

fn schema(conn: &Connection) -> rusqlite::Result<Found> {
    let id: i32 = conn.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    match (id, tables) {
        (0, 0) => Ok(Found::Empty),
        (APPLICATION_ID, _) => conn
            .query_row("SELECT max(version) FROM schema_version", [], |r| {
                r.get::<_, Option<u32>>(0)
            })
            .map(|v| Found::Ours(v.unwrap_or(0))),
        _ => Ok(Found::Foreign),
    }
}

fn migrate(conn: &mut Connection, found: u32) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)",
    )?;
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        tx.execute_batch(sql)?;
        tx.execute(
            "INSERT INTO schema_version VALUES (?1, unixepoch() * 1000)",
            [super::int(i as u64 + 1)],
        )?;
        if i == 0 {
            let mut id = [0u8; 16];
            getrandom::fill(&mut id)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.to_string().into()))?;
            tx.execute("INSERT INTO store (id, store_id) VALUES (1, ?1)", [id])?;
        }
    }
    tx.commit()
}

/// In words for people, and in kinds that the caller can act on.
pub(crate) fn error_from(path: &Path, e: &rusqlite::Error) -> Error {
    let path = path.to_path_buf();
    let message = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path },
        Some(ErrorCode::NotADatabase) => Error::NotAStore { path },
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TooBig
            | ErrorCode::TypeMismatch
            | ErrorCode::ParameterOutOfRange,
        ) => Error::Unstorable {
            store: path.display().to_string(),
            message,
        },
        Some(ErrorCode::DatabaseCorrupt) => Error::Corrupt { path, message },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => Error::Io { path, message },
        _ => Error::Database { path, message },
    }
}

/// The file's content has been changed by another process since this was asked last; `last` is what it said then.
pub(super) fn changed_by_others(conn: &Connection, last: &mut i64) -> rusqlite::Result<bool> {
    let now: i64 = conn.pragma_query_value(None, "data_version", |r| r.get(0))?;
    Ok(std::mem::replace(last, now) != now)
}

/// Whether the row is there.
pub(super) fn exists(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<bool> {
    Ok(conn
        .prepare_cached(sql)?
        .query_row(params, |_| Ok(()))
        .optional()?
        .is_some())
}
