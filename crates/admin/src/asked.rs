//! What a request asks for: its query or its form, and the varying part of its path. Names are bytes, not always UTF-8.

use std::convert::Infallible;

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{Uri, request::Parts},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use turnhook_reducer::{
    event::{EventType, SessionId},
    time::Timestamp,
};
use turnhook_store::{DeliveryFilter, DeliveryState, SessionFilter};

use crate::{Refused, zone::Zone};

const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'-')
    .remove(b'.')
    .remove(b'~');
/// A form's largest.
const FORM: usize = 64 * 1024;

/// As a part of a URL.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, KEPT).to_string()
}

/// Pairs of a query or of a form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Vec<(String, Vec<u8>)>);

fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

impl Asked {
    fn parse(text: &str) -> Asked {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                String::from_utf8_lossy(&decoded(name)).into_owned(),
                decoded(value),
            )
        });
        Asked(pairs.collect())
    }

    /// What is not empty.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .0
            .iter()
            .find(|(given, value)| given == name && !value.is_empty());
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.bytes(name)
            .map(|value| String::from_utf8_lossy(value).trim().to_owned())
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refused> {
        let number = |text: String| {
            text.parse()
                .map_err(|_| Refused::wrong(format!("`{name}` is a whole number, not {text:?}")))
        };
        self.text(name).map(number).transpose()
    }

    pub(crate) fn between(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refused> {
        let number = self.number(name)?;
        if number.is_some_and(|number| !(least..=most).contains(&number)) {
            return Err(Refused::wrong(format!("`{name}` is from {least} to {most}")));
        }
        Ok(number)
    }

    /// How many rows, at most 1000.
    pub(crate) fn limit(&self) -> Result<usize, Refused> {
        let limit = self.between("limit", 1, 1000)?.unwrap_or(50);
        Ok(usize::try_from(limit).unwrap_or(1000))
    }

    pub(crate) fn zone(&self) -> Result<Zone, Refused> {
        Zone::named(self.text("tz").as_deref())
    }

    /// A time, or a day: its beginning in the zone.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Refused> {
        let zone = self.zone()?;
        let time = |text: String| {
            zone.parse(&text).ok_or_else(|| {
                Refused::wrong(format!(
                    "`{name}` is a time like 2026-11-22T06:00:00Z or a day like 2026-11-22, not {text:?}"
                ))
            })
        };
        self.text(name).map(time).transpose()
    }

    pub(crate) fn session(&self, name: &str) -> Result<Option<SessionId>, Refused> {
        self.text(name).map(|text| session_id(&text)).transpose()
    }

    pub(crate) fn wants_csv(&self) -> bool {
        self.text("format").as_deref() == Some("csv")
    }

    pub(crate) fn sessions(&self) -> Result<SessionFilter, Refused> {
        Ok(SessionFilter {
            source: self.text("source"),
            realm: self.bytes("realm").map(<[u8]>::to_vec),
            user: self.bytes("user").map(<[u8]>::to_vec),
            open: match self.text("open").as_deref() {
                None => None,
                Some("true" | "1") => Some(true),
                Some("false" | "0") => Some(false),
                Some(other) => return Err(Refused::wrong(format!("`open` is true or false, not {other:?}"))),
            },
            since: self.time("since")?,
            until: self.time("until")?,
        })
    }

    pub(crate) fn deliveries(&self) -> Result<DeliveryFilter, Refused> {
        let mut filter = DeliveryFilter {
            endpoint: self.text("endpoint"),
            session: self.session("session")?,
            user: self.bytes("user").map(<[u8]>::to_vec),
            since: self.time("since")?,
            until: self.time("until")?,
            ..DeliveryFilter::default()
        };
        if let Some(id) = self.text("id") {
            filter.ids.push(event_id(&id)?);
        }
        if let Some(state) = self.text("state") {
            let found = DeliveryState::ALL
                .into_iter()
                .find(|known| known.as_str() == state);
            filter.states.push(found.ok_or_else(|| {
                Refused::wrong(format!(
                    "`state` is pending, delivered, dead or discarded, not {state:?}"
                ))
            })?);
        }
        if let Some(kind) = self.text("type") {
            let found = EventType::from_name(&kind);
            filter.event_types.push(found.ok_or_else(|| {
                let known = EventType::ALL.map(EventType::as_str).join(", ");
                Refused::wrong(format!("`type` is one of {known}, not {kind:?}"))
            })?);
        }
        Ok(filter)
    }

    /// The same with some of it changed; an empty value takes one out.
    pub(crate) fn with(&self, changes: &[(&str, &[u8])]) -> String {
        let kept = self
            .0
            .iter()
            .filter(|(name, value)| !value.is_empty() && changes.iter().all(|(changed, _)| changed != name))
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        let new = changes.iter().filter(|(_, value)| !value.is_empty()).copied();
        let pairs: Vec<String> = kept
            .chain(new)
            .map(|(name, value)| format!("{}={}", encoded(name.as_bytes()), encoded(value)))
            .collect();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("?{}", pairs.join("&"))
        }
    }

    /// Those of these names, to be sent on with a form.
    pub(crate) fn only(&self, names: &[&str]) -> Vec<(String, String)> {
        let kept = self
            .0
            .iter()
            .filter(|(name, value)| !value.is_empty() && names.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
            .collect()
    }
}

pub(crate) fn session_id(text: &str) -> Result<SessionId, Refused> {
    text.parse().map_err(|_| {
        Refused::missing(format!(
            "{text:?} is no session's id: it is ses_ and 26 letters and digits"
        ))
    })
}

pub(crate) fn event_id(text: &str) -> Result<turnhook_reducer::event::EventId, Refused> {
    text.parse().map_err(|_| {
        Refused::missing(format!(
            "{text:?} is no event's id: it is evt_ and 26 letters and digits"
        ))
    })
}

/// The query.
impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asked, Infallible> {
        let mut asked = Asked::parse(parts.uri.query().unwrap_or_default());
        let accepts = parts.headers.get("accept").and_then(|value| value.to_str().ok());
        if accepts.is_some_and(|accept| accept.starts_with("text/csv")) {
            asked.0.push(("format".to_owned(), b"csv".to_vec()));
        }
        Ok(asked)
    }
}

/// Whether CSV is asked for: by `format=csv`, or by `Accept: text/csv`.
#[derive(Clone, Copy, Debug)]
pub struct WantsCsv(pub bool);

impl<S: Sync> FromRequestParts<S> for WantsCsv {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<WantsCsv, Infallible> {
        let Ok(asked) = Asked::from_request_parts(parts, state).await;
        Ok(WantsCsv(asked.wants_csv()))
    }
}

/// A form's fields.
#[derive(Debug)]
pub(crate) struct Form(pub(crate) Asked);

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Form, Refused> {
        let body = to_bytes(request.into_body(), FORM)
            .await
            .map_err(|_| Refused::wrong("the form is too long, or did not come whole"))?;
        Ok(Form(Asked::parse(&String::from_utf8_lossy(&body))))
    }
}

/// The bytes of one part of a path, counted from 0: `/users/{name}` has the name at 1.
pub(crate) fn part(uri: &Uri, index: usize) -> Vec<u8> {
    let part = uri.path().split('/').nth(index + 1).unwrap_or_default();
    percent_decode(part.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_go_round() {
        let name = b"a/b?&=+ \xff\x00\xe2\x80\xae";
        let uri: Uri = format!("/users/{}", encoded(name)).parse().unwrap();
        assert_eq!(part(&uri, 1), name);
        let asked = Asked::parse(&format!("user={}&x=&limit=3", encoded(name)));
        assert_eq!(asked.bytes("user").unwrap(), name);
        assert_eq!((asked.bytes("x"), asked.limit().unwrap()), (None, 3));
        assert_eq!(asked.with(&[("limit", b""), ("user", b"b c")]), "?user=b%20c");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("open=maybe", "open"),
            ("since=soon", "since"),
            ("tz=Nowhere/At_all", "tz"),
        ] {
            let message = Asked::parse(text).sessions().unwrap_err().message;
            assert!(message.contains(word), "{message}");
        }
        assert!(Asked::parse("state=odd").deliveries().is_err());
        for limit in ["x", "-1", "0", "1001", "99999999999999999999"] {
            assert!(
                Asked::parse(&format!("limit={limit}")).limit().is_err(),
                "{limit}"
            );
        }
    }
}
