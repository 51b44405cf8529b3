//! Which allocation may be set right by the log, and what is billed of it then. The rule is narrow: whatever speaks
//! against it leaves the finding to people. Nothing is billed that the log has alone, and never more in sum than the
//! log has.

use std::time::Duration;

use turnhook_reducer::{event::SessionId, heal::Heal, message::AllocationId, time::Timestamp, usage::Legs};

use super::{
    TOLERANCE,
    ledger::{Billed, Key},
    log::{Life, Worth},
};

/// So long after the last session that counted it an allocation may be billed by the stream, or by what was left over.
/// The hour is for clocks.
pub const WAITS: u64 = 25 * 3_600_000;

/// What the rule goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// By the wall clock.
    pub now: Timestamp,
    /// What is older may be trimmed, and then is not known whole.
    pub retention: Duration,
    /// A log before 4.17 is believed: somebody says that no stranger reaches this coturn.
    pub trust_log: bool,
}

/// Why one is not set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Not {
    /// Any client can have written the log's lines.
    Untrusted,
    /// Somebody has tried to.
    Forged,
    /// Lines are counted twice.
    Overlapping,
    /// No session counted it.
    Unheard,
    /// The log does not have all of it, or has no dates.
    Partial,
    /// It is not certain that both speak of the same life.
    Doubtful,
    /// Everything that was billed of it was called exact, so this is for people.
    BilledExact,
    /// coturn may yet say itself what was missed.
    Early,
    /// What counted it may have been trimmed, or is not listed.
    Unlisted,
    /// Its coturn reported no peer leg.
    NoPeerLeg,
}

impl Not {
    /// For programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Not::Untrusted => "untrusted_log",
            Not::Forged => "forged_lines",
            Not::Overlapping => "files_overlap",
            Not::Unheard => "never_heard_of",
            Not::Partial => "log_not_whole",
            Not::Doubtful => "not_surely_the_same",
            Not::BilledExact => "told_exact",
            Not::Early => "too_early",
            Not::Unlisted => "ledger_not_whole",
            Not::NoPeerLeg => "no_peer_leg",
        }
    }

    /// For people.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Not::Untrusted => {
                "before coturn 4.17 any client can write lines into this log; --trust-log, where no stranger reaches coturn"
            }
            Not::Forged => "the log has lines that look forged",
            Not::Overlapping => "a file begins before the one before it ends: name each part of the log once",
            Not::Unheard => "no session counted it, and none is made from the log alone",
            Not::Partial => "the log has not all of it from its `new` to its `delete`, or no dates",
            Not::Doubtful => "it is not certain that log and ledger mean the same allocation",
            Not::BilledExact => "it was billed as exact, so one of the two is wrong",
            Not::Early => "coturn may yet say itself what was missed, until a day after the session's end",
            Not::Unlisted => {
                "sessions that counted it may be trimmed (retention), or had more allocations than are listed"
            }
            Not::NoPeerLeg => "its coturn reported no peer leg",
        }
    }
}

/// What is to be billed of an allocation of which the log has more; or why nothing is. `partial`: a session that is not
/// listed whole may have counted it.
pub(super) fn heal(
    rule: &Rule,
    worth: Worth,
    key: &Key,
    lives: &[Life],
    billed: &[Billed],
    partial: bool,
) -> Result<Box<Heal>, Not> {
    match worth {
        Worth { overlaps: true, .. } => return Err(Not::Overlapping),
        Worth {
            one_record_a_line: true,
            ..
        } => {}
        _ if !rule.trust_log => return Err(Not::Untrusted),
        Worth { suspicious: true, .. } => return Err(Not::Forged),
        Worth { .. } => {}
    }
    let [billed] = billed else {
        return Err(if billed.is_empty() {
            Not::Unheard
        } else {
            Not::Doubtful
        });
    };
    let [life] = lives else {
        return Err(Not::Doubtful);
    };
    if billed.counted.is_empty() {
        return Err(Not::Unheard);
    }
    let Some(since) = life.since.filter(|_| life.begun && life.deleted) else {
        return Err(Not::Partial);
    };
    let elsewhere = match (&life.remote, &billed.client_address) {
        (Some(log), Some(ledger)) => **log != *ledger.as_bytes(),
        _ => false,
    };
    if since.0.abs_diff(billed.opened_at.0) > TOLERANCE || !billed.opened_seen || elsewhere {
        return Err(Not::Doubtful);
    }
    if billed.no_peer_leg {
        return Err(Not::NoPeerLeg);
    }
    if !billed.lower_bound {
        return Err(Not::BilledExact);
    }
    let ended = billed.counted.iter().map(|counted| counted.ended_at);
    let ended: Option<Vec<Timestamp>> = ended.collect();
    let over = ended.and_then(|ended| ended.into_iter().max());
    let (Some(closed), Some(over)) = (billed.closed, over) else {
        return Err(Not::Early);
    };
    if rule.now.since(over) < WAITS {
        return Err(Not::Early);
    }
    let kept = u64::try_from(rule.retention.as_millis()).unwrap_or(u64::MAX);
    if partial || rule.now.since(billed.opened_at) >= kept || !is_whole(billed) {
        return Err(Not::Unlisted);
    }
    let last = billed
        .counted
        .iter()
        .max_by_key(|counted| (counted.ended_at, counted.session));
    let Some(last) = last else {
        return Err(Not::Unheard);
    };
    Ok(Box::new(Heal {
        at: rule.now,
        continues: last.session,
        realm: key.realm.as_slice().into(),
        username: key.username.as_slice().into(),
        allocation: AllocationId(key.id.0),
        opened_at: billed.opened_at,
        closed,
        server: billed.direct_server.clone(),
        transport: billed.transport.clone(),
        server_address: billed.server_address.clone(),
        client_address: billed.client_address.clone(),
        tls: billed.tls.clone(),
        missed: missed(life, billed),
    }))
}

fn missed(life: &Life, billed: &Billed) -> Legs {
    life.usage.minus(billed.all())
}

/// The first session that counted it is among those that are known, and so is each that another one continues.
fn is_whole(billed: &Billed) -> bool {
    let known = |id: SessionId| billed.counted.iter().any(|counted| counted.session == id);
    let first = billed.counted.iter().map(|counted| counted.started_at).min();
    first.is_some_and(|first| first <= billed.opened_at)
        && billed
            .counted
            .iter()
            .filter_map(|counted| counted.continues)
            .all(known)
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
