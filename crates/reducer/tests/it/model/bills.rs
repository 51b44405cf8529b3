//! What is billed, by user and under each rule, against what was relayed.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    Notice,
    event::UnattributedReason,
    rules::PeerLeg,
    usage::{Billable, Legs, Usage},
};

use super::{
    call::each,
    checks::{Judge, WRAP, cannot_have_wrapped},
    coturn::{Key, Life},
};

/// A tenant's user, what was billed for it, and the most that it may be.
struct User {
    name: (String, String),
    billed: u64,
    most: u64,
    lives: Vec<usize>,
}

impl Judge<'_> {
    /// The most that may be billed for a life, whoever heard what of it.
    fn most_of(&self, life: &Life) -> u64 {
        let legs = self.truth(life).plus(self.echo(life));
        match self.rules.billable {
            Billable::Relayed if self.peer_leg => {
                let echo = self.echo(life);
                let down = life.most_down + echo.peer.received_bytes.max(echo.client.sent_bytes);
                let relayed = life.known.peer.sent_bytes + echo.peer.sent_bytes + down;
                relayed.max(self.most_of_old(&legs))
            }
            rule => by_leg(rule, &legs),
        }
    }

    /// As long as its coturn was taken for one that does not speak of peers, it was billed by its client leg.
    fn most_of_old(&self, legs: &Legs) -> u64 {
        if self.was_taken_for_old() {
            by_leg(Billable::Client, legs)
        } else {
            0
        }
    }

    /// The least that must be billed for a life of which all totals were heard.
    fn least_of(&self, life: &Life) -> u64 {
        let legs = self.truth(life);
        match self.rules.billable {
            Billable::Relayed if self.peer_leg => {
                life.carried.up() + life.carried.down.saturating_sub(life.carried.doubt())
            }
            rule => by_leg(rule, &legs),
        }
    }

    /// The most where lives were taken for one: then they are billed as one, by what coturn's counters say, or each by
    /// itself.
    fn most_as_one(&self, key: &Key, lives: &[usize]) -> u64 {
        let mut legs = self.forged(key).plus(self.strayed(key));
        for i in lives {
            let life = &self.fleet.lives[*i];
            legs = legs.plus(self.truth(life)).plus(self.echo(life));
        }
        let each = lives.iter().map(|i| self.most_of(&self.fleet.lives[*i])).sum();
        match self.rules.billable {
            Billable::Relayed if self.peer_leg => {
                let down = legs.peer.received_bytes.min(legs.client.sent_bytes);
                u64::max(legs.peer.sent_bytes + down, each).max(self.most_of_old(&legs))
            }
            rule => by_leg(rule, &legs),
        }
    }

    fn most_under(&self, key: &Key) -> u64 {
        let lives = self.lives_of(key);
        let forged = !self.forged(key).is_zero() && lives.iter().any(|i| self.known.is_mistakable(*i));
        let unsigned = lives.iter().any(|i| self.fleet.lives[*i].unsigned);
        if forged || unsigned || !self.strayed(key).is_zero() {
            return self.most_as_one(key, &lives);
        }
        lives.iter().map(|i| self.most_of(&self.fleet.lives[*i])).sum()
    }

    /// With `auto`: whether it became known if there are messages of peers. Until then nobody knows what was relayed.
    pub(super) fn knows_the_peer_leg(&self) -> bool {
        let heard = |notice: &Notice| matches!(notice, Notice::PeerLeg { .. });
        self.rules.peer_leg != PeerLeg::Auto || self.outcome.notices.iter().any(heard)
    }

    /// Three allocations closed, and nothing was heard of their peers: it seemed that nothing ever would be.
    pub(super) fn was_taken_for_old(&self) -> bool {
        let old = |notice: &Notice| matches!(notice, Notice::PeerLeg { reported: false });
        self.fleet.peer_messages && self.outcome.notices.iter().any(old)
    }

    /// By user: never above the truth.
    pub(crate) fn nobody_is_billed_too_much(&self) {
        for user in self.users() {
            assert!(
                user.billed <= user.most,
                "BILLED ABOVE THE TRUTH: {:?} by {:?}: billed {}, at most {} were relayed",
                user.name,
                self.rules.billable,
                user.billed,
                user.most
            );
        }
    }

    /// By user: true where all was heard.
    pub(crate) fn what_was_heard_is_billed(&self) {
        if self.evicted || self.unpromised || !self.knows_the_peer_leg() {
            return;
        }
        let heard = |i: &usize| {
            let life = &self.fleet.lives[*i];
            self.totals_heard(life)
                && !life.lost_by_wraps()
                && each(&life.known.peer).iter().all(|n| *n < WRAP)
                && self.is_plain(*i)
                && self.counts_on(life)
                && life.heard.new
                && !life.moved()
                // What is relayed of two lives, each by itself, is less than of one.
                && !life.opened_again
                && self.echo(life).is_zero()
                // After a takeover such a total is none: which of them went on is known from reports alone.
                && (!self.several_nodes || cannot_have_wrapped(life))
        };
        for user in self.users().into_iter().filter(|u| u.lives.iter().all(heard)) {
            let least: u64 = user
                .lives
                .iter()
                .map(|i| self.least_of(&self.fleet.lives[*i]))
                .sum();
            assert!(
                user.billed >= least,
                "{:?} by {:?}: billed {}, at least {least} were relayed",
                user.name,
                self.rules.billable,
                user.billed
            );
        }
    }

    /// Those of whom it can be known whose it was that was relayed.
    fn users(&self) -> Vec<User> {
        let mut billed: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut bill = |realm: &[u8], username: &[u8], usage: &Usage| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let user = self.user_of(&text(username));
            *billed.entry((text(realm), user)).or_default() += usage.billable_bytes;
        };
        for event in &self.outcome.events {
            let username = event.usernames.first().expect("a session has a username");
            bill(&event.realm, username, &event.usage_delta);
        }
        for record in &self.outcome.unattributed {
            if record.reason != UnattributedReason::Evicted && self.knows_the_peer_leg() {
                bill(&record.realm, &record.username, &record.usage);
            }
        }
        let owner = |l: &Life| (l.key.realm.clone(), l.user.clone());
        let owners = self.fleet.lives.iter().map(owner);
        let all: BTreeSet<(String, String)> = owners.chain(billed.keys().cloned()).collect();
        let mut users = Vec::new();
        for user in all {
            let lives = (0..self.fleet.lives.len()).filter(|i| owner(&self.fleet.lives[*i]) == user);
            let lives: Vec<usize> = lives.collect();
            let mut keys: BTreeSet<&Key> = lives.iter().map(|i| &self.fleet.lives[*i].key).collect();
            let told = billed.get(&user).copied().unwrap_or(0);
            let all_keys = self.told.keys().chain(self.recorded.keys()).map(|(key, _)| key);
            let of_user = |key: &&Key| key.realm == user.0 && self.user_of(&key.username) == user.1;
            keys.extend(all_keys.filter(of_user));
            let most = keys
                .iter()
                .map(|key| Some(self.times(key)? * self.most_under(key)));
            let Some(most) = most.sum::<Option<u64>>() else {
                continue;
            };
            users.push(User {
                name: user,
                billed: told,
                most,
                lives,
            });
        }
        users
    }

    fn user_of(&self, username: &str) -> String {
        let (before, user) = username.split_once(':').unwrap_or(("", username));
        let is_rest = before.len() >= 9 && before.bytes().all(|b| b.is_ascii_digit());
        if is_rest {
            user.to_owned()
        } else {
            username.to_owned()
        }
    }
}

/// By the rules that only add counters up.
fn by_leg(rule: Billable, legs: &Legs) -> u64 {
    let (client, peer) = (&legs.client, &legs.peer);
    match rule {
        Billable::Relayed | Billable::Client => client.received_bytes + client.sent_bytes,
        Billable::Egress => client.sent_bytes + peer.sent_bytes,
        Billable::Ingress => client.received_bytes + peer.received_bytes,
    }
}
