//! What users have used, as far as it is known in memory: enough to know when the ledger is to be asked. Whoever is
//! blocked is blocked by what the ledger says, so nothing is counted twice, whatever was restarted or taken over.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use turnhook_reducer::{
    event::{EventType, SessionEvent, SessionId},
    time::Timestamp,
    usage::Usage,
};

use crate::config::quota::{Most, Per, Quota};

/// Users and sessions that are remembered. Of who was forgotten the ledger is asked at his next event.
const MOST: usize = 200_000;

/// Who has not been heard of for so long is forgotten first, in milliseconds.
const QUIET: u64 = 600_000;

/// Where other nodes count too, what the ledger said is good for so long, in milliseconds.
const FRESH: u64 = 30_000;

/// And for a quarter of what was left then; asking for less than this costs more than it saves.
const LEAST: u64 = 64 * 1024;

/// A session that goes on all the same is ended once more after this time, in milliseconds.
const END_AGAIN: u64 = 10_000;

/// A day or a month, UTC, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Period {
    /// The one in which a time is. `None` for sessions, and for times that no calendar has.
    pub(super) fn of(per: Per, at: Timestamp) -> Option<Period> {
        let ms = |date: Date| {
            let at = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
            u64::try_from(at.as_millisecond()).ok()
        };
        let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        let date = at.to_zoned(TimeZone::UTC).date();
        let (first, span) = match per {
            Per::Day => (date, 1.day()),
            Per::Month => (date.first_of_month(), 1.month()),
            Per::Session => return None,
        };
        Some(Period {
            start: ms(first)?,
            end: ms(first.checked_add(span).ok()?)?,
        })
    }

    /// Until when a block for it holds that is made at `now`; `None` if it is over. Where sessions are dated by a clock
    /// that was ahead, no longer than the period is long.
    pub(super) fn until(self, now: Timestamp) -> Option<Timestamp> {
        let longest = now.0.saturating_add(self.end - self.start);
        let until = Timestamp(self.end.min(longest));
        (until > now).then_some(until)
    }
}

/// Bytes that were relayed for certain, whatever rule bills. `relayed` says that it is the rule of now; sums of earlier
/// times may have been made by another, so they are never more than went to peers and to clients: what strangers send
/// beyond that is nobody's.
pub(super) fn relayed_bytes(usage: &Usage, relayed: bool) -> u64 {
    let (client, peer) = (&usage.legs.client, &usage.legs.peer);
    if peer.is_zero() {
        // Where coturn reports no peers, the client's leg is all that is known.
        let all = client.received_bytes.saturating_add(client.sent_bytes);
        return if relayed {
            usage.billable_bytes.min(all)
        } else {
            all
        };
    }
    if relayed {
        usage
            .billable_bytes
            .min(peer.sent_bytes.saturating_add(client.sent_bytes))
    } else {
        peer.sent_bytes
            .saturating_add(peer.received_bytes.min(client.sent_bytes))
    }
}

/// Whose sum it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Its place in the list of quotas.
    pub(super) quota: usize,
    /// `None` where all realms of the quota are one sum.
    pub(super) realm: Option<Box<[u8]>>,
    pub(super) user: Box<[u8]>,
}

#[derive(Debug)]
struct Tally {
    period: Period,
    /// Where he was heard of last: there he is blocked.
    realm: Box<[u8]>,
    /// The time of his last event.
    heard: Timestamp,
    read: Option<Read>,
    /// Bytes billed since the ledger was asked.
    since: u64,
    /// Sessions begun since then.
    begun: u64,
    asked: bool,
}

/// What the ledger said.
#[derive(Debug)]
struct Read {
    sum: u64,
    /// How many of his sessions were open.
    open: u64,
    /// When it was asked, by his last event.
    at: Timestamp,
}

impl Tally {
    fn is_due(&self, most: Most, shared: bool) -> bool {
        let Some(read) = &self.read else { return true };
        let age = self.heard.since(read.at);
        let near = match most {
            Most::Bytes(most) => {
                let left = most.saturating_sub(read.sum);
                self.since >= left || (shared && self.since >= (left / 4).max(LEAST))
            }
            Most::Millis(most) => {
                let at_once = read.open.saturating_add(self.begun).max(1);
                age.saturating_mul(at_once) >= most.saturating_sub(read.sum)
            }
        };
        near || (shared && age >= FRESH)
    }
}

/// A session with a quota of its own.
#[derive(Debug)]
struct Chain {
    /// What it continues had used.
    before: Option<u64>,
    /// What it has used itself.
    used: u64,
    asked: bool,
    /// When its end was asked for.
    ended: Option<Timestamp>,
}

/// What the ledger is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What a user has used in a period.
    User(Key, Period),
    /// What a session continues, from this one on, had used.
    Before(usize, SessionId, SessionId),
}

impl Question {
    pub(super) fn quota(&self) -> usize {
        match self {
            Question::User(key, _) => key.quota,
            Question::Before(quota, ..) => *quota,
        }
    }
}

/// What the ledger answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bytes, or milliseconds.
    pub(super) sum: u64,
    /// Sessions that are open.
    pub(super) open: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Block {
        quota: usize,
        realm: Box<[u8]>,
        user: Box<[u8]>,
        period: Period,
        /// What is on record of him: bytes, or milliseconds.
        used: u64,
    },
    End {
        quota: usize,
        session: SessionId,
        /// With what it continues.
        used: u64,
    },
}

pub(super) struct Tallies {
    quotas: Arc<[Quota]>,
    relayed: bool,
    shared: bool,
    users: HashMap<Key, Tally>,
    sessions: HashMap<(usize, SessionId), Chain>,
    due: VecDeque<Question>,
}

impl Tallies {
    /// `relayed`: that is the rule which bills. `shared`: other nodes meter the same users.
    pub(super) fn new(quotas: Arc<[Quota]>, relayed: bool, shared: bool) -> Tallies {
        Tallies {
            quotas,
            relayed,
            shared,
            users: HashMap::new(),
            sessions: HashMap::new(),
            due: VecDeque::new(),
        }
    }

    pub(super) fn quotas(&self) -> &Arc<[Quota]> {
        &self.quotas
    }

    /// An event that is on record. What is to be done at once.
    pub(super) fn take(&mut self, event: &SessionEvent) -> Vec<Act> {
        let Some(user) = &event.user else {
            return Vec::new();
        };
        let quotas = Arc::clone(&self.quotas);
        let mut acts = Vec::new();
        for (index, quota) in quotas.iter().enumerate() {
            if !quota.filter.lets_through(event) {
                continue;
            }
            match Period::of(quota.per, event.timestamp) {
                Some(period) => self.take_user(index, quota, period, event, user),
                None => acts.extend(self.take_session(index, quota, event)),
            }
        }
        acts
    }

    fn take_user(&mut self, index: usize, quota: &Quota, period: Period, event: &SessionEvent, user: &[u8]) {
        let key = Key {
            quota: index,
            realm: (!quota.across_realms).then(|| event.realm.clone()),
            user: user.into(),
        };
        if !self.users.contains_key(&key) && !self.has_room(event.timestamp) {
            return;
        }
        let new = || Tally {
            period,
            realm: event.realm.clone(),
            heard: event.timestamp,
            read: None,
            since: 0,
            begun: 0,
            asked: false,
        };
        let tally = self.users.entry(key.clone()).or_insert_with(new);
        if tally.period != period {
            // Whichever way: a clock that was ahead is put back, too.
            let asked = tally.asked;
            *tally = Tally { asked, ..new() };
        }
        tally.realm.clone_from(&event.realm);
        tally.heard = event.timestamp;
        tally.since = tally
            .since
            .saturating_add(relayed_bytes(&event.usage_delta, self.relayed));
        tally.begun += u64::from(event.event_type == EventType::Start);
        if !tally.asked && tally.is_due(quota.most, self.shared) {
            tally.asked = true;
            self.due.push_back(Question::User(key, period));
        }
    }

    fn take_session(&mut self, index: usize, quota: &Quota, event: &SessionEvent) -> Option<Act> {
        let key = (index, event.session_id);
        if event.event_type == EventType::End {
            self.sessions.remove(&key);
            return None;
        }
        if self.sessions.len() >= MOST {
            // Those that go on come back with their next event.
            self.sessions.retain(|_, chain| chain.asked);
        }
        let chain = self.sessions.entry(key).or_insert(Chain {
            before: event.continues.is_none().then_some(0),
            used: 0,
            asked: false,
            ended: None,
        });
        let most;
        (chain.used, most) = match quota.most {
            Most::Bytes(most) => (relayed_bytes(&event.usage, self.relayed), most),
            Most::Millis(most) => (event.duration_ms.unwrap_or(0), most),
        };
        match (chain.before, event.continues) {
            (None, Some(before)) if !chain.asked => {
                chain.asked = true;
                self.due
                    .push_back(Question::Before(index, event.session_id, before));
                None
            }
            (None, _) => None,
            (Some(before), _) => {
                let used = before.saturating_add(chain.used);
                let passed = used >= most;
                let soon = |at: Timestamp| event.timestamp.since(at) < END_AGAIN;
                if !passed || chain.ended.is_some_and(soon) {
                    return None;
                }
                chain.ended = Some(event.timestamp);
                Some(Act::End {
                    quota: index,
                    session: event.session_id,
                    used,
                })
            }
        }
    }

    /// The next thing to ask. What is emitted from now on may or may not be in the answer: it is counted as if it were
    /// not, so that one asks again too early rather than too late.
    pub(super) fn next_question(&mut self) -> Option<Question> {
        let mut question = self.due.pop_front()?;
        if let Question::User(key, period) = &mut question
            && let Some(tally) = self.users.get_mut(key)
        {
            *period = tally.period;
            (tally.since, tally.begun) = (0, 0);
            tally.read = Some(Read {
                sum: 0,
                open: 0,
                at: tally.heard,
            });
        }
        Some(question)
    }

    /// The ledger's answer.
    pub(super) fn answered(&mut self, question: &Question, used: Used) -> Option<Act> {
        let quota = self.quotas.get(question.quota())?;
        let most = match quota.most {
            Most::Bytes(most) | Most::Millis(most) => most,
        };
        match question {
            Question::User(key, period) => {
                let tally = self.users.get_mut(key)?;
                tally.asked = false;
                if tally.period != *period {
                    // A new one began meanwhile.
                    (tally.asked, tally.read) = (true, None);
                    self.due.push_back(Question::User(key.clone(), tally.period));
                    return None;
                }
                if let Some(read) = &mut tally.read {
                    (read.sum, read.open) = (used.sum, used.open);
                }
                if used.sum >= most {
                    return Some(Act::Block {
                        quota: key.quota,
                        realm: tally.realm.clone(),
                        user: key.user.clone(),
                        period: *period,
                        used: used.sum,
                    });
                }
                // What was emitted meanwhile may be his last event.
                if tally.is_due(quota.most, self.shared) {
                    tally.asked = true;
                    self.due.push_back(question.clone());
                }
                None
            }
            Question::Before(index, session, _) => {
                let chain = self.sessions.get_mut(&(*index, *session))?;
                (chain.asked, chain.before) = (false, Some(used.sum));
                let used = used.sum.saturating_add(chain.used);
                (used >= most).then_some(Act::End {
                    quota: *index,
                    session: *session,
                    used,
                })
            }
        }
    }

    /// It could not be asked, or what was to be done could not be: the next event tries again.
    pub(super) fn failed(&mut self, question: &Question) {
        match question {
            Question::User(key, _) => {
                if let Some(tally) = self.users.get_mut(key) {
                    (tally.asked, tally.read) = (false, None);
                }
            }
            Question::Before(index, session, _) => {
                if let Some(chain) = self.sessions.get_mut(&(*index, *session)) {
                    chain.asked = false;
                }
            }
        }
    }

    /// Some events were not heard of: of everybody the ledger is asked once more.
    pub(super) fn missed_some(&mut self) {
        for tally in self.users.values_mut().filter(|tally| !tally.asked) {
            tally.read = None;
        }
    }

    fn has_room(&mut self, now: Timestamp) -> bool {
        if self.users.len() >= MOST {
            self.users
                .retain(|_, tally| tally.asked || now.since(tally.heard) < QUIET);
        }
        if self.users.len() >= MOST {
            self.users.retain(|_, tally| tally.asked);
        }
        self.users.len() < MOST
    }
}

#[cfg(test)]
mod tests;
