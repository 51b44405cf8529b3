//! coturn's log: what it says that each allocation carried, life by life.
//!
//! A life of a number begins with its first record and ends with `delete`, with the next `new`, or with the start of
//! another coturn, after which numbers begin anew.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead},
    sync::Arc,
};

use turnhook_reducer::{message::AllocationId, message::Leg, time::Timestamp, usage::Legs};

use super::line::{self, Format, Record, Unended, What};

/// Longer lines are none of coturn's: its own have a kilobyte.
pub const LINE_MAX: usize = 16 << 10;
/// A name has 512 bytes at most, and a record more than a hundred: so many lines can stand in it.
const IN_A_NAME: u8 = 8;
/// Records of one date that are kept.
const AT_ONCE: usize = 1 << 16;
/// So many numbers are followed at once. Who floods coturn gets more numbers, each for a moment.
const OPEN_MAX: usize = 1 << 20;

/// What the log itself is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    /// Each line is one that coturn wrote as one, whatever clients sent.
    pub one_record_a_line: bool,
    /// Records that somebody may have written.
    pub suspicious: bool,
    /// Two of its files have the same lines.
    pub overlaps: bool,
}

/// One life of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its number.
    pub id: AllocationId,
    /// As its `new` said, or else as its first record.
    pub realm: Arc<[u8]>,
    /// The same.
    pub username: Arc<[u8]>,
    /// When its first record was written, where lines are dated.
    pub since: Option<Timestamp>,
    /// Its `new` was read: the log has all of it.
    pub begun: bool,
    /// Its `delete` was read.
    pub deleted: bool,
    /// The sum of its reports.
    pub usage: Legs,
    /// Its client's address when it closed.
    pub remote: Option<Box<[u8]>>,
    /// It was refreshed or deleted: it is an allocation, whether its `new` was read or not.
    is_allocation: bool,
}

/// What was read, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Lines.
    pub lines: u64,
    /// Records of allocations.
    pub records: u64,
    /// Lines that do not begin as coturn's do; a start writes a few.
    pub unknown_lines: u64,
    /// Longer than any of coturn's: not read.
    pub too_long_lines: u64,
    /// The last line of a file, where it has no end: not read.
    pub cut_lines: u64,
    /// Records that somebody may have written by a name: inside another line, between the lines of a name, in a
    /// format that is not the file's, or of another user than the allocation's.
    pub suspicious: u64,
    /// Reports of what nobody was let in for: a wrong password, or none.
    pub unauthenticated: u64,
    /// Starts of coturn.
    pub starts: u64,
    /// Files that begin before the one before them ends: what stands in both is counted twice.
    pub overlapping_files: u64,
    /// Allocations whose beginning is not in the log.
    pub without_beginning: u64,
}

/// What a log says.
#[derive(Debug, Default)]
pub struct Log {
    /// All that ended, in the order of their ends, and then those that did not.
    pub lives: Vec<Life>,
    /// What was read.
    pub counts: Counts,
    /// The first date and the last, where lines have any.
    pub dates: Option<(Timestamp, Timestamp)>,
    /// The format of its lines; `None` if no line had one.
    pub format: Option<Format>,
    /// Records in lines that begin in another way than their file's do, or as none of coturn's; a start of a coturn before
    /// 4.17.
    foreign: u64,
    /// The next record is its file's first.
    at_start: bool,
    /// The records of the newest date.
    newest: HashSet<Box<[u8]>>,
    open: HashMap<AllocationId, Life>,
    names: HashMap<Arc<[u8]>, ()>,
    /// A client's words that no line has ended yet, and for how many lines more that is waited for.
    unended: Option<(Unended, u8)>,
}

impl Log {
    /// One more file, later than those before.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    pub fn read(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut format = None;
        self.at_start = true;
        let mut line = Vec::new();
        loop {
            match next_line(&mut from, &mut line)? {
                Next::Line => self.line(&line, &mut format),
                Next::TooLong => {
                    self.counts.lines += 1;
                    self.counts.too_long_lines += 1;
                    self.unended = Some((Unended::Bracket, 0));
                }
                Next::Cut => {
                    self.counts.cut_lines += 1;
                    break;
                }
                Next::End => break,
            }
        }
        // What a file broke off does not go on in the next: coturn writes a line at once.
        self.unended = None;
        Ok(())
    }

    /// What can be built on it.
    #[must_use]
    pub fn worth(&self) -> Worth {
        Worth {
            one_record_a_line: self.format == Some(Format::New) && self.foreign == 0,
            suspicious: self.counts.suspicious > 0,
            overlaps: self.counts.overlapping_files > 0,
        }
    }

    /// There is no more: what is still open was when the log ended.
    pub fn finish(&mut self) {
        let mut left: Vec<Life> = self.open.drain().map(|(_, life)| life).collect();
        // The order of a map is no order.
        left.sort_by_key(|life| (life.since, life.id));
        left.into_iter().for_each(|life| self.keep(life));
        self.names = HashMap::new();
    }

    fn line(&mut self, bytes: &[u8], format: &mut Option<Format>) {
        self.counts.lines += 1;
        let unended = self.unended.take();
        self.unended = unended
            .filter(|(what, lines)| *lines > 0 && !what.is_ended_by(bytes))
            .map(|(what, lines)| (what, lines - 1));
        let in_a_name = unended.is_some();
        let Some(line) = line::line(bytes) else {
            self.counts.unknown_lines += 1;
            // Before 4.17 the banner stands on a line of its own.
            if *format != Some(Format::New) && !in_a_name && line::banner(bytes).is_some() {
                self.started();
            } else if line::holds_a_record(bytes) || line::record(bytes).is_some() {
                self.counts.suspicious += 1;
                self.foreign += 1;
            }
            return;
        };
        let first = *format.get_or_insert(line.format);
        self.format = Some(self.format.map_or(first, |known| known.min(first)));
        let record = line::record(line.text);
        let Some(record) = record else {
            if line.format == first
                && !in_a_name
                && let Some(version) = line::banner(line.text)
            {
                self.started();
                self.foreign += u64::from(line.format == Format::New && is_before_4_17(version));
            }
            if line::holds_a_record(line.text) {
                self.counts.suspicious += 1;
            }
            // From 4.17 on a name has no lines: nobody can hide those of others by one.
            if line.format == Format::Old
                && let Some(what) = line::unended(line.text)
            {
                self.unended = Some((what, IN_A_NAME));
            }
            return;
        };
        if line.format != first || in_a_name {
            self.counts.suspicious += 1;
            self.foreign += u64::from(line.format != first);
            return;
        }
        let at_start = std::mem::take(&mut self.at_start);
        if let Some(at) = line.at {
            let newest = self.dates.map(|(_, to)| to);
            let again = newest == Some(at) && self.newest.contains(bytes);
            if at_start && (again || newest.is_some_and(|newest| at < newest)) {
                self.counts.overlapping_files += 1;
            }
            if newest.is_none_or(|newest| at > newest) {
                self.newest.clear();
            }
            if newest.is_none_or(|newest| at >= newest) && self.newest.len() < AT_ONCE {
                self.newest.insert(bytes.into());
            }
            let (from, to) = self.dates.unwrap_or((at, at));
            self.dates = Some((from.min(at), to.max(at)));
        }
        self.counts.records += 1;
        if record.what == What::Closed
            && let Some(life) = self.open.get_mut(&record.id)
        {
            life.remote = line::remote(line.text).map(Into::into);
        }
        self.record(record, line.at);
    }

    /// Another coturn begins: what is open is over, and numbers begin anew.
    fn started(&mut self) {
        self.counts.starts += 1;
        let over: Vec<Life> = self.open.drain().map(|(_, life)| life).collect();
        over.into_iter().for_each(|life| self.keep(life));
    }

    fn record(&mut self, record: Record<'_>, at: Option<Timestamp>) {
        let Record { id, name, what } = record;
        if what == What::New
            && self.open.get(&id).is_some_and(|life| life.is_allocation)
            && let Some(before) = self.open.remove(&id)
        {
            self.keep(before);
        }
        if !self.open.contains_key(&id) {
            if what == What::Closed || self.open.len() >= OPEN_MAX {
                return;
            }
            let life = Life {
                id,
                realm: self.name(name.realm),
                username: self.name(name.username),
                since: at,
                begun: false,
                deleted: false,
                usage: Legs::default(),
                remote: None,
                is_allocation: false,
            };
            self.open.insert(id, life);
        }
        let (realm, username) = (self.name(name.realm), self.name(name.username));
        let Some(life) = self.open.get_mut(&id) else {
            return;
        };
        // A client of a TCP relay can switch the realm, and nobody the username.
        if life.is_allocation && life.username != username && what != What::Closed {
            self.counts.suspicious += 1;
            return;
        }
        match what {
            What::New | What::Refreshed => {
                if !life.is_allocation {
                    (life.realm, life.username, life.since) = (realm, username, at);
                }
                life.begun |= what == What::New;
                life.is_allocation = true;
            }
            What::Usage(leg, counters) => {
                let sum = match leg {
                    Leg::Client => &mut life.usage.client,
                    Leg::Peer => &mut life.usage.peer,
                };
                *sum = sum.plus(counters);
            }
            What::Closed if life.is_allocation => {}
            What::Closed | What::Deleted => {
                life.deleted = what == What::Deleted;
                life.is_allocation |= life.deleted;
                if let Some(life) = self.open.remove(&id) {
                    self.keep(life);
                }
            }
        }
    }

    fn keep(&mut self, life: Life) {
        if !life.is_allocation {
            self.counts.unauthenticated += u64::from(!life.usage.is_zero());
        } else {
            self.counts.without_beginning += u64::from(!life.begun);
            self.lives.push(life);
        }
    }

    /// Names come again and again.
    fn name(&mut self, name: &[u8]) -> Arc<[u8]> {
        if let Some((known, ())) = self.names.get_key_value(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= OPEN_MAX {
            self.names.clear();
        }
        let name: Arc<[u8]> = Arc::from(name);
        self.names.insert(Arc::clone(&name), ());
        name
    }
}

/// Such a coturn's lines may be a client's, whatever they begin with.
fn is_before_4_17(version: &[u8]) -> bool {
    let mut numbers = version.split(|b| *b == b'.').map(|part| {
        let number = std::str::from_utf8(part)
            .ok()
            .and_then(|part| part.parse::<u32>().ok());
        number.unwrap_or_default()
    });
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    ) < (4, 17)
}

/// Which date of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// That of the first line.
    First,
    /// The latest one.
    Last,
}

/// A date in a file, to put files into their order. `None` where lines have none.
///
/// # Errors
/// Whatever keeps it from being read.
pub fn dates(mut from: impl BufRead, which: Dates) -> io::Result<Option<Timestamp>> {
    let mut bytes = Vec::new();
    let mut last = None;
    loop {
        match next_line(&mut from, &mut bytes)? {
            Next::Line => {
                let Some(line) = line::line(&bytes) else { continue };
                if which == Dates::First {
                    return Ok(line.at);
                }
                last = last.max(line.at);
            }
            Next::TooLong => {}
            Next::Cut | Next::End => return Ok(last),
        }
    }
}

enum Next {
    Line,
    TooLong,
    /// Without its end.
    Cut,
    End,
}

/// The next line, without its end, and never more of it than a line may have.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Next> {
    line.clear();
    let mut length = 0usize;
    loop {
        let buffer = match from.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(if length == 0 { Next::End } else { Next::Cut });
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        length = length.saturating_add(part.len());
        let room = LINE_MAX.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(if length > LINE_MAX {
                Next::TooLong
            } else {
                Next::Line
            });
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
