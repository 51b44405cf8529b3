//! Tokens that are good for a while, where a product exchanges the endpoint's credentials for one.

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    client::{Client, Held},
    provider::{Product, Request, TokenCall, batch::Heard},
};

impl Client {
    /// Makes a request of a product's, with a token where it wants one.
    pub async fn perform_for(&self, product: &dyn Product, request: &Request) -> (Heard, Duration) {
        let Some(call) = product.token() else {
            return self.perform(request).await;
        };
        let token = match self.token(&call).await {
            Ok(token) => token,
            Err(heard) => return heard,
        };
        let mut request = request.clone();
        let bearer = format!("Bearer {}", token.expose_secret());
        request.headers.push(("authorization".to_owned(), bearer));
        let (heard, latency) = self.perform(&request).await;
        if matches!(heard, Heard::Answer { status: 401, .. }) {
            let mut held = self.tokens.0.lock().await;
            // Unless another request has got a new one meanwhile.
            if held
                .as_ref()
                .is_some_and(|held| held.token.expose_secret() == token.expose_secret())
            {
                *held = None;
            }
        }
        (heard, latency)
    }

    async fn token(&self, call: &TokenCall) -> Result<SecretString, (Heard, Duration)> {
        let mut held = self.tokens.0.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(held.token.clone());
        }
        let (heard, latency) = self.perform(&call.request).await;
        let (status, body) = match &heard {
            Heard::Answer { status, body, .. } => (*status, body),
            Heard::Nothing { error, .. } => return Err((no_token(error), latency)),
        };
        if matches!(status, 401 | 403) {
            // Of the credentials themselves: the product says what that means.
            return Err((heard, latency));
        }
        let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let token = answer
            .as_ref()
            .and_then(|answer| answer.get(call.field))
            .and_then(serde_json::Value::as_str)
            .filter(|_| (200..300).contains(&status));
        let Some(token) = token else {
            return Err((no_token(&format!("answered {status}")), latency));
        };
        let token = SecretString::from(token.to_owned());
        *held = Some(Held {
            token: token.clone(),
            until: Instant::now() + call.good_for,
        });
        Ok(token)
    }
}

/// Without a token nothing was sent.
fn no_token(why: &str) -> Heard {
    Heard::Nothing {
        error: format!("no token to send with: {why}"),
        perhaps: false,
    }
}
