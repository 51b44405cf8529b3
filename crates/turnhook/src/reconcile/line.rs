//! One line of coturn's log. Pure, and anchored at both ends: a record that stands inside another line is none.
//!
//! coturn writes names as they come, and before 4.17 newlines too, so what is read here is hearsay: it is compared, and
//! nobody is billed for it.

use jiff::Timestamp as Instant;
use turnhook_reducer::{
    message::{AllocationId, Leg},
    time::Timestamp,
    usage::Counters,
};

/// How lines begin, by coturn's version and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Up to 4.16: the seconds since the start, or a date of whole seconds with `new-log-timestamp`.
    Old,
    /// 4.17 and later: a date with milliseconds, and one record a line whatever a client sends.
    New,
}

/// A line that begins as coturn begins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// How it begins.
    pub format: Format,
    /// When it was written; `None` where only the seconds since the start are given.
    pub at: Option<Timestamp>,
    /// What follows.
    pub text: &'a [u8],
}

/// Whose record one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// As the log has it.
    pub realm: &'a [u8],
    /// As the log has it.
    pub username: &'a [u8],
}

/// What a record says of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    New,
    /// It was refreshed.
    Refreshed,
    /// What a leg carried since the last such record.
    Usage(Leg, Counters),
    /// Its connection is over; where there was no allocation, nothing follows.
    Closed,
    /// It is gone.
    Deleted,
}

/// A record of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number, from 1 on in each life of a coturn.
    pub id: AllocationId,
    /// Whose it is.
    pub name: Name<'a>,
    /// What it says.
    pub what: What,
}

/// As coturn takes them, and as the store keeps them.
const REALM_MAX: usize = 255;
const USERNAME_MAX: usize = 1_024;
/// A counter of one report, as on the stream.
const COUNTER_MAX: u64 = 1 << 53;
/// What is a time in seconds, and no count of seconds since a start: 2001.
const EPOCH_SECONDS: u64 = 1_000_000_000;

/// Reads how a line begins. `None` if no coturn begins one so.
#[must_use]
pub fn line(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let (at, rest) = if digits == 4 && line.get(digits) == Some(&b'-') {
        let end = line.iter().position(|b| matches!(b, b' ' | b'('))?;
        let end = if line[end - 1] == b':' { end - 1 } else { end };
        let (date, rest) = line.split_at(end);
        (Some(read_date(date)?), rest)
    } else {
        let seconds = number(line.get(..digits)?, EPOCH_SECONDS << 8)?;
        let at = (seconds >= EPOCH_SECONDS).then(|| Timestamp(seconds.saturating_mul(1_000)));
        (at, &line[digits..])
    };
    // 4.17: a level, without a colon.
    if let Some(rest) = rest.strip_prefix(b" ") {
        let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
        let (level, text) = rest.split_at(end);
        let is_level = matches!(level, b"INFO" | b"WARNING" | b"ERROR" | b"DEBUG" | b"CONTROL");
        return is_level.then(|| Line {
            format: Format::New,
            at,
            text: text.strip_prefix(b" ").unwrap_or(text),
        });
    }
    // 4.6.2: a thread in parentheses, with a separator before it or not.
    let thread = rest.strip_prefix(b": (").or_else(|| rest.strip_prefix(b"("));
    let text = if let Some(thread) = thread {
        let end = thread.iter().position(|b| !b.is_ascii_digit())?;
        thread[end..].strip_prefix(b"): ")?
    } else {
        // Before: a colon, and another one where there is no date.
        let rest = rest.strip_prefix(b": ")?;
        rest.strip_prefix(b": ").unwrap_or(rest)
    };
    let text = [&b"INFO: "[..], b"WARNING: ", b"ERROR: ", b"DEBUG: "]
        .iter()
        .find_map(|level| text.strip_prefix(*level))
        .unwrap_or(text);
    Some(Line {
        format: Format::Old,
        at,
        text,
    })
}

/// `2026-11-26T15:57:50.587+0000`, with or without the fraction.
fn read_date(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 40)?;
    let at = Instant::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

/// Reads a record. `None` if the text is none, from its first byte to its last.
#[must_use]
pub fn record(text: &[u8]) -> Option<Record<'_>> {
    let rest = text.strip_prefix(b"session ")?;
    let (id, rest) = rest.split_at_checked(18)?;
    let id = AllocationId(number(id, u64::MAX)?);
    let rest = rest.strip_prefix(b": ")?;
    let (name, what) = if let Some(rest) = rest.strip_prefix(b"usage: ") {
        usage(rest, Leg::Client)?
    } else if let Some(rest) = rest.strip_prefix(b"peer usage: ") {
        usage(rest, Leg::Peer)?
    } else if let Some(rest) = rest.strip_prefix(b"delete: ") {
        (names(rest.strip_suffix(b">")?)?, What::Deleted)
    } else if let Some(rest) = rest.strip_prefix(b"new, ") {
        (status(rest)?, What::New)
    } else if let Some(rest) = rest.strip_prefix(b"refreshed, ") {
        (status(rest)?, What::Refreshed)
    } else {
        (closed(rest)?, What::Closed)
    };
    let is_name = |name: &[u8], most| name.len() <= most && !name.iter().any(|b| b.is_ascii_whitespace());
    (is_name(name.realm, REALM_MAX) && is_name(name.username, USERNAME_MAX)).then_some(Record {
        id,
        name,
        what,
    })
}

/// Whether a record stands inside of a text that is none: somebody may have wanted it to be read as one.
#[must_use]
pub fn holds_a_record(text: &[u8]) -> bool {
    let parts = [
        &b": usage: realm=<"[..],
        b": peer usage: realm=<",
        b": delete: realm=<",
        b": new, realm=<",
    ];
    let starts = |at: usize| parts.iter().any(|part| text[at..].starts_with(part));
    text.iter()
        .enumerate()
        .any(|(at, byte)| *byte == b':' && starts(at))
}

/// What of a client's words a line has begun and not ended: what follows may be the rest of them, in lines of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unended {
    /// A name in angle brackets.
    Bracket,
    /// A username that was refused, which older ones write without brackets; the refusal follows.
    Refused,
}

impl Unended {
    /// Whether this line is the one that ends it.
    #[must_use]
    pub fn is_ended_by(self, line: &[u8]) -> bool {
        match self {
            Unended::Bracket => count(line, b'>') > count(line, b'<'),
            Unended::Refused => split_first(line, b": incoming packet message processed, error 4").is_some(),
        }
    }
}

/// Whether the text leaves a client's words unended.
#[must_use]
pub fn unended(text: &[u8]) -> Option<Unended> {
    if count(text, b'<') > count(text, b'>') {
        Some(Unended::Bracket)
    } else {
        split_first(text, b": wrong username: ").map(|_| Unended::Refused)
    }
}

fn count(text: &[u8], wanted: u8) -> usize {
    text.iter().filter(|byte| **byte == wanted).count()
}

/// The version in the banner of a start: `Version Coturn-4.6.1 'Gorst'`, a line of its own before 4.17.
#[must_use]
pub fn banner(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"Coturn ").unwrap_or(text);
    let rest = rest.strip_prefix(b"Version Coturn-")?;
    let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
    (end > 0 && end <= 16 && rest[end..].starts_with(b" '")).then_some(&rest[..end])
}

/// `realm=<R>, username=<U>, rp=…, rb=…, sp=…, sb=…`.
fn usage(text: &[u8], leg: Leg) -> Option<(Name<'_>, What)> {
    let (name, rest) = split_last(text, b">, rp=")?;
    let mut counters = [0; 4];
    let mut rest = rest;
    for (place, next) in [&b", rb="[..], b", sp=", b", sb=", b""].iter().enumerate() {
        let end = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, after) = rest.split_at(end);
        counters[place] = number(digits, COUNTER_MAX)?;
        rest = after.strip_prefix(*next)?;
    }
    let [received_packets, received_bytes, sent_packets, sent_bytes] = counters;
    let counters = Counters {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    };
    rest.is_empty()
        .then_some((names(name)?, What::Usage(leg, counters)))
}

/// `realm=<R>, username=<U>, lifetime=600`, and over TLS `, cipher=C, method=M`.
fn status(text: &[u8]) -> Option<Name<'_>> {
    let (name, rest) = split_last(text, b">, lifetime=")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    number(&rest[..digits], u64::from(u32::MAX))?;
    let rest = &rest[digits..];
    (rest.is_empty() || rest.starts_with(b", cipher=")).then_some(names(name)?)
}

/// `closed (2nd stage), user <U> realm <R> origin <O>, local …, remote …, reason: …`.
fn closed(text: &[u8]) -> Option<Name<'_>> {
    let rest = text
        .strip_prefix(b"closed (1st stage), user <")
        .or_else(|| text.strip_prefix(b"closed (2nd stage), user <"))?;
    let (rest, _) = split_last(rest, b">, local ")?;
    let (rest, _) = split_first(rest, b"> origin <")?;
    let (username, realm) = split_last(rest, b"> realm <")?;
    Some(Name { realm, username })
}

/// The client's address in the text of a `closed`.
#[must_use]
pub fn remote(text: &[u8]) -> Option<&[u8]> {
    let (_, rest) = split_last(text, b">, local ")?;
    let (_, rest) = split_first(rest, b", remote ")?;
    let (remote, _) = split_first(rest, b", reason: ")?;
    Some(remote)
}

/// `realm=<R>, username=<U`. A username has no blank, so the last place where it can begin is the right one.
fn names(text: &[u8]) -> Option<Name<'_>> {
    let rest = text.strip_prefix(b"realm=<")?;
    let (realm, username) = split_last(rest, b">, username=<")?;
    Some(Name { realm, username })
}

fn split_first<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = text.windows(at.len()).position(|window| window == at)?;
    Some((&text[..place], &text[place + at.len()..]))
}

fn split_last<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = text.windows(at.len()).rposition(|window| window == at)?;
    Some((&text[..place], &text[place + at.len()..]))
}

/// Digits alone, at most `most`.
fn number(digits: &[u8], most: u64) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= most).then_some(number)
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
