//! What must never be printed: kept so that `Debug`, `check` and errors cannot.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "***";

/// A password, token or signing secret.
#[derive(Clone)]
pub struct Secret(pub SecretString);

impl Secret {
    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(SecretString::from(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::from)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// A URL that may hold a password or a token: shown without them.
#[derive(Clone)]
pub struct SecretUrl(pub SecretString);

impl SecretUrl {
    /// The URL with its password, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The URL, its password and its query hidden; no part of one that cannot be read.
    #[must_use]
    pub fn redacted(&self) -> String {
        let Ok(mut url) = Url::parse(self.expose()) else {
            return HIDDEN.to_owned();
        };
        if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
            return HIDDEN.to_owned();
        }
        // Some drivers take the password as a query parameter, and what an endpoint's query holds nobody knows.
        let endpoint = matches!(url.scheme(), "http" | "https");
        let query: Vec<(String, String)> = url
            .query_pairs()
            .map(|(key, value)| {
                let lower = key.to_ascii_lowercase();
                let value = if endpoint
                    || ["pass", "key", "secret", "token"]
                        .iter()
                        .any(|word| lower.contains(word))
                {
                    HIDDEN.into()
                } else {
                    value
                };
                (key.into_owned(), value.into_owned())
            })
            .collect();
        if !query.is_empty() {
            url.query_pairs_mut().clear().extend_pairs(query);
        }
        if endpoint {
            hide_path(&mut url);
        }
        url.to_string()
    }
}

/// Hides what can be a token in an endpoint's path: all but short words, and versions.
pub fn hide_path(url: &mut Url) {
    let is_word = |part: &str| {
        let word = part.len() <= 12
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_');
        let version = part.strip_prefix('v').is_some_and(|digits| {
            digits.len() <= 2 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        });
        word || version
    };
    let shown: Vec<&str> = url
        .path()
        .split('/')
        .map(|part| if is_word(part) { part } else { HIDDEN })
        .collect();
    let shown = shown.join("/");
    url.set_path(&shown);
}

impl From<String> for SecretUrl {
    fn from(text: String) -> SecretUrl {
        SecretUrl(SecretString::from(text))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretUrl, D::Error> {
        String::deserialize(deserializer).map(SecretUrl::from)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_path_is_hidden_and_words_are_not() {
        for (url, shown) in [
            ("https://billing.example.com/", "https://billing.example.com/"),
            (
                "https://billing.example.com/turn/v1/events",
                "https://billing.example.com/turn/v1/events",
            ),
            (
                "https://hooks.example.com/in/T024BE7LH/8d3f",
                "https://hooks.example.com/in/***/***",
            ),
            (
                "https://h.example.com/hooks/abcdefghijklmnopq/x",
                "https://h.example.com/hooks/***/x",
            ),
            (
                "https://h.example.com/bot123:ABC/send",
                "https://h.example.com/***/send",
            ),
        ] {
            assert_eq!(SecretUrl::from(url.to_owned()).redacted(), shown);
        }
        let redis = "rediss://redis.example.com:6380/12";
        assert_eq!(SecretUrl::from(redis.to_owned()).redacted(), redis);
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        for text in [
            "redis://user:hunter2@127.0.0.1:6379/0",
            "redis://:hunter2@127.0.0.1",
            "postgres://127.0.0.1/db?user=x&password=hunter2",
            "redis-sentinel://u:hunter2@h:26379?sentinelPassword=hunter2",
            "https://billing.example.com/turn?code=hunter2&token=hunter2",
            "not a url hunter2",
        ] {
            let url = SecretUrl::from(text.to_owned());
            let shown = format!("{url} {url:?} {}", serde_json::json!(url));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let secret = Secret::from("hunter2".to_owned());
        let shown = format!("{secret:?} {}", serde_json::json!(secret));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_url_without_secrets_is_shown_as_it_is() {
        let url = SecretUrl::from("redis://user@127.0.0.1:6379/3".to_owned());
        assert_eq!(url.to_string(), "redis://user@127.0.0.1:6379/3");
    }
}
