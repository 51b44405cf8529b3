//! Patterns of the settings: who the user in a username is, and which realms are a source's own. Over raw bytes, since
//! coturn's names need not be UTF-8.

use std::{fmt, sync::Arc};

use regex::bytes::{Regex, RegexSet};

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// It is no regular expression: what is wrong about it.
    Syntax(String),
    /// Compiled, it would take more than so many bytes.
    TooLarge(usize),
    /// It has no group `user`.
    NoUser,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Syntax(what) => write!(f, "is no regular expression: {what}"),
            PatternError::TooLarge(bytes) => write!(f, "is too large: compiled, it takes more than {bytes} bytes"),
            PatternError::NoUser => f.write_str(
                "the pattern has no group named `user`: write (?P<user>…) around the part that names the user",
            ),
        }
    }
}

impl std::error::Error for PatternError {}

impl From<regex::Error> for PatternError {
    fn from(error: regex::Error) -> PatternError {
        match error {
            regex::Error::CompiledTooBig(bytes) => PatternError::TooLarge(bytes),
            // The last line says what is wrong; the others draw where.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                PatternError::Syntax(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            }
        }
    }
}

/// For names of the TURN REST API: `<unix expiry>:<user>` gives its user, and an expiry alone gives none. Any other
/// name is the user. Fewer digits are no expiry: they may be an account's own (`1:victim`).
const DEFAULT: &str = r"^(?:\d{9,}:)?(?P<user>.*)$";

/// A regular expression that finds the user in a username: its group `user` is the user, its further named groups are
/// labels.
#[derive(Clone, Debug)]
pub struct UserPattern(Regex);

impl UserPattern {
    /// Compiles a pattern over raw bytes: `.` matches any byte, so that a username that is not UTF-8 has a user too.
    ///
    /// # Errors
    /// [`PatternError`]: it is no regular expression, is too large, or has no group `user`.
    pub fn new(pattern: &str) -> Result<UserPattern, PatternError> {
        // Bytes first; a pattern that needs Unicode classes (\p{L}) then matches valid UTF-8 only. `s`: a username may
        // hold a line feed, and must still match.
        let regex =
            Regex::new(&format!("(?s-u){pattern}")).or_else(|_| Regex::new(&format!("(?s){pattern}")))?;
        if regex.capture_names().flatten().any(|n| n == "user") {
            Ok(UserPattern(regex))
        } else {
            Err(PatternError::NoUser)
        }
    }

    /// The user in a username; `None` where the pattern does not match or gives nothing.
    #[must_use]
    pub fn user<'u>(&self, username: &'u [u8]) -> Option<&'u [u8]> {
        let user = self.0.captures(username)?.name("user")?.as_bytes();
        // An expiry without a user is a new name for each credential.
        let expiry =
            user.len() >= 9 && user.iter().all(u8::is_ascii_digit) && self.0.as_str().ends_with(DEFAULT);
        (!user.is_empty() && !expiry).then_some(user)
    }

    /// The labels in a username: the pattern's further named groups that matched.
    pub(crate) fn labels(&self, username: &[u8]) -> Vec<(Arc<str>, Box<[u8]>)> {
        if self.0.captures_len() <= 2 {
            return Vec::new(); // only the whole match and `user`
        }
        let Some(captures) = self.0.captures(username) else {
            return Vec::new(); // it does not match: it has no labels
        };
        self.0
            .capture_names()
            .flatten()
            .filter(|name| *name != "user")
            .filter_map(|name| Some((Arc::from(name), captures.name(name)?.as_bytes().into())))
            .collect()
    }
}

impl Default for UserPattern {
    #[allow(clippy::expect_used)] // a constant, compiled by a test
    fn default() -> UserPattern {
        UserPattern::new(DEFAULT).expect("the default pattern compiles")
    }
}

/// The realms that a source serves. By default, all.
#[derive(Clone, Debug, Default)]
pub struct RealmPatterns(Option<RegexSet>);

impl RealmPatterns {
    /// Compiles the names of realms, in which `*` stands for any bytes.
    ///
    /// # Errors
    /// [`PatternError::TooLarge`]
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<RealmPatterns, PatternError> {
        if patterns.iter().any(|p| p.as_ref() == "*") {
            return Ok(RealmPatterns(None));
        }
        let regexes = patterns.iter().map(|pattern| {
            let parts: Vec<String> = pattern.as_ref().split('*').map(regex::escape).collect();
            format!("(?s-u)^{}$", parts.join(".*"))
        });
        Ok(RealmPatterns(Some(RegexSet::new(regexes)?)))
    }

    /// Whether a realm is one of them.
    #[must_use]
    pub fn is_match(&self, realm: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|realms| realms.is_match(realm))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_default_pattern_takes_the_user_out_of_a_turn_rest_name() {
        let pattern = UserPattern::default();
        for (username, user) in [
            (&b"1795413634:cust_42"[..], Some(&b"cust_42"[..])),
            (
                b"1795413336:1999999999:cust_42/eu",
                Some(b"1999999999:cust_42/eu"),
            ),
            (b"plain name", Some(b"plain name")),
            (b"\xff\n\xfe", Some(b"\xff\n\xfe")),
            (b"", None),
            (b"1795413634:", None),
            (b"1795413634", None),
            (b"1:victim", Some(b"1:victim")),
            (b"12345678:victim", Some(b"12345678:victim")),
        ] {
            assert_eq!(pattern.user(username), user, "{username:?}");
        }
    }

    #[test]
    fn realms_are_matched_whole() {
        let realms = RealmPatterns::new(&["example.org", "*.tenants.example", "a+b"]).unwrap();
        for (realm, is) in [
            (&b"example.org"[..], true),
            (b"example.org.evil", false),
            (b"examplexorg", false),
            (b"one.tenants.example", true),
            (b"\xff\n.tenants.example", true),
            (b"tenants.example", false),
            (b"a+b", true),
            (b"aab", false),
            (b"", false),
        ] {
            assert_eq!(realms.is_match(realm), is, "{realm:?}");
        }
        assert!(RealmPatterns::new(&["a", "*"]).unwrap().is_match(b"any"));
        assert!(!RealmPatterns::new(&[""; 0]).unwrap().is_match(b"any"));
    }

    #[test]
    fn labels_are_the_other_groups() {
        let pattern = UserPattern::new(r"^(?P<tenant>\w+)-(?P<user>\w+)(?:@(?P<zone>\w+))?$").unwrap();
        assert_eq!(pattern.user(b"acme-bob"), Some(&b"bob"[..]));
        assert_eq!(
            pattern.labels(b"acme-bob"),
            vec![(Arc::from("tenant"), b"acme"[..].into())]
        );
        assert_eq!(pattern.labels(b"nothing"), vec![]);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_with_the_reason() {
        assert_eq!(UserPattern::new("(.*)").unwrap_err(), PatternError::NoUser);
        let syntax = UserPattern::new("(").unwrap_err();
        assert_eq!(syntax.to_string(), "is no regular expression: unclosed group");
        let large = UserPattern::new(r"(?P<user>\w{1000}{1000})").unwrap_err();
        assert!(matches!(large, PatternError::TooLarge(_)), "{large}");
    }
}
