//! What `ps` answers.

use turnhook_reducer::message::AllocationId;

use crate::{coturn::lines, target::Target};

/// By how much the ages of an allocation may differ: coturn counts whole seconds by its own clock.
const AGE_TOLERANCE: u64 = 2;

/// One session of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) id: AllocationId,
    pub(crate) username: &'a [u8],
    pub(crate) realm: &'a [u8],
    pub(crate) client: &'a [u8],
    pub(crate) server: &'a [u8],
    pub(crate) seconds: Option<u64>,
    /// `None` where the listing does not say.
    pub(crate) mobile: Option<bool>,
}

impl Entry<'_> {
    /// Whether this is the very allocation.
    pub(crate) fn is(&self, target: &Target) -> bool {
        let same_client = match (&target.client, target.age, self.seconds) {
            (Some(client), _, _) => self.client == &**client,
            (None, Some(age), Some(seconds)) => age.as_secs().abs_diff(seconds) <= AGE_TOLERANCE,
            (None, _, _) => false,
        };
        let same_server = target
            .server
            .as_ref()
            .is_none_or(|server| self.server == &**server);
        self.id == target.id
            && self.username == &*target.username
            && self.realm == &*target.realm
            && same_client
            && same_server
    }
}

/// All sessions that an answer lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
    /// There are more than are listed.
    pub(crate) cut: bool,
}

impl<'a> Listing<'a> {
    /// `None` where the answer does not end as a listing does: then nothing can be said of what it lacks.
    pub(crate) fn read(answer: &'a [u8]) -> Option<Listing<'a>> {
        let mut listing = Listing::default();
        let mut whole = false;
        for line in lines(answer) {
            if let Some((id, username)) = head(line) {
                listing.entries.push(Entry {
                    id,
                    username,
                    realm: b"",
                    client: b"",
                    server: b"",
                    seconds: None,
                    mobile: None,
                });
            } else if line == b"..." {
                listing.cut = true;
            } else if line.starts_with(b"Total sessions") {
                whole = true;
            } else if let Some(entry) = listing.entries.last_mut() {
                detail(entry, line);
            }
        }
        whole.then_some(listing)
    }
}

/// `1) id=000000000000000002, user <1795712096:cust_42>:`
fn head(line: &[u8]) -> Option<(AllocationId, &[u8])> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = line
        .get(digits..)
        .filter(|_| digits > 0)?
        .strip_prefix(b") id=")?;
    let (id, rest) = rest.split_at_checked(18)?;
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    // A name may hold `>` and `:` itself, but no blank and no newline.
    let username = rest.strip_prefix(b", user <")?.strip_suffix(b">:")?;
    Some((AllocationId(id), username))
}

fn detail<'a>(entry: &mut Entry<'a>, line: &'a [u8]) {
    if let Some(realm) = line.strip_prefix(b"realm: ") {
        entry.realm = realm;
    } else if let Some(rest) = line.strip_prefix(b"client addr ") {
        const SERVER: &[u8] = b", server addr ";
        if let Some(at) = rest.windows(SERVER.len()).position(|w| w == SERVER) {
            entry.client = rest.get(..at).unwrap_or_default();
            entry.server = rest.get(at + SERVER.len()..).unwrap_or_default();
        }
    } else if let Some(rest) = line.strip_prefix(b"started ") {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number = rest.get(..digits).and_then(|n| std::str::from_utf8(n).ok());
        entry.seconds = number.and_then(|n| n.parse().ok());
    } else if let Some(rest) = line.strip_prefix(b"mobile: ") {
        entry.mobile = match rest {
            b"ON" => Some(true),
            b"OFF" => Some(false),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::time::Duration;

    use super::*;

    const ANSWER: &[u8] = b"\r\n    1) id=000000000000000001, user <1795813848:cust_42>:\r\n      realm: example.org\r\n      started 2 secs ago\r\n      expiring in 775 secs\r\n      client protocol UDP, relay protocol UDP\r\n      client addr 127.0.0.1:48791, server addr 127.0.0.1:41478\r\n      relay addr 127.0.0.1:56142\r\n      fingerprints enforced: ON\r\n      mobile: OFF\r\n      usage: rp=3, rb=324, sp=2, sb=216\r\n       rate: r=0, s=0, total=0 (bytes per sec)\r\n\r\n    2) id=001000000000000002, user <a>:%s/<b>>:\r\n      realm: other.example\r\n      started 60 secs ago\r\n      client addr [::1]:53426, server addr [::1]:41478\r\n      mobile: ON\r\n      peers:\r\n          127.0.0.2:3481\r\n\r\n  Total sessions: 2\r\n\r\n> ";

    fn first() -> Target {
        Target {
            id: AllocationId(1),
            username: (*b"1795813848:cust_42").into(),
            realm: (*b"example.org").into(),
            client: Some((*b"127.0.0.1:48791").into()),
            server: Some((*b"127.0.0.1:41478").into()),
            age: Some(Duration::from_secs(2)),
        }
    }

    #[test]
    fn a_listing_is_read_to_the_last_name() {
        let listing = Listing::read(ANSWER).unwrap();
        assert!(!listing.cut);
        let [one, two] = listing.entries.as_slice() else {
            panic!("{listing:?}")
        };
        assert!(one.is(&first()), "{one:?}");
        assert_eq!((one.mobile, two.mobile), (Some(false), Some(true)));
        assert_eq!(two.username, b"a>:%s/<b>");
        assert_eq!((two.client, two.seconds), (b"[::1]:53426".as_slice(), Some(60)));
        assert!(!two.is(&first()));
    }

    /// Each alone is enough to be somebody else.
    #[test]
    fn whoever_differs_in_anything_is_somebody_else() {
        let listing = Listing::read(ANSWER).unwrap();
        let entry = &listing.entries[0];
        let others = [
            Target {
                id: AllocationId(2),
                ..first()
            },
            Target {
                username: (*b"1795813848:cust_4").into(),
                ..first()
            },
            Target {
                realm: (*b"example.com").into(),
                ..first()
            },
            Target {
                client: Some((*b"127.0.0.1:48792").into()),
                ..first()
            },
            Target {
                server: Some((*b"127.0.0.1:41479").into()),
                ..first()
            },
            Target {
                client: None,
                server: None,
                age: Some(Duration::from_secs(5)),
                ..first()
            },
            Target {
                client: None,
                server: None,
                age: None,
                ..first()
            },
        ];
        for other in others {
            assert!(!entry.is(&other), "{other:?}");
        }
        let by_age = Target {
            client: None,
            server: None,
            age: Some(Duration::from_secs(4)),
            ..first()
        };
        assert!(entry.is(&by_age));
    }

    #[test]
    fn what_is_cut_is_known_to_be() {
        assert!(
            Listing::read(b"\r\n...\r\n  Total sessions: 300\r\n> ")
                .unwrap()
                .cut
        );
        assert!(
            Listing::read(b"\r\n  Total sessions: 0\r\n\r\n> ")
                .unwrap()
                .entries
                .is_empty()
        );
        for broken in [b"".as_slice(), b"Unknown command\r\n\r\n> ", &ANSWER[..400]] {
            assert_eq!(Listing::read(broken), None);
        }
    }
}
