//! `/api/v1/…`.

use axum::{Extension, Json, routing::get};
use serde_json::{Value, json};

use crate::{Admin, Operation, Role, Routes, Who};

/// All of them.
pub(crate) fn routes(admin: &Admin) -> Routes {
    let engine = admin.engine.clone();
    Routes::default()
        .route(
            Operation {
                method: "get",
                path: "/whoami",
                summary: "Whom turnhook takes the caller for",
                role: Role::Viewer,
                parameters: &[],
                answer: anything,
                csv: false,
            },
            get(|Extension(who): Extension<Who>| async move { Json(who) }),
        )
        .route(
            Operation {
                method: "get",
                path: "/status",
                summary: "What the program is doing: sources, endpoints, store, this node",
                role: Role::Viewer,
                parameters: &[],
                answer: anything,
                csv: false,
            },
            get(move || {
                let status = engine.status();
                async move { Json(status) }
            }),
        )
}

fn anything() -> Value {
    json!({ "type": "object" })
}
