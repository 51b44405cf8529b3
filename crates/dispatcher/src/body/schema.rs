//! The JSON Schemas, the OpenAPI document and the samples in `schema/`: made of the types that are sent, and held to what is
//! committed there. `UPDATE_SCHEMA=1 cargo test -p turnhook-dispatcher schema` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{borrow::Cow, collections::BTreeSet, fs, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};
use turnhook_reducer::event::SessionEvent;

use super::{Data, Envelope, Labels, Ping, Shown, Time, UserData, ping_body};

mod samples;
mod words;

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "examples": ["2026-11-22T06:00:57.624Z"] })
    }
}

impl<T> JsonSchema for Shown<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl JsonSchema for Labels<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

/// The types of events, and what a body of each must have beyond what the type of the field says.
const TYPES: [(&str, &str, &[&str]); 7] = [
    ("session.start", "A session began.", &[]),
    (
        "session.usage",
        "A session carried traffic since its previous event.",
        &["duration_ms"],
    ),
    (
        "session.end",
        "A session is over.",
        &["ended_at", "duration_ms", "end_reason", "accuracy"],
    ),
    (
        "quota.reached",
        "A user has used up a quota, and it has acted: he is blocked, or his session is ended.",
        &[],
    ),
    (
        "user.blocked",
        "A user is blocked: what he has open is ended, and what he begins. A later block takes the place of an earlier one.",
        &[],
    ),
    ("user.unblocked", "A user is blocked no more.", &[]),
    (
        "endpoint.ping",
        "A trial, sent by `turnhook endpoints test`. Never billed.",
        &[],
    ),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schema")
}

/// Of one type, with everything that it refers to under `$defs`.
fn schema(name: &str, description: &str, needed: &[&str]) -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let data = if name == "endpoint.ping" {
        generator.subschema_for::<Ping<'static>>()
    } else if name.starts_with("session.") {
        generator.subschema_for::<Data<'static>>()
    } else {
        generator.subschema_for::<UserData<'static>>()
    };
    // The envelope itself is generic: the shape of it, with this data.
    let envelope = generator.root_schema_for::<Envelope<Ping<'static>>>().to_value();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": description,
        "type": "object",
        "properties": envelope["properties"],
        "required": envelope["required"],
        "$defs": generator.definitions(),
    });
    schema["properties"]["type"] = json!({ "const": name });
    schema["properties"]["data"] = data.to_value();
    // Those that cannot be reached from here.
    let reached = reached(&schema);
    schema["$defs"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| reached.contains(name));
    if !needed.is_empty() {
        let required = schema["$defs"]["Data"]["required"].as_array_mut().unwrap();
        for field in needed {
            if !required.contains(&json!(field)) {
                required.push(json!(field));
            }
        }
    }
    if name == "quota.reached" {
        // Of the others it is null unless a quota made the block.
        schema["$defs"]["UserData"]["properties"]["quota"] = json!({ "$ref": "#/$defs/Quota" });
    }
    words::describe(&mut schema, name);
    schema
}

fn reached(schema: &Value) -> BTreeSet<String> {
    fn refs(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                    found.insert(name.trim_start_matches("#/$defs/").to_owned());
                }
                object.values().for_each(|value| refs(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }
    let root: Map<String, Value> = schema
        .as_object()
        .unwrap()
        .iter()
        .filter(|(k, _)| *k != "$defs")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut found = BTreeSet::new();
    refs(&root.into(), &mut found);
    loop {
        let before = found.len();
        for name in found.clone() {
            refs(&schema["$defs"][&name], &mut found);
        }
        if found.len() == before {
            return found;
        }
    }
}

/// All webhooks in one document, its parts by reference.
fn openapi() -> Value {
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "required": true, "description": description, "schema": { "type": "string" } });
    let parameters = json!([
        header(
            "webhook-id",
            "Names the event: the same on every attempt, at every endpoint, on replay. Count each id once."
        ),
        header(
            "webhook-timestamp",
            "When this attempt was made, in seconds since 1970."
        ),
        header(
            "webhook-signature",
            "`v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, one for each secret, separated by spaces."
        ),
    ]);
    let mut webhooks = Map::new();
    let mut schemas = Map::new();
    for (name, description, needed) in TYPES {
        let mut schema = schema(name, description, needed);
        let title = title(name);
        let object = schema.as_object_mut().unwrap();
        object.remove("$schema");
        let definitions = object.remove("$defs").unwrap();
        // Each type has a `Data` of its own.
        let own = |reference: &str| match reference {
            "Data" | "UserData" => format!("{title}Data"),
            other => other.to_owned(),
        };
        let mut parts = definitions.as_object().unwrap().clone();
        for (part, mut value) in std::mem::take(&mut parts) {
            point(&mut value, &own);
            schemas.insert(own(&part), value);
        }
        point(&mut schema, &own);
        schemas.insert(title.clone(), schema);
        let examples: Map<String, Value> = samples::all()
            .into_iter()
            .filter(|(of, ..)| *of == name)
            .map(|(of, case, body)| {
                let key = if case.is_empty() {
                    "usual".to_owned()
                } else {
                    case.to_owned()
                };
                let _ = of;
                (key, json!({ "value": body }))
            })
            .collect();
        webhooks.insert(
            name.to_owned(),
            json!({ "post": {
                "summary": description,
                "operationId": title,
                "parameters": parameters,
                "requestBody": { "required": true, "content": { "application/json": {
                    "schema": { "$ref": format!("#/components/schemas/{title}") },
                    "examples": examples,
                } } },
                "responses": {
                    "2XX": { "description": "Taken: it is not sent again." },
                    "410": { "description": "Nobody wants these any more: the endpoint is paused." },
                    "429": { "description": "Tried again, after `Retry-After` if that is given." },
                    "default": { "description": "Tried again, or given up: see the receivers' page." },
                },
            } }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "turnhook webhooks",
            "version": "1",
            "summary": "Relay sessions of coturn, as signed webhooks (Standard Webhooks).",
            "description": "Receivers ignore fields, types and values that they do not know: within a major version fields are only added, and what breaks gets a new type name.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "webhooks": webhooks,
        "components": { "schemas": schemas },
    })
}

/// `SessionEnd` of `session.end`.
fn title(name: &str) -> String {
    name.split('.')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

/// References to `$defs` become those of a document of several.
fn point(value: &mut Value, own: &impl Fn(&str) -> String) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/components/schemas/{}", own(name));
            }
            object.values_mut().for_each(|value| point(value, own));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| point(value, own)),
        _ => {}
    }
}

/// The text of a document.
fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

#[test]
fn schema_is_what_is_committed() {
    let mut files: Vec<(String, String)> = Vec::new();
    for (name, description, needed) in TYPES {
        files.push((format!("{name}.json"), text(&schema(name, description, needed))));
    }
    files.push(("openapi.json".to_owned(), text(&openapi())));
    for (name, case, body) in samples::all() {
        let case = if case.is_empty() {
            String::new()
        } else {
            format!(".{case}")
        };
        files.push((format!("examples/{name}{case}.json"), text(&body)));
    }
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        for (name, text) in &files {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    for (name, text) in &files {
        let committed = fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert_eq!(
            &committed, text,
            "schema/{name} is not what the payload's types say: UPDATE_SCHEMA=1 cargo test -p turnhook-dispatcher schema"
        );
    }
    let mut there: Vec<String> = Vec::new();
    for (prefix, folder) in [("", folder()), ("examples/", folder().join("examples"))] {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        there.extend(
            entries
                .filter(|name| name.ends_with(".json"))
                .map(|name| format!("{prefix}{name}")),
        );
    }
    let mut made: Vec<String> = files.into_iter().map(|(name, _)| name).collect();
    there.sort();
    made.sort();
    assert_eq!(there, made, "files of schema/ that nothing makes");
}

fn validator(name: &str) -> jsonschema::Validator {
    let (_, description, needed) = TYPES.into_iter().find(|(of, ..)| *of == name).unwrap();
    jsonschema::draft202012::new(&schema(name, description, needed)).unwrap()
}

/// Every sample is valid, and what lacks a field or has one of another type is not.
#[test]
fn schema_takes_the_samples_and_nothing_less() {
    for (name, case, body) in samples::all() {
        let validator = validator(name);
        let wrong: Vec<String> = validator
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{name} {case}: {wrong:#?}");
        // New fields may come.
        let mut more = body.clone();
        more["data"]["something_new"] = json!(1);
        more["new"] = json!({});
        assert!(validator.is_valid(&more), "{name}: a field that is not known");
        // Of every type there are trials, which are marked.
        let mut trial = body.clone();
        trial["test"] = json!(true);
        assert!(validator.is_valid(&trial), "{name}: a trial");
        trial["test"] = json!("yes");
        assert!(!validator.is_valid(&trial), "{name}: marked with a text");
        let mut other = body.clone();
        other["type"] = json!("session.other");
        assert!(!validator.is_valid(&other), "{name}: of another type");
        let mut less = body.clone();
        less.as_object_mut().unwrap().remove("timestamp");
        assert!(!validator.is_valid(&less), "{name}: without a timestamp");
        if name.starts_with("session.") {
            for field in ["session_id", "usage", "user", "labels", "allocations"] {
                let mut less = body.clone();
                less["data"].as_object_mut().unwrap().remove(field);
                assert!(!validator.is_valid(&less), "{name}: without {field}");
            }
            let mut text = body.clone();
            text["data"]["usage"]["billable_bytes"] = json!("540000");
            assert!(!validator.is_valid(&text), "{name}: a number as a text");
        } else if name != "endpoint.ping" {
            for field in ["user", "realm", "all_realms", "until", "reason", "by", "quota"] {
                let mut less = body.clone();
                less["data"].as_object_mut().unwrap().remove(field);
                assert!(!validator.is_valid(&less), "{name}: without {field}");
            }
        }
    }
    let reached = samples::all()
        .into_iter()
        .find(|(name, ..)| *name == "quota.reached");
    let mut reached = reached.unwrap().2;
    reached["data"]["quota"] = Value::Null;
    assert!(
        !validator("quota.reached").is_valid(&reached),
        "a quota that is none"
    );
    let mut end: Value = samples::all()
        .into_iter()
        .find(|(name, ..)| *name == "session.end")
        .unwrap()
        .2;
    end["data"].as_object_mut().unwrap().remove("accuracy");
    assert!(
        !validator("session.end").is_valid(&end),
        "an end without its accuracy"
    );
}

/// What is sent to try an endpoint is marked, and nothing else is.
#[test]
fn schema_knows_the_mark_of_trials() {
    use crate::samples::{Case, event, payload, user_event};
    let now = turnhook_reducer::time::Timestamp(1_795_327_257_624);
    for event_type in turnhook_reducer::event::EventType::ALL {
        let trial: Value = serde_json::from_slice(&payload(event_type, Case::Exact, now)).unwrap();
        assert_eq!(trial["test"], true, "{trial}");
        assert!(validator(event_type.as_str()).is_valid(&trial), "{trial}");
        let real = if event_type.is_of_session() {
            super::body(&event(event_type, Case::Exact, now))
        } else {
            super::user_body(&user_event(event_type, now))
        };
        let real: Value = serde_json::from_slice(&real).unwrap();
        assert_eq!(real.get("test"), None, "{real}");
        assert_eq!(real["data"], trial["data"]);
    }
}

/// A sample as it is sent.
fn sent(event: &SessionEvent) -> Value {
    serde_json::from_slice(&super::body(event)).unwrap()
}

fn ping() -> Value {
    serde_json::from_slice(&ping_body(
        turnhook_reducer::time::Timestamp(1_795_327_257_624),
        "billing",
    ))
    .unwrap()
}
