//! Which life in the log is which in the ledger, and whether both say the same.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    heal::Heal,
    message::AllocationId,
    time::Timestamp,
    usage::{Counters, Legs},
};

use super::{
    TOLERANCE,
    heal::{self, Not, Rule},
    ledger::{Billed, Key, Ledger},
    log::{Life, Log},
};

/// What came of comparing an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// To the byte.
    Equal,
    /// It goes on, or a session that counts it does: it is compared when that is over.
    Open,
    /// The log has more, by less than `residue`, of an allocation that was parked or counted in no session: that is
    /// billed later, or on record for its group.
    Leftover,
    /// The log begins in the midst of it.
    Cut,
    /// The log has more, and a session of that user and time is not known whole: retention has trimmed what it listed,
    /// or it had more allocations than are listed.
    Unlisted,
    /// The log has more: something was missed.
    StreamLess,
    /// The ledger has more: lines are missing, or the log is of another coturn.
    LogLess,
    /// Each has more of something.
    Differs,
}

impl Verdict {
    /// For people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Open => "open",
            Verdict::Leftover => "leftover",
            Verdict::Cut => "cut",
            Verdict::Unlisted => "unlisted",
            Verdict::StreamLess => "stream_less",
            Verdict::LogLess => "log_less",
            Verdict::Differs => "differs",
        }
    }

    /// Whether the two do not agree.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(self, Verdict::StreamLess | Verdict::LogLess | Verdict::Differs)
    }
}

/// An allocation in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its number.
    pub id: AllocationId,
    /// Its realm.
    pub realm: Vec<u8>,
    /// Its username.
    pub username: Vec<u8>,
    /// When it began, by the log or else by the ledger.
    pub since: Option<Timestamp>,
    /// What came of it.
    pub verdict: Verdict,
    /// `None` if the log does not have it.
    pub log: Option<Legs>,
    /// `None` if the ledger does not have it.
    pub billed: Option<Legs>,
    /// The sessions that counted it.
    pub sessions: Vec<String>,
    /// One of them says that it may lack something.
    pub lower_bound: bool,
    /// What is to be billed where the log has more, or why nothing is.
    pub heal: Option<Result<Box<Heal>, Not>>,
    /// Lives of one number that cannot be distinguished, since the log has no dates: their sum is compared.
    pub lives: usize,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Compared {
    /// Each allocation, in the order of their names.
    pub findings: Vec<Finding>,
    /// Allocations that the ledger has of other coturns of the source.
    pub of_other_servers: u64,
    /// The sum of the log.
    pub log: Legs,
    /// The sum of the ledger, of what is compared.
    pub billed: Legs,
}

/// Compares what a log says with what is billed. `window`: only what began in it, by the log's dates.
#[must_use]
pub fn compare(
    log: Log,
    mut ledger: Ledger,
    residue: u64,
    window: (Option<Timestamp>, Option<Timestamp>),
    rule: &Rule,
) -> Compared {
    let (dates, worth) = (log.dates, log.worth());
    let mut lives: BTreeMap<Key, Vec<Life>> = BTreeMap::new();
    for life in log.lives {
        let key = Key {
            realm: life.realm.to_vec(),
            username: life.username.to_vec(),
            id: life.id,
        };
        lives.entry(key).or_default().push(life);
    }
    let mut compared = Compared::default();
    let mut servers = BTreeSet::new();
    for (key, mut lives) in lives {
        let mut billed = ledger.billed.remove(&key).unwrap_or_default();
        let mut pairs: Vec<(Vec<Life>, Vec<Billed>)> = Vec::new();
        if lives.iter().all(|life| life.since.is_some()) {
            lives.sort_by_key(|life| life.since);
            pairs.extend(lives.into_iter().map(|life| (vec![life], Vec::new())));
            let mut before = Vec::new();
            for billed in billed {
                let began = |(lives, _): &&mut (Vec<Life>, Vec<Billed>)| {
                    lives[0]
                        .since
                        .is_some_and(|since| since.0 <= billed.opened_at.0.saturating_add(TOLERANCE))
                };
                match pairs.iter_mut().rev().find(began) {
                    Some((_, of)) => of.push(billed),
                    None => before.push(billed),
                }
            }
            if !before.is_empty() {
                ledger.billed.insert(key.clone(), before);
            }
        } else if lives.len() == billed.len() {
            billed.sort_by_key(|billed| billed.opened_at);
            pairs.extend(
                lives
                    .into_iter()
                    .zip(billed)
                    .map(|(life, billed)| (vec![life], vec![billed])),
            );
        } else {
            pairs.push((lives, billed));
        }
        for (lives, billed) in pairs {
            servers.extend(billed.iter().filter_map(|billed| billed.server.clone()));
            if in_window(lives[0].since, window) {
                let partial = ledger.may_have_counted(&key, lives[0].since);
                let crowd = ledger.may_be_in_a_crowd(&key, lives[0].since);
                let mut finding = pair(&key, &lives, &billed, residue, partial);
                finding.heal = (finding.verdict == Verdict::StreamLess)
                    .then(|| heal::heal(rule, worth, &key, &lives, &billed, crowd));
                compared.add(finding);
            }
        }
    }
    // What the log lacks: only where it says from when to when it is.
    for (key, billed) in ledger.billed {
        for billed in billed {
            let of_another = billed
                .server
                .as_ref()
                .is_some_and(|server| !servers.contains(server));
            if of_another && !servers.is_empty() {
                compared.of_other_servers += 1;
            } else if let Some((from, to)) = dates
                && billed.opened_at.0 >= from.0.saturating_add(TOLERANCE)
                && billed.opened_at.0.saturating_add(TOLERANCE) <= to.0
                && in_window(Some(billed.opened_at), window)
            {
                compared.add(pair(&key, &[], &[billed], residue, false));
            }
        }
    }
    compared
}

fn in_window(since: Option<Timestamp>, (from, to): (Option<Timestamp>, Option<Timestamp>)) -> bool {
    let Some(since) = since else { return true };
    from.is_none_or(|from| since >= from) && to.is_none_or(|to| since < to)
}

impl Compared {
    fn add(&mut self, finding: Finding) {
        self.log = self.log.plus(finding.log.unwrap_or_default());
        self.billed = self.billed.plus(finding.billed.unwrap_or_default());
        self.findings.push(finding);
    }

    /// How many came to this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    }
}

fn pair(key: &Key, lives: &[Life], billed: &[Billed], residue: u64, partial: bool) -> Finding {
    let sum = |all: &mut dyn Iterator<Item = Legs>| all.reduce(Legs::plus);
    let logged = sum(&mut lives.iter().map(|life| life.usage));
    let recorded = sum(&mut billed.iter().map(Billed::all));
    let (mut log, mut billed_legs) = (logged.unwrap_or_default(), recorded.unwrap_or_default());
    if billed.iter().any(|billed| billed.no_peer_leg) {
        (log.peer, billed_legs.peer) = (Counters::default(), Counters::default());
    }
    let more = |of: &Legs, than: &Legs| of.client.exceeds(&than.client) || of.peer.exceeds(&than.peer);
    let is_open = lives.iter().any(|life| !life.deleted) || billed.iter().any(|billed| billed.open);
    let is_parked = billed.iter().all(|billed| billed.closed.is_none());
    let verdict = match (more(&log, &billed_legs), more(&billed_legs, &log)) {
        (false, false) => Verdict::Equal,
        _ if is_open => Verdict::Open,
        (_, true) if lives.iter().any(|life| !life.begun) => Verdict::Cut,
        (true, false) if is_parked && relayed(&log.minus(billed_legs)) < residue => Verdict::Leftover,
        (true, false) if partial => Verdict::Unlisted,
        (true, false) => Verdict::StreamLess,
        (false, true) => Verdict::LogLess,
        (true, true) => Verdict::Differs,
    };
    let since = lives.first().and_then(|life| life.since);
    Finding {
        id: key.id,
        realm: key.realm.clone(),
        username: key.username.clone(),
        since: since.or_else(|| billed.first().map(|billed| billed.opened_at)),
        verdict,
        log: logged,
        billed: recorded,
        sessions: billed.iter().flat_map(|billed| billed.sessions.clone()).collect(),
        lower_bound: billed.iter().any(|billed| billed.lower_bound),
        heal: None,
        lives: lives.len().max(1),
    }
}

/// What of it was relayed, at most.
fn relayed(legs: &Legs) -> u64 {
    let down = legs.peer.received_bytes.min(legs.client.sent_bytes);
    legs.peer.sent_bytes.saturating_add(down)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
