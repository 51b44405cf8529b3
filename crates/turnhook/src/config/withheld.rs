//! For commands that only look into the store: what stands in files for sources and endpoints is not read.
//!
//! Such a command connects to no coturn and sends to no endpoint. Often it is run by somebody who may not read their
//! secrets, or while the service manager that hands them out does not.

use serde_json::{Map, Value};

use super::locate::{self, KnownKey};

/// A signing secret of no meaning, so that an endpoint that names a file is a whole one.
const SIGNING: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// In the place of a password; with a colon, as `basic` wants it.
const PASSWORD: &str = "not:read";

/// Takes each key that names a file out of sources and endpoints, and puts something harmless in the place of what the
/// file would have held. Another table that names one (users of the page, say) goes as a whole: nobody asks for it
/// here.
pub(super) fn withhold(root: &mut Value) {
    let known = locate::known_keys();
    let Value::Object(root) = root else { return };
    root.retain(|table, value| match table.as_str() {
        "store" => true,
        "source" | "endpoint" => {
            let list = value.as_array_mut().into_iter().flatten();
            list.filter_map(Value::as_object_mut)
                .enumerate()
                .for_each(|(index, one)| of_table(table, index, one, &known));
            true
        }
        _ => match value {
            Value::Object(one) => !one.keys().any(|key| names_a_file(key)),
            Value::Array(list) => !list
                .iter()
                .filter_map(Value::as_object)
                .any(|one| one.keys().any(|key| names_a_file(key))),
            _ => true,
        },
    });
}

fn of_table(table: &str, index: usize, values: &mut Map<String, Value>, known: &[KnownKey]) {
    if values.contains_key("customers_file") {
        // It says what to do with whom the map lacks, and would be said to do nothing without one.
        values.remove("unknown");
    }
    let files: Vec<String> = values.keys().filter(|key| names_a_file(key)).cloned().collect();
    for key in files {
        values.remove(&key);
        let Some(given) = key.strip_suffix("_file") else {
            continue;
        };
        if !known.iter().any(|one| one.table == table && one.name == given) {
            continue;
        }
        let stand_in = match given {
            "secrets" => Value::from(vec![SIGNING]),
            "url" if table == "endpoint" => Value::from(format!("https://not-read-{index}.invalid")),
            "url" => Value::from("redis://127.0.0.1"),
            "proxy" => Value::from("http://127.0.0.1"),
            "headers" => {
                let mut headers = values
                    .get("headers")
                    .cloned()
                    .unwrap_or_else(|| Value::Object(Map::new()));
                if let Value::Object(headers) = &mut headers {
                    headers.insert(
                        "x-not-read".to_owned(),
                        Value::from(format!("{PASSWORD}-{index}")),
                    );
                }
                headers
            }
            // Each another one: with the same credentials two endpoints would be one account, and bill twice.
            _ => Value::from(format!("{PASSWORD}-{index}")),
        };
        values.insert(given.to_owned(), stand_in);
    }
}

/// Whether a key's value is the path of a file that is read.
pub(super) fn names_a_file(key: &str) -> bool {
    key.ends_with("_file") || ["tls_cert", "tls_key", "client_cert", "client_key"].contains(&key)
}
