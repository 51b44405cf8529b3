//! The page: each view is made of a few kinds of blocks, and one template writes them. Whatever it is given is escaped there.

mod bill;
mod blocks;
mod deliveries;
mod operate;
mod overview;
mod plot;
mod search;
mod session;
mod table;
mod timeline;
mod trial;
mod view;

use axum::{
    Router,
    extract::{FromRequestParts as _, State},
    http::{Uri, header},
    response::Response,
    routing::get,
};

use self::view::View;
use crate::{Admin, Refused};

const CSS: &str = include_str!("../../assets/page.css");
const JS: &str = include_str!("../../assets/page.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// All views.
pub(crate) fn routes(admin: &Admin) -> Router {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/page.css", asset("text/css; charset=utf-8", CSS))
        .route("/page.js", asset("text/javascript; charset=utf-8", JS))
        .route("/icon.svg", asset("image/svg+xml", ICON))
        .merge(overview::routes())
        .merge(search::routes())
        .merge(bill::routes())
        .merge(session::routes())
        .merge(blocks::routes())
        .merge(deliveries::routes())
        .merge(operate::routes())
        .with_state(admin.clone())
}

/// A path that is none, or not with this method.
pub(crate) async fn missing(
    State(admin): State<Admin>,
    uri: Uri,
    request: axum::extract::Request,
) -> Response {
    if crate::answer::is_of_the_api(&uri) {
        return crate::answer::nothing_here(uri).await;
    }
    let (mut parts, _) = request.into_parts();
    match View::from_request_parts(&mut parts, &admin).await {
        Ok(view) => view.refuse(Refused::missing("there is no such page")),
        Err(response) => response,
    }
}
