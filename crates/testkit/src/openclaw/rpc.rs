//! A client of the gateway's WebSocket protocol: challenge, connect, hello, then requests and their answers.

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const SCOPES: [&str; 5] =
    ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];

/// What the gateway says of itself when it lets a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that the gateway tells.
    pub version: String,
    /// Protocol number, 3 for 2026.5 and 4 for 2026.9.
    pub protocol: u64,
    /// The id of this start of the gateway; 2026.5 has none.
    pub boot: Option<String>,
    /// The methods it offers.
    pub methods: Vec<String>,
    /// The scopes that it granted.
    pub scopes: Vec<String>,
    /// The ids of the plugins that it has loaded.
    pub plugins: Vec<String>,
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `ok: true`, with the payload.
    Given(Value),
    /// `ok: false`, with the error object.
    Denied(Value),
}

/// One admitted connection.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    hello: Hello,
    calls: u64,
}

impl Client {
    /// Connects as a back-end client with the shared token, which needs no device identity on direct loopback. `limit`
    /// bounds the whole of it.
    ///
    /// # Errors
    /// If the connection is refused, cut or slow, or the gateway does not let the client in (a starting one says
    /// `UNAVAILABLE`).
    pub async fn connect(gateway: SocketAddr, token: &str, limit: Duration) -> anyhow::Result<Client> {
        timeout(limit, Client::admitted(gateway, token))
            .await
            .with_context(|| format!("no hello from {gateway} within {limit:?}"))?
    }

    async fn admitted(gateway: SocketAddr, token: &str) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(gateway).await.with_context(|| format!("connect to {gateway}"))?;
        let request = format!("ws://{gateway}/").into_client_request()?;
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let challenge = next(&mut socket).await?;
        ensure!(challenge["event"] == "connect.challenge", "the first frame is {challenge}");
        let connect = json!({
            "type": "req", "id": "connect", "method": "connect",
            "params": {
                "minProtocol": 3, "maxProtocol": 99, "role": "operator", "scopes": SCOPES, "caps": [],
                "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
                "auth": {"token": token},
            },
        });
        socket.send(Message::text(connect.to_string())).await?;
        let answer = loop {
            let frame = next(&mut socket).await?;
            if frame["id"] == "connect" {
                break frame;
            }
        };
        ensure!(answer["ok"] == true, "connect was answered with {}", answer["error"]);
        let hello = Hello::read(&answer["payload"])?;
        Ok(Client { socket, hello, calls: 0 })
    }

    /// What the gateway said when it let this client in.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Calls a method and waits at most `limit` for its answer; events in between are dropped.
    ///
    /// # Errors
    /// If the connection ends or the answer does not come in time. The connection must not be used after that.
    pub async fn call(&mut self, method: &str, params: &Value, limit: Duration) -> anyhow::Result<Answer> {
        self.calls += 1;
        let id = self.calls.to_string();
        let request = json!({"type": "req", "id": id, "method": method, "params": params});
        let answered = async {
            self.socket.send(Message::text(request.to_string())).await?;
            loop {
                let frame = next(&mut self.socket).await?;
                if frame["type"] != "res" || frame["id"] != id.as_str() {
                    continue;
                }
                return Ok(match frame["ok"] == true {
                    true => Answer::Given(frame["payload"].clone()),
                    false => Answer::Denied(frame["error"].clone()),
                });
            }
        };
        timeout(limit, answered).await.with_context(|| format!("no answer to {method} within {limit:?}"))?
    }

    /// Waits at most `limit` for the connection to end and tells the close code, or none if it ended without one.
    ///
    /// # Errors
    /// If the connection is still open then.
    pub async fn ended(mut self, limit: Duration) -> anyhow::Result<Option<u16>> {
        let ending = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(limit, ending).await.with_context(|| format!("the connection is still open after {limit:?}"))
    }
}

impl Hello {
    fn read(payload: &Value) -> anyhow::Result<Hello> {
        let words = |pointer: &str| {
            let list = payload.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let server = &payload["server"];
        Ok(Hello {
            version: server["version"].as_str().context("hello-ok names no version")?.to_owned(),
            protocol: payload["protocol"].as_u64().context("hello-ok names no protocol")?,
            boot: server["bootId"].as_str().map(str::to_owned),
            methods: words("/features/methods"),
            scopes: words("/auth/scopes"),
            plugins: words("/snapshot/health/plugins/loaded"),
        })
    }
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> anyhow::Result<Value> {
    loop {
        match socket.next().await.context("the connection ended")?? {
            Message::Text(text) => {
                return serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"));
            }
            Message::Close(Some(close)) => bail!("closed with {} {}", u16::from(close.code), close.reason),
            Message::Close(None) => bail!("closed without a code"),
            _ => {}
        }
    }
}
