//! How a service is asked whether it has work under way.

use super::complaint::Complaint;
use super::fragment::Service;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How long an update waits for it without a word about that.
const WAIT: Duration = Duration::from_secs(120);

/// How the service tells whether it has work under way. Exactly one of `http` and `method`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdleFragment {
    /// Path that answers with JSON. Asking must change nothing.
    pub http: Option<String>,
    /// Method of an OpenClaw gateway, which is asked with the token of `version.openclaw`.
    pub method: Option<String>,
    /// JSON pointer to a boolean in the answer: `true` says that nothing is under way.
    pub pointer: String,
}

/// The question, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleSettings {
    /// How it is put.
    pub ask: IdleAskSettings,
    /// Pointer to the boolean.
    pub pointer: String,
    /// How long an update waits for it.
    pub wait: Duration,
}

/// How a service is asked for its idleness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdleAskSettings {
    /// A path that answers with JSON.
    Http {
        /// The path.
        path: String,
    },
    /// A method of an OpenClaw gateway.
    OpenClaw {
        /// Its token, with placeholders.
        token: String,
        /// The method.
        method: String,
    },
}

pub(super) fn idle(service: &Service) -> Result<Option<IdleSettings>, Complaint> {
    let wait = service.policy.idle_wait.map_or(WAIT, |span| span.0);
    let Some(IdleFragment { http, method, pointer }) = service.probe.idle.clone() else { return Ok(None) };
    if !pointer.starts_with('/') {
        return Err(Complaint::new("probe.idle.pointer", "a JSON pointer begins with /"));
    }
    let ask = match (http, method, &service.probe.version.openclaw) {
        (Some(path), None, _) if path.starts_with('/') => IdleAskSettings::Http { path },
        (Some(_), None, _) => return Err(Complaint::new("probe.idle.http", "a path begins with /")),
        (None, Some(method), Some(token)) => IdleAskSettings::OpenClaw { token: token.clone(), method },
        (None, Some(_), None) => {
            let problem =
                "a method is asked with the token of `probe.version.openclaw`: name that, or `http` here";
            return Err(Complaint::new("probe.idle.method", problem));
        }
        _ => return Err(Complaint::new("probe.idle", "name exactly one of `http` and `method`")),
    };
    Ok(Some(IdleSettings { ask, pointer, wait }))
}
