//! The secrets of the TURN REST API, by which credentials are made.

use secrecy::{ExposeSecret, SecretString};

/// A secret, and which credentials were made with it.
#[derive(Clone, Debug)]
pub struct RestSecret {
    secret: SecretString,
    /// It made those that expire by then; `None`: all later ones.
    until: Option<u64>,
}

/// A line of a file of secrets that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestSecretError {
    /// There is none.
    #[error("has no secret")]
    None,
    /// The time of an old one cannot be read.
    #[error(
        "line {0}: write a secret, or an old one with when its last credential expires: SECRET until=UNIX_TIME"
    )]
    Line(usize),
    /// Two say that they are the present one.
    #[error(
        "line {0}: there is a present secret already; give the old one the time when its last credential expires: SECRET until=UNIX_TIME"
    )]
    Second(usize),
}

impl RestSecret {
    /// One secret a line. coturn asks once for a key and tries only that one, so of several it must be known which made
    /// a credential: an old one says until when its last ones are valid. (Whoever changes it at noon, with credentials
    /// of an hour, writes one o'clock.)
    ///
    /// # Errors
    /// [`RestSecretError`].
    pub fn parse_all(text: &str) -> Result<Vec<RestSecret>, RestSecretError> {
        let mut all: Vec<RestSecret> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let Some(secret) = words.next() else { continue };
            let until = match (words.next(), words.next()) {
                (None, _) => None,
                (Some(word), None) => {
                    let time = word.strip_prefix("until=").and_then(|time| time.parse().ok());
                    Some(time.ok_or(RestSecretError::Line(n + 1))?)
                }
                _ => return Err(RestSecretError::Line(n + 1)),
            };
            if until.is_none() && all.iter().any(|one| one.until.is_none()) {
                return Err(RestSecretError::Second(n + 1));
            }
            all.push(RestSecret {
                secret: SecretString::from(secret),
                until,
            });
        }
        if all.is_empty() {
            return Err(RestSecretError::None);
        }
        // The one that a credential was made with is the first that lasts as long as it.
        all.sort_by_key(|one| one.until.unwrap_or(u64::MAX));
        Ok(all)
    }

    /// Of these, the one that a credential of this expiry was made with.
    pub(super) fn of(all: &[RestSecret], expiry: u64) -> Option<&RestSecret> {
        all.iter()
            .find(|one| one.until.is_none_or(|until| expiry <= until))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.secret.expose_secret().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_old_secret_stands_for_what_it_made() {
        let all = RestSecret::parse_all("new\n\nold until=2000\nolder until=1000\n").unwrap();
        for (expiry, secret) in [
            (999, "older"),
            (1000, "older"),
            (1001, "old"),
            (2000, "old"),
            (2001, "new"),
        ] {
            assert_eq!(RestSecret::of(&all, expiry).unwrap().bytes(), secret.as_bytes());
        }
        let gone = RestSecret::parse_all("old until=2000").unwrap();
        assert!(RestSecret::of(&gone, 2001).is_none());
        assert_eq!(RestSecret::parse_all("\n").unwrap_err(), RestSecretError::None);
        assert_eq!(
            RestSecret::parse_all("a\nb\n").unwrap_err(),
            RestSecretError::Second(2)
        );
        for wrong in ["a until=", "a until=soon", "a b", "a until=1 c"] {
            assert_eq!(
                RestSecret::parse_all(wrong).unwrap_err(),
                RestSecretError::Line(1),
                "{wrong}"
            );
        }
        assert!(!format!("{all:?}").contains("new"));
    }
}
