//! A route of the API and its description are one thing, so that the document and what is served cannot differ.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get},
};
use serde_json::{Map, Value, json};

use crate::{Refused, Role, Who};

/// What a route does, for the document.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `get` or `post` or `put` or `delete`: as in the document.
    pub method: &'static str,
    /// Beneath `/api/v1`, `{name}` for what varies.
    pub path: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Who may; what changes anything is for operators, whatever stands here.
    pub role: Role,
    /// Those of the path are given too.
    pub parameters: &'static [Parameter],
    /// The JSON Schema of a good answer.
    pub answer: fn() -> Value,
    /// Whether it comes as CSV too.
    pub csv: bool,
    /// Whether a good answer is lines of JSON that come as they come about, one reader at a time.
    pub lines: bool,
}

/// A parameter: in the path if it stands there, else in the query (of a POST, in the body as a form).
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// What it may be.
    pub of: Of,
}

/// What a parameter may be. In a query or a form it may be empty, too: that is as if it were not given.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// Any text.
    Text,
    /// A whole number, from and to.
    Number(u64, u64),
    /// One of these.
    Words(&'static [&'static str]),
    /// What this regular expression matches, but for its ends.
    Like(&'static str),
    /// RFC 3339, or a day.
    Time,
    /// A day.
    Day,
    /// A zone's name.
    Zone,
}

impl Of {
    fn schema(self, may_be_empty: bool) -> Value {
        let or_empty = |mut of: Vec<Value>| {
            of.extend(may_be_empty.then(|| json!({ "const": "" })));
            json!({ "anyOf": of })
        };
        match self {
            Of::Text => json!({ "type": "string" }),
            Of::Number(least, most) => or_empty(vec![
                json!({ "type": "integer", "minimum": least, "maximum": most }),
            ]),
            Of::Words(words) => or_empty(vec![json!({ "enum": words })]),
            Of::Like(form) => or_empty(vec![json!({ "type": "string", "pattern": format!("^{form}$") })]),
            Of::Time => or_empty(vec![
                json!({ "type": "string", "format": "date-time" }),
                json!({ "type": "string", "format": "date" }),
            ]),
            Of::Day => or_empty(vec![json!({ "type": "string", "format": "date" })]),
            Of::Zone => or_empty(vec![json!({ "$ref": "#/components/schemas/Zone" })]),
        }
    }
}

impl Parameter {
    /// What it may be is said.
    #[must_use]
    pub const fn new(name: &'static str, about: &'static str, of: Of) -> Parameter {
        Parameter { name, about, of }
    }

    /// A text.
    #[must_use]
    pub const fn text(name: &'static str, about: &'static str) -> Parameter {
        Parameter::new(name, about, Of::Text)
    }
}

/// Routes with their descriptions.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router,
    operations: Vec<Operation>,
}

impl Routes {
    /// Adds one. `handler` answers the method that is described, with its state applied; it finds the caller as an
    /// extension, [`Who`].
    #[must_use]
    pub fn route(mut self, operation: Operation, handler: MethodRouter) -> Routes {
        let path = format!("/api/v1{}", operation.path);
        let guarded = handler.layer(middleware::from_fn_with_state(operation.role, at_least));
        self.router = self.router.route(&path, guarded);
        self.operations.push(operation);
        self
    }

    /// Both. Where the same path and method are in both, axum refuses: it is a slip that every test sees.
    #[must_use]
    pub fn and(mut self, more: Routes) -> Routes {
        self.router = self.router.merge(more.router);
        self.operations.extend(more.operations);
        self
    }

    /// The routes, and the one of the document.
    pub(crate) fn into_parts(self) -> (Router, MethodRouter) {
        let document = document(&self.operations);
        let serve = get(move || {
            let document = document.clone();
            async move { Json(document) }
        });
        (self.router, serve)
    }
}

async fn at_least(State(role): State<Role>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Who>() {
        Some(who) if who.role >= role => next.run(request).await,
        _ => Refused::new(StatusCode::FORBIDDEN, "this is for operators; you are a viewer").into_response(),
    }
}

/// OpenAPI 3.1.
pub(crate) fn document(operations: &[Operation]) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let entry = paths.entry(format!("/api/v1{}", operation.path)).or_default();
        entry.insert(operation.method.to_owned(), described(operation));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "turnhook",
            "version": "1",
            "description": "What turnhook has on record, and what it is doing. Times are RFC 3339. Counters are whole numbers; \
                those beyond 2^53 - 1 are given as strings of digits. Lists are paged: `next` of an answer is `after` of the \
                next request, and null at the end. Fields may be added. A parameter that is empty is as if it were not given.",
        },
        "security": [{ "basic": [] }, { "bearer": [] }],
        "components": {
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer" },
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": { "type": "string" } },
                },
                "Zone": {
                    "description": "A time zone's name; those that the system knows besides are taken, too",
                    "enum": jiff::tz::TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect::<Vec<_>>(),
                },
                "Counter": {
                    "description": "A whole number; beyond 2^53 - 1 as a string of its digits.",
                    "oneOf": [
                        { "type": "integer", "minimum": 0, "maximum": 9007199254740991u64 },
                        { "type": "string", "pattern": "^[0-9]+$" },
                    ],
                },
            },
        },
        "paths": paths,
    })
}

fn described(operation: &Operation) -> Value {
    let is_form = operation.method != "get";
    let in_path = |parameter: &&Parameter| operation.path.contains(&format!("{{{}}}", parameter.name));
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .filter(|parameter| !is_form || in_path(parameter))
        .map(|parameter| {
            let place = if in_path(&parameter) { "path" } else { "query" };
            json!({
                "name": parameter.name, "in": place, "required": place == "path",
                "description": parameter.about, "schema": parameter.of.schema(place == "query"),
            })
        })
        .collect();
    let kind = if operation.lines {
        "application/x-ndjson"
    } else {
        "application/json"
    };
    let mut content = json!({ kind: { "schema": (operation.answer)() } });
    if operation.csv {
        content["text/csv"] = json!({ "schema": { "type": "string" } });
    }
    let error = |what: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        json!({ "description": what, "content": { "application/json": { "schema": schema } } })
    };
    let mut entry = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Done.", "content": content },
            "400": error("Something in the request is wrong."),
            "401": error("No name and password, or token, or wrong ones."),
            "403": error("Not for this role, or not from another site."),
            "404": error("There is none."),
            "429": error("Too many wrong passwords."),
            "503": error("The store does not answer."),
        },
    });
    if operation.lines {
        entry["responses"]["409"] = error("Somebody else is reading.");
    }
    if is_form {
        let fields: Map<String, Value> = operation
            .parameters
            .iter()
            .filter(|parameter| !in_path(parameter))
            .map(|parameter| {
                let mut field = parameter.of.schema(true);
                field["description"] = parameter.about.into();
                (parameter.name.to_owned(), field)
            })
            .collect();
        let schema = json!({ "type": "object", "properties": fields });
        entry["requestBody"] =
            json!({ "content": { "application/x-www-form-urlencoded": { "schema": schema } } });
    }
    entry
}
