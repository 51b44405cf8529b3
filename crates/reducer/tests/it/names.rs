//! Histories that must come out so: whose an allocation is.

use turnhook_reducer::{
    ServerRef,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    time::Timestamp,
};

use crate::world::{World, bytes};

const MB: u64 = 1_000_000;

impl World {
    /// As a channel says it whose realm a client has switched.
    fn under(&mut self, realm: &str, user: &str, id: u64, kind: Kind<'_>) {
        let message = Message {
            realm: realm.as_bytes(),
            username: user.as_bytes(),
            id: AllocationId(id),
            kind,
        };
        self.reducer.message(Timestamp(self.now), self.server, &message);
        self.advance();
    }

    /// Billed, by realm and user.
    fn bills(&self) -> Vec<(String, String, u64)> {
        let mut bills = std::collections::BTreeMap::new();
        for event in &self.events {
            let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
            let name = (
                text(&event.realm),
                event.user.as_deref().map(text).unwrap_or_default(),
            );
            *bills.entry(name).or_insert(0) += event.usage_delta.billable_bytes;
        }
        bills
            .into_iter()
            .map(|((realm, user), n)| (realm, user, n))
            .collect()
    }
}

/// From a channel's `turn/realm/<realm>/user/<username>`: a realm ends at the first `/user/`.
const CLAIMS: [(&str, &str); 4] = [
    ("tenant-b.example", "mallory"),
    ("example.org", "victim/user/mallory"),
    ("", "mallory"),
    ("tenant-b.example", "victim/user/mallory"),
];

/// A client switches its realm in mid-life, in every way, while others' allocations of the same number are open.
#[test]
fn h12_a_realm_that_changes_in_mid_life_bills_nobody_else() {
    for direct in [false, true] {
        for (realm, username) in CLAIMS {
            let mut w = World::new(Rules {
                direct,
                ..Rules::default()
            });
            let (here, elsewhere) = if direct {
                (
                    w.reducer.server(b"10.0.0.2/-/0"),
                    w.reducer.server(b"10.0.0.3/-/0"),
                )
            } else {
                (ServerRef::UNKNOWN, ServerRef::UNKNOWN)
            };
            w.server = elsewhere;
            w.open("victim", 7);
            w.server = here;
            w.open("mallory", 7);
            w.at(10.0).traffic("mallory", 7, 1000, MB);
            w.at(20.0);
            w.under(
                realm,
                username,
                7,
                Kind::Traffic(Leg::Client, bytes(1000, MB + 4000)),
            );
            w.under(realm, username, 7, Kind::Traffic(Leg::Peer, bytes(1000, MB)));
            let status = w.status("127.0.0.1:40000", 600);
            w.under(realm, username, 7, Kind::Refreshed(status));
            w.at(30.0);
            w.under(realm, username, 7, Kind::Deleted);
            w.under(
                realm,
                username,
                7,
                Kind::TotalTraffic(Leg::Client, bytes(2000, 2 * MB + 8000)),
            );
            w.under(
                realm,
                username,
                7,
                Kind::TotalTraffic(Leg::Peer, bytes(2000, 2 * MB)),
            );
            w.server = elsewhere;
            w.at(40.0).close("victim", 7, 0, 0);
            w.at(5000.0).advance();
            let bills = w.bills();
            let of = |user: &str| bills.iter().find(|(r, u, _)| r == "example.org" && u == user);
            assert_eq!(
                of("mallory").map(|b| b.2),
                Some(4 * MB),
                "direct: {direct}, {realm} {username}: {bills:?}"
            );
            assert!(
                bills.iter().all(|(_, user, n)| user == "mallory" || *n == 0),
                "{bills:?}"
            );
            assert_eq!(bills.len(), 2, "nobody else is heard of: {bills:?}");
            assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
        }
    }
}

/// Another tenant may have a user of the same name, and with the same number: it had a `new` of its own.
#[test]
fn h12_namesakes_of_two_tenants_are_two() {
    let mut w = World::new(Rules::default());
    w.open("ann", 7);
    let status = w.status("127.0.0.1:50000", 600);
    w.under("tenant-b.example", "ann", 7, Kind::New(status));
    w.at(10.0).traffic("ann", 7, 1000, MB);
    w.under(
        "tenant-b.example",
        "ann",
        7,
        Kind::Traffic(Leg::Client, bytes(9, 3300)),
    );
    w.under(
        "tenant-b.example",
        "ann",
        7,
        Kind::Traffic(Leg::Peer, bytes(9, 3000)),
    );
    w.at(20.0).close("ann", 7, 1000, MB);
    w.under("tenant-b.example", "ann", 7, Kind::Deleted);
    w.under(
        "tenant-b.example",
        "ann",
        7,
        Kind::TotalTraffic(Leg::Client, bytes(9, 3300)),
    );
    w.under(
        "tenant-b.example",
        "ann",
        7,
        Kind::TotalTraffic(Leg::Peer, bytes(9, 3000)),
    );
    w.at(5000.0).advance();
    let bills = w.bills();
    assert!(
        bills.contains(&("example.org".into(), "ann".into(), 2 * MB)),
        "{bills:?}"
    );
    assert!(
        bills.contains(&("tenant-b.example".into(), "ann".into(), 6000)),
        "{bills:?}"
    );
}

fn readdressed(addresses: bool) -> World {
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    let status = |w: &World| {
        if addresses {
            w.status("198.51.100.7:40000", 600)
        } else {
            Status {
                lifetime: 600,
                ..Status::default()
            }
        }
    };
    w.server = w.reducer.server(b"10.0.0.2/-/0");
    let granted = status(&w);
    w.message("ann", 7, Kind::New(granted));
    w.at(10.0).traffic("ann", 7, 3000, 3 * MB);
    w.at(90.0).advance();
    w.server = w.reducer.server(b"10.0.0.3/-/0");
    w.at(100.0).message("ann", 7, Kind::Refreshed(granted));
    w.at(110.0).traffic("ann", 7, 1000, MB);
    w.at(120.0).close("ann", 7, 4000, 4 * MB);
    w.at(100_000.0).advance();
    w
}

#[test]
fn h12_a_coturn_from_another_address_is_one_life_told_once() {
    let w = readdressed(true);
    assert_eq!(w.peer_bytes_told(), 4 * MB, "{:#?}", w.told());
    assert_eq!(
        w.events.iter().map(|e| e.usage_delta.billable_bytes).sum::<u64>(),
        8 * MB
    );
}

/// Without `local` and `remote` nobody can know that it is the same: what was told once is not told again.
#[test]
fn h12_a_coturn_from_another_address_that_says_no_addresses_is_not_told_twice() {
    let w = readdressed(false);
    let recorded = w.unattributed.iter().map(|u| u.usage.legs.peer.sent_bytes);
    let told = w.peer_bytes_told() + recorded.sum::<u64>();
    assert!((3 * MB..=4 * MB).contains(&told), "{told}: {:#?}", w.told());
}

/// A credential that names nobody groups by itself.
#[test]
fn h16_an_expiry_alone_is_no_user() {
    for username in ["1795413634", "1795413634:"] {
        let mut w = World::new(Rules::default());
        w.open(username, 1).open(username, 2);
        for id in [1, 2] {
            w.at(10.0 * id as f64)
                .traffic(username, id, 1000, MB)
                .close(username, id, 1000, MB);
        }
        w.at(5000.0).advance();
        assert_eq!(w.ends().len(), 2, "{username}: {:#?}", w.told());
        assert!(w.events.iter().all(|e| e.user.is_none()), "{username}");
    }
}
