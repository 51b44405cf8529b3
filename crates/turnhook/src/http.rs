//! `/livez`, `/readyz`, `/metrics` and `/status`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{health::Health, metrics::Metrics};

mod hosts;
pub(crate) mod server;

/// What `text::encode` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .with_state(Parts { metrics, health })
        .layer(middleware::from_fn_with_state(
            hosts::Hosts::new(hosts),
            hosts::check,
        ));
    // No graceful wait: these requests take no time, and a scraper's idle connection must not hold up a stop.
    server::serve(listener, router, Duration::ZERO, shutdown).await;
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

async fn scrape(State(parts): State<Parts>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], parts.metrics.encode())
}

async fn status(State(parts): State<Parts>) -> impl IntoResponse {
    Json(parts.health.status())
}
