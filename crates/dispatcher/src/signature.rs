//! Standard Webhooks signatures, symmetric `v1`:
//! `v1,<base64 of HMAC-SHA256 over "{id}.{timestamp}.{body}">`, one for each secret, space-separated.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

/// Header: the event's id, the same on every attempt.
pub const HEADER_ID: &str = "webhook-id";
/// Header: Unix seconds of the attempt.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// Header: the signatures.
pub const HEADER_SIGNATURE: &str = "webhook-signature";

/// How far a receiver lets the timestamp be off, in seconds, as the specification's own libraries do.
pub const TOLERANCE_SECONDS: u64 = 300;

const PREFIX: &str = "whsec_";
/// The specification's bounds for a key, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing key. Neither printed nor logged, and wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

/// What is wrong with a secret; never says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It has no `whsec_`.
    #[error("a secret starts with \"whsec_\": make one with `turnhook secret`")]
    Prefix,
    /// What follows is not base64.
    #[error(
        "what follows \"whsec_\" is not base64: copy the secret whole, or make one with `turnhook secret`"
    )]
    Base64,
    /// Its length is outside of 24 to 64 bytes.
    #[error("a secret holds 24 to 64 bytes, this one holds {0}: make one with `turnhook secret`")]
    Length(usize),
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes to make a secret of")]
    Randomness,
}

impl Secret {
    /// Whether both sign alike.
    pub(crate) fn is_same(&self, other: &Secret) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }

    /// Reads a `whsec_…` secret.
    ///
    /// # Errors
    /// If the prefix is missing, the rest is not base64, or is not 24 to 64 bytes.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = SecretSlice::from(STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?);
        let length = key.expose_secret().len();
        if !LENGTHS.contains(&length) {
            return Err(SecretError::Length(length));
        }
        Ok(Secret(key))
    }

    /// Makes one of 32 random bytes, and its text.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn generate() -> Result<(Secret, SecretString), SecretError> {
        let mut key = vec![0u8; 32];
        getrandom::fill(&mut key).map_err(|_| SecretError::Randomness)?;
        let text = SecretString::from(format!("{PREFIX}{}", STANDARD.encode(&key)));
        Ok((Secret(SecretSlice::from(key)), text))
    }

    fn mac(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<Hmac<Sha256>> {
        // A MAC takes keys of any length: this is always there.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).ok()?;
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp}.").as_bytes());
        mac.update(body);
        Some(mac)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_[hidden]")
    }
}

/// The value of `webhook-signature`: one signature for each secret, in their order.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut value = String::with_capacity(48 * secrets.len());
    for mac in secrets
        .iter()
        .filter_map(|secret| secret.mac(id, timestamp, body))
    {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
    }
    value
}

/// Why a webhook was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp is not a number.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// It is too old: a replay by a stranger, or a clock that is off.
    #[error("webhook-timestamp is more than {TOLERANCE_SECONDS} s old: is this clock right?")]
    TooOld,
    /// It lies in the future.
    #[error("webhook-timestamp is more than {TOLERANCE_SECONDS} s ahead: is this clock right?")]
    TooNew,
    /// No signature fits any of the secrets.
    #[error("no signature in webhook-signature fits: is the secret the one of this endpoint?")]
    Signature,
}

/// Checks the three headers against the body, as a receiver does; `now` in Unix seconds. The
/// comparison takes constant time.
///
/// # Errors
/// If the timestamp is unreadable or off by more than [`TOLERANCE_SECONDS`], or no signature fits.
pub fn verify(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: u64,
) -> Result<(), VerifyError> {
    let sent: u64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    if now.saturating_sub(sent) > TOLERANCE_SECONDS {
        return Err(VerifyError::TooOld);
    }
    if sent.saturating_sub(now) > TOLERANCE_SECONDS {
        return Err(VerifyError::TooNew);
    }
    let given = signature
        .split(' ')
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    for given in given {
        for mac in secrets.iter().filter_map(|secret| secret.mac(id, sent, body)) {
            if mac.verify_slice(&given).is_ok() {
                return Ok(());
            }
        }
    }
    Err(VerifyError::Signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    // The vector of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> Secret {
        Secret::parse(SECRET).unwrap()
    }

    #[test]
    fn the_vector_of_standard_webhooks() {
        assert_eq!(sign(&[secret()], ID, TIME, BODY), SIGNATURE);
        assert_eq!(
            verify(&[secret()], ID, "1614265330", SIGNATURE, BODY, TIME),
            Ok(())
        );
    }

    #[test]
    fn rotation_signs_with_all_and_any_one_verifies() {
        let (new, text) = Secret::generate().unwrap();
        let again = Secret::parse(text.expose_secret()).unwrap();
        let value = sign(&[new, secret()], ID, TIME, BODY);
        assert_eq!(value.split(' ').count(), 2);
        assert!(value.ends_with(SIGNATURE));
        for one in [again, secret()] {
            assert_eq!(
                verify(&[one], ID, &TIME.to_string(), &value, BODY, TIME + 300),
                Ok(())
            );
        }
        let (stranger, _) = Secret::generate().unwrap();
        assert_eq!(
            verify(&[stranger], ID, &TIME.to_string(), &value, BODY, TIME),
            Err(VerifyError::Signature)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |ts: &str, sig: &str, now| verify(&[secret()], ID, ts, sig, BODY, now);
        assert_eq!(check("soon", SIGNATURE, TIME), Err(VerifyError::Timestamp));
        assert_eq!(
            check("1614265330", SIGNATURE, TIME + 301),
            Err(VerifyError::TooOld)
        );
        assert_eq!(
            check("1614265330", SIGNATURE, TIME - 301),
            Err(VerifyError::TooNew)
        );
        for bad in ["", "v1,", "v1a,abc", "v1,****", &SIGNATURE.replace("v1", "v2")] {
            assert_eq!(
                check("1614265330", bad, TIME),
                Err(VerifyError::Signature),
                "{bad}"
            );
        }
    }

    #[test]
    fn bad_secrets_are_named_without_being_shown() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7u8; bytes]));
        assert_eq!(Secret::parse("abc").unwrap_err(), SecretError::Prefix);
        assert_eq!(Secret::parse("whsec_*").unwrap_err(), SecretError::Base64);
        assert_eq!(Secret::parse(&of(23)).unwrap_err(), SecretError::Length(23));
        assert_eq!(Secret::parse(&of(65)).unwrap_err(), SecretError::Length(65));
        assert!(Secret::parse(&of(24)).is_ok() && Secret::parse(&of(64)).is_ok());
        assert_eq!(format!("{:?}", secret()), "whsec_[hidden]");
    }

    proptest! {
        #[test]
        fn the_reference_library_agrees(body in "\\PC{0,200}", key in proptest::collection::vec(any::<u8>(), 24..=64)) {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let ours = Secret(SecretSlice::from(key.clone()));
            let theirs = standardwebhooks::Webhook::from_bytes(key).unwrap();
            let value = sign(&[secret(), ours.clone()], ID, now, body.as_bytes());
            let mut headers = http::HeaderMap::new();
            headers.insert(HEADER_ID, ID.parse().unwrap());
            headers.insert(HEADER_TIMESTAMP, now.into());
            headers.insert(HEADER_SIGNATURE, value.parse().unwrap());
            prop_assert!(theirs.verify(body.as_bytes(), &headers).is_ok());
            let signed = theirs.sign(ID, i64::try_from(now).unwrap(), body.as_bytes()).unwrap();
            prop_assert_eq!(verify(&[ours], ID, &now.to_string(), &signed, body.as_bytes(), now), Ok(()));
        }
    }
}
