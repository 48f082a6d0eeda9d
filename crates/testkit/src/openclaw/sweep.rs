//! Sixty calls that between them make the gateway load most of the code that it loads late. After its files have been
//! replaced below it, a gateway fails some of them; untouched, it answers them all.

use super::rpc::{Answer, Client};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Makes the message of every sweep a new one: the gateway answers a repeated key from memory.
static SWEEPS: AtomicU64 = AtomicU64::new(0);

/// What came of one sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Calls that were given an answer.
    pub answered: usize,
    /// Calls that failed because a file of the gateway's own code was not there or was another version's.
    pub gone: Vec<String>,
    /// Calls that failed for another reason, with the reason.
    pub failed: Vec<String>,
}

impl Sweep {
    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.answered + self.gone.len() + self.failed.len()
    }
}

/// Makes the calls one after the other, on as few connections as the gateway allows; `limit` bounds each.
pub async fn sweep(gateway: SocketAddr, token: &str, limit: Duration) -> Sweep {
    let mut result = Sweep::default();
    let mut client = None;
    for (method, params) in calls() {
        let call = format!("{method} {params}");
        let answer = match client.take() {
            Some(open) => asked(open, method, &params, limit).await,
            None => match Client::connect(gateway, token, limit).await {
                Ok(open) => asked(open, method, &params, limit).await,
                Err(trouble) => Err(trouble),
            },
        };
        match answer {
            Ok((open, Answer::Given(payload))) => {
                client = Some(open);
                // Tools report their own failures inside an answer.
                if is_missing_code(&payload.to_string()) {
                    result.gone.push(format!("{call}: {payload}"));
                } else {
                    result.answered += 1;
                }
            }
            Ok((open, Answer::Denied(error))) => {
                client = Some(open);
                let list =
                    if is_missing_code(&error.to_string()) { &mut result.gone } else { &mut result.failed };
                list.push(format!("{call}: {error}"));
            }
            Err(trouble) => result.failed.push(format!("{call}: {trouble:#}")),
        }
    }
    result
}

async fn asked(
    mut client: Client,
    method: &str,
    params: &Value,
    limit: Duration,
) -> anyhow::Result<(Client, Answer)> {
    let answer = client.call(method, params, limit).await?;
    Ok((client, answer))
}

/// In an order that creates the session before asking for it. Left out are calls that wait for the internet
/// (`usage.status`) or keep a gateway from answering anybody else for most of a minute when they are made for the first
/// time (`tools.invoke`, `tts.status`): those would show an outage that no update caused.
fn calls() -> Vec<(&'static str, Value)> {
    let session = "agent:main:main";
    let once = format!("sweep-{}-{}", std::process::id(), SWEEPS.fetch_add(1, Ordering::Relaxed));
    let message = json!({"sessionKey": session, "message": "/status", "idempotencyKey": once});
    vec![
        ("health", json!({})),
        ("health", json!({"probe": true})),
        ("status", json!({})),
        ("system-presence", json!({})),
        ("last-heartbeat", json!({})),
        ("gateway.identity.get", json!({})),
        ("agent.identity.get", json!({})),
        ("update.status", json!({})),
        ("logs.tail", json!({"limit": 3})),
        ("diagnostics.stability", json!({})),
        ("channels.status", json!({})),
        ("channels.status", json!({"probe": true, "timeoutMs": 2000})),
        ("config.get", json!({})),
        ("config.schema", json!({})),
        ("config.schema.lookup", json!({"path": "gateway.auth"})),
        ("config.schema.lookup", json!({"path": "commands.restart"})),
        ("commands.list", json!({})),
        ("models.list", json!({})),
        ("models.list", json!({"view": "configured"})),
        ("models.authStatus", json!({})),
        ("tools.catalog", json!({})),
        ("agents.list", json!({})),
        ("agents.files.list", json!({"agentId": "main"})),
        ("agents.files.get", json!({"agentId": "main", "name": "AGENTS.md"})),
        ("artifacts.list", json!({"sessionKey": session})),
        ("skills.status", json!({})),
        ("voicewake.get", json!({})),
        ("voicewake.routing.get", json!({})),
        ("sessions.create", json!({})),
        ("sessions.list", json!({})),
        ("sessions.subscribe", json!({})),
        ("sessions.unsubscribe", json!({})),
        ("sessions.messages.subscribe", json!({"key": session})),
        ("sessions.messages.unsubscribe", json!({"key": session})),
        ("sessions.preview", json!({"keys": [session]})),
        ("sessions.describe", json!({"key": session})),
        ("sessions.compaction.list", json!({"key": session})),
        ("sessions.patch", json!({"key": session, "label": "sweep"})),
        ("sessions.reset", json!({"key": session})),
        ("usage.cost", json!({})),
        ("sessions.usage", json!({})),
        ("tts.personas", json!({})),
        ("exec.approvals.get", json!({})),
        ("exec.approval.list", json!({})),
        ("plugin.approval.list", json!({})),
        ("plugins.uiDescriptors", json!({})),
        ("talk.config", json!({})),
        ("node.list", json!({})),
        ("node.pair.list", json!({})),
        ("device.pair.list", json!({})),
        ("cron.list", json!({})),
        ("cron.status", json!({})),
        ("cron.runs", json!({"limit": 1})),
        ("doctor.memory.status", json!({})),
        ("doctor.memory.dreamDiary", json!({})),
        ("doctor.memory.remHarness", json!({})),
        ("secrets.reload", json!({})),
        ("browser.request", json!({"method": "GET", "path": "/"})),
        ("chat.history", json!({"sessionKey": session, "limit": 5})),
        // Last, because it is the one that ends a gateway whose files were replaced.
        ("chat.send", message),
    ]
}

fn is_missing_code(text: &str) -> bool {
    ["Cannot find module", "ERR_MODULE_NOT_FOUND", "does not provide an export named"]
        .iter()
        .any(|sign| text.contains(sign))
}
