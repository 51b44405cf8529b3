//! What coturn is answered. Pure: the time and who is blocked are inputs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

use super::RestSecret;

/// What became of a question for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The key was given: whether the password is right, coturn finds out.
    Key,
    /// The user is blocked.
    Blocked,
    /// The credential is over.
    Expired,
    /// No name of the TURN REST API.
    Unknown,
    /// The gate does not know that its coturn is new enough.
    Closed,
}

impl Answer {
    /// All of them.
    pub const ALL: [Answer; 5] = [
        Answer::Key,
        Answer::Blocked,
        Answer::Expired,
        Answer::Unknown,
        Answer::Closed,
    ];

    /// As in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Key => "key",
            Answer::Blocked => "blocked",
            Answer::Expired => "expired",
            Answer::Unknown => "unknown",
            Answer::Closed => "closed",
        }
    }
}

/// What coturn reads of a realm every five seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealmOptions {
    /// Bytes in a second, of each allocation made from then on, in each direction.
    pub max_bps: Option<u64>,
    /// Allocations of a whole username at once.
    pub user_quota: Option<u64>,
    /// Allocations of the realm at once.
    pub total_quota: Option<u64>,
}

impl RealmOptions {
    pub(super) fn get(&self, realm: &[u8], what: &[u8]) -> Option<u64> {
        let option = what
            .strip_prefix(b"turn/realm/")?
            .strip_prefix(realm)?
            .strip_prefix(b"/")?;
        match option {
            b"max-bps" => self.max_bps,
            b"user-quota" => self.user_quota,
            b"total-quota" => self.total_quota,
            _ => None,
        }
    }
}

/// Of `turn/realm/<realm>/user/<username>/key`, for our realm. What stands between may hold anything.
pub(super) fn username<'a>(realm: &[u8], what: &'a [u8]) -> Option<&'a [u8]> {
    let rest = what.strip_prefix(b"turn/realm/")?.strip_prefix(realm)?;
    rest.strip_prefix(b"/user/")?.strip_suffix(b"/key")
}

/// When a credential of the TURN REST API is over: `<expiry>:<user>`, or the expiry alone.
fn expiry(username: &[u8]) -> Option<u64> {
    let digits = username.split(|b| *b == b':').next()?;
    std::str::from_utf8(digits)
        .ok()
        .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
}

/// The key of a username, as coturn makes it of the password that belongs to it.
pub(super) fn key(
    realm: &[u8],
    secrets: &[RestSecret],
    username: &[u8],
    now: u64,
    blocked: bool,
) -> (Answer, Option<String>) {
    let Some(expiry) = expiry(username) else {
        return (Answer::Unknown, None);
    };
    if expiry <= now {
        return (Answer::Expired, None);
    }
    if blocked {
        return (Answer::Blocked, None);
    }
    let secret = RestSecret::of(secrets, expiry).map(RestSecret::bytes);
    let Some(mut mac) = secret.and_then(|secret| Hmac::<Sha1>::new_from_slice(secret).ok()) else {
        return (Answer::Unknown, None);
    };
    mac.update(username);
    let password = STANDARD.encode(mac.finalize().into_bytes());
    let key = Md5::digest([username, b":", realm, b":", password.as_bytes()].concat());
    let hex = key.iter().map(|byte| format!("{byte:02x}")).collect();
    (Answer::Key, Some(hex))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NAME: &[u8] = b"1795712096:cust_42";

    fn ask(username: &[u8], now: u64, blocked: bool) -> (Answer, Option<String>) {
        let secrets = RestSecret::parse_all("north").unwrap();
        key(b"example.org", &secrets, username, now, blocked)
    }

    #[test]
    fn the_key_is_the_one_that_coturn_makes() {
        // printf '1795712096:cust_42' | openssl dgst -sha1 -hmac north -binary | base64, and md5sum of name, realm and that.
        let (answer, key) = ask(NAME, 1_795_712_095, false);
        assert_eq!(answer, Answer::Key);
        assert_eq!(key.as_deref(), Some("781de225c71818eb2469effcba7e7ba6"));
    }

    #[test]
    fn nobody_else_has_one() {
        assert_eq!(ask(NAME, 1_795_712_096, false), (Answer::Expired, None));
        assert_eq!(ask(NAME, 0, true), (Answer::Blocked, None));
        for name in [
            b"".as_slice(),
            b"cust_42",
            b":x",
            b"-5:x",
            b"1e9:x",
            b"99999999999999999999999:x",
        ] {
            assert_eq!(ask(name, 0, false), (Answer::Unknown, None));
        }
    }

    #[test]
    fn names_may_hold_anything_and_realms_are_exact() {
        let of = |what: &'static [u8]| username(b"example.org", what);
        assert_eq!(
            of(b"turn/realm/example.org/user/1:a/b/user/c/key/key"),
            Some(b"1:a/b/user/c/key".as_slice())
        );
        for other in [
            b"turn/realm/example.com/user/1:a/key".as_slice(),
            b"turn/realm/example.org.uk/user/1:a/key",
            b"turn/realm/example.org/max-bps",
            b"turn/origin/x",
        ] {
            assert_eq!(of(other), None);
        }
        let options = RealmOptions {
            max_bps: Some(7),
            ..RealmOptions::default()
        };
        assert_eq!(
            options.get(b"example.org", b"turn/realm/example.org/max-bps"),
            Some(7)
        );
        assert_eq!(
            options.get(b"example.org", b"turn/realm/example.org/user-quota"),
            None
        );
        assert_eq!(
            options.get(b"example.org", b"turn/realm/example.com/max-bps"),
            None
        );
    }
}
