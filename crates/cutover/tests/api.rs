//! The daemon's doors: who may ask, and what a client is told from the press of a button to the verdict.

#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::cli::{Serving, serve};
use cutover::config::{self, Layout};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sample_gateway::Knobs;
use sample_gateway::release::{self, Release};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(60);

/// A daemon within this process, with one service and two releases.
struct House {
    directory: tempfile::TempDir,
    serving: Option<Serving>,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("cutover-api-").tempdir().unwrap();
        let releases = directory.path().join("releases");
        std::fs::create_dir(&releases).unwrap();
        for version in ["1.0.0", "2.0.0"] {
            let knobs = Knobs { boot_delay_ms: 200, ..Knobs::default() };
            release::write(&releases.join(version), &program(), &Release::new(version).with_knobs(knobs))
                .unwrap();
        }
        let mut house = Self { directory, serving: None };
        house.serving = Some(house.serve().await.unwrap());
        house
    }

    async fn serve(&self) -> anyhow::Result<Serving> {
        let text = format!(
            r#"
[daemon]
listen = "127.0.0.1:0"
[service.web]
source = {{ directory = "{}" }}
command = ["{{root}}/bin/gateway", "sample-gateway", "--port", "{{port}}"]
listen = "{}"
probe = {{ ready = "/readyz", version = {{ http = "/version" }} }}
policy = {{ soak = "300ms", probe_interval = "50ms" }}
"#,
            self.directory.path().join("releases").display(),
            free(),
        );
        let settings = config::parse(Path::new("cutover.toml"), &text)?;
        serve(settings, self.layout(), program()).await
    }

    fn layout(&self) -> Layout {
        let state = self.directory.path().join("state");
        Layout { runtime: state.join("run"), state }
    }

    fn address(&self) -> SocketAddr {
        self.serving.as_ref().unwrap().address.unwrap()
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.layout().token()).unwrap()
    }

    /// One request over TCP.
    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: Value) -> (StatusCode, Value) {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let method = if body.is_null() { "GET" } else { "POST" };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response =
            sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A call with the token.
    async fn call(&self, method: &str, params: Value) -> (StatusCode, Value) {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("host", "localhost"), ("authorization", bearer.as_str())];
        self.ask(&format!("/api/rpc/{method}"), &headers, params).await
    }

    /// Waits until the service's last run is over.
    async fn settled(&self) -> Value {
        tokio::time::timeout(LIMIT, async {
            loop {
                let (_, status) = self.call("update.status", json!({})).await;
                if status["activeRun"].is_null() && !status["lastRun"].is_null() {
                    return status["lastRun"].clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap()
    }

    /// Ends everything that was started, then removes it.
    async fn end(mut self) {
        self.call("service.stop", json!({})).await;
        let serving = self.serving.take().unwrap();
        for service in serving.registry.services.values() {
            let mut views = service.watch();
            tokio::time::timeout(LIMIT, views.wait_for(|view| view.process.is_none()))
                .await
                .unwrap()
                .unwrap();
            service.close_front().await;
        }
        cutover_testkit::sealed::open_up(self.directory.path());
    }
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_cutover"))
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_of_the_token_is_answered() {
    let house = House::new().await;
    let bearer = format!("Bearer {}", house.token());
    let (healthy, _) = house.ask("/healthz", &[("host", "localhost")], Value::Null).await;
    assert_eq!(healthy, StatusCode::OK);
    let (open, body) =
        house.ask("/api/services", &[("host", "localhost"), ("authorization", &bearer)], Value::Null).await;
    assert_eq!((open, body["services"][0]["service"].as_str()), (StatusCode::OK, Some("web")));
    for (headers, refused) in [
        (vec![("host", "localhost")], StatusCode::UNAUTHORIZED),
        (vec![("host", "localhost"), ("authorization", "Bearer guess")], StatusCode::UNAUTHORIZED),
        (vec![("host", "rebound.example"), ("authorization", &bearer)], StatusCode::MISDIRECTED_REQUEST),
        (
            vec![("host", "localhost"), ("origin", "http://evil.example"), ("authorization", &bearer)],
            StatusCode::FORBIDDEN,
        ),
    ] {
        let (status, body) = house.ask("/api/services", &headers, Value::Null).await;
        assert_eq!((status, &body["services"]), (refused, &Value::Null), "{headers:?}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_sockets_are_the_owners_alone() {
    let house = House::new().await;
    assert_eq!(mode(&house.layout().token()), 0o600);
    assert_eq!(mode(&house.layout().control()), 0o600);
    assert_eq!(mode(&house.layout().journal()), 0o600);
    assert_eq!(mode(&house.layout().runtime.join("fronts")), 0o700);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let house = House::new().await;
    let error = house.serve().await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("another daemon"), "{error}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_mean_nothing_are_told_apart() {
    let house = House::new().await;
    for (method, params, status, code) in [
        ("update.forge", json!({}), StatusCode::NOT_FOUND, "unknown_method"),
        ("update.run", json!({ "service": "wob" }), StatusCode::NOT_FOUND, "unknown_service"),
        ("update.run", json!({ "sirvice": "web" }), StatusCode::BAD_REQUEST, "invalid_params"),
        ("update.recover", json!({}), StatusCode::BAD_REQUEST, "invalid_params"),
        ("update.cancel", json!({}), StatusCode::CONFLICT, "refused"),
        ("update.runs.get", json!({ "runId": "none" }), StatusCode::NOT_FOUND, "unknown_run"),
        ("update.run", json!({ "expected": { "version": "7" } }), StatusCode::CONFLICT, "refused"),
    ] {
        let (got, body) = house.call(method, params).await;
        assert_eq!((got, body["error"]["code"].as_str()), (status, Some(code)), "{method}: {body}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_update_run_answers_with_its_state_and_the_client_follows_it_to_the_verdict() {
    let house = House::new().await;
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(
        format!("ws://{}/ws", house.address()),
    )
    .unwrap();
    let bearer = format!("Bearer {}", house.token()).parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let stream = TcpStream::connect(house.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let mut send = async |id: &str, method: &str, params: Value| {
        let frame = json!({ "type": "req", "id": id, "method": method, "params": params });
        socket.send(Message::Text(frame.to_string().into())).await.unwrap();
    };
    send("1", "connect", json!({})).await;
    send("2", "update.run", json!({ "version": "1.0.0" })).await;
    let (mut answer, mut last) = (Value::Null, Value::Null);
    tokio::time::timeout(LIMIT, async {
        while last["payload"]["status"] != "package_updated_restart_verified" {
            let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("the socket ended") };
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str() {
                Some("res") if frame["id"] == "2" => answer = frame,
                Some("res") => assert_eq!(frame["payload"]["type"], "hello-ok"),
                _ => {
                    assert_eq!(frame["event"], "update.run.changed");
                    let verified = frame["payload"]["status"] == "package_updated_restart_verified";
                    assert_eq!(frame["payload"]["ok"], verified, "ok is derived from the status: {frame}");
                    last = frame;
                }
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(answer["payload"]["ok"], false, "accepted is not success: {answer}");
    assert_eq!(answer["payload"]["runId"], last["payload"]["runId"]);
    let run = house.settled().await;
    assert_eq!((&run["status"], &run["ok"]), (&json!("package_updated_restart_verified"), &json!(true)));
    assert_eq!(run["serving"]["version"], "1.0.0");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_r09_twenty_orders_at_once_are_one_run() {
    let house = House::new().await;
    house.call("update.run", json!({ "version": "1.0.0" })).await;
    house.settled().await;
    let orders = (0..20).map(|_| house.call("update.run", json!({ "version": "2.0.0" })));
    let answers = futures_util::future::join_all(orders).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(status, _)| *status == StatusCode::OK);
    assert_eq!((taken.len(), refused.len()), (1, 19));
    for (_, body) in refused {
        assert_eq!(body["error"]["code"], "already_running");
        assert_eq!(body["error"]["refusal"]["run"], taken[0].1["runId"], "the open run is named");
    }
    let run = house.settled().await;
    assert_eq!((&run["runId"], &run["ok"]), (&taken[0].1["runId"], &json!(true)));
    let (_, runs) = house.call("update.runs.list", json!({})).await;
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    let (_, already) = house.call("update.run", json!({ "version": "2.0.0" })).await;
    assert!(already["runId"].is_string());
    let current = house.settled().await;
    assert_eq!((&current["status"], &current["ok"]), (&Value::Null, &json!(true)), "r10: already current");
    assert_eq!(current["serving"]["instance"], run["serving"]["instance"], "r10: no restart");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_service_is_enough_to_decide_about_it() {
    let house = House::new().await;
    house.call("update.run", json!({ "version": "1.0.0" })).await;
    house.settled().await;
    let (_, view) = house.call("status", json!({ "service": "web" })).await;
    assert_eq!(view["orders"]["update"], Value::Null, "it would be taken: {view}");
    assert_eq!(view["orders"]["start"], "already so");
    assert!(view["orders"]["retry"].as_str().unwrap().contains("not in maintenance"), "{view}");
    assert_eq!((&view["channel"], &view["settings"]["class"]), (&json!("latest"), &json!("none")));
    assert!(view["since"].is_u64() && view["since"].as_u64() >= view["report"]["started"].as_u64());
    // The channel is not there yet: that the source does not tell is not told as "nothing newer".
    let (status, silent) = house.call("versions.available", json!({})).await;
    assert_eq!(
        (status, &silent["error"]["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("source_silent"))
    );
    let releases = house.directory.path().join("releases");
    std::os::unix::fs::symlink("2.0.0", releases.join("latest")).unwrap();
    let (_, found) = house.call("versions.available", json!({})).await;
    assert_eq!((&found["available"]["version"], &found["channel"]), (&json!("2.0.0"), &json!("latest")));
    let (_, tail) = house.call("logs.tail", json!({ "limit": 500 })).await;
    assert_eq!((&tail["tripped"], &tail["generation"]), (&json!([]), &json!(1)), "{tail}");
    let (status, none) = house.call("logs.tail", json!({ "instance": 1 })).await;
    assert_eq!((status, &none["error"]["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_log")));
    house.end().await;
}
