//! What must hold of everything that was told, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    event::{AllocationReport, SessionEvent, UnattributedReason},
    rules::{PeerLeg, Rules, StartOn},
    usage::{Billable, Counters, Legs},
};

use super::{
    call::{each, within},
    coturn::{Fleet, Key, Life},
    knowledge::{COPY, Knowledge, is_namesake},
    run::Outcome,
    shape::sessions_have_their_shape,
    wire::key_of,
};

pub(super) const WRAP: u64 = 1 << 32;

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
    pub(super) rules: &'a Rules,
    /// Whether the peer leg counts.
    pub(super) peer_leg: bool,
    pub(crate) fleet: &'a Fleet,
    pub(super) outcome: &'a Outcome,
    pub(super) known: Knowledge,
    /// Tombstones were given up: some things may be on record twice.
    pub(crate) evicted: bool,
    /// The wall clock was never put back.
    pub(crate) steady: bool,
    /// More than one node heard it: whose client moves looks like another one to a node that did not hear all.
    pub(crate) several_nodes: bool,
    /// Not all that was heard is promised to be told.
    pub(crate) unpromised: bool,
    pub(super) told: BTreeMap<(Key, u64), Legs>,
    pub(super) recorded: BTreeMap<(Key, u64), Legs>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(rules: &'a Rules, fleet: &'a Fleet, outcome: &'a Outcome) -> Judge<'a> {
        let mut told: BTreeMap<(Key, u64), Legs> = BTreeMap::new();
        for event in &outcome.events {
            for report in event.end.iter().flat_map(|_| &event.allocations) {
                let sum = told.entry((key(event, report), report.opened_at.0)).or_default();
                *sum = sum.plus(report.usage);
            }
        }
        let mut recorded: BTreeMap<(Key, u64), Legs> = BTreeMap::new();
        for record in &outcome.unattributed {
            if record.reason == UnattributedReason::Evicted {
                continue; // perhaps told before
            }
            let key = key_of(
                record.server.as_deref(),
                &record.realm,
                &record.username,
                record.allocation,
            );
            let sum = recorded.entry((key, record.opened_at.0)).or_default();
            *sum = sum.plus(record.usage.legs);
        }
        Judge {
            rules,
            peer_leg: match rules.peer_leg {
                PeerLeg::Reported => true,
                PeerLeg::Absent => false,
                PeerLeg::Auto => fleet.peer_messages,
            },
            fleet,
            outcome,
            known: Knowledge::of(fleet, rules, outcome),
            evicted: outcome.tombstones_evicted > 0,
            steady: true,
            several_nodes: false,
            unpromised: false,
            told,
            recorded,
        }
    }

    /// All of it.
    pub(crate) fn check(&self) {
        self.check_soundness();
        if !self.evicted && !self.was_taken_for_old() {
            self.the_books_balance();
        }
    }

    /// What holds whoever heard what.
    pub(crate) fn check_soundness(&self) {
        self.nothing_is_above_the_truth();
        sessions_have_their_shape(self.rules, self.outcome, self.steady);
        self.only_what_was_is_told();
        if self.was_taken_for_old() {
            return;
        }
        self.what_was_heard_is_billed();
        self.only_the_untellable_is_recorded();
        if !self.evicted {
            self.exact_is_exact();
        }
    }

    pub(super) fn of_source(&self, legs: Legs) -> Legs {
        if self.peer_leg {
            legs
        } else {
            Legs {
                peer: Counters::default(),
                ..legs
            }
        }
    }

    /// What coturn itself counted and said, or was about to say.
    pub(super) fn truth(&self, life: &Life) -> Legs {
        self.of_source(life.known)
    }

    pub(super) fn totals_heard(&self, life: &Life) -> bool {
        life.heard.client_total && (life.heard.peer_total || !self.peer_leg)
    }

    /// The lives that an incarnation may be: those of its key of which something was heard just then.
    pub(super) fn lives(&self, key: &Key, opened_at: u64) -> Vec<usize> {
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
            .fold(Legs::default(), |sum, (_, legs)| sum.plus(*legs))
    }

    /// Told and recorded under a key.
    fn told_under(&self, key: &Key) -> Legs {
        let all = self.told.iter().chain(&self.recorded);
        all.filter(|((k, _), _)| k == key)
            .fold(Legs::default(), |sum, (_, legs)| sum.plus(*legs))
    }

    /// Whether it was told as more than one.
    fn told_under_many(&self, key: &Key) -> bool {
        let all = self.told.keys().chain(self.recorded.keys());
        let of_key = all.filter(|(k, _)| k == key).map(|(_, at)| at);
        of_key.collect::<BTreeSet<_>>().len() > 1
    }

    /// Whether nothing else was heard under the same name at the same time.
    pub(super) fn is_plain(&self, life: usize) -> bool {
        let l = &self.fleet.lives[life];
        !self.known.is_mistakable(life)
            && !self.known.is_hopeless(life)
            && l.heard.at.iter().all(|at| self.lives(&l.key, *at) == [life])
    }

    /// How often any of its bytes were told before it was over.
    fn was_told_early(&self, life: &Life) -> bool {
        let early = |event: &&SessionEvent| {
            event.allocations.iter().any(|report| {
                key(event, report) == life.key && !report.totals_seen && !report.usage.is_zero()
            })
        };
        self.outcome.events.iter().any(|event| early(&event))
    }

    /// What copies of messages may have added. Where a whole life was heard, from its `new` to its totals, and
    /// nothing was told on the way, the totals set that right.
    pub(super) fn echo(&self, life: &Life) -> Legs {
        let namesakes = self.lives_of(&life.key);
        let copied = |i: &usize| self.fleet.lives[*i].new_copied;
        let split = if namesakes.len() > 1 {
            namesakes.iter().any(copied)
        } else {
            life.opened_again && !life.says_addresses()
        };
        if split {
            return self.truth(life).plus(self.of_source(life.copies)); // it looks like two
        }
        let whole = life.heard.new && self.totals_heard(life) && !life.moved() && !life.missed && !life.gap;
        if whole && !self.was_told_early(life) {
            return Legs::default();
        }
        self.of_source(life.copies)
    }

    pub(super) fn forged(&self, key: &Key) -> Legs {
        let of_key = self.fleet.forged.iter().filter(|(k, _)| is_namesake(k, key));
        of_key.fold(Legs::default(), |sum, (_, legs)| sum.plus(*legs))
    }

    pub(super) fn lives_of(&self, key: &Key) -> Vec<usize> {
        let lives = 0..self.fleet.lives.len();
        lives.filter(|i| self.fleet.lives[*i].key == *key).collect()
    }

    /// Nothing that was said under this name can be told from what somebody else said.
    pub(super) fn is_hopeless(&self, key: &Key) -> bool {
        let number = |l: &Life| {
            l.key.server == key.server && l.key.id == key.id && key.username.ends_with(&l.key.username)
        };
        let lives = self.fleet.lives.iter().enumerate();
        let mut namesakes = lives.filter(|(_, l)| number(l));
        let moved = |l: &Life| self.several_nodes && l.moved() && self.told_under_many(key);
        namesakes.any(|(i, l)| self.known.is_hopeless(i) || moved(l))
    }

    /// How often what was carried under this name may be told at most; `None` where nobody knows whose it was.
    pub(super) fn times(&self, key: &Key) -> Option<u64> {
        if !self.is_hopeless(key) {
            return Some(1);
        }
        let of_key = self.lives_of(key);
        let again = !of_key.is_empty() && of_key.iter().all(|i| self.known.is_counted_again(*i));
        (again && !self.several_nodes).then_some(2)
    }

    /// What is money: neither counters nor bills, by whichever rule, say more than was relayed.
    pub(crate) fn nothing_is_above_the_truth(&self) {
        self.no_counter_is_too_large();
        self.nobody_is_billed_too_much();
    }

    fn no_counter_is_too_large(&self) {
        let keys: BTreeSet<&Key> = self
            .told
            .keys()
            .chain(self.recorded.keys())
            .map(|(k, _)| k)
            .collect();
        for key in keys {
            let Some(times) = self.times(key) else { continue };
            let told = self.told_under(key);
            let lives = self.lives_of(key);
            let mut most = Legs::default();
            for i in &lives {
                let life = &self.fleet.lives[*i];
                most = most.plus(self.truth(life)).plus(self.echo(life));
            }
            if lives.iter().any(|i| self.known.is_mistakable(*i)) {
                most = most.plus(self.forged(key));
            }
            most = most.plus(self.strayed(key));
            if times > 1 {
                most = most.plus(most);
            }
            assert!(
                within(&told, &most),
                "TOLD ABOVE THE TRUTH: {key:?}: told {told:#?}, the truth is {most:#?}"
            );
        }
    }

    fn only_what_was_is_told(&self) {
        for (key, opened_at) in self.told.keys() {
            assert!(
                !self.lives(key, *opened_at).is_empty() || self.is_hopeless(key),
                "{key:?} of {opened_at} never was"
            );
        }
    }

    /// Conservation: what was heard in full is told or on record in full.
    pub(crate) fn the_books_balance(&self) {
        for (i, life) in self.fleet.lives.iter().enumerate() {
            if !self.totals_heard(life) || !self.is_plain(i) || !self.counts_on(life) {
                continue;
            }
            let (told, truth) = (self.told_of(i), self.truth(life));
            if !self.echo(life).is_zero() {
                continue; // what was counted twice stays, in place of the totals
            }
            if life.new_copied && each(&truth.peer).iter().any(|n| *n >= WRAP) {
                // Two lives or one, nobody knows: whether the peer's total wrapped in the second hangs on that.
                assert!(
                    told.client == truth.client && within(&told, &truth),
                    "{:?}: told {told:#?}, the truth is {truth:#?}",
                    life.key
                );
            } else if life.lost_by_wraps() {
                // The client's leg, which says what to believe of the peer's, lost something itself.
                assert_eq!(told.client, truth.client, "{:?}", life.key);
            } else if each(&truth.peer).iter().all(|n| *n < WRAP) {
                assert_eq!(told, truth, "{:?}", life.key);
            } else {
                assert!(
                    equal_but_for_wraps(&told, &truth, life.carried.more_came),
                    "{:?}: told {told:#?}, the truth is {truth:#?}",
                    life.key
                );
            }
        }
    }

    /// Whether its totals say what is missing: not where its client moved while it was thought to have ended, nor
    /// where its server came from another address and no status said so.
    pub(super) fn counts_on(&self, life: &Life) -> bool {
        if life.moved() && (self.several_nodes || self.told_under_many(&life.key)) {
            return false;
        }
        // What comes twice of one life may come in the midst of the next of its key.
        let of_key = self.lives_of(&life.key);
        if of_key.len() > 1 && of_key.iter().any(|i| !self.fleet.lives[*i].copies.is_zero()) {
            return false;
        }
        // Where its `new` was lost, it may be one that another server had, which has gone or changed its address.
        if life.has_kin && !life.heard.new {
            return false;
        }
        if life.missed && self.may_be_total_of_before(life) {
            return false;
        }
        !life.readdressed || (life.says_addresses() && life.heard.new && !life.missed && !life.unrecognised)
    }

    /// Whether a total of it, within a minute, is what the life before carried, or what one of the nodes heard of that: then it
    /// may be a copy of that one's, unless every report of its own was heard.
    fn may_be_total_of_before(&self, life: &Life) -> bool {
        let at = &life.heard.at;
        let soon = at.iter().max() <= at.iter().min().map(|at| at + COPY).as_ref();
        let of_key = self.lives_of(&life.key);
        let before = of_key
            .iter()
            .rfind(|i| self.fleet.lives[**i].opened_at < life.opened_at);
        let Some(before) = before.filter(|_| soon) else {
            return false;
        };
        let known = self.truth(&self.fleet.lives[*before]);
        let (own, told) = (self.truth(life), self.told_of(*before));
        // Of several nodes each may know another part of what that one carried. A total of nothing is never taken for a copy.
        let may_be = |own: &Counters, known: &Counters, told: &Counters| {
            let all = |of: &Counters, is: fn(u64, u64) -> bool| {
                each(own).iter().zip(each(of)).all(|(a, b)| is(*a, b))
            };
            let same: fn(u64, u64) -> bool = |a, b| a % WRAP == b % WRAP;
            let part = self.several_nodes && all(known, |a, b| a <= b);
            !own.is_zero() && (part || all(known, same) || all(told, same))
        };
        may_be(&own.client, &known.client, &told.client) || may_be(&own.peer, &known.peer, &told.peer)
    }

    /// A record is no way around telling: of what is on record nothing was relayed.
    fn only_the_untellable_is_recorded(&self) {
        let is_known = self.knows_the_peer_leg();
        for record in &self.outcome.unattributed {
            let relayed = match self.rules.billable {
                Billable::Relayed if is_known => record.usage.billable_bytes,
                _ => 0,
            };
            match record.reason {
                UnattributedReason::Residue => assert_eq!(relayed, 0, "{record:#?}"),
                UnattributedReason::NeverRelayed => {
                    assert!(self.rules.start_on == StartOn::Relay, "{record:#?}");
                    assert_eq!(relayed, 0, "{record:#?}");
                }
                UnattributedReason::Evicted => {}
                other => panic!("the model does not know {other:?}"),
            }
        }
    }
}

/// So few packets do not wrap a counter of 32 bits.
pub(super) fn cannot_have_wrapped(life: &Life) -> bool {
    let legs = &life.carried.legs;
    let packets = [
        legs.client.received_packets,
        legs.client.sent_packets,
        legs.peer.received_packets,
        legs.peer.sent_packets,
    ];
    packets.iter().all(|n| *n <= 65_536)
}

pub(super) fn key(event: &SessionEvent, report: &AllocationReport) -> Key {
    key_of(
        report.server.as_deref(),
        &event.realm,
        &report.username,
        report.id,
    )
}
