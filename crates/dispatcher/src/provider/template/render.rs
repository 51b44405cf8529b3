//! Templates, rendered without I/O and with a bound on the work.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
    value::Serde,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use turnhook_reducer::time::Timestamp;

use crate::body::rfc3339;

/// Steps of one template, and bytes of what it writes: a mapping of ten lines takes some hundreds.
const FUEL: u64 = 100_000;
const RECURSION: usize = 50;
/// What is escaped for a path.
const PATH: &str = "path";

/// Renders.
pub(super) struct Renderer {
    environment: Environment<'static>,
}

impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renderer").finish_non_exhaustive()
    }
}

/// What templates speak of.
pub(super) fn context(of: &impl Serialize) -> Value {
    Value::from(Serde(of))
}

impl Renderer {
    pub(super) fn new() -> Renderer {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_auto_escape_callback(|name| match name.split_once(':') {
            Some(("json", _)) => AutoEscape::Json,
            Some((PATH, _)) => AutoEscape::Custom(PATH.into()),
            _ => AutoEscape::None,
        });
        environment.set_formatter(formatted);
        environment.add_filter("unix", |at: u64| at / 1000);
        environment.add_filter("unix_ms", |at: u64| at);
        environment.add_filter("rfc3339", |at: u64| rfc3339(Timestamp(at)));
        environment.add_filter("scale", scale);
        environment.add_filter("text", |value: &Value| value.to_string());
        environment.add_filter("texts", texts);
        environment.add_filter("b64", |text: &str| STANDARD.encode(text));
        environment.add_filter("sha256", |text: &str| {
            Sha256::digest(text)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        });
        environment.add_filter("default", |value: &Value, other: Value| {
            if value.is_undefined() || value.is_none() {
                other
            } else {
                value.clone()
            }
        });
        Renderer { environment }
    }

    /// Every value comes out as JSON: a text with its quotes, so that it can be nothing but that text.
    pub(super) fn json(&self, name: &str, source: &str, context: &Value) -> Result<String, String> {
        self.render("json", name, source, context)
    }

    /// Every value comes out as it is.
    pub(super) fn plain(&self, name: &str, source: &str, context: &Value) -> Result<String, String> {
        self.render("plain", name, source, context)
    }

    /// Every value comes out as one segment of a path.
    pub(super) fn path(&self, name: &str, source: &str, context: &Value) -> Result<String, String> {
        self.render(PATH, name, source, context)
    }

    fn render(&self, kind: &str, name: &str, source: &str, context: &Value) -> Result<String, String> {
        self.environment
            .render_named_str(&format!("{kind}:{name}"), source, context.clone())
            .map_err(|error| {
                let line = error.line().unwrap_or(1);
                let detail = error.detail().map(|detail| format!(": {detail}"));
                format!(
                    "the template `{name}`, line {line}: {}{}",
                    error.kind(),
                    detail.unwrap_or_default()
                )
            })
    }
}

fn formatted(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if !matches!(state.auto_escape(), AutoEscape::Custom(_)) {
        return escape_formatter(out, state, value);
    }
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let mut segment = String::new();
    for byte in value.to_string().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    // Some read a lone dot, escaped or not, as "here".
    if matches!(segment.as_str(), "" | "." | "..") {
        let what = format!("{value:?} cannot stand in a path");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    out.write_str(&segment)
        .map_err(|error| Error::new(ErrorKind::WriteFailure, error.to_string()))
}

/// A whole number divided by a power of ten, exactly: `540000|scale(9)` is `0.00054`.
fn scale(number: u64, places: usize) -> Result<Value, Error> {
    if places > 30 {
        let what = format!("scale({places}): 30 places are the most");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let digits = format!("{number:0>width$}", width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let part = part.trim_end_matches('0');
    let scaled = if part.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{part}")
    };
    // A number of JSON, which has as many digits as it likes: it is not quoted.
    Ok(Value::from_safe_string(scaled))
}

/// A map with all of its values as texts.
fn texts(map: &Value) -> Result<Value, Error> {
    let wrong = || Error::new(ErrorKind::InvalidOperation, "texts: this is no map");
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(map) else {
        return Err(wrong());
    };
    let fields: serde_json::Map<_, _> = fields
        .into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(_) => (name, value),
            other => (name, serde_json::Value::from(other.to_string())),
        })
        .collect();
    Ok(Value::from(Serde(fields)))
}
