//! HTTP: the same methods and reports, for scripts, probes and the command line.

use super::guard::{self, Guard, Pass};
use super::login::{Lease, Logins, TOKEN_LIFE};
use super::page;
use super::rpc::{Failure, Registry};
use super::socket;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Whoever follows events hears at least so often that the daemon is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Who asks, for the record.
#[derive(Clone, Copy)]
struct Actor(&'static str);

/// Where the page is, and who lets people in.
#[derive(Clone)]
pub struct Entrance {
    /// The address of the TCP listener.
    pub address: SocketAddr,
    /// Its logins.
    pub logins: Arc<Logins>,
}

/// Routes for the Unix socket: its mode 0600 is the login. `entrance` is that of the page, where there is one.
pub fn local(registry: Arc<Registry>, entrance: Option<Entrance>) -> Router {
    let open = post(move || async move { opened(entrance) });
    routes().route("/api/rpc/page.open", open).layer(Extension(Actor("local"))).with_state(registry)
}

/// Routes for loopback TCP: every request is checked.
pub fn public(registry: Arc<Registry>, logins: Arc<Logins>, hosts: Vec<String>) -> Router {
    let guard = Guard { logins: Arc::clone(&logins), hosts };
    let session = Router::new().route(guard::SESSION, post(log_in).delete(log_out)).layer(Extension(logins));
    routes()
        .merge(page::routes())
        .merge(session)
        .layer(middleware::from_fn(move |mut request: Request, next: Next| {
            let (path, headers) = (request.uri().path(), request.headers());
            let verdict = guard.admit(request.method(), path, headers, Instant::now());
            async move {
                let mut response = match verdict {
                    Ok(pass) => {
                        let extensions = request.extensions_mut();
                        extensions.insert(Actor(if matches!(pass, Pass::Session(_)) {
                            "page"
                        } else {
                            "http"
                        }));
                        if let Pass::Session(lease) = pass {
                            extensions.insert(lease);
                        }
                        next.run(request).await
                    }
                    Err((status, message)) => {
                        (status, Json(json!({ "error": { "message": message } }))).into_response()
                    }
                };
                page::protect(response.headers_mut());
                response
            }
        }))
        .with_state(registry)
}

/// A one-time token for the page, as the address that it opens. Only asked over the Unix socket.
fn opened(entrance: Option<Entrance>) -> Response {
    let Some(Entrance { address, logins }) = entrance else {
        let message =
            "there is no page: `[daemon] listen` is off; name an address there and start the daemon again";
        return failed(&Failure::new("no_page", message));
    };
    let token = logins.issue(Instant::now());
    // What follows the # never leaves the browser by itself: no log, no referrer and no proxy has it.
    let address = format!("http://{address}/#token={token}");
    Json(json!({ "address": address, "validForSeconds": TOKEN_LIFE.as_secs() })).into_response()
}

#[derive(Deserialize)]
struct Ticket {
    token: String,
}

/// Exchanges a token for a session. The one that the browser has ends: its cookie is overwritten, and nobody could end it
/// any more, nor what is followed under it.
async fn log_in(Extension(logins): Extension<Arc<Logins>>, headers: HeaderMap, body: Bytes) -> Response {
    let ticket = serde_json::from_slice::<Ticket>(&body).ok();
    let granted = ticket.and_then(|ticket| logins.exchange(ticket.token.trim(), Instant::now()));
    let Some(granted) = granted else {
        let message =
            "this token is not valid, or not any more: `cutover open` prints an address with another one";
        return failed(&Failure::new("login_refused", message));
    };
    end_session(&logins, &headers);
    let cookie = set_cookie(&headers, &granted.cookie, "");
    ([(header::SET_COOKIE, cookie)], Json(json!({ "key": granted.key }))).into_response()
}

/// Ends the session whose cookie is sent. Whoever has it may: it opens nothing, and this ends it.
async fn log_out(Extension(logins): Extension<Arc<Logins>>, headers: HeaderMap) -> Response {
    end_session(&logins, &headers);
    ([(header::SET_COOKIE, set_cookie(&headers, "", "; Max-Age=0"))], Json(json!({ "ok": true })))
        .into_response()
}

fn end_session(logins: &Logins, headers: &HeaderMap) {
    if let Some(cookie) = guard::cookie(headers) {
        logins.revoke(cookie, Instant::now());
    }
}

fn set_cookie(headers: &HeaderMap, value: &str, more: &str) -> String {
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{more}", guard::cookie_name(headers))
}

fn routes() -> Router<Arc<Registry>> {
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

async fn answer(registry: &Registry, method: &str, params: Value, actor: Actor) -> Response {
    match registry.call(method, params, actor.0).await {
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
        "login_refused" => StatusCode::UNAUTHORIZED,
        "already_running" | "past_the_cut" | "refused" => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// Whom a handler asks, and who asks.
type Desk = (State<Arc<Registry>>, Extension<Actor>);

async fn services((State(registry), Extension(actor)): Desk) -> Response {
    answer(&registry, "status", Value::Null, actor).await
}

async fn service((State(registry), Extension(actor)): Desk, Path(name): Path<String>) -> Response {
    answer(&registry, "status", json!({ "service": name }), actor).await
}

async fn runs((State(registry), Extension(actor)): Desk, Path(name): Path<String>) -> Response {
    answer(&registry, "update.runs.list", json!({ "service": name }), actor).await
}

async fn run((State(registry), Extension(actor)): Desk, Path(id): Path<String>) -> Response {
    answer(&registry, "update.runs.get", json!({ "runId": id }), actor).await
}

async fn call(
    (State(registry), Extension(actor)): Desk,
    Path(method): Path<String>,
    body: Bytes,
) -> Response {
    let params = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    match params {
        Ok(params) => answer(&registry, &method, params, actor).await,
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

/// Server-sent events: one whole view per change, the present one first. They end with the session that asked.
async fn events(
    State(registry): State<Arc<Registry>>,
    lease: Option<Extension<Lease>>,
    Query(subscription): Query<Subscription>,
) -> Response {
    if let Some(name) = &subscription.service
        && let Err(failure) = registry.named(name)
    {
        return failed(&failure);
    }
    let (sender, receiver) = mpsc::channel::<Result<Event, Infallible>>(16);
    for (name, handle) in &registry.services {
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
    let over = async move {
        match lease {
            Some(Extension(lease)) => lease.over().await,
            None => std::future::pending().await,
        }
    };
    let stream = futures_util::stream::unfold((receiver, Box::pin(over)), |(mut receiver, mut over)| async {
        let event = tokio::select! {
            event = receiver.recv() => event?,
            () = &mut over => return None,
        };
        Some((event, (receiver, over)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn websocket((State(registry), Extension(actor)): Desk, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| socket::converse(socket, registry, actor.0))
}
