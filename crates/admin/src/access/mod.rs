//! Who may come in. There are no cookies and no sessions: each request says who it is from (HTTP Basic for people, a
//! bearer token for programs), and what changes something must come from a page of ours.

mod accounts;
mod guesses;
mod origin;
mod who;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::sync::Semaphore;

use self::{
    accounts::{Accounts, Given},
    guesses::Guesses,
};
pub use accounts::{AccountError, Kind, MakeError, check_file, make_token, make_user};
pub use who::{Role, Who};

use crate::{Refused, answer};

/// Who is let in.
pub struct Access {
    users: Option<Accounts>,
    tokens: Option<Accounts>,
    /// Whose word on addresses is taken.
    behind_proxy: bool,
    guesses: Guesses,
    /// A password is made to take time and memory: one at a time, so that strangers cannot take all of either.
    trying: Semaphore,
    waiting: Semaphore,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// So many may wait for their password to be tried; more are asked to come again.
const WAITING: usize = 16;

impl Access {
    /// Reads both files. They are read again when they change.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(
        users: Option<PathBuf>,
        tokens: Option<PathBuf>,
        behind_proxy: bool,
    ) -> Result<Access, AccountError> {
        Ok(Access {
            users: users.map(|path| Accounts::read(path, Kind::Users)).transpose()?,
            tokens: tokens
                .map(|path| Accounts::read(path, Kind::Tokens))
                .transpose()?,
            behind_proxy,
            guesses: Guesses::default(),
            trying: Semaphore::new(1),
            waiting: Semaphore::new(WAITING),
        })
    }

    /// A proxy of ours has put the address that it saw last into the list.
    fn address(&self, request: &Request) -> Option<IpAddr> {
        let forwarded = || {
            let last = request.headers().get_all("x-forwarded-for").iter().next_back()?;
            last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
        };
        let connected = || {
            let info = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
            Some(info.0.ip())
        };
        self.behind_proxy.then(forwarded).flatten().or_else(connected)
    }

    async fn who(&self, given: Given, address: Option<IpAddr>) -> Result<Who, Denied> {
        let accounts = match &given {
            Given::User { .. } => &self.users,
            Given::Token(_) => &self.tokens,
        };
        let Some(accounts) = accounts else {
            return Err(Denied::Unknown);
        };
        // Who has been let in before is not kept out by guesses of others.
        if let Some(who) = accounts.known(&given) {
            return Ok(who);
        }
        let name = match &given {
            Given::User { name, .. } => Some(name.clone()),
            Given::Token(_) => None,
        };
        let (address, name) = (address, name.as_deref());
        if let Some(wait) = self.guesses.wait(address, name, Instant::now()) {
            return Err(Denied::TooMany(wait));
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(Denied::TooMany(1));
        };
        let _trying = self.trying.acquire().await.map_err(|_| Denied::Unknown)?;
        // Others may have guessed while this one waited.
        if let Some(wait) = self.guesses.wait(address, name, Instant::now()) {
            return Err(Denied::TooMany(wait));
        }
        match accounts.tried(given).await {
            Some(who) => Ok(who),
            None => {
                self.guesses.wrong(address, name, Instant::now());
                Err(Denied::Wrong)
            }
        }
    }
}

enum Denied {
    /// Nobody was named, or in a way that is not configured.
    Unknown,
    Wrong,
    /// Seconds to wait.
    TooMany(u64),
}

impl Denied {
    fn answer(&self, uri: &Uri, by_password: bool) -> Response {
        let (status, message) = match self {
            Denied::Unknown => (
                StatusCode::UNAUTHORIZED,
                "who are you? Give a name and a password, or a token".to_owned(),
            ),
            Denied::Wrong => (
                StatusCode::UNAUTHORIZED,
                "the name and the password, or the token, are not those of anybody".to_owned(),
            ),
            Denied::TooMany(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("too many wrong passwords; try again in {wait} seconds"),
            ),
        };
        let mut response = refusal(uri, status, message);
        let headers = response.headers_mut();
        if let Denied::TooMany(wait) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*wait));
        } else {
            let ask = if by_password {
                r#"Basic realm="turnhook", charset="UTF-8""#
            } else {
                r#"Bearer realm="turnhook""#
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(ask));
        }
        response
    }
}

/// A program gets JSON, a person a line.
fn refusal(uri: &Uri, status: StatusCode, message: String) -> Response {
    if answer::is_of_the_api(uri) {
        return Refused::new(status, message).into_response();
    }
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, message + "\n").into_response()
}

/// What the request says of who it is from.
fn given(headers: &HeaderMap) -> Option<Given> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Given::Token(rest.trim().to_owned().into()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(Given::User {
        name: name.to_owned(),
        password: password.to_owned().into(),
    })
}

/// The door: from where, who, what.
pub(crate) async fn enter(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let is_safe = request.method().is_safe();
    if !is_safe && !origin::is_ours(request.headers()) {
        let message =
            "this was sent by another site: what changes something is taken from turnhook's own pages alone";
        return refusal(request.uri(), StatusCode::FORBIDDEN, message.to_owned());
    }
    let Some(given) = given(request.headers()) else {
        return Denied::Unknown.answer(request.uri(), access.users.is_some());
    };
    let who = match access.who(given, access.address(&request)).await {
        Ok(who) => who,
        Err(denied) => return denied.answer(request.uri(), access.users.is_some()),
    };
    if !is_safe && who.role < Role::Operator {
        let message = "this is for operators; you are a viewer";
        return refusal(request.uri(), StatusCode::FORBIDDEN, message.to_owned());
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// Nothing but what the page brings itself runs, is loaded or sent; nothing of it is kept.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What every answer bears.
pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Not `no-referrer`: browsers then send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}
