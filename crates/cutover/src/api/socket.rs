//! The WebSocket: requests, responses and events in the framing that OpenClaw's clients speak.

use super::rpc::Registry;
use axum::extract::ws::{Message, WebSocket};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    method: String,
    #[serde(default)]
    params: Value,
}

/// Talks with one client until it goes.
pub(super) async fn converse(mut socket: WebSocket, registry: Arc<Registry>, actor: &'static str) {
    let (sender, mut outgoing) = mpsc::channel::<Value>(64);
    for (name, handle) in &registry.services {
        let (mut views, sender, name) = (handle.watch(), sender.clone(), name.clone());
        tokio::spawn(async move {
            let mut last = None;
            while views.changed().await.is_ok() {
                let report = views.borrow_and_update().report.clone();
                let now = (report.run_id.clone(), report.phase.clone(), report.status);
                if last.as_ref() == Some(&now) {
                    continue;
                }
                last = Some(now);
                let payload = json!({ "service": name, "runId": report.run_id, "phase": report.phase, "status": report.status, "ok": report.ok });
                if sender
                    .send(json!({ "type": "event", "event": "update.run.changed", "payload": payload }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
    loop {
        tokio::select! {
            Some(frame) = outgoing.recv() => {
                if socket.send(Message::Text(frame.to_string().into())).await.is_err() {
                    return;
                }
            }
            message = socket.recv() => {
                let Some(Ok(message)) = message else { return };
                if let Message::Text(text) = message {
                    answer(text.as_str(), &registry, actor, &sender);
                }
            }
        }
    }
}

/// Answers in the order of completion, as the framing's ids allow.
fn answer(text: &str, registry: &Arc<Registry>, actor: &'static str, sender: &mpsc::Sender<Value>) {
    let request = serde_json::from_str::<Request>(text);
    let (registry, sender) = (Arc::clone(registry), sender.clone());
    tokio::spawn(async move {
        let frame = match request {
            Ok(request) if request.kind == "req" => respond(&registry, request, actor).await,
            Ok(_) => {
                json!({ "type": "res", "ok": false, "error": { "code": "invalid_frame", "message": "send frames of type `req`" } })
            }
            Err(error) => {
                json!({ "type": "res", "ok": false, "error": { "code": "invalid_frame", "message": error.to_string() } })
            }
        };
        // A client that is gone needs no answer.
        let _ = sender.send(frame).await;
    });
}

async fn respond(registry: &Registry, request: Request, actor: &str) -> Value {
    if request.method == "connect" {
        let server = json!({ "version": env!("CARGO_PKG_VERSION"), "name": "cutover" });
        let payload = json!({ "type": "hello-ok", "server": server, "features": { "methods": Registry::methods(), "events": ["update.run.changed"] } });
        return json!({ "type": "res", "id": request.id, "ok": true, "payload": payload });
    }
    match registry.call(&request.method, request.params, actor).await {
        Ok(payload) => json!({ "type": "res", "id": request.id, "ok": true, "payload": payload }),
        Err(failure) => json!({ "type": "res", "id": request.id, "ok": false, "error": failure.json() }),
    }
}
