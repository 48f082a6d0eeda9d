//! Asking over a WebSocket: the first frame that a user's client gets, and OpenClaw's handshake as its simplest client
//! does it (a backend client on loopback: shared token, no device, no origin).

use super::settings::{FirstFrame, Hello};
use super::wire::{self, Wire};
use super::{Address, Error};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

type Socket = WebSocketStream<Box<dyn Wire>>;

/// The most that one frame may hold, in bytes: a hello carries a snapshot of presence and health.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// What is asked for with the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To see how it is.
    Read,
    /// To be told what it tells its operators only. Nothing is called with it.
    Admin,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "operator.read",
            Self::Admin => "operator.admin",
        }
    }
}

/// The ids of our requests.
const CONNECT_ID: &str = "1";
const CALL_ID: &str = "2";

/// The payload of `hello-ok`. The caller bounds the time.
pub(super) async fn greet(address: &Address, hello: &Hello, scope: Scope) -> Result<Value, Error> {
    let (mut socket, payload) = shake_hands(address, hello, scope).await?;
    // The answer is here; whether the farewell arrives changes nothing.
    let _ = socket.close(None).await;
    Ok(payload)
}

/// The payload with which a method without parameters is answered. The caller bounds the time.
pub(super) async fn call(address: &Address, hello: &Hello, method: &str) -> Result<Value, Error> {
    let (mut socket, _) = shake_hands(address, hello, Scope::Read).await?;
    let request = json!({"type": "req", "id": CALL_ID, "method": method, "params": {}});
    socket.send(Message::text(request.to_string())).await.map_err(socket_error)?;
    let mut answer = response(&mut socket, CALL_ID).await?;
    // As above.
    let _ = socket.close(None).await;
    if answer["ok"] == true {
        return Ok(answer["payload"].take());
    }
    Err(Error::CallRefused { method: method.to_owned(), answer: words_of(&answer["error"]) })
}

async fn shake_hands(address: &Address, hello: &Hello, scope: Scope) -> Result<(Socket, Value), Error> {
    let mut socket = open(address, &hello.path, &HeaderMap::new()).await?;
    loop {
        let frame = next_json(&mut socket).await?;
        if frame["type"] == "event" && frame["event"] == "connect.challenge" {
            break;
        }
    }
    let request = Message::text(connect_request(hello, scope).to_string());
    socket.send(request).await.map_err(socket_error)?;
    let mut answer = response(&mut socket, CONNECT_ID).await?;
    if answer["ok"] == true && answer["payload"]["type"] == "hello-ok" {
        return Ok((socket, answer["payload"].take()));
    }
    let _ = socket.close(None).await;
    Err(Error::Refused { answer: words_of(&answer["error"]) })
}

async fn response(socket: &mut Socket, id: &str) -> Result<Value, Error> {
    loop {
        let frame = next_json(socket).await?;
        if frame["type"] == "res" && frame["id"] == id {
            return Ok(frame);
        }
    }
}

/// Opens a WebSocket and reads its first text frame: is it the expected one?
pub(super) async fn is_greeted(address: &Address, expected: &FirstFrame) -> Result<bool, Error> {
    let mut socket = open(address, &expected.check.path, &expected.check.headers).await?;
    let frame = next_json(&mut socket).await?;
    // As above.
    let _ = socket.close(None).await;
    Ok(frame.pointer(&expected.pointer.0).and_then(Value::as_str) == Some(expected.equals.as_str()))
}

fn connect_request(hello: &Hello, scope: Scope) -> Value {
    let mut params = json!({
        "minProtocol": 3,
        "maxProtocol": 99,
        "client": {
            "id": "gateway-client",
            "version": env!("CARGO_PKG_VERSION"),
            "platform": std::env::consts::OS,
            "mode": "backend",
        },
        "role": "operator",
        "scopes": [scope.word()],
        "caps": [],
    });
    if let Some(token) = &hello.token {
        params["auth"] = json!({"token": token.secret()});
    }
    json!({"type": "req", "id": CONNECT_ID, "method": "connect", "params": params})
}

async fn open(address: &Address, path: &PathAndQuery, headers: &HeaderMap) -> Result<Socket, Error> {
    let stream = wire::connect(address).await?;
    let mut request = format!("ws://{}{path}", address.host()).into_client_request().map_err(socket_error)?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    match opened {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(Error::Status { status: answer.status().as_u16() }),
        Err(error) => Err(socket_error(error)),
    }
}

async fn next_json(socket: &mut Socket) -> Result<Value, Error> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text).map_err(|source| Error::Json { source });
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                return Err(Error::Closed { code: frame.code.into(), reason: frame.reason.to_string() });
            }
            Some(Ok(Message::Close(None))) => {
                return Err(Error::Closed { code: 1005, reason: String::new() });
            }
            None => return Err(Error::Closed { code: 1006, reason: String::new() }),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(socket_error(error)),
        }
    }
}

fn socket_error(source: tungstenite::Error) -> Error {
    Error::WebSocket { source: Box::new(source) }
}

/// A service's error as one line: code, message, reason and when to come back.
fn words_of(error: &Value) -> String {
    let mut words: Vec<String> = [&error["code"], &error["message"], &error["details"]["reason"]]
        .into_iter()
        .filter_map(Value::as_str)
        .map(|text| text.chars().take(200).collect())
        .collect();
    let retry_after_ms = error["retryAfterMs"].as_u64().or(error["details"]["retryAfterMs"].as_u64());
    words.extend(retry_after_ms.map(|ms| format!("retry after {ms} ms")));
    if words.is_empty() { "an answer without code or message".to_owned() } else { words.join(", ") }
}
