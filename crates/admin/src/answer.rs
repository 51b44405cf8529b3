//! How things are said: errors, and times.

use axum::{
    Json,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp as Instant;
use serde::{Serialize, Serializer};
use turnhook_reducer::time::Timestamp;

/// What was asked for is not done, and why.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of HTTP.
    pub status: StatusCode,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Refused {
    /// With any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        Refused {
            status,
            message: message.into(),
        }
    }

    /// 400.
    pub fn wrong(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn missing(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, message)
    }
}

impl From<turnhook_store::Error> for Refused {
    fn from(error: turnhook_store::Error) -> Refused {
        use turnhook_store::Error;
        let status = match &error {
            Error::UnknownEndpoint { .. } | Error::UnknownSource { .. } => StatusCode::NOT_FOUND,
            error if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused::new(status, error.to_string())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Body { error: &self.message })).into_response()
    }
}

/// Whoever asks for a page gets one; programs get JSON.
pub(crate) fn is_of_the_api(uri: &Uri) -> bool {
    uri.path().starts_with("/api/")
}

/// Paths that are none.
pub(crate) async fn nothing_here(uri: Uri) -> Response {
    if is_of_the_api(&uri) {
        Refused::missing("there is no such path; /api/v1/openapi.json lists those that there are")
            .into_response()
    } else {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (StatusCode::NOT_FOUND, plain, "there is no such page\n").into_response()
    }
}

/// RFC 3339, to the millisecond.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let instant = Instant::from_millisecond(millis).unwrap_or(Instant::MAX);
    format!("{instant:.3}")
}

pub(crate) fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

pub(crate) fn option_time<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}
