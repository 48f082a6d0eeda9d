//! Asking real servers: what is an answer, and what is none.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect};
use axum::routing::get;
use cutover::probe::{
    Address, Ask, Error, Failed, Field, Fields, HttpCheck, Pointer, ProbeSettings, ServiceAnswers,
    VersionProbe, observe_service,
};
use cutover_core::Seen;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// Long enough for a loaded machine; the tests in which it runs out use [`SHORT`].
const LIMIT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(150);
const AT_MS: u64 = 1_700_000_000_000;

fn check(path: &str) -> HttpCheck {
    HttpCheck::new(path, []).unwrap()
}

fn pointer(text: &str) -> Pointer {
    Pointer::new(text).unwrap()
}

fn nothing() -> ProbeSettings {
    ProbeSettings {
        live: None,
        ready: None,
        version: None,
        page: None,
        first_frame: None,
        request_limit: LIMIT,
    }
}

fn everything() -> ProbeSettings {
    let fields = Fields {
        version: pointer("/version"),
        build: Field::Required(pointer("/build")),
        instance: Field::Required(pointer("/bootId")),
        plugins: Field::Required(pointer("/plugins")),
    };
    ProbeSettings {
        live: Some(check("/healthz")),
        ready: Some(check("/readyz")),
        version: Some(VersionProbe { ask: Ask::Http(check("/version")), fields }),
        page: Some(check("/")),
        ..nothing()
    }
}

fn identity() -> Value {
    json!({"version": "2.0.0", "build": "b7", "bootId": "boot-1",
           "plugins": [{"id": "discord", "version": "1.1.0"}, "calendar@3"]})
}

async fn ask(settings: &ProbeSettings, address: &Address) -> ServiceAnswers {
    observe_service(settings, address, &|| AT_MS).await
}

async fn serve(router: Router) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Address::Tcp(address)
}

/// A server that answers each connection with these bytes and then leaves it open.
async fn serve_bytes(bytes: &'static [u8]) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(bytes).await;
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    Address::Tcp(address)
}

fn healthy() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { StatusCode::NO_CONTENT }))
        .route("/version", get(|| async { axum::Json(identity()) }))
        .route("/", get(|| async { Html("<!DOCTYPE html><title>x</title>") }))
}

fn why<T>(seen: &Seen<T>) -> &str {
    match seen {
        Seen::Missing { why, at_ms: AT_MS, source } if !source.is_empty() => why,
        Seen::Missing { .. } => panic!("a missing fact without time or source"),
        Seen::Yes { .. } | Seen::NotApplicable { .. } => panic!("not missing"),
    }
}

#[tokio::test]
async fn a_healthy_service_is_reported_fact_by_fact_with_time_and_source() {
    let address = serve(healthy()).await;
    let said = ask(&everything(), &address).await;
    let Seen::Yes { value, at_ms, source } = &said.version else { panic!("{:?}", said.version) };
    assert_eq!((value.as_str(), *at_ms), ("2.0.0", AT_MS));
    assert_eq!(*source, format!("GET /version at {address}"));
    assert_eq!(said.build.value().unwrap(), "b7");
    assert_eq!(said.service_instance.value().unwrap(), "boot-1");
    assert_eq!(said.plugins.value().unwrap(), &["calendar@3", "discord@1.1.0"]);
    assert_eq!((said.live.value(), said.ready.value()), (Some(&true), Some(&true)));
    assert_eq!(said.user_path.value(), Some(&true));
}

#[tokio::test]
async fn the_probe_lane_is_asked_through_its_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lane.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let router = healthy().route(
        "/host",
        get(|headers: HeaderMap| async move {
            axum::Json(json!({"version": headers[header::HOST].to_str().unwrap(), "forwarded":
            headers.keys().filter(|name| name.as_str().contains("forward")).count()}))
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let address = Address::unix(&path, "127.0.0.1:18789").unwrap();
    let said = ask(&everything(), &address).await;
    assert_eq!(said.version.value().unwrap(), "2.0.0");
    assert_eq!(said.user_path.value(), Some(&true));

    let fields = Fields {
        version: pointer("/version"),
        build: Field::Required(pointer("/forwarded")),
        instance: Field::Unasked,
        plugins: Field::Unasked,
    };
    let version = Some(VersionProbe { ask: Ask::Http(check("/host")), fields });
    let said = ask(&ProbeSettings { version, ..nothing() }, &address).await;
    assert_eq!(said.version.value().unwrap(), "127.0.0.1:18789");
    assert_eq!(said.build.value().unwrap(), "0");
}

#[tokio::test]
async fn r43_a_booting_service_is_seen_unready_then_ready() {
    let asked = Arc::new(AtomicU32::new(0));
    let ready = |State(asked): State<Arc<AtomicU32>>| async move {
        if asked.fetch_add(1, Ordering::Relaxed) < 2 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    };
    let address = serve(Router::new().route("/readyz", get(ready)).with_state(asked)).await;
    let settings = ProbeSettings { ready: Some(check("/readyz")), ..nothing() };
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(*ask(&settings, &address).await.ready.value().unwrap());
    }
    assert_eq!(seen, [false, false, true, true]);
}

#[tokio::test]
async fn nobody_listening_makes_every_fact_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let said = ask(&everything(), &address).await;
    for why in [why(&said.version), why(&said.build), why(&said.live), why(&said.ready), why(&said.user_path)]
    {
        assert!(why.contains("connecting to 127.0.0.1") && why.contains("refused"), "{why}");
    }
    let lane = Address::unix("/nonexistent/lane.sock", "localhost").unwrap();
    assert!(why(&ask(&everything(), &lane).await.ready).contains("/nonexistent/lane.sock"));
}

#[tokio::test]
async fn a_hanging_answer_is_missing_and_delays_nothing_else() {
    let router = healthy().route("/hang", get(std::future::pending::<()>));
    let address = serve(router).await;
    // Enough for the questions that are answered, also on a loaded machine.
    let request_limit = Duration::from_secs(2);
    let settings = ProbeSettings { ready: Some(check("/hang")), request_limit, ..everything() };
    let begun = Instant::now();
    let said = ask(&settings, &address).await;
    assert!(begun.elapsed() < LIMIT, "the round outlived its limit");
    assert_eq!(why(&said.ready), "no answer within 2s");
    assert_eq!(said.version.value().unwrap(), "2.0.0");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_missing() {
    for bytes in [
        b"".as_slice(),
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        let address = serve_bytes(bytes).await;
        let settings = ProbeSettings { live: Some(check("/")), request_limit: SHORT, ..nothing() };
        assert_eq!(why(&ask(&settings, &address).await.live), "no answer within 150ms");
    }
}

#[tokio::test]
async fn what_is_not_http_is_missing() {
    for bytes in
        [b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01", b"HTTP/9.9 200 OK\r\n\r\n"]
    {
        let address = serve_bytes(bytes).await;
        let settings = ProbeSettings { live: Some(check("/")), request_limit: LIMIT, ..nothing() };
        let said = ask(&settings, &address).await;
        assert!(why(&said.live).starts_with("reading the HTTP answer: "), "{}", why(&said.live));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_not_an_answer() {
    let target = serve(healthy()).await;
    let target_url = format!("http://{target}/version");
    let router = Router::new().fallback(move || async move { Redirect::temporary(&target_url) });
    let said = ask(&everything(), &serve(router).await).await;
    for why in [why(&said.version), why(&said.live), why(&said.ready), why(&said.user_path)] {
        assert!(why.starts_with("redirected with 307"), "{why}");
    }
}

#[tokio::test]
async fn a_status_that_answers_another_question_is_missing() {
    for status in [StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS] {
        let router = Router::new().fallback(move || async move { status });
        let said = ask(&everything(), &serve(router).await).await;
        let expected = format!("answered with status {}", status.as_u16());
        for why in [why(&said.version), why(&said.live), why(&said.ready), why(&said.user_path)] {
            assert_eq!(why, expected);
        }
    }
}

#[tokio::test]
async fn a_version_in_a_failing_answer_is_no_version() {
    let router = Router::new()
        .route("/version", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, axum::Json(identity())) }));
    let said = ask(&everything(), &serve(router).await).await;
    assert_eq!(why(&said.version), "answered with status 503");
    assert_eq!(why(&said.service_instance), "answered with status 503");
}

#[tokio::test]
async fn a_document_without_the_value_or_with_another_kind_of_value_is_missing() {
    let cases = [
        ("not json", "the answer is not JSON"),
        ("", "the answer is not JSON"),
        ("{}", "nothing at \"/version\""),
        ("[]", "nothing at \"/version\""),
        (r#"{"version":null}"#, "null instead of"),
        (r#"{"version":true}"#, "a truth value instead of"),
        (r#"{"version":{"a":1}}"#, "an object instead of"),
        (r#"{"version":["2"]}"#, "an array instead of"),
        (r#"{"version":""}"#, "an empty string instead of"),
        (r#"{"version":"2\n3"}"#, "control characters instead of"),
    ];
    for (body, expected) in cases {
        let router = Router::new().route("/version", get(move || async move { body }));
        let said = ask(&everything(), &serve(router).await).await;
        assert!(why(&said.version).starts_with(expected), "{body}: {}", why(&said.version));
        if body == "{}" {
            assert!(why(&said.plugins).starts_with("nothing at \"/plugins\""));
        }
    }
    let long = format!(r#"{{"version":"{}"}}"#, "9".repeat(300));
    let router = Router::new().route("/version", get(move || async move { long }));
    let said = ask(&everything(), &serve(router).await).await;
    assert!(why(&said.version).starts_with("a very long string"));
}

#[tokio::test]
async fn a_plugin_without_name_or_version_makes_the_list_missing() {
    let cases = [
        (json!({"a": 1}), "no array"),
        (json!([{"version": "1"}]), "a plugin without a name"),
        (json!([{"name": "a"}]), "a plugin without a version"),
        (json!([7]), "a plugin without a name"),
    ];
    for (plugins, expected) in cases {
        let body = json!({"version": "2", "plugins": plugins}).to_string();
        let router = Router::new().route("/version", get(move || async move { body }));
        let said = ask(&everything(), &serve(router).await).await;
        assert!(why(&said.plugins).starts_with(expected), "{}", why(&said.plugins));
        assert_eq!(said.version.value().unwrap(), "2");
    }
}

#[tokio::test]
async fn an_endless_body_is_read_only_up_to_a_bound() {
    let endless = || async {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 << 10]));
        axum::body::Body::from_stream(chunks).into_response()
    };
    let said = ask(&everything(), &serve(Router::new().fallback(endless)).await).await;
    for why in [why(&said.version), why(&said.live), why(&said.user_path)] {
        assert!(why.contains("at most 1048576 bytes"), "{why}");
    }
    let address = serve_bytes(Box::leak(
        format!("HTTP/1.1 200 OK\r\nx-big: {}\r\n\r\n", "a".repeat(200_000)).into_bytes().into_boxed_slice(),
    ));
    let said = ask(&everything(), &address.await).await;
    assert!(why(&said.live).starts_with("reading the HTTP answer"), "{}", why(&said.live));
}

#[tokio::test]
async fn a_page_that_is_no_html_is_seen_as_a_broken_path() {
    let cases: [(&str, &str, bool); 4] = [
        ("text/html; charset=utf-8", "<!doctype html><p>", true),
        ("text/html", "Not found", false),
        ("application/json", "<!doctype html>", false),
        ("text/html", "", false),
    ];
    for (kind, body, expected) in cases {
        let router =
            Router::new().route("/", get(move || async move { ([(header::CONTENT_TYPE, kind)], body) }));
        let settings = ProbeSettings { page: Some(check("/")), ..nothing() };
        let said = ask(&settings, &serve(router).await).await;
        assert_eq!(said.user_path.value(), Some(&expected), "{kind} {body:?}");
    }
}

#[tokio::test]
async fn what_is_not_configured_does_not_apply_but_a_version_is_always_missed() {
    let said = ask(&nothing(), &serve(healthy()).await).await;
    assert!(matches!(&said.live, Seen::NotApplicable { why } if why.contains("no liveness")));
    assert!(matches!(said.ready, Seen::NotApplicable { .. }));
    assert!(matches!(said.user_path, Seen::NotApplicable { .. }));
    assert!(matches!(said.build, Seen::NotApplicable { .. }));
    assert_eq!(why(&said.version), "no version probe is configured");
}

#[tokio::test]
async fn a_value_that_only_some_versions_have_does_not_apply_where_it_is_absent() {
    let fields = Fields {
        version: pointer("/version"),
        build: Field::WherePresent(pointer("/none")),
        instance: Field::WherePresent(pointer("/bootId")),
        plugins: Field::Unasked,
    };
    let version = Some(VersionProbe { ask: Ask::Http(check("/version")), fields });
    let said = ask(&ProbeSettings { version: version.clone(), ..nothing() }, &serve(healthy()).await).await;
    assert!(matches!(&said.build, Seen::NotApplicable { why } if why.contains("/none")), "{:?}", said.build);
    assert_eq!(said.service_instance.value().unwrap(), "boot-1");
    // Without a document nothing is known about what it would have held.
    let said = ask(&ProbeSettings { version, ..nothing() }, &serve(Router::new()).await).await;
    assert_eq!(why(&said.build), "answered with status 404");
}

#[tokio::test]
async fn configured_headers_are_sent_and_never_shown() {
    let guarded = |headers: HeaderMap| async move {
        match headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()) {
            Some(b"Bearer s3cret") => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    };
    let address = serve(Router::new().route("/healthz", get(guarded))).await;
    let live = HttpCheck::new("/healthz", [("Authorization", "Bearer s3cret")]).unwrap();
    let settings = ProbeSettings { live: Some(live), ..nothing() };
    let said = ask(&settings, &address).await;
    assert_eq!(said.live.value(), Some(&true));
    assert!(!format!("{settings:?}{said:?}").contains("s3cret"));
}

#[test]
fn a_probe_that_cannot_be_put_is_found_when_it_is_configured() {
    for path in ["", "healthz", "/a b", "/a#b", "http://elsewhere/"] {
        assert!(matches!(HttpCheck::new(path, []), Err(Error::Path { .. })), "{path:?}");
    }
    assert!(HttpCheck::new("/readyz?verbose=1", []).is_ok());
    for (name, value) in [("a b", "x"), ("x-a", "line\nbreak"), ("", "x")] {
        assert!(matches!(HttpCheck::new("/", [(name, value)]), Err(Error::Header { .. })), "{name:?}");
    }
    assert!(matches!(Pointer::new("version"), Err(Error::Pointer { .. })));
    assert!(matches!(Address::unix("/run/a.sock", "not a host"), Err(Error::Authority { .. })));
    assert!(Address::unix("/run/a.sock", "[::1]:80").is_ok());
}

#[tokio::test]
async fn both_address_families_are_asked_alike() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, healthy()).await });
    let said = ask(&everything(), &Address::Tcp(address)).await;
    assert_eq!(said.version.value().unwrap(), "2.0.0");
}

#[tokio::test]
async fn what_fails_of_a_round_is_counted_and_nothing_else() {
    let router = Router::new()
        .route("/healthz", get(|| async { StatusCode::NOT_FOUND }))
        .route("/readyz", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/version", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(identity())) }))
        .route("/", get(|| async { "no page" }));
    let said = ask(&everything(), &serve(router).await).await;
    assert_eq!(said.failed, Failed { bad: 2, abnormal: 0 });
    let broken = serve_bytes(b"HTTP/1.1 503 x\r\ncontent-length: 9\r\n\r\nhalf").await;
    let ready = ProbeSettings { ready: Some(check("/readyz")), request_limit: SHORT, ..nothing() };
    assert_eq!(ask(&ready, &broken).await.failed, Failed { bad: 1, abnormal: 0 });
    let said = ask(&everything(), &serve(healthy()).await).await;
    assert_eq!(said.failed, Failed::default());
}
