//! `[[endpoint]]`: what the file says that [`EndpointConfig`] does not know of; the rest it checks itself.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use turnhook_dispatcher::{
    config::{ClientCertificate, EndpointConfig, RateLimit},
    filter::Pattern,
    schedule::Retry,
    signature::Secret as SigningSecret,
};
use turnhook_reducer::{event::EventType, outbox::Include};
use url::{Host, Url};

use super::{Check, key_path, provider::filter};
use crate::config::{
    Rate, Span,
    file::{self, File},
    locate::Step,
    product::Count,
};

impl Check<'_> {
    pub(super) fn endpoint(&mut self, index: usize, endpoint: &file::Endpoint) -> Option<EndpointConfig> {
        let at = key_path!["endpoint", index];
        self.name(&key_path!["endpoint", index, "name"], &endpoint.name);
        // All of them are looked at before any is missed, so that one run shows every mistake.
        let account = self.account(&at, endpoint);
        let usual = account.as_ref().and_then(|account| account.as_ref()?.terms.url);
        // Where the type is wrong, nobody knows its usual address.
        let url = if account.is_none() && endpoint.url.is_none() && endpoint.url_file.is_none() {
            None
        } else {
            self.url(&at, endpoint, usual)
        };
        let proxy = self.either_url(
            &at,
            "proxy",
            endpoint.proxy.as_ref(),
            endpoint.proxy_file.as_deref(),
        );
        let secrets = if endpoint.r#type == "webhook" {
            self.signing_secrets(&at, endpoint)
        } else {
            self.no_signing_secrets(&at, endpoint)
        };
        let events = self.event_types(&at, endpoint);
        self.hears_of_somebody(&at, endpoint);
        let headers = self.headers(&at, endpoint);
        let client_certificate = self.pair(
            &at,
            ["client_cert", "client_key"],
            [endpoint.client_cert.as_deref(), endpoint.client_key.as_deref()],
        );
        if endpoint.retry.give_up_after == Span::seconds(0) {
            self.wrong::<()>(
                &[&at[..], &key_path!["retry", "give_up_after"]].concat(),
                "is 0: nothing would be tried twice; the default is \"72h\"",
            );
        }
        let config = EndpointConfig {
            name: endpoint.name.clone(),
            url: url?,
            secrets: secrets?,
            events: events?,
            filter: filter(endpoint),
            include: Include {
                allocations: endpoint.include.allocations,
                addresses: endpoint.include.addresses,
            },
            headers: headers?,
            timeout: endpoint.timeout.0,
            concurrency: endpoint.concurrency,
            rate_limit: match endpoint.rate_limit {
                Rate::Limited { count, per } => Some(RateLimit { count, per }),
                Rate::Unlimited => None,
            },
            retry: Retry {
                initial: endpoint.retry.initial.0,
                max: endpoint.retry.max.0,
                give_up_after: endpoint.retry.give_up_after.0,
                retry_after_max: endpoint.retry.retry_after_max.0,
            },
            ca_file: endpoint.ca_file.clone(),
            client_certificate: client_certificate?.map(|(certificate_file, key_file)| ClientCertificate {
                certificate_file,
                key_file,
            }),
            proxy: proxy?.map(|url| url.0),
            allow_http: endpoint.allow_http,
            account: account?.map(Arc::new),
        };
        if let Err(error) = config.validate() {
            let key = match error.key {
                "client_certificate" => "client_cert",
                // It is a header in the end, but was not given as one.
                "headers" if error.problem.contains("\"authorization\"") => authorization_key(endpoint),
                "headers" if endpoint.headers.is_empty() => "headers_file",
                "url" if endpoint.url_file.is_some() => "url_file",
                "proxy" if endpoint.proxy_file.is_some() => "proxy_file",
                key => key,
            };
            let steps = key.split('.').map(Step::from);
            let path: Vec<Step> = at.iter().cloned().chain(steps).collect();
            return self.wrong(&path, error.problem);
        }
        if endpoint.allow_http && config.url.scheme() == "http" && !is_near(&config.url) {
            let at = [&at[..], &key_path!["allow_http"]].concat();
            self.doubtful(
                &at,
                "usernames and usage go over the network in the clear; use https, or keep to a private network",
            );
        }
        Some(config)
    }

    /// An endpoint that hears of nobody bills nobody, and looks well.
    fn hears_of_somebody(&mut self, at: &[Step], endpoint: &file::Endpoint) {
        for (name, patterns) in [("sources", &endpoint.sources), ("realms", &endpoint.realms)] {
            if patterns.is_empty() {
                self.wrong::<()>(
                    &[at, &key_path![name]].concat(),
                    "is empty: it would hear of nobody; leave it out, or write [\"*\"], for all",
                );
            }
        }
    }

    fn url(&mut self, at: &[Step], endpoint: &file::Endpoint, usual: Option<&str>) -> Option<Url> {
        let given = self.either_url(at, "url", endpoint.url.as_ref(), endpoint.url_file.as_deref())?;
        let key = if endpoint.url_file.is_some() {
            "url_file"
        } else {
            "url"
        };
        let key = [at, &key_path![key]].concat();
        let Some(given) = given.as_ref().map(|url| url.expose()).or(usual) else {
            return self.wrong(&key, "missing: where is it?");
        };
        match Url::parse(given) {
            Ok(url) => Some(url),
            Err(error) => self.wrong(
                &key,
                format!("is no URL ({error}); write it like \"https://billing.example.com/turn\""),
            ),
        }
    }

    fn signing_secrets(&mut self, at: &[Step], endpoint: &file::Endpoint) -> Option<Vec<SigningSecret>> {
        let key = [at, &key_path!["secrets"]].concat();
        let by_file = [at, &key_path!["secrets_file"]].concat();
        let given: Vec<(Vec<Step>, String)> = match (&endpoint.secrets[..], &endpoint.secrets_file) {
            ([], None) => {
                return self.wrong(
                    &key,
                    "missing; webhooks are always signed: make one with `turnhook secret`",
                );
            }
            ([], Some(file)) => self
                .secret_file(&by_file, file)?
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| (by_file.clone(), line.to_owned()))
                .collect(),
            (_, Some(_)) => return self.wrong(&by_file, "`secrets` is given too; keep one of the two"),
            (secrets, None) => secrets
                .iter()
                .enumerate()
                .map(|(index, secret)| ([&key[..], &key_path![index]].concat(), secret.expose().to_owned()))
                .collect(),
        };
        let mut secrets = Vec::new();
        let mut all_well = true;
        for (path, text) in given {
            match SigningSecret::parse(&text) {
                Ok(secret) => secrets.push(secret),
                Err(error) => {
                    self.wrong::<()>(&path, error.to_string());
                    all_well = false;
                }
            }
        }
        all_well.then_some(secrets)
    }

    fn event_types(&mut self, at: &[Step], endpoint: &file::Endpoint) -> Option<Vec<EventType>> {
        let key = [at, &key_path!["events"]].concat();
        let mut types = Vec::new();
        for (index, name) in endpoint.events.iter().enumerate() {
            match EventType::from_name(name) {
                Some(event_type) if !types.contains(&event_type) => types.push(event_type),
                Some(_) => {}
                None => {
                    return self.wrong(
                        &[&key[..], &key_path![index]].concat(),
                        format!(
                            "`{name}` is no event; choose {}",
                            EventType::ALL.map(EventType::as_str).join(", ")
                        ),
                    );
                }
            }
        }
        Some(types)
    }

    /// `headers`, and the authorization that `bearer` or `basic` makes.
    fn headers(&mut self, at: &[Step], endpoint: &file::Endpoint) -> Option<Vec<(String, SecretString)>> {
        let mut headers: Vec<_> = endpoint
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.0.clone()))
            .collect();
        if let Some(file) = &endpoint.headers_file {
            headers.extend(self.headers_in_a_file(at, file, &headers)?);
        }
        let has_header = headers.iter().any(|(name, _)| name == "authorization");
        let bearer = self.either(
            at,
            "bearer",
            endpoint.bearer.as_ref(),
            endpoint.bearer_file.as_deref(),
        )?;
        let basic = self.either(
            at,
            "basic",
            endpoint.basic.as_ref(),
            endpoint.basic_file.as_deref(),
        )?;
        let key = |name: &str| [at, &key_path![name]].concat();
        let authorization = match (bearer, basic) {
            (None, None) => return Some(headers),
            (Some(_), Some(_)) => {
                return self.wrong(&key("basic"), "`bearer` is given too; keep one of the two");
            }
            (bearer, _) if has_header => {
                let name = if bearer.is_some() { "bearer" } else { "basic" };
                return self.wrong(
                    &key(name),
                    "`headers` has an authorization too; keep one of the two",
                );
            }
            (Some(token), None) => format!("Bearer {}", token.expose()),
            (None, Some(login)) if login.expose().contains(':') => {
                format!("Basic {}", STANDARD.encode(login.expose()))
            }
            (None, Some(_)) => {
                return self.wrong(&key("basic"), "has no colon; write it as \"user:password\"");
            }
        };
        headers.push(("authorization".to_owned(), authorization.into()));
        Some(headers)
    }
}

impl Check<'_> {
    /// What an endpoint asks for and nothing here gives.
    pub(super) fn asked_for_in_vain(&mut self, file: &File) {
        for (index, endpoint) in file.endpoint.iter().enumerate() {
            for (number, pattern) in endpoint.sources.iter().enumerate() {
                let wanted = Pattern::new(pattern);
                if !file
                    .source
                    .iter()
                    .any(|source| wanted.matches(source.name.as_bytes()))
                {
                    let names: Vec<_> = file.source.iter().map(|source| source.name.as_str()).collect();
                    self.doubtful(
                        &key_path!["endpoint", index, "sources", number],
                        format!("`{pattern}` is no source; there are: {}", names.join(", ")),
                    );
                }
            }
            let lacks = |label: &str| !file.session.user_pattern.contains(&format!("<{label}>"));
            for label in endpoint.labels.keys().filter(|label| lacks(label)) {
                self.doubtful(
                    &key_path!["endpoint", index, "labels", label.as_str()],
                    format!("[session] user_pattern has no group `{label}`, so no session has this label, and nothing is sent here"),
                );
            }
            let customer = endpoint
                .customer
                .as_deref()
                .and_then(|from| from.strip_prefix("label."));
            if let Some(label) = customer.filter(|label| lacks(label)) {
                self.doubtful(
                    &key_path!["endpoint", index, "customer"],
                    format!("[session] user_pattern has no group `{label}`, so no event names a customer"),
                );
            }
        }
    }

    /// Whoever bills by the end of a session, where a session need not end.
    pub(super) fn billed_by_an_end_that_may_never_come(&mut self, file: &File) {
        if file.session.max_session != Span::seconds(0) {
            return;
        }
        for (index, endpoint) in file.endpoint.iter().enumerate() {
            let wants = |kind: EventType| endpoint.events.iter().any(|event| event == kind.as_str());
            let key = if endpoint.count == Some(Count::End) {
                "count"
            } else if !wants(EventType::Usage) && wants(EventType::End) {
                "events"
            } else {
                continue;
            };
            self.doubtful(
                &key_path!["endpoint", index, key],
                "hears of usage when a session ends, and with [session] max_session = \"0s\" one that a client refreshes for ever never ends: it would never be billed; leave max_session at \"24h\"",
            );
        }
    }

    /// One header a line, `name: value`. What a line holds is not shown: it may be the value alone.
    fn headers_in_a_file(
        &mut self,
        at: &[Step],
        file: &Path,
        given: &[(String, SecretString)],
    ) -> Option<Vec<(String, SecretString)>> {
        let key = [at, &key_path!["headers_file"]].concat();
        let text = self.secret_file(&key, file)?;
        let mut headers: Vec<(String, SecretString)> = Vec::new();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let number = number + 1;
            let Some((name, value)) = line.split_once(':') else {
                return self.wrong(
                    &key,
                    format!("line {number} has no colon; write it as \"Name: value\""),
                );
            };
            let name = name.trim().to_ascii_lowercase();
            if given.iter().chain(&headers).any(|(other, _)| *other == name) {
                return self.wrong(&key, format!("line {number} has a header that is given already"));
            }
            headers.push((name, value.trim().into()));
        }
        Some(headers)
    }
}

/// By which key the endpoint's authorization was given.
fn authorization_key(endpoint: &file::Endpoint) -> &'static str {
    let given = [
        ("bearer", endpoint.bearer.is_some()),
        ("bearer_file", endpoint.bearer_file.is_some()),
        ("basic", endpoint.basic.is_some()),
        ("basic_file", endpoint.basic_file.is_some()),
    ];
    given
        .into_iter()
        .find(|(_, given)| *given)
        .map_or("headers", |(key, _)| key)
}

fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => true,
    }
}
