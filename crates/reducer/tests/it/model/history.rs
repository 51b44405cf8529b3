//! What a history is made of: small numbers that proptest can shrink, and what they stand for.

use proptest::{collection::vec, prelude::*};
use turnhook_reducer::{
    rules::{AliveWhile, GroupBy, Rules, StartOn},
    usage::Billable,
};

/// A setting, and what happens in it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) setting: Setting,
    pub(crate) steps: Vec<Step>,
}

/// What stays the same throughout a history.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// A `direct` source, whose messages name their server; else all servers share one Redis.
    pub(crate) direct: bool,
    /// coturn 4.6 and later says `local=` and `remote=`.
    pub(crate) addresses: bool,
    pub(crate) rules: Rules,
    /// The engine commits after this many steps.
    pub(crate) commit_every: usize,
    /// At the end the clients close what is open; else the servers are killed.
    pub(crate) clean_end: bool,
}

/// What becomes of a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Heard,
    Repeated,
    Lost,
}

/// How much an allocation carries in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Nothing,
    /// A connectivity check.
    Check,
    /// A second or so of a call.
    Call,
    /// More than a gibibyte.
    Giga,
    /// More than the 2^32 at which coturn's peer leg wraps.
    Wrap,
}

impl Size {
    pub(crate) fn packets_and_bytes(self) -> (u64, u64) {
        match self {
            Size::Nothing => (0, 0),
            Size::Check => (3, 300),
            Size::Call => (170, 100_000),
            Size::Giga => (1_100_000, 1_300_000_000),
            Size::Wrap => (4_100_000, (1 << 32) + 5_000_000),
        }
    }
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

/// One step of a history. Numbers pick among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Wait(u64),
    /// A client allocates; `keeps` it by refreshing, until it closes it.
    Open {
        server: u8,
        thread: u8,
        user: u8,
        keeps: bool,
        same_remote: bool,
        fate: Fate,
    },
    /// Traffic; and perhaps coturn's report of what came since the last one.
    Carry {
        life: u8,
        up: Size,
        down: Size,
        strangers: Size,
        report: Option<[Fate; 2]>,
    },
    Refresh {
        life: u8,
        moves: bool,
        fate: Fate,
    },
    AskDeletion {
        life: u8,
        fate: Fate,
    },
    /// The last report, `deleted`, and the totals.
    Close {
        life: u8,
        fates: [Fate; 5],
    },
    /// A client with a wrong password; it takes a number too.
    Forge {
        server: u8,
        thread: u8,
        user: u8,
        size: Size,
    },
    Kill {
        server: u8,
    },
    /// Started anew, with the same numbers; kills it first if it runs.
    Restart {
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
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![10 => Just(Fate::Heard), 1 => Just(Fate::Repeated), 3 => Just(Fate::Lost)]
}

pub(crate) fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        2 => Just(Size::Nothing),
        4 => Just(Size::Check),
        8 => Just(Size::Call),
        1 => Just(Size::Giga),
        1 => Just(Size::Wrap),
    ]
}

pub(crate) fn strangers() -> impl Strategy<Value = Size> {
    prop_oneof![12 => Just(Size::Nothing), 1 => Just(Size::Call), 1 => Just(Size::Giga)]
}

fn wait() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => 0..3000u64,
        4 => (0..20u64).prop_map(|s| s * 1000),
        3 => (0..200u64).prop_map(|s| s * 1000),
        2 => (0..30u64).prop_map(|m| m * 60_000),
        1 => (0..5u64).prop_map(|h| h * 3_600_000),
    ]
    .prop_map(Step::Wait)
}

fn step() -> impl Strategy<Value = Step> {
    let server = || 0..2u8;
    let thread = || 0..2u8;
    let life = any::<u8>;
    let often = prop_oneof![1 => Just(true), 9 => Just(false)];
    let open = (server(), thread(), 0..3u8, any::<bool>(), often.clone(), fate()).prop_map(
        |(server, thread, user, keeps, same_remote, fate)| Step::Open {
            server,
            thread,
            user,
            keeps,
            same_remote,
            fate,
        },
    );
    let report = prop_oneof![1 => Just(None), 4 => [fate(), fate()].prop_map(Some)];
    let carry =
        (life(), size(), size(), strangers(), report).prop_map(|(life, up, down, strangers, report)| {
            Step::Carry {
                life,
                up,
                down,
                strangers,
                report,
            }
        });
    let refresh = (life(), often, fate()).prop_map(|(life, moves, fate)| Step::Refresh { life, moves, fate });
    let close = (life(), [fate(), fate(), fate(), fate(), fate()])
        .prop_map(|(life, fates)| Step::Close { life, fates });
    let crash = prop_oneof![Just(Loss::Nothing), Just(Loss::Progress), Just(Loss::Uncommitted)];
    prop_oneof![
        24 => wait(),
        14 => open,
        22 => carry,
        6 => refresh,
        3 => (life(), fate()).prop_map(|(life, fate)| Step::AskDeletion { life, fate }),
        12 => close,
        2 => (server(), thread(), 0..3u8, size())
            .prop_map(|(server, thread, user, size)| Step::Forge { server, thread, user, size }),
        2 => server().prop_map(|server| Step::Kill { server }),
        2 => server().prop_map(|server| Step::Restart { server }),
        2 => (server(), thread()).prop_map(|(server, thread)| Step::Hold { server, thread }),
        1 => (server(), thread()).prop_map(|(server, thread)| Step::Wedge { server, thread }),
        4 => (server(), thread()).prop_map(|(server, thread)| Step::Flow { server, thread }),
        1 => Just(Step::Deaf),
        2 => Just(Step::Hear),
        2 => Just(Step::SnapshotBegin),
        3 => Just(Step::SnapshotEnd),
        2 => crash.prop_map(Step::Crash),
        1 => (1..9000u16).prop_map(Step::ClockBack),
    ]
}

pub(crate) fn rules() -> impl Strategy<Value = Rules> {
    let choices = (
        prop_oneof![6 => Just(GroupBy::User), 1 => Just(GroupBy::Username), 1 => Just(GroupBy::Allocation)],
        prop_oneof![3 => Just(StartOn::Allocation), 1 => Just(StartOn::Relay)],
        prop_oneof![3 => Just(AliveWhile::Relaying), 1 => Just(AliveWhile::Allocated)],
        prop_oneof![
            4 => Just(Billable::Relayed),
            1 => Just(Billable::Client),
            1 => Just(Billable::Egress),
            1 => Just(Billable::Ingress),
        ],
        prop_oneof![6 => Just(true), 1 => Just(false)],
    );
    let durations = (
        prop_oneof![3 => Just(5_000u64), 1 => Just(0), 1 => Just(30_000)],
        prop_oneof![3 => Just(5_000u64), 1 => Just(0), 1 => Just(20_000)],
        prop_oneof![3 => Just(90_000u64), 1 => Just(0)],
        prop_oneof![3 => Just(60_000u64), 1 => Just(0), 1 => Just(7_000)],
        prop_oneof![3 => Just(64 * 1024u64), 1 => Just(0), 1 => Just(1)],
    );
    // Most fleets fit into their tables: where they do not, only the bounds can be held.
    let limits = (
        prop_oneof![9 => Just(100_000usize), 1 => 0..4usize],
        prop_oneof![9 => Just(200_000usize), 1 => 0..4usize],
    );
    (choices, durations, limits).prop_map(
        |(
            (group_by, start_on, alive_while, billable, peer_leg),
            (linger, totals_grace, report_grace, usage_interval, residue),
            (unconfirmed_limit, tombstone_limit),
        )| Rules {
            group_by,
            start_on,
            alive_while,
            billable,
            peer_leg: peer_leg.into(),
            linger,
            totals_grace,
            report_grace,
            usage_interval,
            residue,
            unconfirmed_limit,
            tombstone_limit,
            ..Rules::default()
        },
    )
}

/// Histories of `direct` sources, or of `redis` ones.
pub(crate) fn histories(direct: bool) -> BoxedStrategy<History> {
    let steps = vec(step(), 1..60);
    let history = (rules(), any::<bool>(), 1..4usize, any::<bool>(), steps);
    let history = history.prop_map(
        move |(rules, addresses, commit_every, clean_end, steps)| History {
            setting: Setting {
                direct,
                addresses,
                rules: Rules { direct, ..rules },
                commit_every,
                clean_end,
            },
            steps,
        },
    );
    history.boxed()
}
