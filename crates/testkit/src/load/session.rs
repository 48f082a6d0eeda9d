//! One WebSocket: its opening handshake, its use for requests in OpenClaw's framing.

use super::Handshake;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// RFC 6455 section 7.4.1: no close frame was received.
const ABNORMAL: u16 = 1006;
/// RFC 6455 section 7.4.1: a close frame without a code was received.
const NO_CODE: u16 = 1005;

/// What can go wrong with a WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("connect: {0}")]
    Connect(String),
    #[error("upgrade answered with status {status}")]
    Rejected { status: u16 },
    #[error("closed with code {code}: {cause}")]
    Closed { code: u16, cause: String },
    #[error("{0}")]
    Refused(String),
}

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) socket: WebSocketStream<TcpStream>,
    requests: u64,
}

impl Session {
    pub(super) async fn open(
        target: SocketAddr,
        path: &str,
        headers: &HeaderMap,
        handshake: &Handshake,
    ) -> Result<Self, Trouble> {
        let unreachable = |error: std::io::Error| Trouble::Connect(error.to_string());
        let stream = TcpStream::connect(target).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut request = format!("ws://{target}{path}").into_client_request().map_err(trouble)?;
        request.headers_mut().extend(headers.clone());
        let (socket, _) = client_async(request, stream).await.map_err(trouble)?;
        let mut session = Self { socket, requests: 0 };
        match handshake {
            Handshake::None => {}
            Handshake::OpenClaw { token } => session.connect(token).await?,
        }
        Ok(session)
    }

    /// One request; answers the length of its answer.
    pub(super) async fn call(&mut self, method: &str, params: &Value) -> Result<u64, Trouble> {
        self.request(method, params).await.map(|(_, bytes)| bytes)
    }

    /// Whether it is still open as far as can be known without waiting. Events that have come meanwhile are read away.
    pub(super) fn is_open(&mut self) -> bool {
        loop {
            match self.socket.next().now_or_never() {
                None => return true,
                Some(Some(Ok(message))) if !message.is_close() => {}
                Some(_) => return false,
            }
        }
    }

    /// Says goodbye; the other side's answer is not waited for.
    pub(super) async fn leave(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // If it is gone already there is nobody to say goodbye to.
        let _ = self.socket.close(Some(frame)).await;
    }

    async fn connect(&mut self, token: &str) -> Result<(), Trouble> {
        while self.frame().await?.0["event"] != "connect.challenge" {}
        let params = json!({
            "minProtocol": 3,
            "maxProtocol": 99,
            "client": {
                "id": "gateway-client",
                "version": env!("CARGO_PKG_VERSION"),
                "platform": std::env::consts::OS,
                "mode": "backend",
            },
            "role": "operator",
            "scopes": ["operator.read"],
            "caps": [],
            "auth": {"token": token},
        });
        let (payload, _) = self.request("connect", &params).await?;
        if payload["type"] == "hello-ok" {
            return Ok(());
        }
        Err(Trouble::Refused(format!("no hello-ok but {payload}")))
    }

    async fn request(&mut self, method: &str, params: &Value) -> Result<(Value, u64), Trouble> {
        self.requests += 1;
        let id = self.requests.to_string();
        let request = json!({"type": "req", "id": id, "method": method, "params": params});
        self.socket.send(Message::text(request.to_string())).await.map_err(trouble)?;
        loop {
            let (mut frame, bytes) = self.frame().await?;
            if frame["type"] != "res" || frame["id"] != id {
                continue;
            }
            return match frame["ok"] {
                Value::Bool(true) => Ok((frame["payload"].take(), bytes)),
                _ => Err(Trouble::Refused(format!("{method}: {}", frame["error"]))),
            };
        }
    }

    /// The next JSON frame and its length.
    async fn frame(&mut self) -> Result<(Value, u64), Trouble> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text)
                        .map_err(|error| Trouble::Refused(format!("a frame that is no JSON: {error}")))?;
                    return Ok((frame, text.len() as u64));
                }
                Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(trouble(error)),
                None => return Err(Trouble::Closed { code: ABNORMAL, cause: "no close frame".to_owned() }),
            }
        }
    }
}

pub(super) fn closed(frame: Option<&CloseFrame>) -> Trouble {
    match frame {
        Some(frame) => Trouble::Closed { code: frame.code.into(), cause: frame.reason.to_string() },
        None => Trouble::Closed { code: NO_CODE, cause: "no code".to_owned() },
    }
}

pub(super) fn trouble(error: tungstenite::Error) -> Trouble {
    match error {
        tungstenite::Error::Http(response) => Trouble::Rejected { status: response.status().as_u16() },
        other => Trouble::Closed { code: ABNORMAL, cause: other.to_string() },
    }
}
