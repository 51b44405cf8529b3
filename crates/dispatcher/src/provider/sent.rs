//! What of a delivery was sent to a product. Written down before the first request that has it goes out: from then on it
//! may have been counted, is sent again to the byte, and only for as long as the product knows it again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use turnhook_reducer::time::Timestamp;

use super::product::Item;

/// A delivery's items as they were sent, and how far each has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// When the first attempt began that may have been counted: milliseconds since 1970, by the wall clock.
    pub began: u64,
    /// In the order in which they are sent.
    pub items: Vec<SentItem>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentItem {
    /// As it is sent.
    pub item: Item,
    /// How far it has come.
    pub state: State,
}

/// How far an item has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is to be sent.
    Open,
    /// The product has it.
    Taken,
    /// The product will never take it, for this reason.
    Refused(String),
}

/// For what stands in an item beside its text.
const ROOM: usize = 256;

impl Sent {
    /// Items that are about to be sent for the first time.
    #[must_use]
    pub fn new(items: Vec<Item>, now: Timestamp) -> Sent {
        let items = items.into_iter().map(|item| SentItem {
            item,
            state: State::Open,
        });
        Sent {
            began: now.0,
            items: items.collect(),
        }
    }

    /// As they were before the first of them was sent.
    #[must_use]
    pub fn all_open(mut self) -> Sent {
        for one in &mut self.items {
            one.state = State::Open;
        }
        self
    }

    /// Those that are to be sent.
    pub fn open(&self) -> impl Iterator<Item = &Item> {
        let open = self.items.iter().filter(|one| one.state == State::Open);
        open.map(|one| &one.item)
    }

    /// As it is written down.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let texts = self.items.iter().map(|one| one.item.text.len());
        // The text is there with its quotes escaped, and the rest of an item beside it.
        let mut bytes = Vec::with_capacity(texts.map(|text| text + text / 4 + ROOM).sum());
        match serde_json::to_writer(&mut bytes, self) {
            Ok(()) => Bytes::from(bytes),
            // Nothing in these types can fail to serialise: keys are strings, and the writer is memory.
            Err(error) => {
                turnhook_reducer::internal_error!("what is sent cannot be written down: {error}");
                Bytes::new()
            }
        }
    }

    /// What [`Sent::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Sent> {
        serde_json::from_slice(bytes).ok()
    }
}
