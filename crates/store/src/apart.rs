//! A commit that can never succeed, taken apart: what the database will not take is found by halves and put on record,
//! and all else is committed, in one transaction, as ever. Nobody waits for what will never come.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use turnhook_reducer::event::EventId;

use crate::{
    State,
    commit::{Commit, Committed, How, Refused},
    error::{Error, Result},
    facts, on,
};

/// What is larger is not kept.
const DATA_MAX: usize = 1 << 20;

impl State {
    /// Writes all of it in one transaction, and answers when it is on the disk. Commits asked for while one is
    /// being written share the next transaction. The order of a source's commits is that of the calls.
    ///
    /// What the database will never take (a value that breaks one of its rules) does not keep the rest: it is taken
    /// out, put on record in the table `refused`, logged, and counted by [`State::refused`].
    ///
    /// # Errors
    /// The disk's; then nothing of it was written, and it may be repeated as it is.
    pub async fn commit(&self, commit: impl Into<Arc<Commit>>) -> Result<Committed> {
        let commit = commit.into();
        let error = match self.make(&commit, How::Keep(&[])).await {
            Err(error) if error.is_unstorable() => error,
            other => return other,
        };
        tracing::error!(source = commit.source.0, %error, "a commit cannot be made as it is: it is taken apart");
        let (done, refused) = take_apart(self, &commit).await?;
        for one in &refused {
            tracing::error!(
                source = commit.source.0,
                kind = one.kind,
                name = one.name,
                error = one.error,
                "the database does not take this: it is left out, and on record in the table `refused`; all else is committed"
            );
        }
        let count = refused.len() as u64;
        on!(self, db => db.refused().fetch_add(count, Ordering::Relaxed));
        Ok(done)
    }

    async fn make(&self, commit: &Commit, how: How<'_>) -> Result<Committed> {
        on!(self, db => db.commit(commit, how).await)
    }

    /// How many parts of commits the database has not taken since the store was opened.
    #[must_use]
    pub fn refused(&self) -> u64 {
        on!(self, db => db.refused().load(Ordering::Relaxed))
    }
}

/// Commits all of it that can be committed.
async fn take_apart(to: &State, whole: &Commit) -> Result<(Committed, Vec<Refused>)> {
    // Where not even the time can be written, it is not for what the commit holds.
    to.make(&some_of(whole, &[]), How::Try).await?;
    let mut good: Vec<usize> = Vec::new();
    let mut refused = Vec::new();
    let mut left: Vec<Range<usize>> = Vec::new();
    left.push(0..count(whole));
    while let Some(range) = left.pop() {
        let with: Vec<usize> = good.iter().copied().chain(range.clone()).collect();
        match to.make(&some_of(whole, &with), How::Try).await {
            Ok(_) => good = with,
            Err(error) if !error.is_unstorable() => return Err(error),
            Err(error) if range.len() <= 1 => refused.push(describe(whole, range.start, &error)),
            Err(_) => {
                let half = range.start + range.len() / 2;
                left.push(half..range.end);
                left.push(range.start..half);
            }
        }
    }
    let rest = some_of(whole, &good);
    let done = match to.make(&rest, How::Keep(&refused)).await {
        // Not even the record of it: the log has it, and all else is committed.
        Err(error) if error.is_unstorable() => to.make(&rest, How::Keep(&[])).await?,
        other => other?,
    };
    Ok((done, refused))
}

/// Its parts, in order: events, bytes that no session bills, gaps, rows of the state.
fn count(commit: &Commit) -> usize {
    commit.events.len() + commit.unattributed.len() + commit.gaps.len() + commit.changes.len()
}

enum Part {
    Event(usize),
    Unattributed(usize),
    Gap(usize),
    Change(usize),
}

fn part(commit: &Commit, mut n: usize) -> Part {
    for (len, of) in [
        (commit.events.len(), Part::Event as fn(usize) -> Part),
        (commit.unattributed.len(), Part::Unattributed),
        (commit.gaps.len(), Part::Gap),
    ] {
        if n < len {
            return of(n);
        }
        n -= len;
    }
    Part::Change(n)
}

/// The commit with these parts alone, which are in order.
fn some_of(whole: &Commit, parts: &[usize]) -> Commit {
    let mut some = Commit::new(whole.source, whole.clock);
    some.epoch = whole.epoch;
    for n in parts {
        match part(whole, *n) {
            Part::Event(i) => some.events.extend(whole.events.get(i).cloned()),
            Part::Unattributed(i) => some.unattributed.extend(whole.unattributed.get(i).cloned()),
            Part::Gap(i) => some.gaps.extend(whole.gaps.get(i).cloned()),
            Part::Change(i) => some.changes.extend(whole.changes.get(i).cloned()),
        }
    }
    some
}

fn describe(whole: &Commit, n: usize, error: &Error) -> Refused {
    let (kind, name, data) = match part(whole, n) {
        Part::Event(i) => {
            let new = whole.events.get(i);
            let id = new.map_or(EventId([0; 16]), |new| new.event.id);
            let data = new.map(|new| facts::pack_event(&new.event, &new.body));
            ("event", id.to_string(), data)
        }
        Part::Unattributed(i) => {
            let bytes = whole.unattributed.get(i);
            let name = bytes.map(|u| format!("allocation {} opened at {}", u.allocation, u.opened_at.0));
            let data = bytes.map(|u| format!("{:?}", u.usage).into_bytes());
            ("unattributed", name.unwrap_or_default(), data)
        }
        Part::Gap(i) => {
            let gap = whole.gaps.get(i);
            let name = gap.map(|g| format!("{} from {} to {}", g.reason.as_str(), g.from.0, g.to.0));
            ("gap", name.unwrap_or_default(), None)
        }
        Part::Change(i) => {
            let change = whole.changes.get(i);
            let name = change.map(|c| format!("row {} of the {:?} state", c.key, c.table));
            (
                "state",
                name.unwrap_or_default(),
                change.and_then(|c| c.value.clone()),
            )
        }
    };
    Refused {
        kind,
        name,
        error: error.to_string(),
        data: data.filter(|data| data.len() <= DATA_MAX),
    }
}
