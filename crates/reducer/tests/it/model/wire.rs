//! The way of a message from coturn to the reducer, and under which name it comes.

use turnhook_reducer::{
    message::{AllocationId, Kind, Leg, Message, Status},
    usage::{Counters, Legs},
};

use super::{
    coturn::{Flow, Grant, Key, OTHER_TENANT, Said, TENANT, Word, server_of},
    history::{Claim, Fate},
    run::{Mark, Run, StatusKey},
};

/// The realm of a fleet that has no other.
pub(crate) const REALM: &[u8] = TENANT.as_bytes();

/// Realm, username and number, as they are read out of a channel.
pub(crate) type Name = (String, String, u64);

/// The name under which a message of this key comes, whatever its client claims.
pub(crate) fn name(key: &Key, claim: Option<Claim>) -> Name {
    let (realm, username) = match claim {
        None => (key.realm.as_str(), key.username.clone()),
        Some(Claim::OtherTenant) if key.realm == OTHER_TENANT => (TENANT, key.username.clone()),
        Some(Claim::OtherTenant) => (OTHER_TENANT, key.username.clone()),
        // A realm ends at the first `/user/`.
        Some(Claim::Victim) => (TENANT, format!("victim/user/{}", key.username)),
        Some(Claim::NoRealm) => ("", key.username.clone()),
    };
    (realm.to_owned(), username, key.id)
}

/// The key under which an event or a record tells of an allocation.
pub(crate) fn key_of(server: Option<&[u8]>, realm: &[u8], username: &[u8], id: AllocationId) -> Key {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Key {
        server: server.map(server_of),
        realm: text(realm),
        username: text(username),
        id: id.0,
    }
}

pub(crate) fn status(grant: &Grant) -> Status<'_> {
    Status {
        lifetime: grant.lifetime,
        transport: grant.local.is_some().then_some(grant.transport.as_bytes()),
        local: grant.local.as_deref().map(str::as_bytes),
        remote: grant.remote.as_deref().map(str::as_bytes),
        ..Status::default()
    }
}

impl Run<'_> {
    pub(super) fn carry_messages(&mut self) {
        for said in std::mem::take(&mut self.fleet.said) {
            let thread = &mut self.fleet.servers[said.server].threads[said.thread];
            match thread.flow {
                Flow::Free => self.pass_on(&said),
                Flow::Held => {
                    if let Some(life) = said.life {
                        self.fleet.lives[life].gap = true; // it is heard late
                    }
                    self.fleet.servers[said.server].threads[said.thread]
                        .held
                        .push_back(said);
                }
                Flow::Wedged => self.miss(&said),
            }
        }
    }

    /// It has reached Redis, or the listener.
    pub(super) fn pass_on(&mut self, said: &Said) {
        if !self.history.setting.direct
            && let Some(life) = said.life
        {
            let name = name(&said.key, said.claim);
            match &said.word {
                Word::New(grant) | Word::Refreshed(grant) => {
                    let (grant, touched_at) = (grant.clone(), self.clock);
                    self.keys.insert(
                        name,
                        StatusKey {
                            life,
                            grant,
                            touched_at,
                        },
                    );
                }
                Word::Deleted => {
                    self.keys.remove(&name);
                }
                Word::Traffic(..) | Word::Total(..) => {}
            }
        }
        match said.fate {
            _ if self.deaf => self.miss(said),
            Fate::Lost => self.miss(said),
            Fate::Heard => self.hear(said),
            // Where each server has connections of its own, nothing comes twice.
            Fate::Repeated if self.history.setting.direct => self.hear(said),
            Fate::Repeated => {
                self.hear(said);
                self.echoes
                    .push_back((self.clock + self.history.setting.echo, said.clone()));
                self.carry_echoes();
            }
        }
    }

    /// What was heard once is heard once more.
    pub(super) fn carry_echoes(&mut self) {
        while let Some((due, _)) = self.echoes.front()
            && *due <= self.clock
        {
            let Some((_, said)) = self.echoes.pop_front() else {
                return;
            };
            if self.deaf {
                continue;
            }
            if let Some(life) = said.life {
                let mut copy = Legs::default();
                // Of its totals only the next life of its key knows.
                let later = self.fleet.lives[life + 1..].iter().filter(|l| l.key == said.key);
                let forgotten = later.count() > 1 || self.rules.tombstone_limit < 100;
                let life = &mut self.fleet.lives[life];
                life.echoed = true;
                match said.word {
                    Word::Traffic(Leg::Client, counters) => copy.client = counters,
                    Word::Traffic(Leg::Peer, counters) => copy.peer = counters,
                    Word::New(_) => {
                        life.new_copied = true;
                        life.opened_again |= !life.carried.legs.is_zero();
                    }
                    Word::Total(Leg::Client, counters) if forgotten => copy.client = counters,
                    Word::Total(Leg::Peer, counters) if forgotten => copy.peer = counters,
                    Word::Refreshed(_) | Word::Deleted | Word::Total(..) => {}
                }
                life.copies = life.copies.plus(copy);
            }
            self.hear(&said);
        }
    }

    fn miss(&mut self, said: &Said) {
        self.note(|| format!("   lost: {said:?}"));
        if let Some(life) = said.life {
            self.fleet.lives[life].missed = true;
            self.fleet.lives[life].guess_down();
        }
    }

    fn hear(&mut self, said: &Said) {
        self.note(|| {
            let (realm, username, id) = name(&said.key, said.claim);
            format!("   hears of {realm} {username} {id}: {:?}", said.word)
        });
        let at = self.at();
        let server = self.server_ref(said.key.server);
        let (kind, mark) = match &said.word {
            Word::New(grant) => (Kind::New(status(grant)), Some(Mark::New)),
            Word::Refreshed(grant) => (Kind::Refreshed(status(grant)), Some(Mark::Other)),
            Word::Deleted => (Kind::Deleted, Some(Mark::Other)),
            Word::Traffic(leg, counters) => (
                Kind::Traffic(*leg, *counters),
                (*counters != Counters::default()).then_some(Mark::Report),
            ),
            Word::Total(leg, counters) => {
                let mark = match leg {
                    Leg::Client => Some(Mark::ClientTotal),
                    Leg::Peer => Some(Mark::PeerTotal),
                };
                (Kind::TotalTraffic(*leg, *counters), mark)
            }
        };
        let (realm, username, id) = name(&said.key, said.claim);
        let message = Message {
            realm: realm.as_bytes(),
            username: username.as_bytes(),
            id: AllocationId(id),
            kind,
        };
        self.reducer.message(at, server, &message);
        let Some(life) = said.life else { return };
        let kin = (0..self.fleet.lives.len()).any(|other| self.fleet.may_go_on_as(other, life));
        self.fleet.lives[life].has_kin |= kin;
        self.note_sign(life, &said.word);
        if let Word::New(grant) | Word::Refreshed(grant) = &said.word {
            let now = self.wall(self.reducer.now());
            // From there it is known only if its client has not gone elsewhere in the meantime.
            let life_now = &mut self.fleet.lives[life];
            life_now.unrecognised &= life_now.moved();
            let asked_at = &mut self.fleet.lives[life].asked_at;
            *asked_at = match grant.lifetime {
                0 => Some(asked_at.unwrap_or(now)),
                _ => None,
            };
        }
        if let Some(mark) = mark {
            let at = self.wall(self.reducer.now());
            self.uncommitted.push((life, mark, at));
        }
    }

    /// Whether what is heard of this life can be told from what was said of earlier ones of its key.
    fn note_sign(&mut self, life: usize, word: &Word) {
        let lives = &self.fleet.lives;
        let earlier = lives[..life].iter().filter(|l| l.key == lives[life].key);
        let signed = match word {
            Word::New(_) => true,
            Word::Refreshed(_) => earlier.clone().all(|e| lives[life].looks_other_than(e)),
            Word::Deleted | Word::Total(..) | Word::Traffic(..) => false,
        };
        let first = earlier.count() == 0;
        let life = &mut self.fleet.lives[life];
        life.signed |= signed || first;
        life.unsigned |= !life.signed;
    }
}
