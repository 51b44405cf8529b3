//! What `schema/` says of a body: each that a receiver of the suite gets is held to it.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use jsonschema::Validator;
use serde_json::Value;

const TYPES: [&str; 7] = [
    "session.start",
    "session.usage",
    "session.end",
    "quota.reached",
    "user.blocked",
    "user.unblocked",
    "endpoint.ping",
];

fn validators() -> &'static BTreeMap<&'static str, Validator> {
    static VALIDATORS: OnceLock<BTreeMap<&str, Validator>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema");
        let read = |name: &'static str| {
            let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
            let schema: Value = serde_json::from_str(&text).unwrap();
            (name, jsonschema::draft202012::new(&schema).unwrap())
        };
        TYPES.map(read).into()
    })
}

/// What is wrong with it; a type without a schema is, too.
pub(crate) fn faults(body: &Value) -> Vec<String> {
    let kind = body["type"].as_str().unwrap_or_default();
    let Some(validator) = validators().get(kind) else {
        return vec![format!("{kind:?} has no schema")];
    };
    validator
        .iter_errors(body)
        .map(|error| format!("{kind}{}: {error}", error.instance_path()))
        .collect()
}
