//! The truth: coturn servers, what their allocations really carried, and what they say of it.
//! Nothing here knows how turnhook counts.

use std::collections::VecDeque;

use turnhook_reducer::{
    message::Leg,
    usage::{Counters, Legs},
};

use super::{
    call::{Carried, Load, Way, wrapped},
    history::{Claim, Fate, LAST, Opening},
};

pub(crate) const THREADS: usize = 2;
const LIFETIME: u32 = 600;
/// A client refreshes a minute before its time is over.
const REFRESH: u64 = 540_000;
/// How long coturn keeps an allocation whose client asked for its deletion; with mobility, longer.
const DELETION: u64 = 1_000;
const MOBILE_DELETION: u64 = 58_000;

/// What names an allocation in all that is heard of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `direct` sources only.
    pub(crate) server: Option<usize>,
    pub(crate) realm: String,
    pub(crate) username: String,
    pub(crate) id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) lifetime: u32,
    pub(crate) transport: &'static str,
    pub(crate) local: Option<String>,
    pub(crate) remote: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    New(Grant),
    Refreshed(Grant),
    Deleted,
    Traffic(Leg, Counters),
    Total(Leg, Counters),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) server: usize,
    pub(crate) thread: usize,
    /// `None`: a connection that never had an allocation.
    pub(crate) life: Option<usize>,
    pub(crate) key: Key,
    /// The realm that its client claims now.
    pub(crate) claim: Option<Claim>,
    pub(crate) word: Word,
    pub(crate) fate: Fate,
}

/// What of an allocation was heard, and not lost again by a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) new: bool,
    /// A status other than `new`, or a total.
    pub(crate) other: bool,
    /// A report that is not zero.
    pub(crate) report: bool,
    pub(crate) client_total: bool,
    pub(crate) peer_total: bool,
    /// One node heard one of its totals, and not the other.
    pub(crate) apart: bool,
    /// When anything but traffic was, by turnhook's clock.
    pub(crate) at: Vec<u64>,
}

/// One allocation, from its opening to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) server: usize,
    pub(crate) thread: usize,
    pub(crate) key: Key,
    pub(crate) user: String,
    pub(crate) way: Way,
    /// Where its client is now, and was when it opened.
    remote: u16,
    opened_from: u16,
    keeps: bool,
    pub(crate) alive: bool,
    granted_at: u64,
    expires_at: u64,
    pub(crate) carried: Carried,
    /// What of that was reported, and what coturn's counters of 32 bits made of it.
    pub(crate) reported: Carried,
    pub(crate) known: Legs,
    /// The most that may be told as relayed downwards, and that of each report by itself.
    pub(crate) most_down: u64,
    most_by_report: u64,
    pub(crate) claim: Option<Claim>,
    /// Its server's connections changed their address, and no status was heard since.
    pub(crate) readdressed: bool,
    pub(crate) unrecognised: bool,
    /// That of its server when it opened.
    address: u8,
    /// When something of it was heard, another server had one of the same name and number, and no connection any more.
    pub(crate) has_kin: bool,
    /// Whether coturn says `remote=`.
    addresses: bool,
    pub(crate) heard: Heard,
    /// Something that was said of it was not heard, or was lost again.
    pub(crate) missed: bool,
    /// A message of it was heard that tells it from earlier ones of its key; something was heard before that.
    pub(crate) signed: bool,
    pub(crate) unsigned: bool,
    /// The source was deaf, turnhook crashed or time leapt while it lived.
    pub(crate) gap: bool,
    /// Its `new` came once more; and other messages had come before.
    pub(crate) new_copied: bool,
    pub(crate) opened_again: bool,
    /// Some of its messages, and these deltas, were heard once more.
    pub(crate) echoed: bool,
    pub(crate) copies: Legs,
    pub(crate) opened_at: u64,
    /// When it was heard, by turnhook's clock, that its client lets it go, and nothing else since.
    pub(crate) asked_at: Option<u64>,
}

impl Life {
    /// Whether its client's address changed on the way (RFC 8016).
    pub(crate) fn moved(&self) -> bool {
        self.remote != self.opened_from
    }

    /// Whether its `new` names another client address than any that an earlier life can have had.
    pub(crate) fn came_from_elsewhere(&self, earlier: &Life) -> bool {
        self.addresses && self.opened_from != earlier.remote
    }

    /// Whether a status of it shows that it is not the earlier one (or that its client has moved).
    pub(crate) fn looks_other_than(&self, earlier: &Life) -> bool {
        self.addresses && self.remote != earlier.remote
    }

    /// Reports of it were missed: framing and answers may pass for payload where strangers' packets were.
    pub(crate) fn guess_down(&mut self) {
        self.most_down = self.most_down.max(self.reported.most_down_unheard());
    }

    pub(crate) fn says_addresses(&self) -> bool {
        self.addresses
    }

    /// Whether counters of 32 bits lost something on the way.
    pub(crate) fn lost_by_wraps(&self) -> bool {
        self.known != self.reported.legs
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    #[default]
    Free,
    Held,
    Wedged,
}

#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub(crate) flow: Flow,
    pub(crate) held: VecDeque<Said>,
    last_id: u64,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) up: bool,
    /// How often its connections' address changed.
    pub(crate) address: u8,
    pub(crate) threads: [Thread; THREADS],
}

impl Server {
    /// Its name in a `direct` source.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("10.0.{}.{number}/-/0", self.address)
    }
}

/// The number of the server with that name.
pub(crate) fn server_of(name: &[u8]) -> usize {
    let address = name.split(|b| *b == b'/').next().unwrap();
    usize::from(address.last().unwrap() - b'0')
}

#[derive(Debug)]
pub(crate) struct Fleet {
    direct: bool,
    addresses: bool,
    /// False for coturn before 4.5.2.
    pub(crate) peer_messages: bool,
    pub(crate) servers: Vec<Server>,
    pub(crate) lives: Vec<Life>,
    /// What those carried who had a wrong password, by the name that they claimed.
    pub(crate) forged: Vec<(Key, Legs)>,
    /// Said, and not yet on its way.
    pub(crate) said: Vec<Said>,
    remotes: u16,
}

pub(crate) const TENANT: &str = "example.org";
pub(crate) const OTHER_TENANT: &str = "tenant-b.example";

impl Fleet {
    pub(crate) fn new(direct: bool, addresses: bool) -> Fleet {
        let server = || Server {
            up: true,
            address: 0,
            threads: Default::default(),
        };
        Fleet {
            direct,
            addresses,
            peer_messages: true,
            servers: vec![server(), server()],
            lives: Vec::new(),
            forged: Vec::new(),
            said: Vec::new(),
            remotes: 0,
        }
    }

    /// The living allocation that a number of a step means.
    pub(crate) fn pick(&self, n: u8) -> Option<usize> {
        let alive: Vec<usize> = (0..self.lives.len()).filter(|l| self.lives[*l].alive).collect();
        if n == LAST {
            return alive.last().copied();
        }
        alive.get(usize::from(n) % alive.len().max(1)).copied()
    }

    fn grant(&self, life: usize, lifetime: u32) -> Grant {
        let life = &self.lives[life];
        Grant {
            lifetime,
            transport: if life.way == Way::TcpRelay { "TCP" } else { "UDP" },
            local: self.addresses.then(|| format!("10.0.0.{}:3478", life.server)),
            remote: self.addresses.then(|| format!("192.0.2.1:{}", life.remote)),
        }
    }

    fn say(&mut self, life: usize, word: Word, fate: Fate) {
        let l = &self.lives[life];
        if !self.peer_messages && matches!(word, Word::Traffic(Leg::Peer, _) | Word::Total(Leg::Peer, _)) {
            return;
        }
        self.said.push(Said {
            server: l.server,
            thread: l.thread,
            life: Some(life),
            key: l.key.clone(),
            claim: l.claim,
            word,
            fate,
        });
    }

    fn next_key(&mut self, server: usize, thread: usize, realm: &str, username: String) -> Key {
        let t = &mut self.servers[server].threads[thread];
        t.last_id += 1;
        Key {
            server: self.direct.then_some(server),
            realm: realm.into(),
            username,
            id: thread as u64 * 1_000_000_000_000_000 + t.last_id,
        }
    }

    pub(crate) fn open(&mut self, now: u64, opening: &Opening) {
        let (server, thread) = (usize::from(opening.server), usize::from(opening.thread));
        if !self.servers[server].up {
            return;
        }
        // One user's credentials change (TRAPS.md, trap 15).
        let user = format!("u{}", opening.user);
        let username = format!("{}:{user}", 1_790_000_000 + u32::from(opening.keeps));
        let realm = if opening.other_realm { OTHER_TENANT } else { TENANT };
        let key = self.next_key(server, thread, realm, username);
        if !opening.same_remote {
            self.remotes += 1;
        }
        self.lives.push(Life {
            server,
            thread,
            key,
            user,
            way: opening.way,
            remote: self.remotes,
            opened_from: self.remotes,
            addresses: self.addresses,
            keeps: opening.keeps,
            alive: true,
            granted_at: now,
            expires_at: now + u64::from(LIFETIME) * 1000,
            carried: Carried::default(),
            reported: Carried::default(),
            known: Legs::default(),
            most_down: 0,
            most_by_report: 0,
            claim: None,
            readdressed: false,
            unrecognised: false,
            address: self.servers[server].address,
            has_kin: false,
            heard: Heard::default(),
            missed: false,
            signed: false,
            unsigned: false,
            gap: false,
            new_copied: false,
            opened_again: false,
            echoed: false,
            copies: Legs::default(),
            opened_at: now,
            asked_at: None,
        });
        let life = self.lives.len() - 1;
        let grant = self.grant(life, LIFETIME);
        self.say(life, Word::New(grant), opening.fate);
    }

    /// Authentication failed: traffic under the name that was claimed, and nothing else.
    pub(crate) fn forge(&mut self, server: usize, thread: usize, user: u8, load: &Load) {
        if !self.servers[server].up {
            return;
        }
        let key = self.next_key(server, thread, TENANT, format!("1790000000:u{user}"));
        // He is answered, and nothing else.
        let load = Load {
            junk: load.junk,
            requests: load.requests,
            answer: load.answer,
            ..Load::default()
        };
        let mut carried = Carried::default();
        carried.add(Way::Channel, &load);
        let legs = Legs {
            client: wrapped(carried.legs.client),
            peer: Counters::default(),
        };
        self.forged.push((key.clone(), legs));
        for word in [
            Word::Traffic(Leg::Client, legs.client),
            Word::Traffic(Leg::Peer, legs.peer),
        ] {
            if !self.peer_messages && matches!(word, Word::Traffic(Leg::Peer, _)) {
                continue;
            }
            self.said.push(Said {
                server,
                thread,
                life: None,
                key: key.clone(),
                claim: None,
                word,
                fate: Fate::Heard,
            });
        }
    }

    pub(crate) fn carry(&mut self, life: usize, load: &Load) {
        let way = self.lives[life].way;
        if way == Way::TcpRelay {
            self.lives[life].carried.add(way, load);
            return;
        }
        // Else a report is made in time, whatever comes.
        for part in load.parts() {
            let l = &mut self.lives[life];
            l.carried.add(way, &part);
            if l.carried.since(&l.reported).needs_a_report() {
                self.report(life, [Fate::Heard; 2]);
            }
        }
    }

    /// What was carried since the last report, in counters of 32 bits.
    pub(crate) fn report(&mut self, life: usize, fates: [Fate; 2]) {
        let l = &mut self.lives[life];
        let since = l.carried.since(&l.reported);
        let delta = Legs {
            client: wrapped(since.legs.client),
            peer: wrapped(since.legs.peer),
        };
        l.most_by_report += since.most_down();
        l.reported = l.carried;
        l.known = l.known.plus(delta);
        l.most_down = l.most_down.max(l.carried.most_down()).max(l.most_by_report);
        if l.missed || l.lost_by_wraps() {
            l.guess_down();
        }
        self.say(life, Word::Traffic(Leg::Client, delta.client), fates[0]);
        self.say(life, Word::Traffic(Leg::Peer, delta.peer), fates[1]);
    }

    pub(crate) fn refresh(&mut self, now: u64, life: usize, moves: bool, fate: Fate) {
        if moves {
            self.remotes += 1;
            self.lives[life].remote = self.remotes;
        }
        let l = &mut self.lives[life];
        l.granted_at = now;
        l.expires_at = now + u64::from(LIFETIME) * 1000;
        let grant = self.grant(life, LIFETIME);
        self.say(life, Word::Refreshed(grant), fate);
    }

    /// coturn deletes it about a second later, or about a minute, if it has mobility.
    pub(crate) fn ask_deletion(&mut self, now: u64, life: usize, mobile: bool, fate: Fate) {
        let l = &mut self.lives[life];
        l.keeps = false;
        l.expires_at = now + if mobile { MOBILE_DELETION } else { DELETION };
        let grant = self.grant(life, 0);
        self.say(life, Word::Refreshed(grant), fate);
    }

    pub(crate) fn close(&mut self, life: usize, fates: [Fate; 5]) {
        self.report(life, [fates[0], fates[1]]);
        let l = &mut self.lives[life];
        l.alive = false;
        let total = l.known;
        self.say(life, Word::Deleted, fates[2]);
        self.say(life, Word::Total(Leg::Client, total.client), fates[3]);
        self.say(life, Word::Total(Leg::Peer, wrapped(total.peer)), fates[4]);
    }

    /// Without a word (trap 9). What was held up is lost with it.
    pub(crate) fn kill(&mut self, server: usize) {
        let s = &mut self.servers[server];
        s.up = false;
        for held in s.threads.iter_mut().flat_map(|t| &mut t.held) {
            if let Some(life) = held.life {
                self.lives[life].missed = true;
            }
        }
        s.threads = Default::default();
        for life in self.lives.iter_mut().filter(|l| l.server == server && l.alive) {
            life.alive = false;
            life.missed = true;
            life.guess_down();
        }
    }

    /// Whether, by its name, one is another server's that has come back from elsewhere.
    pub(crate) fn may_go_on_as(&self, there: usize, here: usize) -> bool {
        let (there, here) = (&self.lives[there], &self.lives[here]);
        let name = |l: &Life| (l.key.realm.clone(), l.key.username.clone(), l.key.id);
        there.key.server != here.key.server
            && name(there) == name(here)
            && (there.address != self.servers[there.server].address || !self.servers[there.server].up)
    }

    /// When a client or coturn does something of itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let alive = self.lives.iter().filter(|l| l.alive);
        alive.map(due).min()
    }

    /// What they do then: refresh what is kept, delete what has expired.
    pub(crate) fn pass(&mut self, now: u64) {
        for life in 0..self.lives.len() {
            let l = &self.lives[life];
            if !l.alive || due(l) > now {
                continue;
            }
            if l.keeps {
                self.refresh(now, life, false, Fate::Heard);
            } else {
                self.close(life, [Fate::Heard; 5]);
            }
        }
    }
}

fn due(life: &Life) -> u64 {
    if life.keeps {
        life.granted_at + REFRESH
    } else {
        life.expires_at
    }
}
