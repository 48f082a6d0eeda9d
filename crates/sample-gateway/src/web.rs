//! The HTTP side: one route per thing that a test or a probe wants to see.

use crate::life::Service;
use crate::{Readiness, page, socket, state};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// The largest body that `/echo` takes, in bytes.
const ECHO_MAX: usize = 64 << 20;
/// The longest that `/slow` and `/echo` may be asked to take.
const SLOW_MAX: Duration = Duration::from_secs(600);
/// Between two server-sent events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// All routes of one service.
pub(crate) fn routes(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/ws", any(upgrade))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/version", get(version))
        .route("/idle", get(idle))
        .route("/chunk/{n}", get(chunk))
        .route("/assets/{name}", get(asset))
        .route("/echo", post(echo))
        .route("/slow", get(slow))
        .route("/events", get(events))
        .route("/state", get(read_state).post(add_to_state))
        .layer(DefaultBodyLimit::max(ECHO_MAX))
        .with_state(service)
}

type Shared = State<Arc<Service>>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn root(State(service): Shared, upgrade: Upgrade) -> Response {
    match upgrade {
        Ok(upgrade) => open_socket(service, upgrade),
        Err(_) => match service.installed.open_page(page::INDEX) {
            Ok(html) => {
                ([(header::CONTENT_TYPE, page::HTML), page::POLICY, page::NO_CACHE], html).into_response()
            }
            Err(error) => broken(&error),
        },
    }
}

async fn upgrade(State(service): Shared, upgrade: Upgrade) -> Response {
    match upgrade {
        Ok(upgrade) => open_socket(service, upgrade),
        Err(rejection) => rejection.into_response(),
    }
}

fn open_socket(service: Arc<Service>, upgrade: WebSocketUpgrade) -> Response {
    let sockets = service.sockets.clone();
    upgrade.on_upgrade(move |open| sockets.track_future(socket::serve(service, open)))
}

async fn live(State(service): Shared) -> Response {
    let body = |ok| Json(json!({"ok": ok, "status": if ok { "live" } else { "dead" }}));
    if service.knobs.never_live {
        return (StatusCode::SERVICE_UNAVAILABLE, body(false)).into_response();
    }
    body(true).into_response()
}

async fn ready(State(service): Shared) -> Response {
    let failing = match service.readiness() {
        Readiness::Ready if service.is_stopping() => "stopping",
        Readiness::Ready => return Json(json!({"ready": true, "failing": []})).into_response(),
        Readiness::Starting => "starting",
        Readiness::Unready => "backend",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "failing": [failing]}))).into_response()
}

async fn started(State(service): Shared) -> Response {
    if service.readiness() == Readiness::Starting {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"started": false}))).into_response();
    }
    Json(json!({"started": true})).into_response()
}

/// Asking changes nothing.
async fn idle(State(service): Shared) -> Response {
    Json(json!({"idle": service.is_idle()})).into_response()
}

async fn version(State(service): Shared) -> Response {
    if service.knobs.no_version {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(service.identity()).into_response()
}

async fn chunk(State(service): Shared, Path(n): Path<usize>) -> Response {
    match service.installed.open_chunk(n) {
        Ok((name, content)) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::ETAG, name)], content)
                .into_response()
        }
        Err(error) => broken(&error),
    }
}

async fn asset(State(service): Shared, Path(name): Path<String>) -> Response {
    // Only names from the manifest: what a request says never becomes a path.
    let Some(name) = service.installed.manifest.assets.iter().find(|asset| **asset == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match service.installed.open_page(&format!("{}/{name}", page::ASSETS)) {
        Ok(content) => {
            ([(header::CONTENT_TYPE, page::content_type(name)), page::IMMUTABLE], content).into_response()
        }
        Err(error) => broken(&error),
    }
}

/// What a program whose files are gone can still say.
fn broken(error: &crate::installed::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoQuery {
    /// Milliseconds between the whole body and the answer.
    #[serde(default)]
    ms: u64,
}

async fn echo(State(service): Shared, Query(query): Query<EchoQuery>, body: Bytes) -> Response {
    if service.spoils_echo() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "this one goes wrong").into_response();
    }
    sleep(Duration::from_millis(query.ms).min(SLOW_MAX)).await;
    let digest = hex::encode(Sha256::digest(&body));
    let mut headers = HeaderMap::new();
    headers.insert("x-body-length", body.len().into());
    headers.insert("x-body-sha256", digest.parse().expect("hex digits are a header value"));
    (headers, body).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowQuery {
    /// Milliseconds that the whole body takes.
    #[serde(default)]
    ms: u64,
    /// Into how many pieces it is cut.
    #[serde(default = "SlowQuery::pieces_default")]
    pieces: u32,
    /// Bytes per piece.
    #[serde(default = "SlowQuery::size_default")]
    size: u32,
}

impl SlowQuery {
    fn pieces_default() -> u32 {
        10
    }

    fn size_default() -> u32 {
        1024
    }
}

/// Streams `pieces` × `size` bytes over `ms` milliseconds, the last piece at the end.
async fn slow(Query(query): Query<SlowQuery>) -> Response {
    let pieces = query.pieces.clamp(1, 10_000);
    let piece = Bytes::from(vec![b'.'; query.size.min(1 << 20) as usize]);
    let length = u64::from(pieces) * piece.len() as u64;
    let every = Duration::from_millis(query.ms).min(SLOW_MAX) / pieces;
    let began = Instant::now();
    let body = stream::unfold(0_u32, move |sent| {
        let piece = piece.clone();
        async move {
            if sent == pieces {
                return None;
            }
            sleep_until(began + every * (sent + 1)).await;
            Some((Ok::<_, Infallible>(piece), sent + 1))
        }
    });
    ([("x-body-length", length.to_string())], Body::from_stream(body)).into_response()
}

/// Numbered ticks until the service stops; the last event says so.
async fn events(State(service): Shared) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(Some(1_u64), move |next| {
        let service = Arc::clone(&service);
        async move {
            let seq = next?;
            let stopping = tokio::select! {
                () = service.stopped() => true,
                () = sleep(EVENT_INTERVAL) => false,
            };
            let content = json!({"seq": seq, "version": service.version(), "pid": std::process::id()});
            let event = Event::default()
                .event(if stopping { "shutdown" } else { "tick" })
                .id(seq.to_string())
                .data(content.to_string());
            Some((Ok(event), (!stopping).then_some(seq + 1)))
        }
    });
    Sse::new(events)
}

async fn read_state(State(service): Shared) -> Response {
    with_state(service, state::State::summary).await
}

async fn add_to_state(State(service): Shared, text: String) -> Response {
    with_state(service, move |state| state.add(&text)).await
}

async fn with_state<F>(service: Arc<Service>, act: F) -> Response
where
    F: FnOnce(&state::State) -> Result<state::Summary, state::Error> + Send + 'static,
{
    // The database blocks, and a durable write waits for the disk.
    let outcome = tokio::task::spawn_blocking(move || service.state.as_ref().map(act)).await;
    match outcome {
        Ok(Some(Ok(summary))) => Json(summary).into_response(),
        Ok(Some(Err(error))) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Ok(None) => {
            (StatusCode::NOT_FOUND, "the service was started without a state directory\n").into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
