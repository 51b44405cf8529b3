//! How the tables write down what is not a number or bytes: the same in every database.

use turnhook_reducer::{
    event::{EventType, SessionId},
    usage::Usage,
};

use crate::delivery::DeliveryState;

/// As databases keep it. What does not fit (no clock or counter gets there) becomes the largest they have.
pub(crate) fn int(v: u64) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

/// Back again.
pub(crate) fn nat(v: i64) -> u64 {
    u64::try_from(v).unwrap_or(0)
}

/// A quarter of an hour, in milliseconds.
pub const QUARTER_MS: u64 = 900_000;

/// A day, in milliseconds.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Usage by user and day outlives what it was summed from, by so many days: bills are questioned for about a year.
pub(crate) const USAGE_DAYS: i64 = 400;

/// The first 8 bytes of a session's id, `delivery.session`: deliveries wait for each other by it. Should two sessions share
/// them, one waits for the other without need.
pub(crate) fn session_key(id: SessionId) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A server's name as the tables keep it, of which it is a part of an index: a row there must not be larger than a third of
/// a page, and a name is as long as its coturn likes (it has a name of its own to log in with).
pub(crate) fn server(name: Option<&[u8]>) -> &[u8] {
    const MAX: usize = 512;
    let name = name.unwrap_or_default();
    name.get(..MAX).unwrap_or(name)
}

/// `delivery.state` of what is to be delivered, at once or later.
pub(crate) const PENDING: i64 = 0;
/// `delivery.state` of what the endpoint took.
pub(crate) const DELIVERED: i64 = 1;
/// `delivery.state` of a dead letter.
pub(crate) const DEAD: i64 = 2;
/// `delivery.state` of what a person gave up.
pub(crate) const DISCARDED: i64 = 3;

pub(crate) fn state(code: i64) -> DeliveryState {
    match code {
        PENDING => DeliveryState::Pending,
        DELIVERED => DeliveryState::Delivered,
        DEAD => DeliveryState::Dead,
        _ => DeliveryState::Discarded,
    }
}

pub(crate) fn state_code(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => PENDING,
        DeliveryState::Delivered => DELIVERED,
        DeliveryState::Dead => DEAD,
        DeliveryState::Discarded => DISCARDED,
    }
}

/// From this `event.type` on events are of users and of no session: the ledger does not know them.
pub(crate) const FIRST_OF_USERS: i64 = 3;

pub(crate) fn type_code(event_type: EventType) -> i64 {
    match event_type {
        EventType::Start => 0,
        EventType::Usage => 1,
        EventType::End => 2,
        EventType::QuotaReached => FIRST_OF_USERS,
        EventType::UserBlocked => 4,
        EventType::UserUnblocked => 5,
    }
}

pub(crate) fn event_type(code: i64) -> EventType {
    match code {
        0 => EventType::Start,
        1 => EventType::Usage,
        FIRST_OF_USERS => EventType::QuotaReached,
        4 => EventType::UserBlocked,
        5 => EventType::UserUnblocked,
        _ => EventType::End,
    }
}

/// The columns of a usage, in the order of [`usage_values`].
pub(crate) const USAGE: &str = "client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
     peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes";

/// For an upsert into `usage_day`: adds what is `excluded` to each of its sums, which `row` names (`o.`, or nothing).
/// At the largest number that there is a sum stays: beyond, one database would refuse it for good, and another go over to
/// floating point, which nothing reads.
pub(crate) fn add_to_sums(row: &str) -> String {
    let sums = ["started", "ended", "lower_bound", "duration_ms"];
    sums.into_iter()
        .chain(USAGE.split(", "))
        .map(|c| {
            format!(
                "{c} = CASE WHEN {row}{c} > {max} - excluded.{c} THEN {max} ELSE {row}{c} + excluded.{c} END",
                max = i64::MAX
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

pub(crate) fn usage_values(usage: &Usage) -> [i64; 9] {
    <[u64; 9]>::from(*usage).map(int)
}

/// A usage from its columns, in the same order.
pub(crate) fn usage_of(columns: [i64; 9]) -> Usage {
    columns.map(nat).into()
}
