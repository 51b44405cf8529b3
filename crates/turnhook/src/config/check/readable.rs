//! Files that root can read, and the group that the configuration belongs to cannot: whoever checks as root sees none of
//! what a service sees at its start.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::config::{Problem, file::File, layers::Layers, locate::Step, withheld::names_a_file};

const ROOT: u32 = 0;

/// What is named, and kept from the configuration's group; nothing where that is root's, or where this is not root.
pub(super) fn kept_from_group(file: &File, layers: &Layers) -> Vec<Problem> {
    if rustix::process::geteuid().as_raw() != ROOT {
        return Vec::new();
    }
    let Some(group) = layers.file_path().and_then(|path| fs::metadata(path).ok()) else {
        return Vec::new();
    };
    let group = group.gid();
    if group == ROOT {
        return Vec::new();
    }
    let mut named = Vec::new();
    // What is written in it was read from it: this cannot fail.
    files(
        &serde_json::to_value(file).unwrap_or_default(),
        &mut Vec::new(),
        &mut named,
    );
    let kept = named.into_iter().filter_map(|(at, path)| {
        let (kept, right) = kept(&path, group)?;
        let kept = kept.display();
        let message = format!(
            "{kept} is kept from group {group}, which the configuration belongs to: where turnhook runs as a user of that \
             group, it would not start (`chgrp {group} {kept} && chmod g+{right} {kept}`)"
        );
        Some(layers.problem(&at, message))
    });
    kept.collect()
}

/// All keys that name a file, and the files.
fn files(value: &Value, at: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, PathBuf)>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                at.push(Step::Key(key.clone()));
                match value {
                    Value::String(path) if names_a_file(key) => found.push((at.clone(), path.into())),
                    value => files(value, at, found),
                }
                at.pop();
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                at.push(Step::Index(index));
                files(value, at, found);
                at.pop();
            }
        }
        _ => {}
    }
}

/// What on the way to a file, or the file, the group may not use, and the right that it lacks. One that is not there is
/// an error of its own.
fn kept(path: &Path, group: u32) -> Option<(PathBuf, char)> {
    let path = fs::canonicalize(path).ok()?;
    let folders = path.ancestors().skip(1).filter(|folder| {
        let found = fs::metadata(folder);
        found.is_ok_and(|found| !allows(&found, group, 0o1))
    });
    if let Some(folder) = folders.last() {
        return Some((folder.to_path_buf(), 'x'));
    }
    let found = fs::metadata(&path).ok()?;
    (!allows(&found, group, 0o4)).then_some((path, 'r'))
}

/// Another owner than root is taken for the user that turnhook runs as.
fn allows(found: &Metadata, group: u32, right: u32) -> bool {
    let mode = found.mode();
    let by_owner = found.uid() != ROOT && mode & (right << 6) != 0;
    let by_group = found.gid() == group && mode & (right << 3) != 0;
    by_owner || by_group || (found.gid() != group && mode & right != 0)
}
