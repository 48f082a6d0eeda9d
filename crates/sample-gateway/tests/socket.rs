//! The WebSocket side of a real gateway.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use futures_util::{SinkExt, StreamExt};
use running::{Area, LIMIT, Running};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

async fn open(gateway: &Running, path: &str) -> Socket {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{}{path}", gateway.address), stream).await.unwrap();
    assert_eq!(frame(&mut socket).await["event"], "connect.challenge");
    socket
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap()
}

async fn frame(socket: &mut Socket) -> Value {
    serde_json::from_str(next(socket).await.to_text().unwrap()).unwrap()
}

async fn call(socket: &mut Socket, method: &str, params: Value) -> Value {
    let request = json!({"type": "req", "id": "1", "method": method, "params": params});
    socket.send(Message::text(request.to_string())).await.unwrap();
    loop {
        let answer = frame(socket).await;
        if answer["type"] == "res" {
            return answer;
        }
    }
}

async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        if let Message::Close(frame) = next(socket).await {
            return frame.unwrap().code.into();
        }
    }
}

#[tokio::test]
async fn a_session_greets_answers_ticks_and_says_farewell() {
    let area = Area::with(Knobs::default());
    let mut gateway = area.start();
    let mut socket = open(&gateway, "/").await;
    let hello = call(&mut socket, "connect", json!({"role": "operator", "scopes": ["operator.read"]})).await;
    assert_eq!(hello["payload"]["type"], "hello-ok");
    assert_eq!(hello["payload"]["server"]["version"], "1.0.0");
    assert_eq!(hello["payload"]["server"]["pid"], gateway.pid());
    assert_eq!(hello["payload"]["server"]["bootId"], gateway.json("/version")["bootId"]);
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["operator.read"]));
    for seq in 1..=3 {
        let echo = call(&mut socket, "echo", json!({"seq": seq})).await;
        assert_eq!(echo["payload"], json!({"params": {"seq": seq}, "served": seq}));
    }
    assert_eq!(call(&mut socket, "status", json!({})).await["payload"]["version"], "1.0.0");
    assert_eq!(call(&mut socket, "chunk", json!({"n": 2})).await["payload"]["name"], area.manifest.chunks[2]);
    assert_eq!(call(&mut socket, "nothing", json!({})).await["ok"], false);
    let mut tick = frame(&mut socket).await;
    while tick["event"] != "tick" {
        tick = frame(&mut socket).await;
    }
    assert_eq!(tick["payload"]["version"], "1.0.0");

    gateway.signal(Signal::TERM);
    let mut last = frame(&mut socket).await;
    while last["event"] == "tick" {
        last = frame(&mut socket).await;
    }
    assert_eq!(last["event"], "shutdown");
    assert_eq!(close_code(&mut socket).await, 1012);
    drop(socket);
    assert_eq!(gateway.exit_code(), Some(0));
}

#[tokio::test]
async fn a_stranger_gets_no_session() {
    let area = Area::with(Knobs::default());
    let gateway = area.start_with(|command| command.env("SAMPLE_TOKEN", "secret"));
    let mut unannounced = open(&gateway, "/ws").await;
    assert_eq!(call(&mut unannounced, "status", json!({})).await["ok"], false);
    assert_eq!(close_code(&mut unannounced).await, 1008);
    let mut wrong = open(&gateway, "/ws").await;
    let refusal = call(&mut wrong, "connect", json!({"auth": {"token": "guess"}})).await;
    assert_eq!(refusal["error"]["code"], "AUTH_TOKEN_MISMATCH");
    assert_eq!(close_code(&mut wrong).await, 1008);
    let mut right = open(&gateway, "/ws").await;
    assert_eq!(call(&mut right, "connect", json!({"auth": {"token": "secret"}})).await["ok"], true);
}

#[tokio::test]
async fn a_starting_gateway_asks_to_come_again() {
    let area = Area::with(Knobs { never_ready: true, ..Knobs::default() });
    let gateway = area.start();
    let mut socket = open(&gateway, "/ws").await;
    assert_eq!(call(&mut socket, "connect", json!({})).await["error"]["code"], "UNAVAILABLE");
    assert_eq!(close_code(&mut socket).await, 1013);
}
