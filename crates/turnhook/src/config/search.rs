//! Where the configuration file is, and how it is read.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{ConfigError, Origin, Problem};

/// Where it is looked for if no name is given: the first that is there.
pub const PLACES: [&str; 2] = ["turnhook.toml", "/etc/turnhook/turnhook.toml"];

/// Reads the file that was named, or the first of `places` that is there.
pub(super) fn read(named: Option<&Path>, places: &[&Path]) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let candidates = match &named {
        Some(path) => std::slice::from_ref(path),
        None => places,
    };
    for path in candidates {
        match std::fs::read(path) {
            Ok(bytes) => return text(path, bytes).map(|text| Some((path.to_path_buf(), text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => {
                return Err(ConfigError::Unreadable {
                    path: path.display().to_string(),
                    advice: advice(path, &error),
                    error,
                });
            }
        }
    }
    Ok(None)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let lines = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n');
        ConfigError::Wrong(vec![Problem {
            origin: Origin::File {
                path: path.display().to_string(),
                line: Some(lines.count() + 1),
            },
            key: String::new(),
            message: "holds a byte that is not UTF-8; save the file as UTF-8 (`iconv -f latin1 -t utf-8` converts it)"
                .to_owned(),
        }])
    })
}

/// What to do about it.
fn advice(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "this user may not read it: run the command as root or as the user that turnhook runs as \
             (`sudo -u turnhook turnhook …`), or let this user's group read it and enter its directory \
             (`chgrp GROUP {path}; chmod 640 {path}`)",
            path = path.display()
        ),
        io::ErrorKind::IsADirectory => format!(
            "it is a directory: name the file in it, like --config {}",
            path.join("turnhook.toml").display()
        ),
        io::ErrorKind::NotFound => "name another with --config FILE".to_owned(),
        _ => "the file cannot be read; look at its disk".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_place_that_has_one_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (here, etc) = (
            directory.path().join("turnhook.toml"),
            directory.path().join("etc.toml"),
        );
        let places = [here.as_path(), etc.as_path()];
        let found = || read(None, &places).unwrap().map(|(path, _)| path);
        assert_eq!(found(), None);
        std::fs::write(&etc, "").unwrap();
        assert_eq!(found(), Some(etc.clone()));
        std::fs::write(&here, "").unwrap();
        assert_eq!(found(), Some(here.clone()));
        // What is named is taken, or missed.
        assert_eq!(read(Some(&etc), &places).unwrap().unwrap().0, etc);
        assert!(read(Some(Path::new("/nowhere.toml")), &places).is_err());
        // One that cannot be read is not passed over in silence.
        std::fs::remove_file(&here).unwrap();
        std::fs::create_dir(&here).unwrap();
        let error = read(None, &places).unwrap_err().to_string();
        assert!(
            error.contains("it is a directory: name the file in it"),
            "{error}"
        );
    }
}
