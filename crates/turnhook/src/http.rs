//! `/livez`, `/readyz`, `/metrics` and `/status`, a page that names them; and how the page of `[admin]` is served.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    metrics::{Format, Metrics},
};

mod hosts;
pub(crate) mod server;
pub(crate) mod tls;

pub(crate) use server::Certificate;

/// For who comes with a browser.
const LANDING: &str = include_str!("http/landing.html");

#[derive(Clone)]
struct Parts {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Serves until `shutdown`; answers only to `hosts`, besides `localhost` and addresses.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    hosts: &[String],
    shutdown: CancellationToken,
) {
    let router = Router::new()
        .route("/", get(|| async { Html(LANDING) }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .with_state(Parts { metrics, health })
        .layer(middleware::from_fn_with_state(
            hosts::Hosts::new("http", hosts),
            hosts::check,
        ));
    // No graceful wait: these requests take no time, and a scraper's idle connection must not hold up a stop.
    server::serve(listener, None, router, Duration::ZERO, shutdown).await;
}

/// Serves page and JSON API in the same way; requests under way may take `grace` longer.
pub(crate) async fn serve_admin(
    listener: TcpListener,
    tls: Option<Certificate>,
    router: Router,
    hosts: &[String],
    shutdown: CancellationToken,
) {
    let router = router.layer(middleware::from_fn_with_state(
        hosts::Hosts::new("admin", hosts),
        hosts::check,
    ));
    server::serve(listener, tls, router, Duration::from_secs(2), shutdown).await;
}

async fn readyz(State(parts): State<Parts>) -> Response {
    let readiness = parts.health.readiness();
    let code = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness)).into_response()
}

async fn scrape(State(parts): State<Parts>, headers: HeaderMap) -> impl IntoResponse {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accepts.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let vary = (header::VARY, "accept");
    (
        [(header::CONTENT_TYPE, format.content_type()), vary],
        parts.metrics.encode(format),
    )
}

async fn status(State(parts): State<Parts>) -> impl IntoResponse {
    Json(parts.health.status())
}
