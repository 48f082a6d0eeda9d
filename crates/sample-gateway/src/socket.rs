//! The WebSocket side: a challenge, a handshake, then requests and answers, with ticks between; a farewell at the end.

use crate::life::Service;
use crate::{Readiness, voice};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The protocol's number, as OpenClaw 2026.9 counts.
const PROTOCOL: u64 = 4;
/// Between two tick events.
const TICK: Duration = Duration::from_secs(1);
/// How long a farewell waits for the client's own close.
const FAREWELL: Duration = Duration::from_secs(1);
/// "Service restart", RFC 6455's registry.
const SERVICE_RESTART: u16 = 1012;
/// "Policy violation", RFC 6455 section 7.4.1.
const POLICY_VIOLATION: u16 = 1008;

#[derive(Debug, Deserialize)]
struct Request {
    id: String,
    method: String,
    #[serde(default)]
    params: Value,
}

/// "Try again later", RFC 6455's registry.
const TRY_AGAIN_LATER: u16 = 1013;

/// What to do after an answer.
enum Next {
    Stay,
    Close { code: u16, reason: &'static str },
}

const REFUSED: Next = Next::Close { code: POLICY_VIOLATION, reason: "policy violation" };

/// One open connection.
struct Session {
    service: Arc<Service>,
    socket: WebSocket,
    connected: bool,
    echoes: u64,
    ticks: u64,
    /// Echoes that were asked for a later moment; a farewell does not wait for them.
    later: JoinSet<(String, Value)>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(service: Arc<Service>, socket: WebSocket) {
    let mut session =
        Session { service, socket, connected: false, echoes: 0, ticks: 0, later: JoinSet::new() };
    // A connection that broke has nobody left to be told.
    let _ = session.run().await;
}

impl Session {
    async fn run(&mut self) -> Result<(), axum::Error> {
        let nonce = uuid::Uuid::new_v4().to_string();
        let greeting = self.service.knobs.greeting.as_deref().unwrap_or("connect.challenge");
        self.send(json!({"type": "event", "event": greeting, "payload": {"nonce": nonce}})).await?;
        let service = Arc::clone(&self.service);
        let stopped = service.stopped();
        tokio::pin!(stopped);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = &mut stopped => return self.take_leave().await,
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if let Next::Close { code, reason } = self.answer(text.as_str()).await? {
                            return self.close(code, reason).await;
                        }
                    }
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
                Some(Ok((id, payload))) = self.later.join_next() => self.grant(&id, payload).await?,
                _ = ticks.tick(), if self.connected => {
                    self.ticks += 1;
                    let payload = self.service.identity();
                    let seq = self.ticks;
                    self.send(json!({"type": "event", "event": "tick", "seq": seq, "payload": payload})).await?;
                }
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<Next, axum::Error> {
        let Ok(request) = serde_json::from_str::<Request>(text) else {
            self.refuse("", "INVALID_REQUEST", "a frame must be {type:\"req\",id,method,params}").await?;
            return Ok(if self.connected { Next::Stay } else { REFUSED });
        };
        let id = request.id.as_str();
        match (self.connected, request.method.as_str()) {
            (false, "connect") => return self.connect(id, &request.params).await,
            (false, _) => {
                self.refuse(id, "INVALID_REQUEST", "the first request must be connect").await?;
                return Ok(REFUSED);
            }
            (true, "status" | "health") => {
                let identity = self.service.identity();
                self.grant(id, identity).await?;
            }
            (true, "echo") => {
                self.echoes += 1;
                let payload = json!({"params": request.params, "served": self.echoes});
                match request.params.get("afterMs").and_then(Value::as_u64) {
                    None => self.grant(id, payload).await?,
                    Some(ms) => {
                        let id = request.id.clone();
                        self.later.spawn(async move {
                            sleep(Duration::from_millis(ms)).await;
                            (id, payload)
                        });
                    }
                }
            }
            (true, "chunk") => self.chunk(id, &request.params).await?,
            (true, other) => {
                self.refuse(id, "INVALID_REQUEST", &format!("unknown method: {other}")).await?;
            }
        }
        Ok(Next::Stay)
    }

    async fn connect(&mut self, id: &str, params: &Value) -> Result<Next, axum::Error> {
        if self.service.readiness() == Readiness::Starting {
            self.refuse(id, "UNAVAILABLE", "the gateway is starting").await?;
            return Ok(Next::Close { code: TRY_AGAIN_LATER, reason: "starting" });
        }
        let presented = params.pointer("/auth/token").and_then(Value::as_str);
        if self.service.token.is_some() && self.service.token.as_deref() != presented {
            self.refuse(id, "AUTH_TOKEN_MISMATCH", "unauthorized").await?;
            return Ok(REFUSED);
        }
        self.connected = true;
        let service = &self.service;
        let mut hello = json!({
            "type": "hello-ok",
            "protocol": service.knobs.protocol.unwrap_or(PROTOCOL),
            "server": {
                "version": service.version(),
                "buildId": service.build(),
                "bootId": service.boot_id(),
                "pid": std::process::id(),
            },
            "features": {"methods": ["status", "health", "echo", "chunk"], "events": ["tick", "shutdown"]},
            "snapshot": {"uptimeMs": u64::try_from(service.age().as_millis()).unwrap_or(u64::MAX)},
            "auth": {
                "role": params.get("role").and_then(Value::as_str).unwrap_or("operator"),
                "scopes": params.get("scopes").cloned().unwrap_or_else(|| json!([])),
            },
            "policy": {"tickIntervalMs": u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX)},
        });
        let notice = service.knobs.own_notice.as_ref().map(|latest| {
            json!({"currentVersion": service.version(), "latestVersion": latest, "channel": "stable"})
        });
        if let Some(notice) = &notice {
            hello["snapshot"]["updateAvailable"] = notice.clone();
        }
        self.grant(id, hello).await?;
        if let Some(notice) = notice {
            let payload = json!({"updateAvailable": notice});
            self.send(json!({"type": "event", "event": "update.available", "payload": payload, "seq": 1}))
                .await?;
        }
        Ok(Next::Stay)
    }

    async fn chunk(&mut self, id: &str, params: &Value) -> Result<(), axum::Error> {
        let n = params.get("n").and_then(Value::as_u64).unwrap_or(0);
        let service = Arc::clone(&self.service);
        match service.installed.open_chunk(usize::try_from(n).unwrap_or(0)) {
            Ok((name, content)) => self.grant(id, json!({"name": name, "bytes": content.len()})).await,
            Err(error) => self.refuse(id, "MODULE_NOT_FOUND", &error.to_string()).await,
        }
    }

    async fn take_leave(&mut self) -> Result<(), axum::Error> {
        let payload = json!({"reason": "gateway stopping", "restartExpectedMs": 1500});
        self.send(json!({"type": "event", "event": "shutdown", "payload": payload})).await?;
        self.close(SERVICE_RESTART, "service restart").await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), axum::Error> {
        self.socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
        let answered = timeout(FAREWELL, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
        if answered.is_err() {
            voice::say("a WebSocket client did not answer its close");
        }
        Ok(())
    }

    async fn grant(&mut self, id: &str, payload: Value) -> Result<(), axum::Error> {
        self.send(json!({"type": "res", "id": id, "ok": true, "payload": payload})).await
    }

    async fn refuse(&mut self, id: &str, code: &str, message: &str) -> Result<(), axum::Error> {
        let error = json!({"code": code, "message": message});
        self.send(json!({"type": "res", "id": id, "ok": false, "error": error})).await
    }

    async fn send(&mut self, frame: Value) -> Result<(), axum::Error> {
        self.socket.send(Message::text(frame.to_string())).await
    }
}
