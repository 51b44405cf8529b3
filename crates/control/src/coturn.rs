//! Which coturn it is that answers: by its banner and by `pc`.

use std::{fmt, net::IpAddr, str::FromStr};

/// The version in coturn's banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 4.
    pub major: u16,
    /// As numbers: 4.13 is newer than 4.9.
    pub minor: u16,
    /// 0 where none is given.
    pub patch: u16,
}

impl Version {
    /// The first one that no stranger can crash by a name, and that publishes the messages of long names.
    pub const SOUND: Version = Version {
        major: 4,
        minor: 13,
        patch: 0,
    };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = &'static str;

    /// `4.17` or `4.17.1`.
    fn from_str(text: &str) -> Result<Version, &'static str> {
        const WRONG: &str = "a version of coturn is written as in \"4.17\" or \"4.17.1\"";
        let numbers: Vec<u16> = text
            .split('.')
            .map(|n| n.parse().map_err(|_| WRONG))
            .collect::<Result<_, _>>()?;
        match *numbers.as_slice() {
            [major, minor] => Ok(Version {
                major,
                minor,
                patch: 0,
            }),
            [major, minor, patch] => Ok(Version { major, minor, patch }),
            _ => Err(WRONG),
        }
    }
}

/// `Coturn-4.6.1 'Gorst'`, a line of the banner.
pub(crate) fn version(banner: &[u8]) -> Option<Version> {
    let line = lines(banner).find_map(|line| line.strip_prefix(b"Coturn-"))?;
    let end = line
        .iter()
        .position(|b| !b.is_ascii_digit() && *b != b'.')
        .unwrap_or(line.len());
    std::str::from_utf8(line.get(..end)?).ok()?.parse().ok()
}

/// The lines of an answer, without what surrounds them.
pub(crate) fn lines(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer.split(|b| *b == b'\n').map(<[u8]>::trim_ascii)
}

/// A coturn, as its CLI describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coturn {
    /// By the banner; `None` where that names none.
    pub version: Option<Version>,
    /// What it listens on; none where `pc` names none.
    pub listeners: Vec<IpAddr>,
    /// For UDP, TCP and TLS, the alternative ones included.
    pub ports: Vec<u16>,
}

impl Coturn {
    /// From the banner and the answer to `pc`. `None` where that does not say on which port it listens.
    pub(crate) fn read(version: Option<Version>, parameters: &[u8]) -> Option<Coturn> {
        let mut coturn = Coturn {
            version,
            listeners: Vec::new(),
            ports: Vec::new(),
        };
        for line in lines(parameters) {
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(": ")) else {
                continue;
            };
            let value = value.trim();
            match key {
                "Listener addr" => coturn.listeners.extend(value.parse::<IpAddr>()),
                "listener-port"
                | "tls-listener-port"
                | "tls-listening-port"
                | "alt-listener-port"
                | "alt-tls-listener-port" => {
                    coturn.ports.extend(value.parse::<u16>().ok().filter(|p| *p != 0));
                }
                _ => {}
            }
        }
        (!coturn.ports.is_empty()).then_some(coturn)
    }

    /// Whether this server can be the one that calls itself so on the stream (`local=`).
    #[must_use]
    pub fn answers_for(&self, local: &[u8]) -> bool {
        let Some((address, port)) = split(local) else {
            return false;
        };
        let anywhere = self.listeners.is_empty() || self.listeners.iter().any(IpAddr::is_unspecified);
        self.ports.contains(&port) && (anywhere || self.listeners.contains(&address))
    }
}

/// `127.0.0.1:3478` or `[::1]:3478`.
fn split(local: &[u8]) -> Option<(IpAddr, u16)> {
    let (address, port) = std::str::from_utf8(local).ok()?.rsplit_once(':')?;
    let address = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    Some((address.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_banner_says_the_version() {
        let banner = b"TURN Server\r\nCoturn-4.6.1 'Gorst'\r\n\r\nType '?' for help\r\n";
        assert_eq!(version(banner), Some("4.6.1".parse().unwrap()));
        assert_eq!(version(b"Coturn-4.17.1 'Gorst'").unwrap().to_string(), "4.17.1");
        assert_eq!(version(b"TURN Server\r\nsomething else\r\n"), None);
        assert_eq!(version(b"Coturn-next"), None);
    }

    #[test]
    fn versions_are_numbers() {
        assert!("4.9".parse::<Version>().unwrap() < Version::SOUND);
        assert!("4.13".parse::<Version>().unwrap() >= Version::SOUND);
        assert!("4.17.1".parse::<Version>().unwrap() > Version::SOUND);
        for wrong in ["", "4", "4.x", "4.1.2.3", "4.-1", "v4.13"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_answers_for_what_it_listens_on() {
        let pc = b"  Listener addr: 127.0.0.1\r\n  Listener addr: ::1\r\n  no-udp: OFF\r\n  listener-port: 3478\r\n  tls-listener-port: 5349\r\n  alt-listener-port: 0\r\n";
        let coturn = Coturn::read(None, pc).unwrap();
        for own in ["127.0.0.1:3478", "127.0.0.1:5349", "[::1]:3478"] {
            assert!(coturn.answers_for(own.as_bytes()), "{own}");
        }
        for other in ["127.0.0.1:3479", "127.0.0.2:3478", "127.0.0.1:0", "127.0.0.1", ""] {
            assert!(!coturn.answers_for(other.as_bytes()), "{other}");
        }
        let anywhere = Coturn::read(None, b"listener-port: 3478\r\n").unwrap();
        assert!(anywhere.answers_for(b"10.0.0.7:3478"));
        assert!(!anywhere.answers_for(b"10.0.0.7:3479"));
        assert_eq!(Coturn::read(None, b"  verbose: OFF\r\n"), None);
    }
}
