//! The load generator against real servers on loopback: above all, that what goes wrong is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{any, get, post};
use cutover_testkit::load::{
    Connection, Entry, Handshake, Load, LoadPlan, Log, Outcome, Record, Report, RequestRecord,
    SocketExchange, SocketPlan,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(20);

/// Serves until it is dropped.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn serve(routes: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tasks.spawn(async move { axum::serve(listener, service).await.unwrap() });
    Server { address, _tasks: tasks }
}

/// Answers every connection with these bytes, once a request has come, and closes it.
async fn answering(bytes: &'static [u8]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    Server { address, _tasks: tasks }
}

fn get_entry(path: &str) -> Entry {
    Entry::Get { path: path.into() }
}

async fn until(what: &str, log: &Log, holds: impl Fn(&Report) -> bool) {
    let waiting = async {
        while !holds(&log.report()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, waiting).await.is_ok(),
        "not within {LIMIT:?}: {what}: {}",
        log.report()
    );
}

/// Sends ten requests of one kind and answers the only fate that they have.
async fn fate(target: SocketAddr, entry: Entry, hold_limit: Duration) -> (Outcome, Option<u16>) {
    let plan = LoadPlan { mix: vec![entry], hold_limit, ..LoadPlan::new(target) };
    let load = Load::start(plan).unwrap();
    let log = load.log();
    until("ten requests", &log, |report| report.sent >= 10).await;
    let report = load.stop().await.unwrap();
    let fates: BTreeSet<_> = requests(&log).iter().map(|record| (record.outcome, record.status)).collect();
    assert_eq!(fates.len(), 1, "{fates:?}");
    let fate = fates.into_iter().next().unwrap();
    let failed = if fate.0 == Outcome::Ok { 0 } else { report.sent };
    assert_eq!((report.failed, report.failed_by.values().sum::<u64>()), (failed, failed));
    fate
}

fn requests(log: &Log) -> Vec<RequestRecord> {
    let only = |record| if let Record::Request(request) = record { Some(request) } else { None };
    log.records().into_iter().filter_map(only).collect()
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(SocketAddr, bool)>>>);

async fn see(State(seen): State<Seen>, ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap) {
    seen.0
        .lock()
        .unwrap()
        .push((peer, headers.get("authorization").is_some_and(|value| value == "Bearer t")));
}

#[tokio::test]
async fn a_healthy_server_fails_nothing_and_the_summary_is_the_raw_logs() {
    let seen = Seen::default();
    let routes = Router::new()
        .route("/numbered/{n}", get(see))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/stream", get(|| async { Body::from_stream(pieces(5)) }))
        .with_state(seen.clone());
    let server = serve(routes).await;
    let area = tempfile::tempdir().unwrap();
    let path = area.path().join("raw.jsonl");
    let plan = LoadPlan {
        rate: 400,
        mix: vec![
            get_entry("/numbered/{n}"),
            Entry::Echo { path: "/echo".into(), bytes: 100_000 },
            Entry::Stream { path: "/stream".into(), bytes: 50 },
        ],
        headers: vec![("authorization".into(), "Bearer t".into())],
        log: Some(path.clone()),
        ..LoadPlan::new(server.address)
    };
    let load = Load::start(plan).unwrap();
    let log = load.log();
    until("240 requests", &log, |report| report.sent >= 240).await;
    let report = load.stop().await.unwrap();

    assert_eq!((report.failed, report.cut), (0, 0), "{report}");
    assert!(report.p50_us > 0 && report.p50_us <= report.p99_us && report.p99_us <= report.longest_wait_us);
    let written = Log::read(&path).unwrap();
    assert_eq!(written, log.records());
    assert_eq!(Report::of(&written), report);
    let fresh = requests(&log).iter().filter(|record| record.connection == Connection::Fresh).count() as u64;
    assert!(fresh.abs_diff(report.sent / 2) <= 3, "half are fresh: {fresh} of {}", report.sent);
    let seen = seen.0.lock().unwrap();
    let peers: BTreeSet<_> = seen.iter().map(|(peer, _)| peer).collect();
    // How many are kept depends on how many wait at once; that they are used again does not.
    assert!(peers.len() < seen.len() && peers.len() >= seen.len() / 2, "kept connections are used again");
    assert!(seen.iter().all(|(_, authorized)| *authorized));
}

fn pieces(count: usize) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    futures_util::stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"0123456789"))))
}

#[tokio::test]
async fn what_goes_wrong_is_counted_as_what_it_is() {
    // The pause lets the head and what came before leave; without it nothing would have been sent.
    let breaking = || {
        let broken = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(std::io::Error::other("broken"))
        });
        Body::from_stream(futures_util::StreamExt::chain(pieces(2), broken))
    };
    let routes = Router::new()
        .route("/500", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "no") }))
        .route("/breaking", get(move || async move { breaking() }))
        .route("/short", get(|| async { Body::from_stream(pieces(4)) }))
        .route("/other", post(|body: Bytes| async move { vec![b'x'; body.len()] }))
        .route("/shorter", post(|body: Bytes| async move { body.slice(..10) }));
    let server = serve(routes).await;
    let at = server.address;
    let echo = |path: &str| Entry::Echo { path: path.into(), bytes: 64 };
    let stream = Entry::Stream { path: "/short".into(), bytes: 50 };
    assert_eq!(fate(at, get_entry("/500"), LIMIT).await, (Outcome::ServerError, Some(500)));
    assert_eq!(fate(at, get_entry("/breaking"), LIMIT).await, (Outcome::Truncated, Some(200)));
    assert_eq!(fate(at, stream, LIMIT).await, (Outcome::Truncated, Some(200)));
    assert_eq!(fate(at, get_entry("/missing"), LIMIT).await, (Outcome::UnexpectedStatus, Some(404)));
    assert_eq!(fate(at, echo("/other"), LIMIT).await, (Outcome::Mismatch, Some(200)));
    assert_eq!(fate(at, echo("/shorter"), LIMIT).await, (Outcome::Truncated, Some(200)));

    let half = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it").await;
    assert_eq!(fate(half.address, get_entry("/"), LIMIT).await, (Outcome::Truncated, Some(200)));
    let silent = answering(b"").await;
    assert_eq!(fate(silent.address, get_entry("/"), LIMIT).await, (Outcome::Cut, None));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(fate(closed, get_entry("/"), LIMIT).await, (Outcome::Connect, None));
}

#[tokio::test]
async fn an_answer_beyond_the_hold_limit_is_a_failure_even_if_it_comes() {
    let pause = |ms| async move { tokio::time::sleep(Duration::from_millis(ms)).await };
    let routes =
        Router::new().route("/late", get(move || pause(300))).route("/never", get(move || pause(600_000)));
    let server = serve(routes).await;
    let hold_limit = Duration::from_millis(100);
    assert_eq!(fate(server.address, get_entry("/late"), hold_limit).await, (Outcome::Slow, Some(200)));
    assert_eq!(fate(server.address, get_entry("/never"), hold_limit).await, (Outcome::Unanswered, None));
}

#[tokio::test]
async fn a_stall_cannot_hide_behind_the_requests_that_it_holds_up() {
    let gate = watch::Sender::new(true);
    let open = gate.subscribe();
    let held = move || {
        let mut open = open.clone();
        async move {
            let _ = open.wait_for(|open| *open).await;
        }
    };
    let server = serve(Router::new().route("/", get(held))).await;
    let load = Load::start(LoadPlan { rate: 200, ..LoadPlan::new(server.address) }).unwrap();
    let log = load.log();
    until("it runs", &log, |report| report.sent >= 20).await;
    gate.send_replace(false);
    let closed_us = log.now_us();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let opened_us = log.now_us();
    gate.send_replace(true);
    let report = load.stop().await.unwrap();

    assert_eq!(report.failed, 0, "{report}");
    assert!(report.longest_wait_us >= 900_000, "{report}");
    // One that waits for its turn would have sent a single request into the stall.
    let during = requests(&log)
        .into_iter()
        .filter(|request| request.scheduled_us > closed_us && request.scheduled_us < opened_us - 500_000);
    let waits: Vec<u64> = during.map(|request| request.wait_us()).collect();
    assert!(waits.len() >= 90 && waits.iter().all(|wait| *wait >= 490_000), "{}: {waits:?}", waits.len());
}

/// Echoes pings by itself; ends as it is told.
async fn until_told(mut socket: WebSocket, mut end: watch::Receiver<Option<u16>>) {
    let code = loop {
        tokio::select! {
            message = socket.recv() => if !matches!(message, Some(Ok(_))) { return },
            _ = end.changed() => break *end.borrow_and_update(),
        }
    };
    if let Some(code) = code {
        let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "end".into() }))).await;
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

#[tokio::test]
async fn a_websocket_client_tells_restarts_from_losses_and_counts_refusals() {
    let end = watch::Sender::new(None);
    let told = end.subscribe();
    let upgrade = move |upgrade: WebSocketUpgrade| {
        let mut told = told.clone();
        told.mark_unchanged();
        async move { upgrade.on_upgrade(move |socket| until_told(socket, told)) }
    };
    let server = serve(Router::new().route("/", get(async || ())).route("/ws", any(upgrade))).await;
    let sockets = SocketPlan { every: Duration::from_millis(10), ..SocketPlan::pings(4, "/ws") };
    let load =
        Load::start(LoadPlan { sockets: Some(sockets), rate: 10, ..LoadPlan::new(server.address) }).unwrap();
    let log = load.log();
    until("all are answered", &log, |report| report.sockets.opened == 4 && report.sockets.answered >= 40)
        .await;
    end.send_replace(Some(1012));
    until("all are back", &log, |report| report.sockets.opened == 8).await;
    let restarted = log.report().sockets;
    assert_eq!((restarted.closed_restart, restarted.closed_abnormal, restarted.refused), (4, 0, 0));
    assert!(restarted.longest_gap_us > 0 && restarted.failed == 0);

    end.send_replace(None);
    until("all have lost theirs", &log, |report| report.sockets.opened == 12).await;
    assert_eq!(log.report().sockets.closed_by, [(1006, 4), (1012, 4)].into());

    drop(server);
    end.send_replace(Some(1001));
    until("all are refused", &log, |report| report.sockets.refused >= 12).await;
    let report = load.stop().await.unwrap();
    assert_eq!(report.sockets.closed_by[&1001], 4);
    assert_eq!((report.sockets.closed_restart, report.sockets.closed_abnormal), (4, 8));
}

/// A gateway in OpenClaw's framing, as strict about `connect` as the real one.
async fn gateway(mut socket: WebSocket) {
    let send = |frame: Value| Message::text(frame.to_string());
    let challenge =
        json!({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n", "ts": 1}});
    if socket.send(send(challenge)).await.is_err() {
        return;
    }
    let mut connected = false;
    while let Some(Ok(message)) = socket.recv().await {
        let Ok(request) =
            message.to_text().map(|text| serde_json::from_str::<Value>(text).unwrap_or_default())
        else {
            continue;
        };
        let (id, method) = (request["id"].clone(), request["method"].as_str().unwrap_or_default());
        let ok = match method {
            "connect" => {
                connected = admits(&request["params"]);
                connected
            }
            "refused" => false,
            _ => connected,
        };
        let payload = match method {
            "connect" => json!({"type": "hello-ok", "protocol": 4, "auth": {"scopes": ["operator.read"]}}),
            _ => json!({"params": request["params"]}),
        };
        let tick = json!({"type": "event", "event": "tick", "payload": {}});
        let answer = json!({"type": "res", "id": id, "ok": ok, "payload": payload, "error": {"code": "NO"}});
        if socket.send(send(tick)).await.is_err() || socket.send(send(answer)).await.is_err() {
            return;
        }
    }
}

fn admits(params: &Value) -> bool {
    let known = ["minProtocol", "maxProtocol", "client", "role", "scopes", "caps", "auth"];
    params.as_object().is_some_and(|params| params.keys().all(|key| known.contains(&key.as_str())))
        && params["minProtocol"] == 3
        && params["maxProtocol"] == 99
        && params["client"]["id"] == "gateway-client"
        && params["client"]["mode"] == "backend"
        && params["auth"]["token"] == "secret"
}

async fn serve_gateway() -> Server {
    let upgrade = |upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(gateway) };
    let refusing = || async { StatusCode::SERVICE_UNAVAILABLE };
    serve(Router::new().route("/", any(upgrade)).route("/503", any(refusing))).await
}

fn rpc(path: &str, token: &str, method: &str) -> Entry {
    let handshake = Handshake::OpenClaw { token: token.into() };
    Entry::Rpc { path: path.into(), handshake, method: method.into(), params: json!({}) }
}

#[tokio::test]
async fn an_rpc_is_a_request_like_any_other() {
    let server = serve_gateway().await;
    let at = server.address;
    assert_eq!(fate(at, rpc("/", "secret", "health"), LIMIT).await, (Outcome::Ok, None));
    assert_eq!(fate(at, rpc("/", "guess", "health"), LIMIT).await, (Outcome::Refused, None));
    assert_eq!(fate(at, rpc("/", "secret", "refused"), LIMIT).await, (Outcome::Refused, None));
    assert_eq!(fate(at, rpc("/503", "secret", "health"), LIMIT).await, (Outcome::ServerError, Some(503)));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(fate(closed, rpc("/", "secret", "health"), LIMIT).await, (Outcome::Connect, None));
}

#[tokio::test]
async fn a_websocket_client_speaks_the_gateways_framing_too() {
    let server = serve_gateway().await;
    for (exchange, has_answers) in [
        (SocketExchange::Echo, true),
        (SocketExchange::Rpc { method: "status".into() }, true),
        (SocketExchange::Rpc { method: "refused".into() }, false),
    ] {
        let sockets = SocketPlan {
            handshake: Handshake::OpenClaw { token: "secret".into() },
            exchange,
            every: Duration::from_millis(10),
            ..SocketPlan::pings(2, "/")
        };
        let load = Load::start(LoadPlan { sockets: Some(sockets), ..LoadPlan::new(server.address) }).unwrap();
        let log = load.log();
        until("sendings are answered", &log, |report| report.sockets.answered + report.sockets.failed >= 20)
            .await;
        let sockets = load.stop().await.unwrap().sockets;
        assert_eq!((sockets.answered > 0, sockets.failed > 0), (has_answers, !has_answers), "{sockets:?}");
    }
}

#[tokio::test]
async fn a_load_ends_by_itself_when_its_time_is_over() {
    let server = serve(Router::new().route("/", get(async || Response::new(Body::empty())))).await;
    let plan = LoadPlan { duration_max: Duration::from_millis(200), ..LoadPlan::new(server.address) };
    let load = Load::start(plan).unwrap();
    let log = load.log();
    until("its time is well over", &log, |report| report.sent >= 20 && log.now_us() > 500_000).await;
    let report = load.stop().await.unwrap();
    assert!((20..=21).contains(&report.sent), "{report}");
}
