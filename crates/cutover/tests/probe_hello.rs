//! Asking over a WebSocket: OpenClaw's handshake as the measured gateways do it, and their refusals.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::probe::{
    Address, Ask, Failed, Fields, FirstFrame, Hello, HttpCheck, IdleAsk, IdleQuestion, Places, Pointer,
    ProbeSettings, ServiceAnswers, Token, VersionProbe, is_idle, observe_service, places,
};
use cutover_core::Seen;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const LIMIT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(150);
const TOKEN: &str = "t0ken-of-the-gateway";

type Socket = WebSocketStream<TcpStream>;

/// A gateway that does one thing with each connection.
async fn gateway<F>(conduct: impl Fn(Socket) -> F + Send + 'static) -> Address
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            tokio::spawn(conduct(socket));
        }
    });
    Address::Tcp(address)
}

async fn say(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

async fn challenge(socket: &mut Socket) {
    say(socket, json!({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n", "ts": 1}}))
        .await;
}

async fn hear(socket: &mut Socket) -> Value {
    let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("no text frame") };
    serde_json::from_str(&text).unwrap()
}

/// Keeps the connection until the client leaves.
async fn linger(mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// Answers the handshake with `answer` merged into the response frame.
async fn answering(answer: Value) -> Address {
    gateway(move |mut socket| {
        let mut answer = answer.clone();
        async move {
            challenge(&mut socket).await;
            answer["type"] = "res".into();
            answer["id"] = hear(&mut socket).await["id"].take();
            say(&mut socket, json!({"type": "event", "event": "tick", "seq": 1})).await;
            say(&mut socket, json!({"type": "res", "id": "of somebody else", "ok": false})).await;
            say(&mut socket, answer).await;
            linger(socket).await;
        }
    })
    .await
}

fn hello_ok(server: Value) -> Value {
    json!({"ok": true, "payload": {"type": "hello-ok", "protocol": 4, "server": server,
        "auth": {"role": "operator", "scopes": ["operator.read"]}}})
}

fn settings(request_limit: Duration) -> ProbeSettings {
    let hello = Hello::new("/", Some(Token::new(TOKEN))).unwrap();
    ProbeSettings {
        live: None,
        ready: None,
        version: Some(VersionProbe { ask: Ask::OpenClawHello(hello), fields: Fields::of_openclaw() }),
        page: None,
        first_frame: None,
        request_limit,
    }
}

async fn ask(address: &Address) -> ServiceAnswers {
    observe_service(&settings(LIMIT), address, &|| 7).await
}

fn why<T>(seen: &Seen<T>) -> &str {
    match seen {
        Seen::Missing { why, .. } => why,
        Seen::Yes { .. } | Seen::NotApplicable { .. } => panic!("not missing"),
    }
}

#[tokio::test]
async fn the_hello_tells_version_build_and_boot() {
    let address = answering(hello_ok(json!({"version": "2026.9.6", "buildId": "b", "bootId": "x"}))).await;
    let said = ask(&address).await;
    assert_eq!(said.version.value().unwrap(), "2026.9.6");
    assert_eq!(said.build.value().unwrap(), "b");
    assert_eq!(said.service_instance.value().unwrap(), "x");
    assert_eq!(said.user_path.value(), Some(&true), "a hello is a WebSocket that opened as expected");
    let Seen::Yes { source, .. } = said.version else { unreachable!("seen above") };
    assert_eq!(source, format!("OpenClaw hello at {address}"));
}

#[tokio::test]
async fn an_older_hello_has_neither_build_nor_boot() {
    let address = answering(hello_ok(json!({"version": "2026.5.3-1", "connId": "c"}))).await;
    let said = ask(&address).await;
    assert_eq!(said.version.value().unwrap(), "2026.5.3-1");
    assert!(matches!(said.build, Seen::NotApplicable { .. }));
    assert!(matches!(&said.service_instance, Seen::NotApplicable { why } if why.contains("/server/bootId")));
}

#[tokio::test]
async fn the_handshake_is_that_of_the_simplest_client_and_waits_for_the_challenge() {
    let (sent, mut heard) = tokio::sync::mpsc::channel(1);
    let address = gateway(move |mut socket| {
        let sent = sent.clone();
        async move {
            let early = tokio::time::timeout(Duration::from_millis(50), socket.next()).await;
            assert!(early.is_err(), "a frame before the challenge");
            challenge(&mut socket).await;
            let request = hear(&mut socket).await;
            sent.send(request).await.unwrap();
            linger(socket).await;
        }
    })
    .await;
    let asked = tokio::spawn(async move { observe_service(&settings(LIMIT), &address, &|| 7).await });
    let request = heard.recv().await.unwrap();
    asked.abort();
    assert_eq!((&request["type"], &request["method"]), (&"req".into(), &"connect".into()));
    let params = &request["params"];
    assert_eq!(params["client"]["id"], "gateway-client");
    assert_eq!(params["client"]["mode"], "backend");
    assert_eq!(params["auth"], json!({"token": TOKEN}));
    assert_eq!(params["scopes"], json!(["operator.read"]));
    assert!(params["minProtocol"].as_u64() <= Some(3) && params["maxProtocol"].as_u64() >= Some(4));
    // The gateway's schema refuses additional properties.
    let known =
        ["minProtocol", "maxProtocol", "client", "role", "scopes", "caps", "auth", "locale", "userAgent"];
    assert!(params.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{params}");
}

/// A gateway that tells where its files lie to whom it grants `operator.admin`, as all measured ones do.
async fn with_places(snapshot: Value) -> Address {
    gateway(move |mut socket| {
        let snapshot = snapshot.clone();
        async move {
            challenge(&mut socket).await;
            let request = hear(&mut socket).await;
            let mut answer = hello_ok(json!({"version": "2026.9.6"}));
            if request["params"]["scopes"] == json!(["operator.admin"]) {
                answer["payload"]["snapshot"] = snapshot;
            }
            answer["type"] = "res".into();
            answer["id"] = request["id"].clone();
            say(&mut socket, answer).await;
            linger(socket).await;
        }
    })
    .await
}

#[tokio::test]
async fn where_a_gateway_s_files_lie_is_told_to_its_operators_and_only_by_absolute_paths() {
    let told = |snapshot: Value| async move { places(&settings(LIMIT), &with_places(snapshot).await).await };
    let both = told(json!({"stateDir": "/claw", "configPath": "/claw/openclaw.json"})).await.unwrap();
    let expected = Places { state: Some("/claw".into()), configuration: Some("/claw/openclaw.json".into()) };
    assert_eq!(both, Some(expected));
    let odd = told(json!({"stateDir": "claw", "configPath": 7})).await.unwrap().unwrap();
    assert!(odd == Places::default() && odd.are_untold());
    let otherwise = ProbeSettings { version: None, ..settings(LIMIT) };
    assert_eq!(places(&otherwise, &gateway(linger).await).await.unwrap(), None, "that is no handshake");
    let refusing = answering(json!({"ok": false, "error": {"code": "NO"}})).await;
    assert!(places(&settings(LIMIT), &refusing).await.is_err());
    let silent = gateway(linger).await;
    let late = places(&settings(SHORT), &silent).await.unwrap_err().to_string();
    assert!(late.contains("no answer within"), "{late}");
}

#[tokio::test]
async fn a_starting_gateway_is_missing_with_its_own_words() {
    let address = answering(json!({"ok": false, "error": {"code": "UNAVAILABLE", "message": "starting",
        "details": {"reason": "startup-sidecars"}, "retryAfterMs": 500}}))
    .await;
    let said = ask(&address).await;
    let expected =
        "the service refused the handshake: UNAVAILABLE, starting, startup-sidecars, retry after 500 ms";
    for why in [why(&said.version), why(&said.build), why(&said.user_path)] {
        assert_eq!(why, expected);
    }
}

#[tokio::test]
async fn a_refusal_is_no_answer_whatever_it_carries() {
    for answer in [
        json!({"ok": false, "error": {"code": "AUTH_TOKEN_MISMATCH", "message": "unauthorized"}}),
        json!({"ok": false}),
        json!({"payload": {"type": "hello-ok", "server": {"version": "2"}}}),
        json!({"ok": false, "payload": {"type": "hello-ok", "server": {"version": "2"}}}),
        json!({"ok": true, "payload": {"type": "something", "server": {"version": "2"}}}),
    ] {
        let said = ask(&answering(answer.clone()).await).await;
        assert!(why(&said.version).starts_with("the service refused the handshake: "), "{answer}");
        assert!(!format!("{said:?}").contains(TOKEN));
    }
    let said = ask(&answering(hello_ok(json!({"connId": "c"}))).await).await;
    assert!(why(&said.version).starts_with("nothing at \"/server/version\""));
}

#[tokio::test]
async fn a_gateway_that_closes_says_why() {
    let address = gateway(|mut socket| async move {
        let reason = "gateway install changed; run: openclaw gateway restart".into();
        socket.close(Some(CloseFrame { code: CloseCode::Error, reason })).await.unwrap();
        linger(socket).await;
    })
    .await;
    let said = ask(&address).await;
    assert!(why(&said.version).contains("1011"), "{}", why(&said.version));
    assert!(why(&said.version).contains("gateway install changed"), "{}", why(&said.version));
}

#[tokio::test]
async fn a_gateway_that_stays_silent_or_talks_of_other_things_is_missing() {
    let silent = gateway(linger).await;
    let chatty = gateway(|mut socket| async move {
        loop {
            let frame = json!({"type": "event", "event": "tick"}).to_string();
            if socket.send(Message::text(frame)).await.is_err() {
                return;
            }
        }
    })
    .await;
    let babbling = gateway(|mut socket| async move {
        socket.send(Message::text("hello there")).await.unwrap();
        linger(socket).await;
    })
    .await;
    for (address, expected) in [
        (silent, "no answer within 150ms"),
        (chatty, "no answer within 150ms"),
        (babbling, "the answer is not JSON"),
    ] {
        let limit = if expected.starts_with("no") { SHORT } else { LIMIT };
        let said = observe_service(&settings(limit), &address, &|| 7).await;
        assert!(why(&said.version).starts_with(expected), "{}", why(&said.version));
    }
}

#[tokio::test]
async fn a_server_that_does_not_upgrade_is_missing_with_its_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    assert_eq!(why(&ask(&address).await.version), "answered with status 404");
}

#[tokio::test]
async fn a_frame_beyond_all_measure_is_not_taken_in() {
    let huge = json!({"type": "event", "event": "x", "payload": "y".repeat(5 << 20)});
    let address = gateway(move |mut socket| {
        let huge = huge.clone();
        async move {
            // The client leaves in the middle of it.
            let _ = socket.send(Message::text(huge.to_string())).await;
            linger(socket).await;
        }
    })
    .await;
    let said = ask(&address).await;
    assert!(why(&said.version).starts_with("talking WebSocket: "), "{}", why(&said.version));
}

#[tokio::test]
async fn the_first_frame_is_the_expected_one_or_the_path_is_broken() {
    let expected = || {
        let check = HttpCheck::new("/", []).unwrap();
        Some(FirstFrame::new(check, Pointer::new("/event").unwrap(), "connect.challenge"))
    };
    let settings = || ProbeSettings { version: None, first_frame: expected(), ..settings(LIMIT) };
    let good = gateway(|mut socket| async move {
        challenge(&mut socket).await;
        linger(socket).await;
    })
    .await;
    let other = gateway(|mut socket| async move {
        say(&mut socket, json!({"event": "go away"})).await;
        linger(socket).await;
    })
    .await;
    let said = observe_service(&settings(), &good, &|| 7).await;
    assert_eq!(said.user_path.value(), Some(&true));
    let said = observe_service(&settings(), &other, &|| 7).await;
    assert_eq!(said.user_path.value(), Some(&false));
}

/// Slow set: a real gateway that runs at `CUTOVER_TEST_OPENCLAW` (`127.0.0.1:PORT VERSION TOKEN`).
#[tokio::test]
async fn a_real_gateway_answers_every_question() {
    let Ok(real) = std::env::var("CUTOVER_TEST_OPENCLAW") else {
        println!("skipped: CUTOVER_TEST_OPENCLAW names no gateway");
        return;
    };
    let [address, version, token] = real.split(' ').collect::<Vec<_>>()[..] else { panic!("{real}") };
    let address = Address::Tcp(address.parse().unwrap());
    let ask = async |token: &str| {
        let hello = Hello::new("/", Some(Token::new(token))).unwrap();
        let real = ProbeSettings {
            live: Some(HttpCheck::new("/healthz", []).unwrap()),
            ready: Some(HttpCheck::new("/readyz", []).unwrap()),
            version: Some(VersionProbe { ask: Ask::OpenClawHello(hello), fields: Fields::of_openclaw() }),
            page: Some(HttpCheck::new("/", []).unwrap()),
            first_frame: None,
            request_limit: LIMIT,
        };
        observe_service(&real, &address, &|| 7).await
    };
    let said = ask(token).await;
    assert_eq!(said.version.value().map(String::as_str), Some(version), "{said:?}");
    assert_eq!((said.live.value(), said.ready.value()), (Some(&true), Some(&true)), "{said:?}");
    assert_eq!(said.user_path.value(), Some(&true), "{said:?}");
    println!("{said:?}");
    let said = ask("a wrong token").await;
    assert!(why(&said.version).contains("refused the handshake"), "{said:?}");
}

#[tokio::test]
async fn a_websocket_that_breaks_off_is_counted_and_one_that_is_closed_is_not() {
    let broken = gateway(|socket| async move { drop(socket) }).await;
    assert_eq!(ask(&broken).await.failed, Failed { bad: 0, abnormal: 1 });
    let closed = gateway(|mut socket| async move {
        let _ = socket.close(None).await;
        linger(socket).await;
    })
    .await;
    assert_eq!(ask(&closed).await.failed, Failed::default());
}

#[tokio::test]
async fn a_gateway_is_asked_for_its_idleness_by_a_call_that_changes_nothing() {
    let question = || IdleQuestion {
        ask: IdleAsk::OpenClaw {
            hello: Hello::new("/", Some(Token::new(TOKEN))).unwrap(),
            method: "gateway.restart.preflight".into(),
        },
        pointer: Pointer::new("/safe").unwrap(),
    };
    let asked = |answer: Value| async move {
        let address = gateway(move |mut socket| {
            let mut answer = answer.clone();
            async move {
                challenge(&mut socket).await;
                let connect = hear(&mut socket).await;
                assert_eq!(connect["params"]["scopes"], json!(["operator.read"]));
                let mut hello = hello_ok(json!({"version": "2026.9.6"}));
                (hello["type"], hello["id"]) = ("res".into(), connect["id"].clone());
                say(&mut socket, hello).await;
                let mut call = hear(&mut socket).await;
                assert_eq!(
                    (&call["method"], &call["params"]),
                    (&"gateway.restart.preflight".into(), &json!({}))
                );
                (answer["type"], answer["id"]) = ("res".into(), call["id"].take());
                say(&mut socket, answer).await;
                linger(socket).await;
            }
        })
        .await;
        is_idle(&question(), &address, LIMIT).await.map_err(|error| error.to_string())
    };
    assert_eq!(asked(json!({"ok": true, "payload": {"safe": true}})).await, Ok(true));
    assert_eq!(asked(json!({"ok": true, "payload": {"safe": false, "blockers": [{}]}})).await, Ok(false));
    let unknown = json!({"code": "INVALID_REQUEST", "message": "unknown method: gateway.restart.preflight"});
    let refused = asked(json!({"ok": false, "error": unknown})).await.unwrap_err();
    assert!(refused.contains("gateway.restart.preflight: INVALID_REQUEST, unknown method"), "{refused}");
    assert!(asked(json!({"ok": true, "payload": {}})).await.is_err(), "no answer is no idleness");
}
