//! What can be known of lives by whoever heard what was heard: where the messages themselves leave something
//! open, less is asked for.

use turnhook_reducer::{Notice, rules::Rules};

use super::{
    coturn::{Fleet, Key, Life},
    run::Outcome,
};

/// A copy of a message comes within a minute.
pub(super) const COPY: u64 = 60_000;

/// What is known of each life of a fleet, by its place.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// Nobody could tell it from another life of its key.
    mistakable: Vec<bool>,
    /// Whose it is cannot be known.
    hopeless: Vec<bool>,
    /// For no other reason than that two servers share its key, and what was held up may be heard as that of a later one.
    counted_again: Vec<bool>,
    /// A total of it may make a whole with one of the life before.
    makes_a_whole: Vec<bool>,
}

impl Knowledge {
    pub(crate) fn of(fleet: &Fleet, rules: &Rules, outcome: &Outcome) -> Knowledge {
        let _ = rules;
        let lives = || 0..fleet.lives.len();
        Knowledge {
            mistakable: mistakable(fleet),
            hopeless: lives()
                .map(|life| is_hopeless(fleet, outcome, life) || is_counted_again(fleet, life))
                .collect(),
            counted_again: lives()
                .map(|life| !is_hopeless(fleet, outcome, life) && is_counted_again(fleet, life))
                .collect(),
            makes_a_whole: lives().map(|life| makes_a_whole(fleet, life)).collect(),
        }
    }

    pub(crate) fn is_mistakable(&self, life: usize) -> bool {
        self.mistakable[life]
    }

    pub(crate) fn is_hopeless(&self, life: usize) -> bool {
        self.hopeless[life]
    }

    /// Whether its counters have a bound nevertheless: all of it may be told once more.
    pub(crate) fn is_counted_again(&self, life: usize) -> bool {
        self.counted_again[life]
    }

    pub(crate) fn makes_a_whole(&self, life: usize) -> bool {
        self.makes_a_whole[life]
    }

    pub(crate) fn all_are_clear(&self) -> bool {
        !self.mistakable.contains(&true) && !self.hopeless.contains(&true)
    }
}

/// Nobody could tell a life from an earlier one of the same key whose `new` was lost, or came from the
/// same client address when nothing else had been heard (or so soon that it may be a copy); or where two servers use
/// one key, or messages of it come twice, or somebody with a wrong password had it.
fn mistakable(fleet: &Fleet) -> Vec<bool> {
    let mut flags = vec![false; fleet.lives.len()];
    for (i, life) in fleet.lives.iter().enumerate() {
        flags[i] |= fleet.forged.iter().any(|(key, _)| is_namesake(key, &life.key));
        let earlier: Vec<usize> = (0..i).filter(|e| fleet.lives[*e].key == life.key).collect();
        let Some(before) = earlier.last().map(|e| &fleet.lives[*e]) else {
            continue;
        };
        let servers = earlier.iter().any(|e| fleet.lives[*e].server != life.server);
        // What comes twice of one life may come in the midst of the next.
        let echoed = earlier.iter().chain([&i]).any(|l| fleet.lives[*l].echoed);
        // As far as that was heard: where its `new` was lost, its copy may come later.
        let first = |l: &Life| l.heard.at.iter().min().copied();
        let heard_soon = first(life)
            .zip(first(before))
            .is_some_and(|(now, before)| now <= before + COPY);
        let soon = heard_soon || life.opened_at < before.opened_at + COPY;
        // Where copies may come, so that of a `new` whose client has moved since may.
        let moved = soon && life.key.server.is_none() && before.moved();
        let known = (life.came_from_elsewhere(before) && !moved) || (before.heard.other && !soon);
        if servers || echoed || !life.heard.new || !known {
            flags[i] = true;
            for e in earlier {
                flags[e] = true;
            }
        }
    }
    flags
}

/// Where it was not seen that two servers share a key, each is billed for both; and where a client claims another realm,
/// only what was open then, and is the only one of its name and number, is known for what it is.
fn is_hopeless(fleet: &Fleet, outcome: &Outcome, life: usize) -> bool {
    let life = &fleet.lives[life];
    let namesakes = || fleet.lives.iter().filter(|l| is_namesake(&l.key, &life.key));
    // What is not known for one of them may be taken for another tenant's, too.
    let shared = namesakes().any(|l| namesakes().any(|o| l.key == o.key && l.server != o.server));
    let unseen = !outcome
        .notices
        .iter()
        .any(|n| matches!(n, Notice::SharedKey { allocation, .. } if allocation.0 == life.key.id));
    let claims = namesakes().any(|l| l.claim.is_some());
    let alone = namesakes().count() == 1;
    // Of two tenants, and one looks like the other with another realm.
    let tenants = namesakes().any(|l| l.key.realm != life.key.realm);
    let unheard = namesakes().any(|l| !l.heard.new);
    (shared && unseen) || (claims && !(alone && is_known_throughout(life))) || (tenants && unheard)
}

/// Two servers share its key, and what was held up until they had long been silent is heard as that of a later one.
fn is_counted_again(fleet: &Fleet, life: usize) -> bool {
    let life = &fleet.lives[life];
    let of_key = || fleet.lives.iter().filter(|l| l.key == life.key);
    let shared = of_key().any(|l| l.server != life.server);
    let namesakes = fleet.lives.iter().filter(|l| is_namesake(&l.key, &life.key));
    shared && { namesakes }.any(|l| l.gap)
}

/// Nothing says that it is not the life before, of which not both totals were heard: neither its `new` nor a report.
fn makes_a_whole(fleet: &Fleet, life: usize) -> bool {
    let of_key = |l: &&Life| l.key == fleet.lives[life].key;
    let heard = &fleet.lives[life].heard;
    let before = fleet.lives[..life].iter().rfind(of_key).map(|l| &l.heard);
    !heard.new && !heard.report && before.is_some_and(|b| !(b.client_total && b.peer_total))
}

fn is_known_throughout(life: &Life) -> bool {
    life.heard.new && !life.missed && !life.gap && !life.echoed && !life.readdressed
}

/// Of the same number and name, of whatever tenant: a realm can be switched.
pub(crate) fn is_namesake(a: &Key, b: &Key) -> bool {
    a.server == b.server && a.username == b.username && a.id == b.id
}
