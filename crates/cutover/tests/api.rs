//! The daemon's doors: who may ask, and what a client is told from the press of a button to the verdict.

#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::cli::{Client, Serving, serve};
use cutover::config::{self, Layout};
use cutover::demo::{Plan, World, free_address};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sample_gateway::Knobs;
use sample_gateway::release::{self, Release};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(180);

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
policy = {{ soak = "300ms", probe_interval = "50ms", keep = 1 }}
"#,
            self.directory.path().join("releases").display(),
            free_address()?,
        );
        let settings = config::parse(Path::new("cutover.toml"), &text)?;
        serve(settings, self.layout(), program()).await
    }

    fn layout(&self) -> Layout {
        let state = self.directory.path().join("state");
        Layout::at(state.clone(), state.join("run"))
    }

    fn address(&self) -> SocketAddr {
        self.serving.as_ref().unwrap().address.unwrap()
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.layout().token()).unwrap()
    }

    /// One request over TCP.
    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: Value) -> (StatusCode, Value) {
        let method = if body.is_null() { "GET" } else { "POST" };
        let response = send(self.address(), method, path, headers, &body).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A one-time token, as `cutover open` gets it.
    async fn one_time_token(&self) -> String {
        let client = Client::new(&self.layout());
        let answer = client.call("page.open", Value::Null).await.unwrap();
        let address = answer["address"].as_str().unwrap().to_owned();
        let (page, token) = address.split_once("#token=").unwrap();
        assert_eq!(page, format!("http://{}/", self.address()));
        token.to_owned()
    }

    /// A call with the token.
    async fn call(&self, method: &str, params: Value) -> (StatusCode, Value) {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("host", "localhost"), ("authorization", bearer.as_str())];
        self.ask(&format!("/api/rpc/{method}"), &headers, params).await
    }

    /// Orders a version, and waits for its end.
    async fn updated(&self, version: &str) -> Value {
        let (status, answer) = self.call("update.run", json!({ "version": version })).await;
        assert_eq!(status, StatusCode::OK, "{answer:#}");
        self.settled().await
    }

    /// Waits until the service's last run is over. One that does not come is told with what was answered instead.
    async fn settled(&self) -> Value {
        let mut told = Value::Null;
        let wait = async {
            loop {
                (_, told) = self.call("update.status", json!({})).await;
                if told["activeRun"].is_null() && !told["lastRun"].is_null() {
                    return told["lastRun"].clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(LIMIT, wait).await;
        settled.unwrap_or_else(|_| panic!("no run is over: {told:#}"))
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
            service.close_front().await.unwrap();
        }
        cutover_testkit::sealed::open_up(self.directory.path());
    }
}

/// One request over TCP, whose answer is not read yet.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
}

/// What a browser that is logged in sends.
struct Session {
    host: String,
    origin: String,
    cookie: String,
    key: String,
}

impl Session {
    /// Exchanges a token, as the page does.
    async fn of(address: SocketAddr, token: &str) -> Result<Session, StatusCode> {
        Session::beside(address, token, "").await
    }

    /// The same in a browser that has this cookie.
    async fn beside(address: SocketAddr, token: &str, cookie: &str) -> Result<Session, StatusCode> {
        let (host, origin) = (address.to_string(), format!("http://{address}"));
        let headers = [("host", host.as_str()), ("origin", origin.as_str()), ("cookie", cookie)];
        let response = send(address, "POST", "/api/session", &headers, &json!({ "token": token })).await;
        if !response.status().is_success() {
            return Err(response.status());
        }
        let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        for rule in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(set.contains(rule), "{set}");
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let key = serde_json::from_slice::<Value>(&body).unwrap()["key"].as_str().unwrap().to_owned();
        Ok(Session { host, origin, cookie: set.split(';').next().unwrap().to_owned(), key })
    }

    fn headers(&self) -> [(&str, &str); 4] {
        [
            ("host", &self.host),
            ("origin", &self.origin),
            ("cookie", &self.cookie),
            ("x-cutover-key", &self.key),
        ]
    }
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_cutover"))
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
        ("update.run", json!({ "expected": { "run": "another" } }), StatusCode::CONFLICT, "refused"),
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
    house.updated("1.0.0").await;
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
async fn the_page_is_open_to_everybody_and_strictly_kept_and_tells_nothing_of_this_host() {
    let house = House::new().await;
    let headers = [("host", "localhost")];
    let response = send(house.address(), "GET", "/", &headers, &Value::Null).await;
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(response.headers()[name], value);
        // A refusal is kept as strictly as a page.
        let refused = send(house.address(), "GET", "/api/services", &headers, &Value::Null).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers()[name], value);
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("/page/app.js") && !text.contains("web"), "{text}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_token_opens_one_session_which_ends_when_it_is_logged_out() {
    let house = House::new().await;
    let token = house.one_time_token().await;
    let session = Session::of(house.address(), &token).await.unwrap();
    assert_eq!(Session::of(house.address(), &token).await.err(), Some(StatusCode::UNAUTHORIZED), "used up");
    assert_eq!(Session::of(house.address(), "guess").await.err(), Some(StatusCode::UNAUTHORIZED));
    let (status, body) = house.ask("/api/services", &session.headers(), Value::Null).await;
    assert_eq!((status, body["services"][0]["service"].as_str()), (StatusCode::OK, Some("web")));
    let order = json!({ "version": "1.0.0" });
    let (status, taken) = house.ask("/api/rpc/update.run", &session.headers(), order).await;
    assert_eq!((status, &taken["report"]["actor"]), (StatusCode::OK, &json!("page")));
    house.settled().await;
    let events = send(house.address(), "GET", "/api/events", &session.headers(), &Value::Null).await;
    assert_eq!(events.status(), StatusCode::OK);
    let out = send(house.address(), "DELETE", "/api/session", &session.headers(), &Value::Null).await;
    assert_eq!(out.status(), StatusCode::OK);
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let (status, _) = house.ask("/api/services", &session.headers(), Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // What was followed under the session is over too.
    tokio::time::timeout(LIMIT, events.into_body().collect()).await.unwrap().unwrap();
    // The file's own token, pasted by hand, opens a session as often as somebody does so.
    let again = Session::of(house.address(), &house.token()).await.unwrap();
    assert_eq!(house.ask("/api/services", &again.headers(), Value::Null).await.0, StatusCode::OK);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_the_session_that_the_browser_had_and_what_is_followed_under_it() {
    let house = House::new().await;
    let session = async |cookie: &str| {
        let token = house.one_time_token().await;
        Session::beside(house.address(), &token, cookie).await.unwrap()
    };
    let (first, elsewhere) = (session("").await, session("").await);
    let events = send(house.address(), "GET", "/api/events", &first.headers(), &Value::Null).await;
    // Who fails to log in ends nothing.
    assert!(Session::beside(house.address(), "guess", &first.cookie).await.is_err());
    assert_eq!(house.ask("/api/services", &first.headers(), Value::Null).await.0, StatusCode::OK);
    let second = session(&first.cookie).await;
    tokio::time::timeout(LIMIT, events.into_body().collect()).await.unwrap().unwrap();
    let status =
        async |session: &Session| house.ask("/api/services", &session.headers(), Value::Null).await.0;
    assert_eq!(status(&first).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&second).await, StatusCode::OK);
    assert_eq!(status(&elsewhere).await, StatusCode::OK, "another browser's goes on");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_the_end_of_a_run_is_not_listed_as_kept() {
    let house = House::new().await;
    house.updated("1.0.0").await;
    let registry = &house.serving.as_ref().unwrap().registry;
    let order = json!({ "version": "2.0.0", "hold": true });
    registry.call("update.run", order, "test").await.unwrap();
    let mut views = registry.services["web"].watch();
    let waits = views.wait_for(|view| view.report.awaits.is_some());
    drop(tokio::time::timeout(LIMIT, waits).await.unwrap().unwrap());
    let listed = async || registry.call("generations.list", Value::Null, "test").await.unwrap();
    assert_eq!(listed().await["generations"].as_array().unwrap().len(), 2);
    registry.call("update.cancel", Value::Null, "test").await.unwrap();
    let kept = listed().await;
    let kept: Vec<&Value> =
        kept["generations"].as_array().unwrap().iter().map(|one| &one["generation"]).collect();
    assert_eq!(kept, [&json!(1)]);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_time_tokens_are_given_over_the_socket_alone() {
    let house = House::new().await;
    let (status, body) = house.call("page.open", json!({})).await;
    assert_eq!((status, body["error"]["code"].as_str()), (StatusCode::NOT_FOUND, Some("unknown_method")));
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_gets_nothing_with_the_browser_s_cookies_neither_by_fetch_nor_by_websocket() {
    let house = House::new().await;
    let session = Session::of(house.address(), &house.one_time_token().await).await.unwrap();
    let [host, origin, cookie, key] = session.headers();
    let (other, evil) = (("origin", "http://127.0.0.1:18789"), ("origin", "http://evil.example"));
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let order = json!({ "version": "1.0.0" });
    let rebound = ("host", "rebound.example");
    for (path, headers, body, told) in [
        // A page on another port has the cookie, and cannot have the key.
        ("/api/rpc/update.run", vec![host, other, cookie], &order, StatusCode::UNAUTHORIZED),
        ("/api/services", vec![host, cookie], &Value::Null, StatusCode::UNAUTHORIZED),
        // Even whoever had both would be turned away from there.
        ("/api/rpc/update.run", vec![host, other, cookie, key], &order, StatusCode::FORBIDDEN),
        ("/api/rpc/update.run", vec![host, evil, cookie, key], &order, StatusCode::FORBIDDEN),
        ("/api/rpc/update.run", vec![host, cookie, key], &order, StatusCode::FORBIDDEN),
        ("/api/session", vec![host, evil], &json!({ "token": house.token() }), StatusCode::FORBIDDEN),
        ("/ws", [&[host, other, cookie][..], &upgrade].concat(), &Value::Null, StatusCode::UNAUTHORIZED),
        ("/ws", [&[host, evil, cookie][..], &upgrade].concat(), &Value::Null, StatusCode::FORBIDDEN),
        ("/ws", [&[host, other, cookie, key][..], &upgrade].concat(), &Value::Null, StatusCode::FORBIDDEN),
        // A name that was rebound to this address is no name of ours.
        ("/", vec![rebound], &Value::Null, StatusCode::MISDIRECTED_REQUEST),
        ("/api/services", vec![rebound, origin, cookie, key], &Value::Null, StatusCode::MISDIRECTED_REQUEST),
    ] {
        let method = if body.is_null() { "GET" } else { "POST" };
        let response = send(house.address(), method, path, &headers, body).await;
        assert_eq!(response.status(), told, "{path} {headers:?}");
        let allows = response.headers().contains_key("access-control-allow-origin");
        assert!(!allows, "nothing is shared with other origins");
    }
    let preflight = [host, other, ("access-control-request-headers", "x-cutover-key")];
    let asked = send(house.address(), "OPTIONS", "/api/rpc/update.run", &preflight, &Value::Null).await;
    assert!(!asked.status().is_success() && !asked.headers().contains_key("access-control-allow-headers"));
    let (_, runs) = house.call("update.runs.list", json!({})).await;
    assert_eq!(runs["runs"], json!([]), "nothing was begun");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_a_version_is_text_in_what_is_told() {
    let house = House::new().await;
    let version = "<img src=x onerror=alert(1)>";
    let run = house.updated(version).await;
    assert_eq!((&run["version"], &run["ok"]), (&json!(version), &json!(false)), "{run}");
    let bearer = format!("Bearer {}", house.token());
    let headers = [("host", "localhost"), ("authorization", bearer.as_str())];
    let path = format!("/api/runs/{}", run["runId"].as_str().unwrap());
    let response = send(house.address(), "GET", &path, &headers, &Value::Null).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_service_is_enough_to_decide_about_it() {
    let house = House::new().await;
    house.updated("1.0.0").await;
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
    house.call("update.plan", json!({ "version": "2.0.0" })).await;
    let (_, differs) = house.call("generations.diff", json!({ "generation": 1, "to": 2 })).await;
    assert_eq!(differs["changed"][0]["from"], "1.0.0", "{differs}");
    assert_eq!(differs["changed"][0]["to"], "2.0.0", "{differs}");
    let (status, none) = house.call("generations.diff", json!({})).await;
    assert_eq!((status, &none["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_params")));
    let (_, tail) = house.call("logs.tail", json!({ "limit": 500 })).await;
    assert_eq!((&tail["tripped"], &tail["generation"]), (&json!([]), &json!(1)), "{tail}");
    let (status, none) = house.call("logs.tail", json!({ "instance": 1 })).await;
    assert_eq!((status, &none["error"]["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_log")));
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_knows_every_field_that_is_told_by_its_name() {
    let house = House::new().await;
    house.updated("1.0.0").await;
    let types = include_str!("../src/api/page/types.d.ts");
    let (_, view) = house.call("status", json!({ "service": "web" })).await;
    let (_, plan) = house.call("update.plan", json!({ "version": "2.0.0" })).await;
    let policy = &view["settings"]["policy"];
    for (name, value, is_whole) in [
        ("View", &view, true),
        ("Run", &view["report"], true),
        ("Plan", &plan, true),
        ("Policy", policy, false),
    ] {
        let body = types.split(&format!("interface {name} {{")).nth(1).unwrap().split("\n}").next().unwrap();
        // Fields begin their line, or follow another one on it; those of a field's own type stand in braces.
        let mut depth = 0;
        let mut own = body.to_owned();
        own.retain(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && c != '}'
        });
        let fields = own.split([';', '\n']).filter_map(|field| field.split_once(':'));
        let known: BTreeSet<&str> = fields.map(|(field, _)| field.trim()).collect();
        let told: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(known.is_subset(&told), "{name}: {:?} are not told", known.difference(&told));
        assert!(!is_whole || known == told, "{name}: {:?} are not known", told.difference(&known));
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_tokens_nor_sessions_stand_in_a_log() -> anyhow::Result<()> {
    let mut world = World::of(Plan::new(program()))?;
    let address = free_address()?;
    let config = std::fs::read_to_string(world.config())?;
    std::fs::write(world.config(), config.replace("listen = \"off\"", &format!("listen = \"{address}\"")))?;
    world.start_daemon_with(&[("CUTOVER_LOG", "trace")]).await?;
    let opened = world.cutover(&["open"]).await?;
    let printed = String::from_utf8(opened.stdout)?;
    let (page, token) = printed.trim().split_once("/#token=").unwrap();
    assert_eq!(page, format!("http://{address}"));
    let session = Session::of(address, token).await.unwrap();
    let answer = send(address, "GET", "/api/services", &session.headers(), &Value::Null).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let own = std::fs::read_to_string(world.state().join("token"))?;
    let bearer = format!("Bearer {own}");
    let headers = [("host", session.host.as_str()), ("authorization", bearer.as_str())];
    let answer = send(address, "GET", "/api/services", &headers, &Value::Null).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let log = std::fs::read_to_string(world.daemon_log())?;
    assert!(!log.is_empty(), "there is a log to look at");
    let cookie = session.cookie.split_once('=').unwrap().1;
    for secret in [token, own.trim(), cookie, session.key.as_str()] {
        assert!(secret.len() == 64 && !log.contains(secret), "{log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_there_is_no_page_and_what_to_do_is_said() -> anyhow::Result<()> {
    let mut world = World::of(Plan::new(program()))?;
    world.start_daemon().await?;
    let refused = world.cutover(&["open"]).await?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(8), "{told}");
    assert!(told.contains("`[daemon] listen` is off"), "{told}");
    Ok(())
}
