//! The files of a log, rotated ones and packed ones included, in the order in which they were written.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use turnhook_reducer::time::Timestamp;

use super::log::{Dates, Log, dates};

/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// The date of its first line that begins as coturn's do.
    pub from: Option<Timestamp>,
}

/// Reads the files of one coturn's log. Where all of them have dates, the order is theirs, else the one given.
///
/// # Errors
/// The file, and what keeps it from being read.
pub fn read(paths: &[PathBuf]) -> Result<(Log, Vec<LogFile>), (PathBuf, io::Error)> {
    let mut files = Vec::new();
    for path in paths {
        let from = open(path).and_then(|from| dates(from, Dates::First));
        let from = from.map_err(|error| (path.clone(), error))?;
        files.push(LogFile {
            path: path.clone(),
            from,
        });
    }
    // One that has no line yet is the newest.
    if files.iter().any(|file| file.from.is_some()) {
        files.sort_by_key(|file| file.from.unwrap_or(Timestamp(u64::MAX)));
    }
    // Dates of whole seconds may be the same: then that goes first which ends first.
    for same in files.chunk_by_mut(|one, other| one.from.is_some() && one.from == other.from) {
        if same.len() > 1 {
            let mut ends = Vec::new();
            for file in same.iter() {
                let last = open(&file.path).and_then(|from| dates(from, Dates::Last));
                ends.push((last.map_err(|error| (file.path.clone(), error))?, file.clone()));
            }
            ends.sort_by_key(|(last, _)| *last);
            for (file, (_, sorted)) in same.iter_mut().zip(ends) {
                *file = sorted;
            }
        }
    }
    let mut log = Log::default();
    for file in &files {
        open(&file.path)
            .and_then(|from| log.read(from))
            .map_err(|error| (file.path.clone(), error))?;
    }
    log.finish();
    Ok((log, files))
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(256 << 10, File::open(path)?);
    let is_packed = file.fill_buf()?.starts_with(&GZIP);
    Ok(if is_packed {
        // A file that was appended to may be several, one after the other.
        Box::new(BufReader::with_capacity(
            256 << 10,
            Box::new(MultiGzDecoder::new(file)) as Box<dyn Read>,
        ))
    } else {
        Box::new(file)
    })
}
