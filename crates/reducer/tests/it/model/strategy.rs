//! How histories are made: steps at random, and scenes that chance would not often put together.

use proptest::{collection::vec, prelude::*};
use turnhook_reducer::{
    rules::{AliveWhile, GroupBy, PeerLeg, Rules, StartOn},
    usage::Billable,
};

use super::{
    call::{Load, Size, Way},
    history::{Claim, Fate, History, LAST, Loss, Opening, Setting, Step},
};

/// How often something goes wrong on the way.
#[derive(Clone, Copy, Debug)]
struct Losses(u32);

fn fate(losses: Losses) -> BoxedStrategy<Fate> {
    let Losses(lost) = losses;
    prop_oneof![30 => Just(Fate::Heard), lost => Just(Fate::Repeated), 3 * lost => Just(Fate::Lost)].boxed()
}

fn fates<const N: usize>(losses: Losses) -> BoxedStrategy<[Fate; N]> {
    std::array::from_fn::<_, N, _>(|_| fate(losses)).boxed()
}

pub(crate) fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        4 => Just(Size::Nothing),
        3 => Just(Size::Check),
        3 => Just(Size::Part),
        8 => Just(Size::Call),
        2 => Just(Size::Many),
        1 => Just(Size::Giga),
        1 => Just(Size::Wrap),
    ]
}

/// What comes now and then, from strangers or in vain.
pub(crate) fn strangers() -> impl Strategy<Value = Size> {
    prop_oneof![
        14 => Just(Size::Nothing),
        1 => Just(Size::Check),
        1 => Just(Size::Call),
        1 => Just(Size::Many),
        1 => Just(Size::Giga),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    let answers = prop_oneof![1 => Just(0u16), 6 => Just(92), 1 => Just(500)];
    let sizes = (size(), size(), strangers(), strangers(), strangers());
    (sizes, 0..8u8, answers).prop_map(|((up, down, strangers, dropped, junk), requests, answer)| Load {
        up,
        down,
        strangers,
        dropped,
        junk,
        requests,
        answer,
    })
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Channel),
        1 => Just(Way::IndicationV4),
        1 => Just(Way::IndicationV6),
        2 => Just(Way::TcpRelay),
    ]
}

fn millis() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..3000u64,
        4 => (0..20u64).prop_map(|s| s * 1000),
        3 => (0..200u64).prop_map(|s| s * 1000),
        2 => (0..30u64).prop_map(|m| m * 60_000),
        1 => (0..5u64).prop_map(|h| h * 3_600_000),
    ]
}

fn seldom() -> impl Strategy<Value = bool> {
    prop_oneof![9 => Just(false), 1 => Just(true)]
}

fn opening(losses: Losses) -> impl Strategy<Value = Opening> {
    let names = (0..2u8, 0..2u8, 0..3u8, seldom());
    let rest = (any::<bool>(), seldom(), way(), fate(losses));
    (names, rest).prop_map(
        |((server, thread, user, other_realm), (keeps, same_remote, way, fate))| Opening {
            server,
            thread,
            user,
            other_realm,
            keeps,
            same_remote,
            way,
            fate,
        },
    )
}

fn report(losses: Losses) -> impl Strategy<Value = Option<[Fate; 2]>> {
    prop_oneof![1 => Just(None), 4 => fates::<2>(losses).prop_map(Some)]
}

fn carry(life: BoxedStrategy<u8>, losses: Losses) -> BoxedStrategy<Step> {
    (life, load(), report(losses))
        .prop_map(|(life, load, report)| Step::Carry { life, load, report })
        .boxed()
}

fn step(losses: Losses, direct: bool) -> BoxedStrategy<Step> {
    let server = || 0..2u8;
    let thread = || 0..2u8;
    let life = any::<u8>;
    let Losses(lost) = losses;
    let refresh =
        (life(), seldom(), fate(losses)).prop_map(|(life, moves, fate)| Step::Refresh { life, moves, fate });
    let close = (life(), fates::<5>(losses)).prop_map(|(life, fates)| Step::Close { life, fates });
    let ask = (life(), seldom(), fate(losses)).prop_map(|(life, mobile, fate)| Step::AskDeletion {
        life,
        mobile,
        fate,
    });
    let forge = (server(), thread(), 0..3u8, load()).prop_map(|(server, thread, user, load)| Step::Forge {
        server,
        thread,
        user,
        load,
    });
    let crash = prop_oneof![Just(Loss::Nothing), Just(Loss::Progress), Just(Loss::Uncommitted)];
    let claim = prop_oneof![
        Just(Claim::OtherTenant),
        Just(Claim::Victim),
        Just(Claim::NoRealm)
    ];
    let often = prop_oneof![
        24 => millis().prop_map(Step::Wait),
        14 => opening(losses).prop_map(Step::Open),
        22 => carry(life().boxed(), losses),
        6 => refresh,
        4 => ask,
        12 => close,
    ];
    let coturn = prop_oneof![
        2 => forge,
        1 => (life(), claim).prop_map(|(life, claim)| Step::ClaimRealm { life, claim }),
        2 => server().prop_map(|server| Step::Kill { server }),
        2 => server().prop_map(|server| Step::Restart { server }),
        u32::from(direct) => server().prop_map(|server| Step::Readdress { server }),
        2 => (server(), thread()).prop_map(|(server, thread)| Step::Hold { server, thread }),
        4 => (server(), thread()).prop_map(|(server, thread)| Step::Flow { server, thread }),
    ];
    let turnhook = prop_oneof![
        1 => Just(Step::Deaf),
        2 => Just(Step::Hear),
        2 => Just(Step::SnapshotBegin),
        3 => Just(Step::SnapshotEnd),
        2 => crash.prop_map(Step::Crash),
        1 => (1..9000u16).prop_map(Step::ClockBack),
        1 => (1..90_000u32).prop_map(Step::ClockAhead),
        1 => (server(), thread()).prop_map(|(server, thread)| Step::Wedge { server, thread }),
    ];
    // Where little is lost, little else goes wrong.
    prop_oneof![80 => often, 5 + lost => coturn, 1 + 2 * lost => turnhook].boxed()
}

/// Two lives of one number: the server is killed, and its client comes back.
fn second_life(losses: Losses, direct: bool) -> BoxedStrategy<Vec<Step>> {
    let last = || Just(LAST).boxed();
    let few = move || vec(carry(last(), losses), 0..3);
    let fate = || fate(Losses(10));
    let parts = (
        (opening(losses), fate(), any::<bool>()),
        few(),
        (millis(), any::<bool>()),
        few(),
        fate(),
        few(),
        step(losses, direct),
        fates::<5>(losses),
    );
    parts
        .prop_map(
            |(
                (first, second, same_remote),
                before,
                (wait, stays),
                early,
                refreshed,
                late,
                between,
                fates,
            )| {
                let server = first.server;
                let second = Opening {
                    same_remote,
                    fate: second,
                    ..first
                };
                let mut steps = vec![Step::Restart { server }, Step::Open(first)];
                steps.extend(before);
                if stays {
                    steps.push(Step::Wait(wait));
                }
                steps.extend([Step::Restart { server }, Step::Open(second)]);
                steps.extend(early);
                steps.push(Step::Refresh {
                    life: LAST,
                    moves: false,
                    fate: refreshed,
                });
                steps.extend(late);
                steps.push(between);
                steps.push(Step::Close { life: LAST, fates });
                steps
            },
        )
        .boxed()
}

/// A call, and allocations beside it that are parked at its end and carry a little each.
fn small_parts(losses: Losses) -> BoxedStrategy<Vec<Step>> {
    let part = (
        prop_oneof![Just(Size::Check), Just(Size::Part)],
        fates::<5>(losses),
    );
    let parts = (opening(losses), vec(part, 1..6), fates::<5>(losses), millis());
    parts
        .prop_map(|(opening, parts, fates, wait)| {
            let opening = Opening {
                keeps: true,
                fate: Fate::Heard,
                ..opening
            };
            let mut steps = vec![Step::Open(opening); parts.len() + 1];
            let call = Load::call(Size::Call, Size::Call, Size::Nothing);
            steps.extend([
                Step::Carry {
                    life: LAST,
                    load: call,
                    report: Some([Fate::Heard; 2]),
                },
                Step::Close { life: LAST, fates },
                Step::Wait(wait.max(6000)),
            ]);
            for (size, fates) in parts {
                steps.push(Step::Carry {
                    life: LAST,
                    load: Load::call(size, Size::Nothing, Size::Nothing),
                    report: None,
                });
                steps.push(Step::Close { life: LAST, fates });
                steps.push(Step::Wait(wait));
            }
            steps
        })
        .boxed()
}

/// Something happens to an allocation in the middle of its life.
fn in_mid_life(losses: Losses, direct: bool) -> BoxedStrategy<Vec<Step>> {
    let last = || Just(LAST).boxed();
    let few = move || vec(carry(last(), losses), 0..3);
    let claim = prop_oneof![
        Just(Claim::OtherTenant),
        Just(Claim::Victim),
        Just(Claim::NoRealm)
    ];
    let event = prop_oneof![
        3 => claim.prop_map(|claim| Step::ClaimRealm { life: LAST, claim }),
        4 * u32::from(direct) => (0..2u8).prop_map(|server| Step::Readdress { server }),
        1 => fate(losses).prop_map(|fate| Step::Refresh { life: LAST, moves: true, fate }),
        1 => fate(losses).prop_map(|fate| Step::AskDeletion { life: LAST, mobile: true, fate }),
        1 => Just(Step::ClockAhead(86_400)),
    ];
    let parts = (
        opening(losses),
        few(),
        event,
        few(),
        (any::<bool>(), fate(losses)),
        millis(),
        fates::<5>(losses),
    );
    parts
        .prop_map(|(opening, before, event, after, (refresh, fate), wait, fates)| {
            let mut steps = vec![Step::Open(opening)];
            steps.extend(before);
            if let Step::Readdress { .. } = event {
                steps.push(Step::Readdress {
                    server: opening.server,
                });
            } else {
                steps.push(event);
            }
            if refresh {
                steps.push(Step::Refresh {
                    life: LAST,
                    moves: false,
                    fate,
                });
            }
            steps.extend(after);
            steps.push(Step::Wait(wait));
            steps.push(Step::Close { life: LAST, fates });
            steps
        })
        .boxed()
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
        prop_oneof![4 => Just(PeerLeg::Reported), 3 => Just(PeerLeg::Auto), 1 => Just(PeerLeg::Absent)],
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
        prop_oneof![9 => Just(100_000usize), 1 => 1..4usize],
        prop_oneof![9 => Just(200_000usize), 1 => 1..4usize],
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
            peer_leg,
            linger,
            totals_grace,
            report_grace,
            usage_interval,
            residue,
            // Of what there is already, so that what is known by its seed stays what it is.
            max_session: match (linger, usage_interval) {
                (0, _) => 40_000,
                (_, 7_000) => 300_000,
                (30_000, _) => 0,
                _ => 86_400_000,
            },
            unconfirmed_limit,
            tombstone_limit,
            ..Rules::default()
        },
    )
}

fn scenes(losses: Losses, direct: bool) -> BoxedStrategy<Vec<Vec<Step>>> {
    let scene = prop_oneof![
        6 => vec(step(losses, direct), 1..30),
        2 => second_life(losses, direct),
        1 => small_parts(losses),
        2 => in_mid_life(losses, direct),
    ];
    vec(scene, 1..4).boxed()
}

/// Histories of `direct` sources, or of `redis` ones.
pub(crate) fn histories(direct: bool) -> BoxedStrategy<History> {
    let scenes = prop_oneof![
        1 => scenes(Losses(0), direct),
        2 => scenes(Losses(1), direct),
        2 => scenes(Losses(4), direct),
    ];
    let echo = prop_oneof![3 => Just(0u64), 1 => Just(40), 1 => Just(3_000), 1 => Just(50_000)];
    let old = prop_oneof![3 => Just(false), 1 => Just(true)];
    let setting = (rules(), any::<bool>(), 1..4usize, any::<bool>(), echo, old);
    let history = (setting, scenes).prop_map(
        move |((rules, addresses, commit_every, clean_end, echo, old), scenes)| History {
            setting: Setting {
                direct,
                addresses,
                peer_messages: rules.peer_leg == PeerLeg::Reported || !old,
                rules: Rules { direct, ..rules },
                commit_every,
                clean_end,
                echo,
            },
            scenes,
        },
    );
    history.boxed()
}
