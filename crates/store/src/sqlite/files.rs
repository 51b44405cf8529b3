//! The store's files: whose they are, who may read them, who runs on them; and a backup as a file.
//!
//! They are opened first, and what is asked of them is asked of what was opened: a name may mean another file a moment later.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// How each SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The name with something after it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file that a path means, symbolic links followed: its lock and its write-ahead log stand beside it, by whatever name
/// it is called.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|e| io_error(path, &e))?;
    match fs::canonicalize(&path) {
        Ok(real) => Ok(real),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(&path).is_ok() {
                return Err(Error::Io {
                    path,
                    message: "is a symbolic link to a file that does not exist; make `[store] path` the file itself".into(),
                });
            }
            let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
            Ok(match (folder, path.file_name()) {
                (Some(folder), Some(name)) => folder.join(name),
                _ => path,
            })
        }
        Err(e) => Err(refusal(&path, &e)),
    }
}

/// A file as it was when it was opened.
pub(super) struct Opened {
    device: u64,
    number: u64,
}

impl Opened {
    /// Whether the name still means the same file.
    pub(super) fn is_still_at(&self, path: &Path) -> Result<()> {
        let now = fs::symlink_metadata(path).map_err(|e| io_error(path, &e))?;
        if (now.dev(), now.ino()) == (self.device, self.number) {
            return Ok(());
        }
        Err(Error::Io {
            path: path.to_path_buf(),
            message: "was replaced by another file while it was being opened; start again".into(),
        })
    }
}

/// To run on it: makes the file if there is none, and sees to it that it is ours alone.
pub(super) fn prepare(path: &Path) -> Result<Opened> {
    refuse_orphans(path)?;
    // SQLite gives its side files the mode of this one.
    let is_new = match create_private(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(io_error(path, &e)),
    };
    let file = open(path).map_err(|e| refusal(path, &e))?;
    if !is_new {
        refuse_others(path, &file)?;
    }
    for suffix in ["-wal", "-shm"] {
        let side = beside(path, suffix);
        match open(&side) {
            Ok(file) => {
                make_private(&side, &file)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(refusal(&side, &e)),
        }
    }
    let found = make_private(path, &file)?;
    if found.nlink() > 1 {
        // Under another name it has another lock and another log: two would write to it without a word.
        return Err(Error::Linked {
            path: path.to_path_buf(),
        });
    }
    Ok(Opened {
        device: found.dev(),
        number: found.ino(),
    })
}

/// To look in: it must be there.
pub(super) fn look(path: &Path) -> Result<()> {
    refuse_orphans(path)?;
    match fs::symlink_metadata(path) {
        // Not opened: SQLite's locks on a file are gone when any descriptor of it in this process is closed.
        Ok(found) => ours(path, &found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NotFound {
            path: path.to_path_buf(),
        }),
        Err(e) => Err(refusal(path, &e)),
    }
}

/// What is no store stays as it is: a slip in `[store] path` must not change whatever it happens to name.
fn refuse_others(path: &Path, file: &File) -> Result<()> {
    let found = file.metadata().map_err(|e| io_error(path, &e))?;
    ours(path, &found)?;
    let mut head = Vec::new();
    file.take(MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(|e| io_error(path, &e))?;
    if head.is_empty() {
        tracing::warn!(
            "{}: the file is empty, and a new store is begun in it: if there was one, stop, and put a backup in its place",
            path.display()
        );
        return Ok(());
    }
    if head != MAGIC {
        return Err(Error::NotAStore {
            path: path.to_path_buf(),
        });
    }
    Ok(())
}

/// A log without the file that it belongs to: to begin anew would throw away what is in it.
fn refuse_orphans(path: &Path) -> Result<()> {
    let wal = beside(path, "-wal");
    let len = |path: &Path| fs::symlink_metadata(path).map_or(0, |found| found.len());
    if len(path) == 0 && len(&wal) > 0 {
        return Err(Error::Orphan {
            path: path.to_path_buf(),
            wal,
        });
    }
    Ok(())
}

/// To ask it who it is; a link is not followed.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

fn no_follow() -> i32 {
    // A few low bits on every system.
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn ours(path: &Path, found: &Metadata) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if !found.is_file() {
        return Err(Error::NotAStore {
            path: path.to_path_buf(),
        });
    }
    // Root may: SQLite then makes its side files the owner's.
    if found.uid() != us && us != 0 {
        return Err(Error::NotOurs {
            path: path.to_path_buf(),
            owner: found.uid(),
            us,
        });
    }
    Ok(())
}

/// Only its owner may read it, also where it was restored by a tool that knows nothing of that.
fn make_private(path: &Path, file: &File) -> Result<Metadata> {
    let found = file.metadata().map_err(|e| io_error(path, &e))?;
    ours(path, &found)?;
    let mode = found.mode() & 0o7777;
    if mode != 0o600 {
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(|e| io_error(path, &e))?;
        if mode & 0o077 != 0 {
            tracing::warn!(
                "{}: others could read or change it (mode {mode:04o}); it is its owner's alone now (0600)",
                path.display()
            );
        }
    }
    Ok(found)
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

/// The lock of whoever runs on the store; `None` if another has it. The system drops it with the process. It is a file of
/// its own, since SQLite's locks on the store go with any descriptor that is closed.
pub(super) fn lock(path: &Path) -> Result<Option<File>> {
    let name = beside(path, ".lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(&name)
        .map_err(|e| match path.parent() {
            // Of all files of a store it is the first that is made.
            Some(folder) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => {
                no_folder(path, folder)
            }
            _ => refusal(&name, &e),
        })?;
    make_private(&name, &file)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(io_error(&name, &e)),
    }
}

/// The mark of a store that goes on elsewhere. It is a file, for whoever wants the store back to remove.
fn mark(path: &Path) -> PathBuf {
    beside(path, ".copied")
}

/// Sees to it that nobody runs on the store any more, since `to` has all of it. Blocks.
pub(crate) fn mark_copied(path: &Path, to: &str) -> Result<()> {
    let mark = mark(path);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&mark)?;
        file.write_all(to.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| refusal(&mark, &e))
}

/// There is no copy after all. Blocks.
pub(crate) fn unmark_copied(path: &Path) -> Result<()> {
    let mark = mark(path);
    fs::remove_file(&mark).map_err(|e| io_error(&mark, &e))
}

/// Refuses a store that goes on elsewhere: to run on it, or to copy it to yet another place than `but_to`. Whether it was
/// marked already. Blocks.
pub(crate) fn refuse_copied(path: &Path, but_to: Option<&str>) -> Result<bool> {
    let mark = mark(path);
    match fs::read(&mark) {
        Ok(to) if but_to.is_some_and(|but| but.as_bytes() == to) => Ok(true),
        Ok(to) => Err(Error::Copied {
            path: path.to_path_buf(),
            to: String::from_utf8_lossy(&to).into_owned(),
            mark,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(refusal(&mark, &e)),
    }
}

fn no_folder(path: &Path, folder: &Path) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        message: format!(
            "there is no directory {0}; make it (`install -d -m 0750 -o USER {0}`, USER being whom turnhook runs as)",
            folder.display()
        ),
    }
}

/// Why it cannot be opened, for people.
fn refusal(path: &Path, e: &io::Error) -> Error {
    let message = match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::LOOP) => {
            "is a symbolic link, which a store's own files never are; remove it".into()
        }
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            format!("{e}; it and its folder must belong to the user that turnhook runs as")
        }
        _ => return io_error(path, e),
    };
    Error::Io {
        path: path.to_path_buf(),
        message,
    }
}

pub(super) fn io_error(path: &Path, e: &io::Error) -> Error {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_that_was_replaced_while_it_was_opened_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["store", "other"].map(|name| folder.path().join(name));
        let opened = prepare(&path).unwrap();
        opened.is_still_at(&path).unwrap();
        prepare(&other).unwrap();
        fs::rename(&other, &path).unwrap();
        let error = opened.is_still_at(&path).unwrap_err().to_string();
        assert!(error.contains("was replaced by another file"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(opened.is_still_at(&path).is_err(), "nor is none");
    }
}
