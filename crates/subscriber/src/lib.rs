//! Sources of coturn's messages: Redis pub/sub, and a listener that coturn connects to.
//!
//! [`source::SourceConfig::start`] starts one; it sends [`signal::Signal`]s through a [`queue`] until it is stopped.
//! Messages go raw, in batches; [`decode::decode`] is for whoever takes them out.
pub mod decode;
pub mod direct;
pub mod error;
pub mod queue;
pub mod redis;
pub mod resp;
pub mod signal;
pub mod source;
mod tls;
