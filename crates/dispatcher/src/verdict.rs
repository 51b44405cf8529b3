//! What an answer means for a delivery. Pure.
//!
//! | answer | verdict |
//! |---|---|
//! | 2xx | delivered |
//! | no answer: refused, reset, timeout, DNS, TLS | retry |
//! | 1xx, 3xx (redirects are not followed), 408, 425, 429, 5xx, every other 4xx | retry |
//! | 400 | doubted: the receiver will never take this, or it cannot verify any signature; tried again for an hour |
//! | 413, 422 | rejected: the receiver says that it will never take this; dead letter at once |
//! | 410 | gone: the endpoint is paused, and everything is kept |
//!
//! `Retry-After`, in seconds or as an HTTP date, delays the retry: on 429 and 503 of the whole
//! endpoint, else of this delivery.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use turnhook_reducer::time::Timestamp;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was taken.
    Delivered,
    /// Try again later.
    Retry,
    /// Perhaps never: libraries of Standard Webhooks answer 400 to a signature that they cannot verify, as after a
    /// rotation that went wrong. Try again for a while.
    Doubted,
    /// Never: trying again cannot help.
    Rejected,
    /// The endpoint is gone: pause it.
    Gone,
}

/// The verdict for a status, or for no answer at all (`None`).
#[must_use]
pub fn verdict(status: Option<StatusCode>) -> Verdict {
    match status.map(|status| status.as_u16()) {
        Some(200..=299) => Verdict::Delivered,
        Some(400) => Verdict::Doubted,
        Some(413 | 422) => Verdict::Rejected,
        Some(410) => Verdict::Gone,
        _ => Verdict::Retry,
    }
}

/// Whether the status speaks for the endpoint rather than for one delivery: its `Retry-After` then
/// holds for all.
#[must_use]
pub fn holds_endpoint(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Whether a failure says that nobody is there (or cannot take anything now), whichever delivery asks.
#[must_use]
pub fn is_unreachable(status: Option<StatusCode>) -> bool {
    matches!(
        status.map(|status| status.as_u16()),
        None | Some(429 | 502 | 503 | 504)
    )
}

/// How many milliseconds a `Retry-After` header asks to wait: it has seconds, or an HTTP date, which is compared with
/// `wall`, the wall clock. `None` if it is unreadable or not in the future.
#[must_use]
pub fn retry_after(header: &str, wall: Timestamp) -> Option<u64> {
    let header = header.trim();
    let asked = if header.bytes().all(|b| b.is_ascii_digit()) && !header.is_empty() {
        // More digits than fit are a long time: whoever waits has a bound of its own.
        header.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000)
    } else {
        let date = httpdate::parse_http_date(header).ok()?;
        Timestamp(millis(date.duration_since(UNIX_EPOCH).ok()?)).since(wall)
    };
    (asked > 0).then_some(asked)
}

/// Whole milliseconds, at most u64's.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn of(status: u16) -> Verdict {
        verdict(Some(StatusCode::from_u16(status).unwrap()))
    }

    #[test]
    fn the_table() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(of(status), Verdict::Delivered, "{status}");
        }
        for status in [
            100, 301, 302, 304, 307, 308, 401, 403, 404, 408, 409, 425, 429, 451, 500, 502, 503, 504, 599,
        ] {
            assert_eq!(of(status), Verdict::Retry, "{status}");
        }
        assert_eq!(of(400), Verdict::Doubted);
        for status in [413, 422] {
            assert_eq!(of(status), Verdict::Rejected, "{status}");
        }
        assert_eq!(of(410), Verdict::Gone);
        assert_eq!(verdict(None), Verdict::Retry);
        assert!(
            holds_endpoint(StatusCode::TOO_MANY_REQUESTS) && holds_endpoint(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert!(!holds_endpoint(StatusCode::INTERNAL_SERVER_ERROR));
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = Timestamp(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let after = |header| retry_after(header, now);
        assert_eq!(after("120"), Some(120_000));
        assert_eq!(after(" 5 "), Some(5_000));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60_000));
        assert_eq!(after("Sunday, 06-Nov-94 08:49:47 GMT"), Some(10_000));
        assert_eq!(after("99999999999999999999999"), Some(u64::MAX));
        for nothing in [
            "",
            "0",
            "-5",
            "soon",
            "1.5",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1904 08:49:37 GMT",
        ] {
            assert_eq!(after(nothing), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_passed_over(header in "\\PC*", wall: u64) {
            prop_assert_ne!(retry_after(&header, Timestamp(wall)), Some(0));
        }

        #[test]
        fn every_status_has_a_verdict_and_2xx_alone_is_success(status in 100u16..1000) {
            prop_assert_eq!(of(status) == Verdict::Delivered, (200..300).contains(&status));
        }
    }
}
