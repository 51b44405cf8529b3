//! What an operation of the API is like, and how lists are answered.

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use crate::{Operation, Parameter, Refused, Role, untrusted::Untrusted};

/// A route that reads.
pub(super) const fn reads(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    csv: bool,
) -> Operation {
    Operation {
        method: "get",
        path,
        summary,
        role: Role::Viewer,
        parameters,
        answer: if csv { list } else { object },
        csv,
        lines: false,
    }
}

/// A route that changes something.
pub(super) const fn writes(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
) -> Operation {
    Operation {
        method: "post",
        path,
        summary,
        role: Role::Operator,
        parameters,
        answer: object,
        csv: false,
        lines: false,
    }
}

fn object() -> Value {
    json!({ "type": "object" })
}

fn list() -> Value {
    json!({
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "items": { "type": "object" } },
            "next": { "type": ["string", "null"], "description": "`after` of the next page" },
        },
    })
}

/// A page of a list: as JSON, or with each object's leaves as columns of CSV.
pub(crate) fn page(items: Vec<Value>, next: Option<String>, csv: bool) -> Result<Response, Refused> {
    if !csv {
        return Ok(axum::Json(json!({ "items": items, "next": next })).into_response());
    }
    let mut response = csv_answer(&items)?;
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert("x-next", next);
    }
    Ok(response)
}

/// Each object's leaves as columns of CSV.
///
/// # Errors
/// What cannot be written so.
pub fn csv_answer(items: &[Value]) -> Result<Response, Refused> {
    let text =
        to_csv(items).map_err(|error| Refused::wrong(format!("this cannot be written as CSV: {error}")))?;
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        header::HeaderValue::from_static("attachment; filename=\"turnhook.csv\""),
    );
    Ok(response)
}

fn to_csv(items: &[Value]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut columns: Vec<String> = Vec::new();
    let rows: Vec<Map<String, Value>> = items
        .iter()
        .map(|item| {
            let mut row = Map::new();
            flatten("", item, &mut row);
            for name in row.keys() {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
            row
        })
        .collect();
    if columns.is_empty() {
        // An empty line would be read as a row.
        return Ok(String::new());
    }
    writer.write_record(&columns)?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| match row.get(column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => Untrusted::from(text.as_str()).cell(false).into_owned(),
            Some(other) => other.to_string(),
        }))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn flatten(prefix: &str, value: &Value, row: &mut Map<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&name, value, row);
            }
        }
        other => {
            row.insert(prefix.to_owned(), other.clone());
        }
    }
}
