//! Whether an endpoint can be reached: for `turnhook doctor`.

use std::time::UNIX_EPOCH;

use http::{StatusCode, header};
use reqwest::{Method, Request};
use tokio::time::{Instant, timeout_at};
use turnhook_reducer::time::Timestamp;

use super::Client;

/// What was found at an endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Of the answer to a HEAD: any answer shows that there is a way.
    pub status: StatusCode,
    /// The server's clock, to the second.
    pub clock: Option<Timestamp>,
}

impl Client {
    /// Connects and asks for nothing but the head of an answer. No event, no signature, no credentials are sent.
    ///
    /// # Errors
    /// What is in the way, for people.
    pub async fn probe(&self) -> Result<Probe, String> {
        let request = Request::new(Method::HEAD, self.url.clone());
        let deadline = Instant::now() + self.timeout;
        let response = timeout_at(deadline, self.http.execute(request))
            .await
            .map_err(|_| format!("no answer within {:?}", self.timeout))?
            .map_err(|error| self.describe(error))?;
        let date = response
            .headers()
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let clock = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let millis = clock
            .and_then(|clock| clock.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        Ok(Probe {
            status: response.status(),
            clock: millis.map(Timestamp),
        })
    }
}
