//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! What people and programs are shown of a running turnhook, and the little that they may change: the page and the JSON
//! API of `[admin] listen`.
//!
//! This crate makes a [`Router`]; whoever has the listener serves it, with limits of its own. What is shown comes from the
//! reads of the store and from [`Engine`], which the program implements. There are no rules here: a question is asked of
//! the store as the command line asks it.
//!
//! ```
//! use turnhook_admin::Zone;
//!
//! // Days and times are those of the zone that is asked for, and of no other.
//! let zone = Zone::named(Some("Europe/Berlin")).expect("a zone of the IANA database");
//! assert_eq!(zone.name(), "Europe/Berlin");
//! assert!(Zone::named(Some("Nowhere/Atall")).is_err());
//! ```

mod access;
mod actions;
mod admin;
mod answer;
mod api;
mod asked;
mod engine;
mod history;
mod json;
mod page;
mod report;
mod routes;
mod text;
mod trial;
pub mod untrusted;
mod zone;

use std::sync::Arc;

use axum::{Router, middleware, routing::any};

pub use access::{Access, AccountError, Kind, MakeError, Role, Who, check_file, make_token, make_user};
pub use admin::Admin;
pub use answer::Refused;
pub use api::operation::csv_answer;
pub use asked::WantsCsv;
pub use engine::{
    EndpointNow, Engine, NodeNow, Sample, ServerNow, SourceNow, StatusNow, StoreNow, Trial, Trying,
};
pub use history::History;
pub use report::{By, Report, Row, usage as report};
pub use routes::{Of, Operation, Parameter, Routes};
pub use trial::CASES;
pub use zone::{Period, Zone};

/// Everything that is served. `more` are routes of others; like all of them they are behind `access`.
pub fn router(admin: Admin, access: Access, more: Routes) -> Router {
    let routes = api::routes(&admin).and(more);
    let (router, document) = routes.into_parts();
    router
        .route("/api/v1/openapi.json", document)
        .merge(page::routes(&admin))
        .fallback(any(page::missing).with_state(admin))
        .layer(middleware::from_fn_with_state(Arc::new(access), access::enter))
        .layer(middleware::from_fn(access::headers))
}
