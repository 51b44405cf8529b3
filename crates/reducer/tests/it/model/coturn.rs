//! The truth: coturn servers, what their allocations really carried, and what they say of it.
//! Nothing here knows how turnhook counts.

use std::collections::VecDeque;

use turnhook_reducer::{
    message::Leg,
    usage::{Counters, Legs},
};

use super::history::{Fate, Size};

pub(crate) const THREADS: usize = 2;
const LIFETIME: u32 = 600;
/// A client refreshes a minute before its time is over.
const REFRESH: u64 = 540_000;

/// What names an allocation in all that is heard of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `direct` sources only.
    pub(crate) server: Option<usize>,
    pub(crate) username: String,
    pub(crate) id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) lifetime: u32,
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
    pub(crate) word: Word,
    pub(crate) fate: Fate,
}

/// What of an allocation was heard, and not lost again by a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) new: bool,
    /// A status other than `new`, or a total.
    pub(crate) other: bool,
    pub(crate) client_total: bool,
    pub(crate) peer_total: bool,
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
    /// Where its client is now, and was when it opened.
    remote: u16,
    opened_from: u16,
    keeps: bool,
    pub(crate) alive: bool,
    granted_at: u64,
    expires_at: u64,
    /// What it carried, and what of that was reported.
    pub(crate) carried: Legs,
    reported: Legs,
    /// Strangers sent packets to its relay address.
    pub(crate) strangers: bool,
    /// Whether coturn says `remote=`.
    addresses: bool,
    pub(crate) heard: Heard,
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
    pub(crate) threads: [Thread; THREADS],
}

#[derive(Debug)]
pub(crate) struct Fleet {
    direct: bool,
    addresses: bool,
    pub(crate) servers: Vec<Server>,
    pub(crate) lives: Vec<Life>,
    /// What those carried who had a wrong password, by the name that they claimed.
    pub(crate) forged: Vec<(Key, Legs)>,
    /// Said, and not yet on its way.
    pub(crate) said: Vec<Said>,
    remotes: u16,
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        received_packets: a.received_packets + b.received_packets,
        received_bytes: a.received_bytes + b.received_bytes,
        sent_packets: a.sent_packets + b.sent_packets,
        sent_bytes: a.sent_bytes + b.sent_bytes,
    }
}

pub(crate) fn legs_sum(a: Legs, b: Legs) -> Legs {
    Legs {
        client: sum(a.client, b.client),
        peer: sum(a.peer, b.peer),
    }
}

fn rest(all: Counters, part: Counters) -> Counters {
    Counters {
        received_packets: all.received_packets - part.received_packets,
        received_bytes: all.received_bytes - part.received_bytes,
        sent_packets: all.sent_packets - part.sent_packets,
        sent_bytes: all.sent_bytes - part.sent_bytes,
    }
}

/// coturn's peer totals are 32 bits wide.
fn wrapped(c: Counters) -> Counters {
    Counters {
        received_packets: c.received_packets % (1 << 32),
        received_bytes: c.received_bytes % (1 << 32),
        sent_packets: c.sent_packets % (1 << 32),
        sent_bytes: c.sent_bytes % (1 << 32),
    }
}

impl Fleet {
    pub(crate) fn new(direct: bool, addresses: bool) -> Fleet {
        let server = || Server {
            up: true,
            threads: Default::default(),
        };
        Fleet {
            direct,
            addresses,
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
        alive.get(usize::from(n) % alive.len().max(1)).copied()
    }

    fn grant(&self, life: usize, lifetime: u32) -> Grant {
        let life = &self.lives[life];
        Grant {
            lifetime,
            local: self.addresses.then(|| format!("10.0.0.{}:3478", life.server)),
            remote: self.addresses.then(|| format!("192.0.2.1:{}", life.remote)),
        }
    }

    fn say(&mut self, life: usize, word: Word, fate: Fate) {
        let l = &self.lives[life];
        self.said.push(Said {
            server: l.server,
            thread: l.thread,
            life: Some(life),
            key: l.key.clone(),
            word,
            fate,
        });
    }

    fn next_key(&mut self, server: usize, thread: usize, username: String) -> Key {
        let t = &mut self.servers[server].threads[thread];
        t.last_id += 1;
        Key {
            server: self.direct.then_some(server),
            username,
            id: thread as u64 * 1_000_000_000_000_000 + t.last_id,
        }
    }

    #[allow(clippy::too_many_arguments)] // a step's fields
    pub(crate) fn open(
        &mut self,
        now: u64,
        server: usize,
        thread: usize,
        user: u8,
        keeps: bool,
        same_remote: bool,
        fate: Fate,
    ) {
        if !self.servers[server].up {
            return;
        }
        // One user's credentials change (COTURN.md, trap 15).
        let username = format!("{}:u{user}", 1_790_000_000 + u32::from(keeps));
        let key = self.next_key(server, thread, username);
        if !same_remote {
            self.remotes += 1;
        }
        self.lives.push(Life {
            server,
            thread,
            key,
            user: format!("u{user}"),
            remote: self.remotes,
            opened_from: self.remotes,
            addresses: self.addresses,
            keeps,
            alive: true,
            granted_at: now,
            expires_at: now + u64::from(LIFETIME) * 1000,
            carried: Legs::default(),
            reported: Legs::default(),
            strangers: false,
            heard: Heard::default(),
        });
        let life = self.lives.len() - 1;
        let grant = self.grant(life, LIFETIME);
        self.say(life, Word::New(grant), fate);
    }

    /// Authentication failed: traffic under the name that was claimed, and nothing else.
    pub(crate) fn forge(&mut self, server: usize, thread: usize, user: u8, size: Size) {
        if !self.servers[server].up {
            return;
        }
        let key = self.next_key(server, thread, format!("1790000000:u{user}"));
        let (packets, bytes) = size.packets_and_bytes();
        let client = Counters {
            received_packets: packets,
            received_bytes: bytes,
            sent_packets: packets,
            sent_bytes: bytes,
        };
        let legs = Legs {
            client,
            peer: Counters::default(),
        };
        self.forged.push((key.clone(), legs));
        for word in [
            Word::Traffic(Leg::Client, legs.client),
            Word::Traffic(Leg::Peer, legs.peer),
        ] {
            self.said.push(Said {
                server,
                thread,
                life: None,
                key: key.clone(),
                word,
                fate: Fate::Heard,
            });
        }
    }

    pub(crate) fn carry(&mut self, life: usize, up: Size, down: Size, strangers: Size) {
        let (up_packets, up_bytes) = up.packets_and_bytes();
        let (down_packets, down_bytes) = down.packets_and_bytes();
        let (strange_packets, strange_bytes) = strangers.packets_and_bytes();
        let framing = 4;
        let l = &mut self.lives[life];
        l.strangers |= strange_packets > 0;
        l.carried = legs_sum(
            l.carried,
            Legs {
                client: Counters {
                    received_packets: up_packets + 1,
                    received_bytes: up_bytes + framing * up_packets + 108,
                    sent_packets: down_packets + 1,
                    sent_bytes: down_bytes + framing * down_packets + 92,
                },
                peer: Counters {
                    received_packets: down_packets + strange_packets,
                    received_bytes: down_bytes + strange_bytes,
                    sent_packets: up_packets,
                    sent_bytes: up_bytes,
                },
            },
        );
    }

    /// What was carried since the last report.
    pub(crate) fn report(&mut self, life: usize, fates: [Fate; 2]) {
        let l = &mut self.lives[life];
        let client = rest(l.carried.client, l.reported.client);
        let peer = rest(l.carried.peer, l.reported.peer);
        l.reported = l.carried;
        self.say_delta(life, Leg::Client, client, fates[0]);
        self.say_delta(life, Leg::Peer, peer, fates[1]);
    }

    fn say_delta(&mut self, life: usize, leg: Leg, delta: Counters, fate: Fate) {
        // Deltas are never said twice: nobody could tell (trap 4).
        let fate = if fate == Fate::Repeated { Fate::Heard } else { fate };
        self.say(life, Word::Traffic(leg, delta), fate);
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

    /// coturn deletes it about a second later.
    pub(crate) fn ask_deletion(&mut self, now: u64, life: usize, fate: Fate) {
        let l = &mut self.lives[life];
        l.keeps = false;
        l.expires_at = now + 1000;
        let grant = self.grant(life, 0);
        self.say(life, Word::Refreshed(grant), fate);
    }

    pub(crate) fn close(&mut self, life: usize, fates: [Fate; 5]) {
        self.report(life, [fates[0], fates[1]]);
        let l = &mut self.lives[life];
        l.alive = false;
        let total = l.carried;
        self.say(life, Word::Deleted, fates[2]);
        self.say(life, Word::Total(Leg::Client, total.client), fates[3]);
        self.say(life, Word::Total(Leg::Peer, wrapped(total.peer)), fates[4]);
    }

    /// Without a word (trap 9). What was held up is lost with it.
    pub(crate) fn kill(&mut self, server: usize) {
        let s = &mut self.servers[server];
        s.up = false;
        s.threads = Default::default();
        for life in self.lives.iter_mut().filter(|l| l.server == server) {
            life.alive = false;
        }
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
