//! One attempt: a signed POST, and what came of it.

mod probe;

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Body, Method, Request, Url};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout, timeout_at};
use turnhook_reducer::time::Timestamp;

use crate::{
    address::{Refused, Resolver, Unresolved},
    config::{ConfigError, EndpointConfig},
    provider::{
        self,
        batch::{Heard, Whole},
    },
    signature::{self, Secret, sign},
    tls,
};

pub use probe::Probe;

/// How much of an answer is kept, in bytes.
pub const KEPT: usize = 1024;
/// How much of an answer is read, so that its connection can be used again; longer ones cost the connection.
const READ: usize = 64 * 1024;
/// How long the rest of an answer may take: its status is known and decides alone.
const BODY_TIME: Duration = Duration::from_secs(5);
/// How many header fields an answer may have: beyond a hundred, hyper would take it for a failure.
const FIELDS: usize = 1_000;
/// Below the 5 s after which common servers close idle connections: a request that meets such a close
/// is lost and has to wait for its retry.
const IDLE: Duration = Duration::from_secs(4);

/// Posts to one endpoint. Cheap to clone: connections are shared.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    secrets: Vec<Secret>,
    timeout: Duration,
    /// Of a product that wants one.
    pub(crate) tokens: Tokens,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `None` if no answer came.
    pub status: Option<StatusCode>,
    /// What happened, for people, where it was not a success; no secrets.
    pub error: Option<String>,
    /// `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The first KiB of the answer's body.
    pub body: Bytes,
    /// From the start to the head of the answer, or to the failure.
    pub latency: Duration,
}

/// The token of one endpoint. Behind a lock that is held while one is asked for, so that requests that begin meanwhile
/// share it.
#[derive(Clone, Default)]
pub(crate) struct Tokens(pub(crate) std::sync::Arc<tokio::sync::Mutex<Option<Held>>>);

pub(crate) struct Held {
    pub(crate) token: SecretString,
    pub(crate) until: std::time::Instant,
}

impl EndpointConfig {
    /// Checks all of it; reads the files that it names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.client().map(|_| ())
    }

    /// Checks all of it; the client that it describes.
    pub(crate) fn client(&self) -> Result<Client, ConfigError> {
        self.check_url()?;
        self.check_numbers()?;
        Client::new(self)
    }
}

impl Client {
    /// For an endpoint.
    ///
    /// # Errors
    /// If its URL, headers, certificates or proxy are wrong.
    pub fn new(config: &EndpointConfig) -> Result<Client, ConfigError> {
        config.check_url()?;
        let mut headers = config.header_map()?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("turnhook/", env!("CARGO_PKG_VERSION")));
        headers.entry(header::USER_AGENT).or_insert(agent);
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(config)?)
            .dns_resolver(Resolver)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // The environment decides nothing here.
            .no_proxy()
            .connect_timeout(config.timeout.min(Duration::from_secs(10)))
            .pool_idle_timeout(IDLE)
            .http1_max_headers(FIELDS)
            .pool_max_idle_per_host(config.concurrency as usize)
            // A dead connection that all requests share would otherwise fail them one timeout after another.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        if let Some(proxy) = &config.proxy {
            let wrong = || {
                config.error(
                    "proxy",
                    "it must be http://[user:password@]host:port, or https://…",
                )
            };
            let url: Url = proxy.expose_secret().parse().map_err(|_| wrong())?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err(wrong());
            }
            http = http.proxy(reqwest::Proxy::all(url).map_err(|_| wrong())?);
        }
        let http = http.build().map_err(|error| {
            config.error(
                "url",
                describe(&error.without_url(), config.url.scheme() == "https"),
            )
        })?;
        Ok(Client {
            http,
            url: config.url.clone(),
            headers,
            secrets: config.secrets.clone(),
            timeout: config.timeout,
            tokens: Tokens::default(),
        })
    }

    /// Signs and posts `body` as the event `id`; `at` is the time of this attempt.
    ///
    /// Ends within the endpoint's timeout, or up to 5 s after the head of the answer if that is sooner.
    pub async fn send(&self, id: &str, body: Bytes, at: Timestamp) -> Answer {
        if body.is_empty() {
            // Signed, it would be an event that says nothing and is taken for one.
            turnhook_reducer::internal_error!("the payload of {id} is empty: it is not sent");
            return Answer {
                error: Some("the event has no payload: it is neither signed nor sent".into()),
                ..Answer::default()
            };
        }
        let seconds = at.0 / 1000;
        let signature = sign(&self.secrets, id, seconds, &body);
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        let (Ok(id), Ok(signature)) = (HeaderValue::from_str(id), HeaderValue::from_str(&signature)) else {
            return Answer {
                error: Some("the event's id is not fit for a header".into()),
                ..Answer::default()
            };
        };
        headers.insert(signature::HEADER_ID, id);
        headers.insert(signature::HEADER_TIMESTAMP, seconds.into());
        headers.insert(signature::HEADER_SIGNATURE, signature);
        *request.body_mut() = Some(Body::from(body));

        let start = Instant::now();
        let deadline = start + self.timeout;
        let response = match timeout_at(deadline, self.http.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(self.describe(error), start),
            Err(_) => return failed(format!("no answer within {:?}", self.timeout), start),
        };
        let latency = start.elapsed();
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let rest = BODY_TIME.min(deadline.saturating_duration_since(Instant::now()));
        let body = first_kib(response, rest).await;
        let mut error = (!status.is_success()).then(|| explain(status));
        if let Some(error) = &mut error
            && self.url.scheme() == "http"
            && tls::wants_tls(status.as_u16(), &body)
        {
            *error += ": this port speaks TLS, write https://";
        }
        Answer {
            status: Some(status),
            error,
            retry_after,
            body,
            latency,
        }
    }
}

impl Client {
    /// What went wrong, for people.
    fn describe(&self, error: reqwest::Error) -> String {
        describe(&error.without_url(), self.url.scheme() == "https")
    }

    /// Makes a billing product's request. Its answer is read as far as 64 KiB, since it speaks of items.
    ///
    /// Ends within the endpoint's timeout. With it comes how long the head of the answer took.
    pub async fn perform(&self, request: &provider::Request) -> (Heard, Duration) {
        let start = Instant::now();
        let nothing = |error: String| Heard::Nothing {
            error,
            perhaps: false,
        };
        let Some(prepared) = self.prepare(request) else {
            let error =
                "the request cannot be made: its address or a header has characters that none can hold";
            return (nothing(error.to_owned()), start.elapsed());
        };
        let deadline = start + self.timeout;
        let response = match timeout_at(deadline, self.http.execute(prepared)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // What could not connect has written nothing.
                let perhaps = !(error.is_connect() || error.is_builder());
                let error = self.describe(error);
                return (Heard::Nothing { error, perhaps }, start.elapsed());
            }
            Err(_) => {
                let error = format!("no answer within {:?}", self.timeout);
                return (Heard::Nothing { error, perhaps: true }, start.elapsed());
            }
        };
        let latency = start.elapsed();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (body, read) = whole(response, deadline).await;
        let heard = Heard::Answer {
            status,
            headers,
            body,
            read,
        };
        (heard, latency)
    }

    /// The request with its headers, those of the endpoint among them. `None` if it cannot be one.
    fn prepare(&self, request: &provider::Request) -> Option<Request> {
        let url = joined(&self.url, &request.path)?;
        let mut prepared = Request::new(request.method.clone(), url);
        let headers = prepared.headers_mut();
        headers.clone_from(&self.headers);
        headers.remove(header::CONTENT_TYPE);
        if !request.content_type.is_empty() {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(request.content_type),
            );
        }
        for (name, value) in &request.headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.insert(name, HeaderValue::from_str(value).ok()?);
        }
        if !request.body.is_empty() {
            *prepared.body_mut() = Some(Body::from(request.body.clone()));
        }
        Some(prepared)
    }

    /// A billing product's request as it goes over the wire, for people: credentials are not shown. `base` is the
    /// endpoint's URL as it may be shown.
    #[must_use]
    pub fn rendered(&self, request: &provider::Request, base: &Url) -> Option<String> {
        let prepared = self.prepare(request)?;
        let url = joined(base, &request.path)?;
        let mut text = format!("{} {url}\n", prepared.method());
        for (name, value) in prepared.headers() {
            let value = if value.is_sensitive() {
                "(hidden)"
            } else {
                value.to_str().unwrap_or("(not ASCII)")
            };
            text += &format!("{name}: {value}\n");
        }
        text.push('\n');
        text += &String::from_utf8_lossy(&request.body);
        Some(text)
    }
}

/// The endpoint's URL with a request's path appended; the query of either is kept.
fn joined(base: &Url, path: &str) -> Option<Url> {
    if path.is_empty() {
        return Some(base.clone());
    }
    if !path.starts_with('/') {
        // A whole URL.
        return path.parse().ok();
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    let queries = [base.query().unwrap_or(""), query];
    let queries: Vec<&str> = queries.into_iter().filter(|query| !query.is_empty()).collect();
    url.set_query((!queries.is_empty()).then(|| queries.join("&")).as_deref());
    Some(url)
}

/// The body, up to 64 KiB, and whether that is all.
async fn whole(mut response: reqwest::Response, deadline: Instant) -> (Bytes, Whole) {
    let mut kept = Vec::new();
    let reading = async {
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    kept.extend_from_slice(&chunk);
                    if kept.len() > READ {
                        return Whole::TooLong;
                    }
                }
                Ok(None) => return Whole::Yes,
                Err(_) => return Whole::CutShort,
            }
        }
    };
    let read = timeout_at(deadline, reading).await.unwrap_or(Whole::CutShort);
    kept.truncate(READ);
    (Bytes::from(kept), read)
}

/// The beginning of the body. Whatever goes wrong meanwhile, the status has decided already.
async fn first_kib(mut response: reqwest::Response, time: Duration) -> Bytes {
    let mut kept = Vec::new();
    let reading = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            kept.extend_from_slice(chunk.get(..KEPT - kept.len()).unwrap_or(&chunk));
            if read > READ {
                break;
            }
        }
    };
    // Running out of time is one of the ways in which it may end.
    drop(timeout(time, reading).await);
    Bytes::from(kept)
}

fn failed(error: String, start: Instant) -> Answer {
    Answer {
        error: Some(error),
        latency: start.elapsed(),
        ..Answer::default()
    }
}

fn explain(status: StatusCode) -> String {
    if status.is_redirection() {
        return format!("answered {status}: redirects are not followed, configure the final URL");
    }
    format!("answered {status}")
}

/// What went wrong, for people. The error carries no URL: a query may hold a secret.
fn describe(error: &reqwest::Error, spoke_tls: bool) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<Refused>() || cause.is::<Unresolved>() {
            return cause.to_string();
        }
        causes.push(cause);
        next = cause.source();
    }
    let what = if error.is_connect() {
        "could not connect"
    } else {
        "the connection broke"
    };
    match causes.last() {
        Some(cause) => format!("{what}: {}", tls::in_words(&cause.to_string(), spoke_tls)),
        None => error.to_string(),
    }
}
