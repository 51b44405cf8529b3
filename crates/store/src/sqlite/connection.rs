//! Opening: the file and its lock, the settings of a connection, the schema.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, config::DbConfig};

use crate::{
    Mode, Options,
    error::{Error, Result},
};

/// `turn` in the file's header, so that `file` and we can tell it from another program's.
const APPLICATION_ID: i32 = 0x7475_726e;

/// Each brings the schema from the version before it to its own; the first makes it. Never change one that was released.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
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
}

/// Opens the writing connection.
pub(super) fn open(path: &Path, mode: Mode, options: &Options) -> Result<Opened> {
    let path = std::path::absolute(path).map_err(|e| io_error(path, &e))?;
    let lock = match mode {
        Mode::Run => Some(lock_to_run(&path)?),
        Mode::Shared if !path.exists() => return Err(Error::NotFound { path }),
        Mode::Shared => None,
    };
    if mode == Mode::Run {
        // SQLite gives its side files the mode of this one.
        create_private(&path).or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(io_error(&path, &e)),
        })?;
    }
    let fail = |e: rusqlite::Error| error_from(&path, &e);
    let mut conn = connect(&path, options).map_err(fail)?;
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
        let _lock = match (&lock, self::lock(&path)) {
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
    let store_id = conn
        .query_row("SELECT store_id FROM store", [], |r| r.get::<_, [u8; 16]>(0))
        .map_err(fail)?;
    Ok(Opened {
        path,
        conn,
        lock,
        store_id,
    })
}

/// Where a column has a partial index, SQLite would plan a statement anew for each value that is bound to it: that cost
/// more than to run it.
fn steady_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    let connect = || {
        // Not SQLITE_OPEN_READ_ONLY: a reader of a WAL may have to write to its index.
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        steady_plans(&conn)?;
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
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    steady_plans(&conn)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

/// Makes an empty file that only its owner may read; fails if there is one.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Whether a process runs on the store.
pub(crate) fn is_run_on(path: &Path) -> Result<bool> {
    lock(path).map(|free| free.is_none())
}

/// Tries for a moment: whoever asks whether somebody runs holds the lock for that long.
pub(super) fn lock_to_run(path: &Path) -> Result<File> {
    for _ in 0..10 {
        if let Some(lock) = lock(path)? {
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Error::InUse {
        path: path.to_path_buf(),
    })
}

/// The lock of whoever runs on the store; `None` if another has it. The system drops it with the process.
fn lock(path: &Path) -> Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|e| io_error(Path::new(&name), &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(io_error(Path::new(&name), &e)),
    }
}

fn connect(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    steady_plans(&conn)?;
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

fn io_error(path: &Path, e: &io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
            path: path.to_path_buf(),
        },
        _ => Error::Io {
            path: path.to_path_buf(),
            message: e.to_string(),
        },
    }
}

/// Copies a store into a new file. Blocks.
pub(super) fn backup(source: &Path, to: &Path) -> Result<()> {
    let conn = helper(source).map_err(|e| error_from(source, &e))?;
    create_private(to).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists {
            path: to.to_path_buf(),
        },
        _ => io_error(to, &e),
    })?;
    let copy = || {
        let name = to.to_str().ok_or_else(|| Error::Io {
            path: to.to_path_buf(),
            message: "its name is not UTF-8".into(),
        })?;
        // A snapshot, whatever is written meanwhile; SQLite fills the empty file that is ours alone.
        conn.execute("VACUUM INTO ?1", [name])
            .map_err(|e| match error_from(source, &e) {
                Error::Full { .. } => Error::Full {
                    path: to.to_path_buf(),
                },
                other => other,
            })?;
        File::open(to)
            .and_then(|f| f.sync_all())
            .map_err(|e| io_error(to, &e))?;
        if let Some(Ok(dir)) = to.parent().map(File::open) {
            // The name in its directory; not every file system lets one ask for that.
            let _ = dir.sync_all();
        }
        Ok(())
    };
    copy().inspect_err(|_| {
        let _ = std::fs::remove_file(to);
    })
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
