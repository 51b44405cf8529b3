//! Two listeners on one address: the second to start would find it taken.

use std::net::SocketAddr;

use super::{Check, Step, key_path};
use crate::config::{Source, SourceKind};

impl Check<'_> {
    /// All of them, in the order of the file; `sources` by their places in it, the others by their keys.
    pub(super) fn listeners<'s>(
        &mut self,
        sources: impl Iterator<Item = (usize, &'s Source)>,
        others: impl IntoIterator<Item = (Vec<Step>, Option<SocketAddr>)>,
    ) {
        let mut all: Vec<(Vec<Step>, SocketAddr)> = sources
            .filter_map(|(index, source)| match &source.kind {
                SourceKind::Direct(direct) => {
                    Some((key_path!["source", index, "listen"].to_vec(), direct.listen))
                }
                SourceKind::Redis(_) => None,
            })
            .collect();
        // What is no address has been reported already.
        all.extend(
            others
                .into_iter()
                .filter_map(|(key, address)| Some((key, address?))),
        );
        for (place, (key, address)) in all.iter().enumerate() {
            if let Some((other, taken)) = all[..place].iter().find(|(_, taken)| collide(*taken, *address)) {
                let other = super::super::locate::display(other);
                self.wrong::<()>(
                    key,
                    format!(
                        "{address} is taken by `{other}` ({taken}); give each listener a port of its own"
                    ),
                );
            }
        }
    }
}

/// Whether both cannot be listened on. One of all addresses takes its port on each, of both families.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |address: SocketAddr| address.ip().is_unspecified();
    let same = one.ip().to_canonical() == other.ip().to_canonical();
    let over =
        |wide: SocketAddr, narrow: SocketAddr| everywhere(wide) && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (same || over(one, other) || over(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_collide() {
        let collide = |one: &str, other: &str| match (one.parse(), other.parse()) {
            (Ok(one), Ok(other)) => collide(one, other),
            _ => unreachable!("addresses of this test"),
        };
        assert!(collide("127.0.0.1:6380", "127.0.0.1:6380"));
        assert!(collide("0.0.0.0:6380", "127.0.0.1:6380"));
        assert!(collide("10.0.0.1:6380", "[::]:6380"));
        assert!(collide("127.0.0.1:6380", "[::ffff:127.0.0.1]:6380"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:6380", "127.0.0.2:6380"));
        assert!(!collide("127.0.0.1:6380", "127.0.0.1:6381"));
        assert!(!collide("0.0.0.0:6380", "[::1]:6380"));
    }
}
