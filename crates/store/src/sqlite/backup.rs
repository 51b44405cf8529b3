//! A copy of the whole file, while it is in use.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::fs::{CWD, RenameFlags};

use super::{
    connection,
    files::{beside, create_private, io_error},
};
use crate::error::{Error, Result};

/// Copies a store into a new file, under another name until it is whole. Blocks.
pub(super) fn backup(source: &Path, to: &Path) -> Result<()> {
    let conn = connection::helper(source).map_err(|e| connection::error_from(source, &e))?;
    let exists = || Error::Exists {
        path: to.to_path_buf(),
    };
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists());
    }
    let no_name = |message: &str| Error::Io {
        path: to.to_path_buf(),
        message: message.into(),
    };
    let name = to.file_name().ok_or_else(|| no_name("is no name of a file"))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = to.with_file_name(partial);
    // Left behind by one that was killed, whose number the system has given to this process.
    let _ = fs::remove_file(&partial);
    let _ = fs::remove_file(beside(&partial, "-journal"));
    create_private(&partial).map_err(|e| io_error(to, &e))?;
    let copy = || {
        let text = partial.to_str().ok_or_else(|| no_name("its name is not UTF-8"))?;
        // A snapshot, whatever is written meanwhile; SQLite fills the empty file that is ours alone.
        conn.execute("VACUUM INTO ?1", [text])
            .map_err(|e| match connection::error_from(source, &e) {
                Error::Full { .. } => Error::Full {
                    path: to.to_path_buf(),
                },
                other => other,
            })?;
        File::open(&partial)
            .and_then(|f| f.sync_all())
            .map_err(|e| io_error(to, &e))?;
        rename_new(&partial, to).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => io_error(to, &e),
        })?;
        if let Some(Ok(dir)) = to.parent().map(File::open) {
            // The name in its directory; not every file system lets one ask for that.
            let _ = dir.sync_all();
        }
        Ok(())
    };
    copy().inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

/// Renames, and never over a file that is there.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Not every file system can: a second name never replaces one either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(e) => Err(e.into()),
    }
}
