//! What the ledger needs to know of an event, packed together with its body so that one row is the whole
//! record: the ledger's tables can always be made again from the events.

use bytes::{Buf as _, Bytes};
use turnhook_reducer::{
    event::{Accuracy, CloseReason, SessionEnd, SessionEvent, SessionId},
    internal_error,
    time::Timestamp,
    usage::{Counters, Legs, Usage},
};

use crate::{
    codec::{Reader, Writer, pack_body, unpack},
    codes::nat,
};

/// The ledger's part of a session's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) continues: Option<SessionId>,
    pub(crate) realm: Vec<u8>,
    pub(crate) user: Option<Vec<u8>>,
    /// Usernames and labels, as [`names`] packs them.
    pub(crate) names: Vec<u8>,
    pub(crate) started_at: Timestamp,
    pub(crate) end: Option<SessionEnd>,
    pub(crate) peer_leg: bool,
    pub(crate) allocations: u64,
    pub(crate) usage: Usage,
    pub(crate) usage_delta: Usage,
}

/// The facts and the body of an event in one packed block.
pub(crate) fn pack_event(event: &SessionEvent, body: &[u8]) -> Vec<u8> {
    let mut facts = Writer(Vec::with_capacity(256));
    let has = |bit: u8, yes: bool| if yes { 1 << bit } else { 0 };
    facts.u8(has(0, event.continues.is_some())
        | has(1, event.user.is_some())
        | has(2, event.end.is_some())
        | has(3, event.peer_leg));
    if let Some(id) = event.continues {
        facts.raw(&id.0);
    }
    facts.bytes(&event.realm);
    if let Some(user) = &event.user {
        facts.bytes(user);
    }
    facts.bytes(&names(event));
    facts.varint(event.started_at.0);
    if let Some(end) = event.end {
        facts.varint(end.ended_at.0);
        facts.u8(reason_code(end.reason));
        facts.u8(accuracy_code(end.accuracy));
    }
    facts.varint(event.allocations.len() as u64 + u64::from(event.allocations_omitted));
    usage(&mut facts, &event.usage);
    usage(&mut facts, &event.usage_delta);

    let mut whole = Writer(Vec::with_capacity(facts.0.len() + body.len() + 4));
    whole.bytes(&facts.0);
    whole.raw(body);
    pack_body(&whole.0)
}

/// A user's event: there is nothing for the ledger in it.
pub(crate) fn pack_user_event(body: &[u8]) -> Vec<u8> {
    let mut whole = Writer(Vec::with_capacity(body.len() + 1));
    whole.bytes(&[]);
    whole.raw(body);
    pack_body(&whole.0)
}

/// The facts of a packed event; `None` if it is damaged.
pub(crate) fn unpack_facts(data: &[u8]) -> Option<Facts> {
    let whole = unpack(data)?;
    let mut r = Reader(Reader(&whole).bytes()?);
    let flags = r.u8()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let continues = if has(0) { Some(SessionId(r.id()?)) } else { None };
    let realm = r.bytes()?.to_vec();
    let user = if has(1) { Some(r.bytes()?.to_vec()) } else { None };
    let names = r.bytes()?.to_vec();
    let started_at = Timestamp(r.varint()?);
    let end = if has(2) {
        Some(SessionEnd {
            ended_at: Timestamp(r.varint()?),
            reason: reason(r.u8()?)?,
            accuracy: accuracy(r.u8()?)?,
        })
    } else {
        None
    };
    Some(Facts {
        continues,
        realm,
        user,
        names,
        started_at,
        end,
        peer_leg: has(3),
        allocations: r.varint()?,
        usage: read_usage(&mut r)?,
        usage_delta: read_usage(&mut r)?,
    })
}

/// The body of a packed event; `None` if it is damaged.
pub(crate) fn unpack_body(data: &[u8]) -> Option<Bytes> {
    let mut whole = Bytes::from(unpack(data)?);
    let mut r = Reader(&whole);
    r.bytes()?;
    let at = whole.len() - r.0.len();
    whole.advance(at);
    Some(whole)
}

pub(crate) fn names(event: &SessionEvent) -> Vec<u8> {
    let mut w = Writer(Vec::new());
    w.varint(event.usernames.len() as u64);
    for username in &event.usernames {
        w.bytes(username);
    }
    for (name, value) in &event.labels {
        w.bytes(name.as_bytes());
        w.bytes(value);
    }
    w.0
}

/// Usernames, and labels by name.
pub(crate) type Names = (Vec<Vec<u8>>, Vec<(String, Vec<u8>)>);

/// What [`Facts::names`] holds; `None` if it is damaged.
pub(crate) fn unpack_names(names: &[u8]) -> Option<Names> {
    let mut r = Reader(names);
    let mut usernames = Vec::new();
    for _ in 0..r.varint()? {
        usernames.push(r.bytes()?.to_vec());
    }
    let mut labels = Vec::new();
    while !r.is_empty() {
        labels.push((
            String::from_utf8_lossy(r.bytes()?).into_owned(),
            r.bytes()?.to_vec(),
        ));
    }
    Some((usernames, labels))
}

fn usage(w: &mut Writer, usage: &Usage) {
    for leg in [&usage.legs.client, &usage.legs.peer] {
        w.varint(leg.received_packets);
        w.varint(leg.received_bytes);
        w.varint(leg.sent_packets);
        w.varint(leg.sent_bytes);
    }
    w.varint(usage.billable_bytes);
}

fn read_usage(r: &mut Reader<'_>) -> Option<Usage> {
    let mut leg = || {
        Some(Counters {
            received_packets: r.varint()?,
            received_bytes: r.varint()?,
            sent_packets: r.varint()?,
            sent_bytes: r.varint()?,
        })
    };
    let legs = Legs {
        client: leg()?,
        peer: leg()?,
    };
    Some(Usage {
        legs,
        billable_bytes: r.varint()?,
    })
}

/// The number of a reason: see [`CloseReason::ALL`].
pub(crate) fn reason_code(reason: CloseReason) -> u8 {
    let place = CloseReason::ALL.iter().position(|one| *one == reason);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or_else(|| {
            internal_error!("a reason for an end that has no number: {reason:?}");
            u8::MAX // read back as none
        })
}

pub(crate) fn reason(code: u8) -> Option<CloseReason> {
    CloseReason::ALL.get(usize::from(code)).copied()
}

/// A session's end from its columns; `None` while it is open.
pub(crate) fn end(
    ended_at: Option<i64>,
    reason: Option<i64>,
    accuracy: Option<i64>,
) -> Option<(Timestamp, CloseReason, Accuracy)> {
    let code = |code: Option<i64>| u8::try_from(code?).ok();
    Some((
        Timestamp(nat(ended_at?)),
        self::reason(code(reason)?)?,
        self::accuracy(code(accuracy)?)?,
    ))
}

pub(crate) fn accuracy_code(accuracy: Accuracy) -> u8 {
    match accuracy {
        Accuracy::Exact => 0,
        Accuracy::LowerBound => 1,
    }
}

pub(crate) fn accuracy(code: u8) -> Option<Accuracy> {
    [Accuracy::Exact, Accuracy::LowerBound]
        .get(usize::from(code))
        .copied()
}
