//! `/livez`, `/readyz`, `/metrics` and `/status`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{health::Health, metrics::Metrics};

/// What `text::encode` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Parts {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Serves until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .with_state(Parts { metrics, health });
    // No graceful wait: these requests take no time, and a scraper's idle connection must not hold up a stop.
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        () = shutdown.cancelled() => Ok(()),
    }
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
