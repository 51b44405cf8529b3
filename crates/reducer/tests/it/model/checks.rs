//! What must hold of everything that was told, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    Notice,
    event::{Accuracy, AllocationReport, EventType, SessionEvent, SessionId, UnattributedReason},
    rules::{PeerLeg, Rules, StartOn},
    usage::{Billable, Counters, Legs},
};

use super::{
    coturn::{Fleet, Key, Life, legs_sum},
    run::{Outcome, key_of},
};

const WRAP: u64 = 1 << 32;

/// The true bill for what one allocation carried (METERING.md, "Relayed"; CONTRACT.md, `billable`).
fn bill(rule: Billable, legs: &Legs, peer_leg: bool) -> u64 {
    let (client, peer) = (&legs.client, &legs.peer);
    match rule {
        Billable::Relayed if !peer_leg => client.received_bytes + client.sent_bytes,
        Billable::Relayed if peer.sent_packets == 0 => 0,
        Billable::Relayed => peer.sent_bytes + peer.received_bytes.min(client.sent_bytes),
        Billable::Client => client.received_bytes + client.sent_bytes,
        Billable::Egress => client.sent_bytes + peer.sent_bytes,
        Billable::Ingress => client.received_bytes + peer.received_bytes,
    }
}

fn each(c: &Counters) -> [u64; 4] {
    [c.received_packets, c.received_bytes, c.sent_packets, c.sent_bytes]
}

fn eight(legs: &Legs) -> Vec<u64> {
    [each(&legs.client), each(&legs.peer)].concat()
}

fn within(part: &Legs, whole: &Legs) -> bool {
    eight(part).iter().zip(eight(whole)).all(|(p, w)| *p <= w)
}

/// Equal, but for whole wraps of the peer leg that nobody could see. A wrap by strangers is never believed.
fn equal_but_for_wraps(told: &Legs, truth: &Legs, strangers: bool) -> bool {
    let same = |t: u64, w: u64| t % WRAP == w % WRAP;
    let (t, w) = (&told.peer, &truth.peer);
    let sent = same(t.sent_packets, w.sent_packets) && same(t.sent_bytes, w.sent_bytes);
    let received = same(t.received_packets, w.received_packets) && same(t.received_bytes, w.received_bytes);
    told.client == truth.client && within(told, truth) && sent && (received || strangers)
}

/// A history that was played, and what is needed to judge it.
pub(crate) struct Judge<'a> {
    rules: &'a Rules,
    pub(crate) fleet: &'a Fleet,
    outcome: &'a Outcome,
    /// Lives that cannot be told from others of their key by what was heard.
    mistakable: Vec<bool>,
    /// Tombstones were given up: some things may be on record twice.
    pub(crate) evicted: bool,
    /// Not all that was heard is promised to be told.
    pub(crate) unpromised: bool,
    pub(crate) told: BTreeMap<(Key, u64), Legs>,
    recorded: BTreeMap<(Key, u64), Legs>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(rules: &'a Rules, fleet: &'a Fleet, outcome: &'a Outcome) -> Judge<'a> {
        let mut told: BTreeMap<(Key, u64), Legs> = BTreeMap::new();
        for event in &outcome.events {
            for report in event.end.iter().flat_map(|_| &event.allocations) {
                let sum = told.entry((key(report), report.opened_at.0)).or_default();
                *sum = legs_sum(*sum, report.usage);
            }
        }
        let mut recorded: BTreeMap<(Key, u64), Legs> = BTreeMap::new();
        for record in &outcome.unattributed {
            if record.reason == UnattributedReason::Evicted {
                continue; // perhaps told before
            }
            let key = key_of(record.server.as_deref(), &record.username, record.allocation);
            let sum = recorded.entry((key, record.opened_at.0)).or_default();
            *sum = legs_sum(*sum, record.usage.legs);
        }
        Judge {
            rules,
            fleet,
            outcome,
            mistakable: mistakable(fleet),
            evicted: outcome.tombstones_evicted > 0 || rules.tombstone_limit == 0,
            unpromised: false,
            told,
            recorded,
        }
    }

    /// All of it.
    pub(crate) fn check(&self) {
        self.check_soundness();
        if !self.evicted {
            self.the_books_balance();
        }
    }

    /// What holds whoever heard what.
    pub(crate) fn check_soundness(&self) {
        self.sessions_have_their_shape();
        self.nothing_is_above_the_truth();
        self.bills_are_true();
        self.only_the_untellable_is_recorded();
        if !self.evicted {
            self.exact_is_exact();
        }
    }

    fn truth(&self, life: &Life) -> Legs {
        if self.rules.peer_leg != PeerLeg::Absent {
            life.carried
        } else {
            Legs {
                peer: Counters::default(),
                ..life.carried
            }
        }
    }

    fn totals_heard(&self, life: &Life) -> bool {
        life.heard.client_total && (life.heard.peer_total || self.rules.peer_leg == PeerLeg::Absent)
    }

    /// The lives that an incarnation may be: those of its key of which something was heard just then.
    fn lives(&self, key: &Key, opened_at: u64) -> Vec<usize> {
        let lives = self.fleet.lives.iter().enumerate();
        lives
            .filter(|(_, l)| l.key == *key && l.heard.at.contains(&opened_at))
            .map(|(i, _)| i)
            .collect()
    }

    /// Told and recorded of one life.
    fn told_of(&self, life: usize) -> Legs {
        let l = &self.fleet.lives[life];
        let all = self.told.iter().chain(&self.recorded);
        all.filter(|((key, at), _)| *key == l.key && l.heard.at.contains(at))
            .fold(Legs::default(), |sum, (_, legs)| legs_sum(sum, *legs))
    }

    /// Whether nothing else was heard under the same name at the same time.
    fn is_plain(&self, life: usize) -> bool {
        let l = &self.fleet.lives[life];
        !self.mistakable[life]
            && !self.is_hopeless(&l.key)
            && l.heard.at.iter().all(|at| self.lives(&l.key, *at) == [life])
    }

    fn nothing_is_above_the_truth(&self) {
        let mut told: BTreeMap<&Key, Legs> = BTreeMap::new();
        for ((key, _), legs) in self.told.iter().chain(&self.recorded) {
            let sum = told.entry(key).or_default();
            *sum = legs_sum(*sum, *legs);
        }
        for (key, told) in told {
            if self.is_hopeless(key) {
                continue;
            }
            let true_ones = self.fleet.lives.iter().filter(|l| l.key == *key);
            let mut truth = true_ones.fold(Legs::default(), |sum, l| legs_sum(sum, self.truth(l)));
            let lives = self.fleet.lives.iter().zip(&self.mistakable);
            if lives.filter(|(l, m)| l.key == *key && **m).count() > 0 {
                truth = legs_sum(truth, self.forged(key));
            }
            assert!(
                within(&told, &truth),
                "{key:?}: told {told:#?}, the truth is {truth:#?}"
            );
        }
        for (key, opened_at) in self.told.keys() {
            assert!(
                !self.lives(key, *opened_at).is_empty(),
                "{key:?} of {opened_at} never was"
            );
        }
    }

    /// What METERING.md accepts: a client that moves while its allocation is thought to have ended looks
    /// like another one; and where it was not seen that two servers share a key, each is billed for both.
    fn is_hopeless(&self, key: &Key) -> bool {
        let lives: Vec<_> = self.fleet.lives.iter().filter(|l| l.key == *key).collect();
        let told = self.told.keys().chain(self.recorded.keys());
        let told = told.filter(|(k, _)| k == key).collect::<BTreeSet<_>>().len();
        let unseen = !self
            .outcome
            .notices
            .iter()
            .any(|n| matches!(n, Notice::SharedKey { allocation, .. } if allocation.0 == key.id));
        let servers: BTreeSet<usize> = lives.iter().map(|l| l.server).collect();
        (told > 1 && lives.iter().any(|l| l.moved())) || (unseen && servers.len() > 1)
    }

    fn forged(&self, key: &Key) -> Legs {
        let of_key = self.fleet.forged.iter().filter(|(k, _)| k == key);
        of_key.fold(Legs::default(), |sum, (_, legs)| legs_sum(sum, *legs))
    }

    /// Conservation: what was heard in full is told or on record in full.
    pub(crate) fn the_books_balance(&self) {
        for (i, life) in self.fleet.lives.iter().enumerate() {
            if !self.totals_heard(life) || !self.is_plain(i) {
                continue;
            }
            let (told, truth) = (self.told_of(i), self.truth(life));
            if each(&truth.peer).iter().all(|n| *n < WRAP) {
                assert_eq!(told, truth, "{:?}", life.key);
            } else {
                assert!(
                    equal_but_for_wraps(&told, &truth, life.strangers),
                    "{:?}: told {told:#?}, the truth is {truth:#?}",
                    life.key
                );
            }
        }
    }

    /// Right after a takeover, the `new` of a key's next life cannot be told from one that waited, by a node
    /// that has not heard that of the life before: too little is told of it.
    fn may_have_waited(&self) -> bool {
        let lives = &self.fleet.lives;
        let reused = |i: usize| lives[i + 1..].iter().any(|l| l.key == lives[i].key);
        self.unpromised && (0..lives.len()).any(reused)
    }

    /// `exact` is said where it is true, and wherever it can be said.
    fn exact_is_exact(&self) {
        if !self.mistakable.contains(&true) && !self.may_have_waited() {
            assert_eq!(self.outcome.overcounted, 0);
        }
        for event in &self.outcome.events {
            let Some(end) = event.end else { continue };
            let mut could_be_exact = true;
            for report in &event.allocations {
                let key = key(report);
                let lives = self.lives(&key, report.opened_at.0);
                let [life] = lives[..] else {
                    could_be_exact = false;
                    continue;
                };
                if !self.is_plain(life) {
                    could_be_exact = false;
                    continue;
                }
                let (told, truth) = (self.told_of(life), self.truth(&self.fleet.lives[life]));
                let heard = &self.fleet.lives[life].heard;
                assert!(
                    !report.opened_seen || heard.new,
                    "{key:?}: its `new` was not heard"
                );
                assert!(
                    !report.totals_seen || self.totals_heard(&self.fleet.lives[life]),
                    "{key:?}: its totals were not heard"
                );
                if end.accuracy == Accuracy::Exact && report.closed.is_some() {
                    assert_eq!(told, truth, "{key:?}: exact, it says");
                }
                // What so few packets can hold does not wrap.
                let few = truth.peer.sent_packets < 65_536 && truth.peer.received_packets < 65_536;
                let sure = report.totals_seen && few;
                could_be_exact &= sure || report.closed.is_none();
            }
            if could_be_exact {
                assert_eq!(end.accuracy, Accuracy::Exact, "{event:?}");
            }
        }
    }

    /// A record is no way around telling: less than `residue`, or nothing relayed at all.
    fn only_the_untellable_is_recorded(&self) {
        for record in &self.outcome.unattributed {
            let relayed = bill(
                Billable::Relayed,
                &record.usage.legs,
                self.rules.peer_leg != PeerLeg::Absent,
            );
            match record.reason {
                UnattributedReason::Residue => {
                    assert!(relayed < self.rules.residue.max(1), "{record:#?}");
                }
                UnattributedReason::NeverRelayed => {
                    assert!(self.rules.start_on == StartOn::Relay, "{record:#?}");
                    assert_eq!(relayed, 0, "{record:#?}");
                }
                UnattributedReason::Evicted => {}
            }
        }
    }

    /// By user: never above the truth, and true where all was heard.
    pub(crate) fn bills_are_true(&self) {
        let rule = |legs: &Legs| bill(self.rules.billable, legs, self.rules.peer_leg != PeerLeg::Absent);
        let users: BTreeSet<&String> = self.fleet.lives.iter().map(|l| &l.user).collect();
        for user in users {
            let of_user: Vec<usize> = (0..self.fleet.lives.len())
                .filter(|i| self.fleet.lives[*i].user == *user)
                .collect();
            if of_user
                .iter()
                .any(|i| self.is_hopeless(&self.fleet.lives[*i].key))
            {
                continue;
            }
            let told: u64 = self
                .outcome
                .events
                .iter()
                .filter(|e| e.user.as_deref() == Some(user.as_bytes()))
                .map(|e| e.usage_delta.billable_bytes)
                .sum();
            let recorded: u64 = self
                .outcome
                .unattributed
                .iter()
                .filter(|u| u.reason != UnattributedReason::Evicted)
                .filter(|u| u.username.ends_with(user.as_bytes()))
                .map(|u| u.usage.billable_bytes)
                .sum();
            if of_user.iter().all(|i| !self.mistakable[*i]) {
                let truth: u64 = of_user
                    .iter()
                    .map(|i| rule(&self.truth(&self.fleet.lives[*i])))
                    .sum();
                assert!(told + recorded <= truth, "{user}: {told} + {recorded} > {truth}");
                let wraps = |l: &Life| each(&l.carried.peer).iter().any(|n| *n >= WRAP);
                let all_heard = of_user.iter().all(|i| {
                    let life = &self.fleet.lives[*i];
                    self.totals_heard(life) && !wraps(life) && self.is_plain(*i)
                });
                if all_heard && !self.evicted && !self.unpromised {
                    assert_eq!(told + recorded, truth, "{user}: the bill is not true");
                }
            } else {
                // Lives that were taken for one are billed as one.
                let mut truth: BTreeMap<&Key, Legs> = BTreeMap::new();
                for i in of_user {
                    let life = &self.fleet.lives[i];
                    let sum = truth.entry(&life.key).or_default();
                    *sum = legs_sum(*sum, self.truth(life));
                }
                let most: u64 = truth
                    .iter()
                    .map(|(key, legs)| rule(&legs_sum(*legs, self.forged(key))))
                    .sum();
                assert!(told + recorded <= most, "{user}: {told} + {recorded} > {most}");
            }
        }
    }

    fn sessions_have_their_shape(&self) {
        let mut sessions: BTreeMap<SessionId, Vec<&SessionEvent>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let mut ended: BTreeMap<(Vec<u8>, Vec<u8>), u64> = BTreeMap::new();
        for event in &self.outcome.events {
            assert!(ids.insert(event.id), "an event id twice");
            sessions.entry(event.session_id).or_default().push(event);
            // Sessions of one group follow each other.
            let username = event.usernames.first().cloned().unwrap_or_default();
            let group = match self.rules.group_by {
                turnhook_reducer::rules::GroupBy::User => event.user.clone().unwrap_or_default(),
                turnhook_reducer::rules::GroupBy::Username => username,
                turnhook_reducer::rules::GroupBy::Allocation => continue,
            };
            let last = ended.entry((event.realm.to_vec(), group.to_vec())).or_default();
            match (event.event_type, event.end) {
                (EventType::Start, _) => assert!(
                    event.started_at.0 >= *last,
                    "it started before the one before ended: {event:#?}"
                ),
                (_, Some(end)) => *last = (*last).max(end.ended_at.0),
                _ => {}
            }
        }
        for events in sessions.values() {
            session_has_its_shape(events);
            if let Some(continued) = events[0].continues {
                let before = sessions
                    .get(&continued)
                    .expect("it continues a session that was told");
                assert!(before.last().unwrap().end.is_some(), "of one that is over");
                assert!(before[0].timestamp <= events[0].timestamp);
            }
        }
    }
}

fn session_has_its_shape(events: &[&SessionEvent]) {
    let last = events.len() - 1;
    let mut sum = Legs::default();
    let mut billed = 0;
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.sequence as usize, n, "a hole, or a repeat: {event:#?}");
        let expected = match n {
            0 => EventType::Start,
            _ if n == last => EventType::End,
            _ => EventType::Usage,
        };
        assert_eq!(event.event_type, expected, "{event:#?}");
        assert_eq!(event.end.is_some(), n == last);
        assert_eq!(
            (event.started_at, event.continues),
            (events[0].started_at, events[0].continues)
        );
        assert!(event.started_at <= event.timestamp, "{event:#?}");
        assert!(
            n == 0 || events[n - 1].timestamp <= event.timestamp,
            "time went back: {event:#?}"
        );
        assert!(
            event.event_type != EventType::Usage || !event.usage_delta.is_zero(),
            "nothing to tell"
        );
        sum = legs_sum(sum, event.usage_delta.legs);
        billed += event.usage_delta.billable_bytes;
        assert_eq!((sum, billed), (event.usage.legs, event.usage.billable_bytes));
        assert_eq!(event.allocations_omitted, 0, "fleets are small here");
        let parts = event
            .allocations
            .iter()
            .fold(Legs::default(), |sum, r| legs_sum(sum, r.usage));
        assert_eq!(
            parts, event.usage.legs,
            "its allocations do not add up: {event:#?}"
        );
        for report in &event.allocations {
            if let Some((closed_at, _)) = report.closed {
                assert!(report.opened_at <= closed_at, "{report:#?}");
            }
        }
    }
    assert!(last > 0, "it has no end");
    let end = events[last].end.unwrap();
    assert!(events[0].started_at <= end.ended_at, "{:#?}", events[last]);
    assert!(end.ended_at <= events[last].timestamp, "{:#?}", events[last]);
}

fn key(report: &AllocationReport) -> Key {
    key_of(report.server.as_deref(), &report.username, report.id)
}

/// Nobody could tell a life from an earlier one of the same key whose `new` was lost, or came from the
/// same client address when nothing else had been heard; or where two servers use one key, or somebody with
/// a wrong password had it.
fn mistakable(fleet: &Fleet) -> Vec<bool> {
    let mut flags = vec![false; fleet.lives.len()];
    for (i, life) in fleet.lives.iter().enumerate() {
        flags[i] |= fleet.forged.iter().any(|(key, _)| *key == life.key);
        let earlier: Vec<usize> = (0..i).filter(|e| fleet.lives[*e].key == life.key).collect();
        let Some(before) = earlier.last().map(|e| &fleet.lives[*e]) else {
            continue;
        };
        let servers = earlier.iter().any(|e| fleet.lives[*e].server != life.server);
        let lost = !life.heard.new || !(life.came_from_elsewhere(before) || before.heard.other);
        if servers || lost {
            flags[i] = true;
            for e in earlier {
                flags[e] = true;
            }
        }
    }
    flags
}
