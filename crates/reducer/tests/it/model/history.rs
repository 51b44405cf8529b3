//! What a history is made of: small numbers that proptest can shrink, and what they stand for.

use turnhook_reducer::rules::{PeerLeg, Rules};

use super::call::{Load, Way};

/// A setting, and what happens in it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) setting: Setting,
    /// Scenes of steps that belong together: proptest takes whole scenes away first.
    pub(crate) scenes: Vec<Vec<Step>>,
}

impl History {
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.scenes.iter().flatten()
    }

    /// Nothing is heard of peers where a message can be lost, so that there seem to be none.
    pub(crate) fn loses_peers(&mut self) {
        self.setting.peer_messages = true;
        self.setting.rules.peer_leg = PeerLeg::Auto;
        for step in self.scenes.iter_mut().flatten() {
            match step {
                Step::Close { fates, .. } => (fates[1], fates[4]) = (Fate::Lost, Fate::Lost),
                Step::Carry {
                    report: Some(fates), ..
                } => fates[1] = Fate::Lost,
                _ => {}
            }
        }
    }
}

/// What stays the same throughout a history.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// A `direct` source, whose messages name their server; else all servers share one Redis.
    pub(crate) direct: bool,
    /// coturn 4.6 and later says `local=` and `remote=`.
    pub(crate) addresses: bool,
    /// coturn 4.5.2 and later tells of its peers.
    pub(crate) peer_messages: bool,
    pub(crate) rules: Rules,
    /// The engine commits after this many steps.
    pub(crate) commit_every: usize,
    /// At the end the clients close what is open; else the servers are killed.
    pub(crate) clean_end: bool,
    /// After how many milliseconds the copy of a message comes that comes twice.
    pub(crate) echo: u64,
}

/// What becomes of a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Heard,
    Repeated,
    Lost,
}

/// What a crash of turnhook takes with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// All was committed.
    Nothing,
    /// Counters that merely moved were not.
    Progress,
    /// Whatever came after the last commit.
    Uncommitted,
}

/// Whom a client says that it is on a TCP relay's connection: coturn takes it over before it checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    OtherTenant,
    /// A realm that ends in `/user/victim`.
    Victim,
    NoRealm,
}

/// An allocation that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) server: u8,
    pub(crate) thread: u8,
    pub(crate) user: u8,
    /// Of another tenant.
    pub(crate) other_realm: bool,
    /// Refreshed until its client closes it.
    pub(crate) keeps: bool,
    /// From the address of the client that opened last.
    pub(crate) same_remote: bool,
    pub(crate) way: Way,
    pub(crate) fate: Fate,
}

/// One step of a history. Numbers pick among what there is; [`LAST`] is what opened last.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Wait(u64),
    Open(Opening),
    /// Traffic; and perhaps coturn's report of what came since the last one.
    Carry {
        life: u8,
        load: Load,
        report: Option<[Fate; 2]>,
    },
    Refresh {
        life: u8,
        moves: bool,
        fate: Fate,
    },
    /// coturn deletes it a second later; that of a client with mobility, which may have gone elsewhere, a minute later.
    AskDeletion {
        life: u8,
        mobile: bool,
        fate: Fate,
    },
    /// The last report, `deleted`, and the totals.
    Close {
        life: u8,
        fates: [Fate; 5],
    },
    ClaimRealm {
        life: u8,
        claim: Claim,
    },
    /// A client with a wrong password; it takes a number too.
    Forge {
        server: u8,
        thread: u8,
        user: u8,
        load: Load,
    },
    Kill {
        server: u8,
    },
    /// Started anew, with the same numbers; kills it first if it runs.
    Restart {
        server: u8,
    },
    /// The server's connections come from another address (`direct`).
    Readdress {
        server: u8,
    },
    /// A relay thread's messages are held up, or lost, until they flow again.
    Hold {
        server: u8,
        thread: u8,
    },
    Wedge {
        server: u8,
        thread: u8,
    },
    Flow {
        server: u8,
        thread: u8,
    },
    Deaf,
    Hear,
    SnapshotBegin,
    SnapshotEnd,
    Crash(Loss),
    /// The wall clock is put back by so many seconds.
    ClockBack(u16),
    /// The wall clock is put ahead by so many seconds, and the source's clock follows it.
    ClockAhead(u32),
}

pub(crate) const LAST: u8 = u8::MAX;
