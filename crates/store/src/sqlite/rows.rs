//! Codes and groups of columns that several tables share.

use rusqlite::{Row, types::Type};
use turnhook_reducer::{
    event::EventType,
    source::GapReason,
    time::Timestamp,
    usage::{Counters, Legs, Usage},
};

use super::{int, nat};
use crate::delivery::DeliveryState;

/// `delivery.state` where an attempt may be made at once.
pub(super) const READY: i64 = 0;
/// `delivery.state` where the next attempt has to wait until `at`.
pub(super) const WAITING: i64 = 1;
/// `delivery.state` of what the endpoint took.
pub(super) const DELIVERED: i64 = 2;
/// `delivery.state` of a dead letter.
pub(super) const DEAD: i64 = 3;
/// `delivery.state` of what a person gave up.
pub(super) const DISCARDED: i64 = 4;

/// As wide in the file as most latencies, so that a row does not grow when it is delivered.
pub(super) const NO_LATENCY: i64 = -1000;

pub(super) fn state(code: i64) -> DeliveryState {
    match code {
        READY | WAITING => DeliveryState::Pending,
        DELIVERED => DeliveryState::Delivered,
        DEAD => DeliveryState::Dead,
        _ => DeliveryState::Discarded,
    }
}

/// The codes of a state, for an SQL list.
pub(super) fn state_codes(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "0, 1",
        DeliveryState::Delivered => "2",
        DeliveryState::Dead => "3",
        DeliveryState::Discarded => "4",
    }
}

pub(super) fn type_code(event_type: EventType) -> i64 {
    match event_type {
        EventType::Start => 0,
        EventType::Usage => 1,
        EventType::End => 2,
    }
}

pub(super) fn event_type(code: i64) -> EventType {
    match code {
        0 => EventType::Start,
        1 => EventType::Usage,
        _ => EventType::End,
    }
}

pub(super) fn gap_reason(text: &str) -> Option<GapReason> {
    [
        GapReason::Restart,
        GapReason::Reconnect,
        GapReason::ThrownOut,
        GapReason::Overflow,
        GapReason::Stall,
        GapReason::ClockStep,
        GapReason::StoreFull,
        GapReason::Wedged,
    ]
    .into_iter()
    .find(|r| r.as_str() == text)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(|ms: i64| Timestamp(nat(ms)))
}

pub(super) fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get(column)
        .map(|ms: Option<i64>| ms.map(|ms| Timestamp(nat(ms))))
}

/// The columns of a usage, in the order of [`usage_values`].
pub(super) const USAGE: &str = "client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes, \
     peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes";

pub(super) fn usage_values(usage: &Usage) -> [i64; 9] {
    let Legs { client, peer } = &usage.legs;
    [
        client.received_packets,
        client.received_bytes,
        client.sent_packets,
        client.sent_bytes,
        peer.received_packets,
        peer.received_bytes,
        peer.sent_packets,
        peer.sent_bytes,
        usage.billable_bytes,
    ]
    .map(int)
}

/// A usage from nine columns.
pub(super) fn usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    let get = |i: usize| row.get(first + i).map(|v: i64| nat(v));
    let leg = |i: usize| {
        Ok::<_, rusqlite::Error>(Counters {
            received_packets: get(i)?,
            received_bytes: get(i + 1)?,
            sent_packets: get(i + 2)?,
            sent_bytes: get(i + 3)?,
        })
    };
    Ok(Usage {
        legs: Legs {
            client: leg(0)?,
            peer: leg(4)?,
        },
        billable_bytes: get(8)?,
    })
}

/// A block that does not unpack: the file is damaged.
pub(super) fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("a damaged {what}").into())
}
