//! Sources of coturn's messages: Redis pub/sub, and a listener that coturn connects to.
pub mod decode;
pub mod error;
pub mod queue;
pub mod resp;
pub mod signal;
