//! How what a quota said is written down beside the change that it made.

use turnhook_reducer::{
    event::SessionId,
    time::Timestamp,
    user_event::{QuotaPeriod, QuotaReached, QuotaUnit},
};

use crate::codec::{Reader, Writer};

pub(crate) fn pack_quota(quota: &QuotaReached) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(64));
    w.u8(match quota.period {
        QuotaPeriod::Day => 0,
        QuotaPeriod::Month => 1,
        QuotaPeriod::Session => 2,
    });
    w.u8(match quota.unit {
        QuotaUnit::Bytes => 0,
        QuotaUnit::Seconds => 1,
    });
    w.varint(quota.limit);
    w.varint(quota.used);
    w.u8(u8::from(quota.span.is_some()) | u8::from(quota.session.is_some()) << 1);
    if let Some((start, end)) = quota.span {
        w.varint(start.0);
        w.varint(end.0);
    }
    if let Some(session) = quota.session {
        w.raw(&session.0);
    }
    w.bytes(quota.name.as_bytes());
    w.bytes(&quota.realm);
    w.bytes(&quota.user);
    w.0
}

/// `None` for what this version does not know.
pub(crate) fn unpack_quota(packed: &[u8]) -> Option<QuotaReached> {
    let mut r = Reader(packed);
    let period = match r.u8()? {
        0 => QuotaPeriod::Day,
        1 => QuotaPeriod::Month,
        2 => QuotaPeriod::Session,
        _ => return None,
    };
    let unit = match r.u8()? {
        0 => QuotaUnit::Bytes,
        1 => QuotaUnit::Seconds,
        _ => return None,
    };
    let (limit, used, flags) = (r.varint()?, r.varint()?, r.u8()?);
    let span = if flags & 1 == 0 {
        None
    } else {
        Some((Timestamp(r.varint()?), Timestamp(r.varint()?)))
    };
    let session = if flags & 2 == 0 {
        None
    } else {
        Some(SessionId(r.id()?))
    };
    Some(QuotaReached {
        name: String::from_utf8_lossy(r.bytes()?).into_owned(),
        period,
        unit,
        limit,
        used,
        span,
        session,
        realm: r.bytes()?.into(),
        user: r.bytes()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_as_it_was_written() {
        let mut quota = QuotaReached {
            name: "50GiB a day".to_owned(),
            period: QuotaPeriod::Day,
            unit: QuotaUnit::Bytes,
            limit: u64::MAX,
            used: 0,
            span: Some((Timestamp(1), Timestamp(u64::MAX))),
            session: None,
            realm: Box::from(*b"r\xff"),
            user: vec![0xfe; 512].into(),
        };
        assert_eq!(unpack_quota(&pack_quota(&quota)), Some(quota.clone()));
        (quota.period, quota.unit) = (QuotaPeriod::Session, QuotaUnit::Seconds);
        (quota.span, quota.session) = (None, Some(SessionId([7; 16])));
        let packed = pack_quota(&quota);
        assert_eq!(unpack_quota(&packed), Some(quota));
        assert_eq!(unpack_quota(&packed[..packed.len() - 1]), None);
        assert_eq!(unpack_quota(&[9]), None);
    }
}
