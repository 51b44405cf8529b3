//! `default.toml` is the documentation: it has to be all of it, and true.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde::de::DeserializeOwned;

use super::{
    DEFAULT_TOML, file,
    locate::{self, KnownKey},
};

/// The names of a table's keys, from serde itself: it lists them when it meets a name that it does not know.
fn fields<T: DeserializeOwned>() -> Vec<String> {
    let error = serde_json::from_str::<T>(r#"{"?": 0}"#)
        .err()
        .unwrap()
        .to_string();
    let (_, expected) = error.split_once("expected ").unwrap();
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_is_listed_and_nothing_else_is() {
    let mut real: Vec<(&str, String)> = Vec::new();
    let tables: [(&str, Vec<String>); 17] = [
        ("", fields::<file::File>()),
        ("source", fields::<file::Source>()),
        ("session", fields::<file::Session>()),
        ("store", fields::<file::Store>()),
        ("http", fields::<file::Http>()),
        ("admin", fields::<file::Admin>()),
        ("endpoint", fields::<file::Endpoint>()),
        ("retry", fields::<file::Retry>()),
        ("include", fields::<super::product::Include>()),
        ("meters", fields::<super::product::Meter>()),
        ("batch", fields::<super::product::Batch>()),
        ("control", fields::<file::Control>()),
        ("gate", fields::<file::Gate>()),
        ("enforce", fields::<file::Enforce>()),
        ("quota", fields::<file::Quota>()),
        ("limits", fields::<file::Limits>()),
        ("log", fields::<file::Log>()),
    ];
    let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
    for (table, keys) in &tables {
        // A table stands at the top as a key of the file, too.
        let keys = keys
            .iter()
            .filter(|key| !(table.is_empty() && names.contains(&key.as_str())));
        real.extend(keys.map(|key| (*table, key.clone())));
    }
    let mut listed: Vec<(&str, String)> = locate::known_keys()
        .into_iter()
        .map(|KnownKey { table, name }| (table, name.to_owned()))
        .collect();
    real.sort();
    listed.sort();
    assert_eq!(listed, real);
}

/// The commented keys of `[[source]]` and `[[endpoint]]`, uncommented.
fn commented(table: &str) -> toml::Table {
    let header = format!("# [[{table}]]");
    let mut inside = false;
    let mut text = String::new();
    for line in DEFAULT_TOML.lines() {
        if line.starts_with("# [[") {
            inside = line == header;
        } else if !line.starts_with('#') && !line.is_empty() {
            inside = false;
        } else if inside && let Some(key) = line.strip_prefix("# ") {
            let is_key = key
                .split_once(" = ")
                .is_some_and(|(name, _)| !name.contains([' ', '`', '"']));
            // The second source repeats what the first has.
            if is_key && !text.contains(&format!("\n{} =", key.split(' ').next().unwrap())) {
                text = text + "\n" + key;
            }
        }
    }
    text.parse().unwrap()
}

#[test]
fn the_defaults_in_comments_are_the_defaults() {
    let minimal = "name = 'x'\ntype = 'redis'";
    let source = toml::Table::try_from(toml::from_str::<file::Source>(minimal).unwrap()).unwrap();
    let endpoint = "name = 'x'\nurl = 'x'";
    let endpoint = toml::Table::try_from(toml::from_str::<file::Endpoint>(endpoint).unwrap()).unwrap();
    for (table, minimal, without_default) in [
        ("source", source, &["name", "type"][..]),
        ("endpoint", endpoint, &["name", "url"]),
    ] {
        let commented = commented(table);
        let mut compared = 0;
        for (key, value) in minimal
            .iter()
            .filter(|(key, _)| !without_default.contains(&key.as_str()))
        {
            // Compared as values of the file: "72h" and "3days" are the same.
            let normal = |value: &toml::Value| match value {
                toml::Value::Table(table) => match table.clone().try_into::<file::Retry>() {
                    Ok(retry) => format!("{retry:?}"),
                    Err(_) => table.to_string(),
                },
                toml::Value::String(text) => text
                    .parse::<super::Span>()
                    .map_or_else(|_| text.clone(), |span| format!("{span:?}")),
                other => other.to_string(),
            };
            assert_eq!(normal(&commented[key]), normal(value), "{table}.{key}");
            compared += 1;
        }
        assert!(compared >= 1, "{table}");
    }
    assert_eq!(commented("source")["heal"].as_bool(), Some(false));
}

/// The contract's numbers.
#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = super::load(&super::Input {
        file: Some((
            "x.toml".into(),
            "[[source]]\nname='a'\ntype='direct'\nlisten='127.0.0.1:0'\n".to_owned(),
        )),
        env: Vec::new(),
    })
    .unwrap();
    let json = config.to_json();
    let session = &json["session"];
    for (key, value) in [
        ("group_by", "user"),
        ("user_pattern", r"^(?:\d{9,}:)?(?P<user>.*)$"),
        ("start_on", "allocation"),
        ("alive_while", "relaying"),
        ("linger", "5s"),
        ("totals_grace", "5s"),
        ("report_grace", "1m 30s"),
        ("expiry_grace", "1m"),
        ("usage_interval", "1m"),
        ("max_session", "1day"),
        ("residue", "64KiB"),
        ("billable", "relayed"),
    ] {
        assert_eq!(session[key], value, "session.{key}");
    }
    assert_eq!(json["store"]["path"], "turnhook.db");
    assert_eq!(config.store.retention, std::time::Duration::from_secs(30 * 86400));
    assert_eq!(config.http.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (config.limits.unconfirmed, config.limits.tombstones),
        (100_000, 200_000)
    );
    assert_eq!(
        json["log"],
        serde_json::json!({"level": "info", "format": "auto"})
    );
    let endpoint = toml::from_str::<file::Endpoint>("name = 'x'\nurl = 'x'").unwrap();
    assert_eq!(endpoint.rate_limit, super::Rate::Unlimited);
    assert_eq!(config.shutdown_grace, std::time::Duration::from_secs(20));
}
