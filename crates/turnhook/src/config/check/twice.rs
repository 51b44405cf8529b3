//! That no two endpoints bill the same usage.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret as _;
use turnhook_dispatcher::config::EndpointConfig;

use super::{Check, key_path};
use crate::config::{file, locate::Step};

impl Check<'_> {
    /// The same usage in the same meter of one account, by two endpoints.
    pub(super) fn nothing_billed_twice(&mut self, built: &[EndpointConfig], given: &[file::Endpoint]) {
        for (index, endpoint) in built.iter().enumerate() {
            for other in &built[..index] {
                // A type says how a product is spoken to: of the same account there may be two.
                if endpoint.url.origin() != other.url.origin() || endpoint.filter.excludes(&other.filter) {
                    continue;
                }
                let Some(meter) = meter_of_both(endpoint, other) else {
                    continue;
                };
                // Those that are wrong are not among the built ones.
                let place = given.iter().position(|given| given.name == endpoint.name);
                let at = key_path!["endpoint", place.unwrap_or(index), "meters", meter, "event"];
                let name = &other.name;
                if credentials(endpoint) == credentials(other) {
                    self.wrong::<()>(
                        &at,
                        format!(
                            "the endpoint \"{name}\" counts into this meter of the same account, and both hear of the same events: they would be billed twice (tell them apart by `sources`, `realms` or `labels`)"
                        ),
                    );
                } else {
                    self.doubtful(
                        &at,
                        format!(
                            "the endpoint \"{name}\" counts into a meter of this name at the same address, by other credentials, and both hear of the same events: if those are of one account, they are billed twice (tell them apart by `sources`, `realms` or `labels`)"
                        ),
                    );
                }
            }
        }
    }
}

/// Which meter of `endpoint` is one of `other`, too.
fn meter_of_both(endpoint: &EndpointConfig, other: &EndpointConfig) -> Option<usize> {
    let theirs = &other.account.as_ref()?.settings.meters;
    let ours = &endpoint.account.as_ref()?.settings.meters;
    ours.iter()
        .position(|meter| theirs.iter().any(|their| their.event == meter.event))
}

/// What says who is calling, in one form: some products take the same key as a token and as a user without a password.
fn credentials(endpoint: &EndpointConfig) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = endpoint
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.expose_secret();
            (name.clone(), key(value).unwrap_or_else(|| value.to_owned()))
        })
        .collect();
    headers.sort();
    headers
}

/// The key that is the user of a login without a password, as a token.
fn key(authorization: &str) -> Option<String> {
    let login = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let user = String::from_utf8(login).ok()?;
    Some(format!("Bearer {}", user.strip_suffix(':')?))
}
