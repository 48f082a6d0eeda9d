//! HTTP: the same methods and reports, for scripts, probes and the command line.

use super::guard::Guard;
use super::rpc::{Failure, Registry};
use super::socket;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Routes for the Unix socket: its mode 0600 is the login.
pub fn local(registry: Arc<Registry>) -> Router {
    routes().with_state(Desk { registry, actor: "local" })
}

/// Routes for loopback TCP: every request is checked.
pub fn public(registry: Arc<Registry>, token: String, hosts: Vec<String>) -> Router {
    let guard = Guard { token, hosts };
    routes()
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let verdict = guard.admit(request.uri().path(), request.headers());
            async move {
                match verdict {
                    Ok(()) => next.run(request).await,
                    Err((status, message)) => {
                        (status, Json(json!({ "error": { "message": message } }))).into_response()
                    }
                }
            }
        }))
        .with_state(Desk { registry, actor: "http" })
}

#[derive(Clone)]
struct Desk {
    registry: Arc<Registry>,
    actor: &'static str,
}

fn routes() -> Router<Desk> {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .route("/api/services", get(services))
        .route("/api/services/{name}", get(service))
        .route("/api/services/{name}/runs", get(runs))
        .route("/api/runs/{id}", get(run))
        .route("/api/rpc/{method}", post(call))
        .route("/api/events", get(events))
        .route("/ws", get(websocket))
}

async fn answer(desk: &Desk, method: &str, params: Value) -> Response {
    match desk.registry.call(method, params, desk.actor).await {
        Ok(value) => Json(value).into_response(),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> Response {
    (status(failure), Json(json!({ "error": failure.json() }))).into_response()
}

fn status(failure: &Failure) -> StatusCode {
    match failure.code.as_str() {
        "unknown_method" | "unknown_service" | "unknown_run" => StatusCode::NOT_FOUND,
        "invalid_params" => StatusCode::BAD_REQUEST,
        "already_running" | "past_the_cut" | "refused" => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

async fn services(State(desk): State<Desk>) -> Response {
    answer(&desk, "status", Value::Null).await
}

async fn service(State(desk): State<Desk>, Path(name): Path<String>) -> Response {
    answer(&desk, "status", json!({ "service": name })).await
}

async fn runs(State(desk): State<Desk>, Path(name): Path<String>) -> Response {
    answer(&desk, "update.runs.list", json!({ "service": name })).await
}

async fn run(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    answer(&desk, "update.runs.get", json!({ "runId": id })).await
}

async fn call(State(desk): State<Desk>, Path(method): Path<String>, body: Bytes) -> Response {
    let params = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    match params {
        Ok(params) => answer(&desk, &method, params).await,
        Err(error) => {
            let message = format!("the body is not JSON: {error}");
            (
                StatusCode::BAD_REQUEST,
                Json(json!({ "error": { "code": "invalid_params", "message": message } })),
            )
                .into_response()
        }
    }
}

#[derive(Deserialize)]
struct Subscription {
    service: Option<String>,
}

/// Server-sent events: one whole view per change, the present one first.
async fn events(State(desk): State<Desk>, Query(subscription): Query<Subscription>) -> Response {
    if let Some(name) = &subscription.service
        && let Err(failure) = desk.registry.named(name)
    {
        return failed(&failure);
    }
    let (sender, receiver) = mpsc::channel::<Result<Event, Infallible>>(16);
    for (name, handle) in &desk.registry.services {
        if subscription.service.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let (mut views, sender) = (handle.watch(), sender.clone());
        views.mark_changed();
        tokio::spawn(async move {
            while views.changed().await.is_ok() {
                let view = views.borrow_and_update().clone();
                let event = Event::default().event("update.run.changed").json_data(&view);
                let Ok(event) = event else { return };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
    }
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

async fn websocket(State(desk): State<Desk>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| socket::converse(socket, desk.registry, desk.actor))
}
