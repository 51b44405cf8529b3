//! Where a SQLite store is to be: what would keep it from being opened is said before somebody starts on it.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::{Check, Step, key_path};

impl Check<'_> {
    /// A warning, and no error: the service manager may make the directory, and another user may be meant to run on it.
    pub(super) fn place(&mut self, store: &Path) {
        let key = key_path!["store", "path"];
        let us = rustix::process::geteuid().as_raw();
        let folder = match store.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        match fs::metadata(folder) {
            Ok(found) if !found.is_dir() => {
                self.doubtful(&key, format!("{} is no directory", folder.display()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.doubtful(
                &key,
                format!(
                    "there is no directory {0}; make it (`install -d -m 0750 -o USER {0}`, USER being whom turnhook runs as)",
                    folder.display()
                ),
            ),
            Err(error) => self.doubtful(&key, format!("cannot look into {}: {error}", folder.display())),
        }
        if let Ok(found) = fs::metadata(store)
            && found.uid() != us
            && us != 0
        {
            self.doubtful(
                &key,
                format!(
                    "{} belongs to user {}, and this is user {us}: run turnhook as its owner, or give the file and its \
                     directory to this user (chown)",
                    store.display(),
                    found.uid()
                ),
            );
        }
    }
}
