//! Addresses that no webhook is ever sent to, and the resolver that leaves them out when connecting: a
//! name that is harmless when the configuration is read may point elsewhere later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

const METADATA: &str = "it is a cloud provider's metadata service";
const LINK_LOCAL: &str = "it is link-local, where clouds keep their metadata services";
const NO_HOST: &str = "it is not the address of one host";

/// Why an address is refused; `None` if it is not.
#[must_use]
pub fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => refused_v4(v4),
        IpAddr::V6(v6) => refused_v6(v6),
    }
}

fn refused_v4(ip: Ipv4Addr) -> Option<&'static str> {
    // Alibaba Cloud; Azure's wire server; Oracle Cloud.
    const SERVICES: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    if ip.is_link_local() {
        Some(LINK_LOCAL)
    } else if SERVICES.contains(&ip) {
        Some(METADATA)
    } else if ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast() {
        Some(NO_HOST)
    } else {
        None
    }
}

fn refused_v6(ip: Ipv6Addr) -> Option<&'static str> {
    // AWS; Google Cloud.
    const SERVICES: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    if ip.is_unicast_link_local() {
        Some(LINK_LOCAL)
    } else if SERVICES.contains(&ip) {
        Some(METADATA)
    } else if ip.is_unspecified() || ip.is_multicast() {
        Some(NO_HOST)
    } else {
        embedded_v4(ip).and_then(refused_v4)
    }
}

/// The IPv4 address that a mapped, IPv4-compatible, translated (RFC 6052 with the well-known prefix, RFC 8215 as most
/// translators use it) or 6to4 address leads to.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return Some(mapped);
    }
    let o = ip.octets();
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, _, _] if ip.is_loopback() => None,
        [0, 0, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 0 | 1, _, _, _, _, _] => {
            Some(Ipv4Addr::new(o[12], o[13], o[14], o[15]))
        }
        [0x2002, ..] => Some(Ipv4Addr::new(o[2], o[3], o[4], o[5])),
        _ => None,
    }
}

/// Resolves as the system does, and leaves refused addresses out.
pub(crate) struct Resolver;

/// A name led to nothing but refused addresses.
#[derive(Debug, thiserror::Error)]
#[error("{name} resolves to {address}, which is refused: {why}")]
pub(crate) struct Refused {
    name: String,
    address: IpAddr,
    why: &'static str,
}

/// A name led nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the name {name} could not be resolved: {error}")]
pub(crate) struct Unresolved {
    name: String,
    error: std::io::Error,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map(Vec::from_iter);
            match found {
                Ok(found) => allowed(name, found),
                Err(error) => Err(Unresolved { name, error }.into()),
            }
        })
    }
}

fn allowed(name: String, found: Vec<SocketAddr>) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let (kept, left_out): (Vec<_>, Vec<_>) = found.into_iter().partition(|addr| refused(addr.ip()).is_none());
    match left_out.first().map(SocketAddr::ip) {
        Some(address) if kept.is_empty() => Err(Refused {
            name,
            address,
            why: refused(address).unwrap_or_default(),
        }
        .into()),
        _ => Ok(Box::new(kept.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn refuses_link_local_metadata_and_no_hosts_in_every_clothing() {
        for ip in [
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:2::a9fe:a9fe",
            "::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(refused(ip.parse().unwrap()).is_some(), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "2606:4700::1",
            "64:ff9b::808:808",
            "64:ff9b:1::808:808",
        ] {
            assert_eq!(refused(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn a_name_keeps_its_harmless_addresses() {
        let addr = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        let kept = allowed("x".into(), vec![addr("169.254.169.254"), addr("10.0.0.1")])
            .ok()
            .unwrap();
        assert_eq!(kept.collect::<Vec<_>>(), [addr("10.0.0.1")]);
        let error = allowed("x".into(), vec![addr("fe80::1")])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("fe80::1") && error.contains("link-local"),
            "{error}"
        );
    }
}
