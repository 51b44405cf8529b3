//! Sources of coturn's messages: Redis pub/sub, and a listener that coturn connects to.
pub mod signal;
