//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! Sources of coturn's messages: Redis pub/sub, and a listener that coturn connects to.
//!
//! [`source::SourceConfig::start`] starts one; it sends [`signal::Signal`]s through a [`queue`] until it is stopped.
//! Messages go in batches, decoded by [`decode::decode`]:
//!
//! ```
//! use turnhook_reducer::message::{AllocationId, Kind};
//! use turnhook_subscriber::decode::{Refusal, decode};
//!
//! let channel = b"turn/realm/example.org/user/1800003600:ann/allocation/000000000000000001/status";
//! let message = decode(channel, b"deleted").unwrap();
//! assert_eq!((message.username, message.id), (b"1800003600:ann".as_slice(), AllocationId(1)));
//! assert_eq!(message.kind, Kind::Deleted);
//! // Whatever else is published there is refused, with a reason.
//! assert_eq!(decode(channel, b"gone"), Err(Refusal::BadPayload));
//! ```

mod batch;
pub mod decode;
pub mod direct;
pub mod error;
pub mod queue;
pub mod redis;
pub mod resp;
pub mod signal;
pub mod source;
mod tls;
