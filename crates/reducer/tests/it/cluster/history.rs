//! What may happen to a cluster.

use proptest::{collection::vec, prelude::*, strategy::BoxedStrategy};
use turnhook_reducer::rules::{PeerLeg, Rules};

use crate::model::{
    call::Size,
    strategy::{rules, size, strangers},
};

/// Which nodes miss a message, by bits.
pub(crate) type Missed = u8;

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) rules: Rules,
    /// coturn 4.6 and later says `local=` and `remote=`.
    pub(crate) addresses: bool,
    pub(crate) nodes: usize,
    /// By how many milliseconds each node's clock is ahead.
    pub(crate) skews: Vec<u64>,
    /// A new leader waits for a `PONG` before it says that it has caught up.
    pub(crate) barrier: bool,
    pub(crate) clean_end: bool,
    pub(crate) steps: Vec<Step>,
}

/// What becomes of a leader's next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFate {
    /// It never reached the store, and the leader does not know.
    Lost,
    /// It was applied, and the leader does not know.
    Unheard,
}

/// One step of a history. Numbers pick among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Wait(u64),
    Open {
        second: bool,
        user: u8,
        keeps: bool,
        same_remote: bool,
        missed: Missed,
    },
    Carry {
        life: u8,
        up: Size,
        down: Size,
        strangers: Size,
        report: Option<[Missed; 2]>,
    },
    Refresh {
        life: u8,
        moves: bool,
        missed: Missed,
    },
    AskDeletion {
        life: u8,
        missed: Missed,
    },
    Close {
        life: u8,
        missed: [Missed; 5],
    },
    Forge {
        user: u8,
        size: Size,
    },
    /// The server is killed, and started anew with the same numbers.
    Restart,
    /// A node dies; it comes back a while later.
    Crash(u8),
    /// A node stands still; what it is sent waits for it.
    Pause(u8),
    Resume(u8),
    /// A node runs, but what it is sent waits.
    Lag(u8),
    CatchUp(u8),
    Deaf(u8),
    Hear(u8),
    /// Whoever leads hands over.
    HandOver,
    CrashLeader,
    PauseLeader,
    DeafLeader,
    NextCommit(CommitFate),
    /// Nothing is committed, so that it piles up.
    HoldCommits,
    LetCommits,
    StoreDown,
    StoreUp,
    /// The leader looks at the status keys.
    Snapshot,
}

fn missed() -> impl Strategy<Value = Missed> {
    prop_oneof![8 => Just(0u8), 5 => 1..8u8, 1 => Just(7u8)]
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        4 => 0..3000u64,
        5 => (0..20u64).prop_map(|s| s * 1000),
        3 => (0..200u64).prop_map(|s| s * 1000),
        1 => (0..20u64).prop_map(|m| m * 60_000),
    ];
    let node = || 0..3u8;
    let life = any::<u8>;
    let seldom = || prop_oneof![1 => Just(true), 9 => Just(false)];
    let open = (seldom(), 0..3u8, any::<bool>(), seldom(), missed());
    let report = prop_oneof![1 => Just(None), 5 => [missed(), missed()].prop_map(Some)];
    let carry = (life(), size(), size(), strangers(), report);
    let fate = prop_oneof![Just(CommitFate::Lost), Just(CommitFate::Unheard)];
    prop_oneof![
        22 => wait.prop_map(Step::Wait),
        12 => open.prop_map(|(second, user, keeps, same_remote, missed)|
            Step::Open { second, user, keeps, same_remote, missed }),
        18 => carry.prop_map(|(life, up, down, strangers, report)|
            Step::Carry { life, up, down, strangers, report }),
        5 => (life(), seldom(), missed()).prop_map(|(life, moves, missed)| Step::Refresh { life, moves, missed }),
        2 => (life(), missed()).prop_map(|(life, missed)| Step::AskDeletion { life, missed }),
        10 => (life(), [missed(), missed(), missed(), missed(), missed()])
            .prop_map(|(life, missed)| Step::Close { life, missed }),
        1 => (0..3u8, size()).prop_map(|(user, size)| Step::Forge { user, size }),
        2 => Just(Step::Restart),
        2 => node().prop_map(Step::Crash),
        2 => node().prop_map(Step::Pause),
        4 => node().prop_map(Step::Resume),
        3 => node().prop_map(Step::Lag),
        3 => node().prop_map(Step::CatchUp),
        1 => node().prop_map(Step::Deaf),
        3 => node().prop_map(Step::Hear),
        3 => Just(Step::HandOver),
        4 => Just(Step::CrashLeader),
        3 => Just(Step::PauseLeader),
        2 => Just(Step::DeafLeader),
        3 => fate.prop_map(Step::NextCommit),
        3 => Just(Step::HoldCommits),
        4 => Just(Step::LetCommits),
        1 => Just(Step::StoreDown),
        3 => Just(Step::StoreUp),
        2 => Just(Step::Snapshot),
    ]
}

pub(crate) fn histories(nodes: usize) -> BoxedStrategy<History> {
    let skews = vec(prop_oneof![3 => Just(0u64), 2 => 0..2000u64], nodes);
    let parts = (
        rules(),
        any::<bool>(),
        skews,
        any::<bool>(),
        any::<bool>(),
        vec(step(), 1..60),
    );
    parts
        .prop_map(
            move |(rules, addresses, skews, barrier, clean_end, steps)| History {
                // Without tombstones nobody knows what was told.
                rules: Rules {
                    tombstone_limit: rules.tombstone_limit.max(100),
                    // While that is not known, some things wait for ever.
                    peer_leg: match rules.peer_leg {
                        PeerLeg::Auto => PeerLeg::Reported,
                        known => known,
                    },
                    ..rules
                },
                addresses,
                nodes,
                skews,
                barrier,
                clean_end,
                steps,
            },
        )
        .boxed()
}
