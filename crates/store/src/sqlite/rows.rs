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

/// `delivery.state` of what is to be delivered, at once or later.
pub(super) const PENDING: i64 = 0;
/// `delivery.state` of what the endpoint took.
pub(super) const DELIVERED: i64 = 1;
/// `delivery.state` of a dead letter.
pub(super) const DEAD: i64 = 2;
/// `delivery.state` of what a person gave up.
pub(super) const DISCARDED: i64 = 3;

/// As wide in the file as most latencies, so that a row does not grow when it is delivered.
pub(super) const NO_LATENCY: i64 = -1000;

pub(super) fn state(code: i64) -> DeliveryState {
    match code {
        PENDING => DeliveryState::Pending,
        DELIVERED => DeliveryState::Delivered,
        DEAD => DeliveryState::Dead,
        _ => DeliveryState::Discarded,
    }
}

pub(super) fn state_code(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => PENDING,
        DeliveryState::Delivered => DELIVERED,
        DeliveryState::Dead => DEAD,
        DeliveryState::Discarded => DISCARDED,
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
