//! `/livez`, `/readyz`, `/metrics` and `/status`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{engine::tap::Taps, health::Health, metrics::Metrics};

mod hosts;
pub(crate) mod server;

/// What `text::encode` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Parts {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    taps: Arc<Taps>,
}

/// Serves until `shutdown`; answers only to `hosts`, besides `localhost` and addresses.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    taps: Arc<Taps>,
    hosts: &[String],
    shutdown: CancellationToken,
) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .route("/record/{source}", get(record))
        .with_state(Parts {
            metrics,
            health,
            taps,
        })
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

/// What a source's reducer is told, from now on: see `turnhook record`.
async fn record(State(parts): State<Parts>, Path(source): Path<String>) -> Response {
    let Some(mut history) = parts.taps.record(&source).await else {
        return (StatusCode::NOT_FOUND, format!("no source named {source:?}\n")).into_response();
    };
    let chunks = futures_util::stream::poll_fn(move |cx| history.poll_recv(cx)).map(Ok::<_, Infallible>);
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(chunks),
    )
        .into_response()
}

async fn status(State(parts): State<Parts>) -> impl IntoResponse {
    Json(parts.health.status())
}
