//! What a request to a billing product says of the endpoint.

use std::time::Duration;

use super::product::ItemVerdict;
use crate::verdict::is_unreachable;

/// What a request says of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It takes items, or refuses some of them with reasons.
    Alive,
    /// It failed.
    Failed {
        /// Whether nobody is there, or nobody can take anything now.
        unreachable: bool,
        /// The status with which it asks to be left alone, and for how long.
        hold: Option<(u16, Duration)>,
        /// What happened, for people.
        error: String,
    },
    /// Something has to be put right first.
    Held(String),
}

impl Signal {
    /// The endpoint's state is that of the worst verdict.
    pub(super) fn worsen(&mut self, verdict: &ItemVerdict, status: Option<u16>, words: &str) {
        match verdict {
            ItemVerdict::Held(why) => *self = Signal::Held(why.clone()),
            ItemVerdict::Retry(after) | ItemVerdict::Uncertain(after) if !matches!(self, Signal::Held(_)) => {
                // Any other status speaks of some items, from somebody who is there.
                if status.is_some_and(|status| status < 500 && !matches!(status, 408 | 429)) {
                    return;
                }
                let code = status.and_then(|status| http::StatusCode::from_u16(status).ok());
                let asks = status.filter(|status| matches!(status, 429 | 503));
                *self = Signal::Failed {
                    unreachable: is_unreachable(code),
                    hold: asks.zip(*after),
                    error: words.to_owned(),
                };
            }
            _ => {}
        }
    }
}
