//! What products' answers have in common, by their status.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | delivered |
//! | 3xx, 401, 403, 404, 405, 410 | held: the key, the address or what it names is wrong |
//! | 400, 422 | halved, down to the item that is rejected |
//! | 413 | halved |
//! | 409, 425, 429, every other 4xx | again, certain not to have been taken |
//! | 408, 5xx | again, perhaps taken |

use std::time::Duration;

use super::product::{Answer, Decoded, Item, ItemVerdict};
use crate::verdict::retry_after;

/// Longer words of a product are cut.
const WORDS: usize = 300;

/// What an answer means by its status alone.
#[must_use]
pub fn by_status(answer: &Answer<'_>, items: &[Item]) -> Decoded {
    let verdict = match answer.status {
        200..=299 => ItemVerdict::Delivered,
        300..=399 => ItemVerdict::Held(format!(
            "it answered {}: redirects are not followed, give the final address as url",
            answer.status
        )),
        401 | 403 => ItemVerdict::Held(format!("it refused the credentials: {}", words(answer))),
        404 | 405 | 410 => ItemVerdict::Held(format!(
            "there is no such thing at this address: {}",
            words(answer)
        )),
        400 | 413 | 422 => return Decoded::Halve(words(answer)),
        408 | 500..=599 => ItemVerdict::Uncertain(after(answer)),
        _ => ItemVerdict::Retry(after(answer)),
    };
    Decoded::all(verdict, items)
}

/// How long it asks to be left alone.
#[must_use]
pub fn after(answer: &Answer<'_>) -> Option<Duration> {
    let header = answer.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    retry_after(header, answer.at).map(Duration::from_millis)
}

/// What it says, for people: the status and the beginning of the body, on one line.
#[must_use]
pub fn words(answer: &Answer<'_>) -> String {
    let text = String::from_utf8_lossy(answer.body.get(..4 * WORDS).unwrap_or(answer.body)).into_owned();
    let said: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let said = said
        .iter()
        .filter(|word| !word.is_empty())
        .copied()
        .collect::<Vec<_>>();
    let said: String = said.join(" ").chars().take(WORDS).collect();
    if said.is_empty() {
        format!("answered {}", answer.status)
    } else {
        format!("answered {}: {said}", answer.status)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::{HeaderMap, HeaderValue};
    use turnhook_reducer::time::Timestamp;

    use super::*;

    fn of(status: u16, headers: &HeaderMap) -> Decoded {
        let answer = Answer {
            status,
            headers,
            body: b"so it\n is",
            at: Timestamp(0),
        };
        by_status(&answer, &[item()])
    }

    fn item() -> Item {
        Item {
            id: "evt_1".into(),
            customer: "c".into(),
            meter: "m".into(),
            at: 0,
            amounts: vec![],
            text: "{}".into(),
        }
    }

    #[test]
    fn the_table() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("7"));
        let seven = Some(Duration::from_secs(7));
        for (statuses, verdict) in [
            (&[200, 202, 204][..], ItemVerdict::Delivered),
            (&[409, 425, 429, 451], ItemVerdict::Retry(seven)),
            (&[408, 500, 503, 504], ItemVerdict::Uncertain(seven)),
        ] {
            for status in statuses {
                assert_eq!(
                    of(*status, &headers),
                    Decoded::Each(vec![verdict.clone()]),
                    "{status}"
                );
            }
        }
        for status in [301, 401, 403, 404, 410] {
            let Decoded::Each(verdicts) = of(status, &headers) else {
                panic!("{status}")
            };
            assert!(matches!(verdicts[..], [ItemVerdict::Held(_)]), "{status}");
        }
        for status in [400, 413, 422] {
            let words = format!("answered {status}: so it is");
            assert_eq!(of(status, &headers), Decoded::Halve(words));
        }
    }
}
