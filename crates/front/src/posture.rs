//! What the front is told to be: serving, holding or in maintenance. It knows no reason for it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Notice;
use crate::milliseconds;

/// The front's stance towards new requests. There is always exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Posture {
    /// Requests go to the upstream. While it refuses connections they are held, for as long as `patience` says.
    Serve {
        /// Where requests go.
        upstream: Upstream,
        /// How long a request waits for an upstream that refuses, and what it is told afterwards.
        patience: Patience,
    },
    /// New requests wait. Setting the same hold again keeps its clock; another id starts a new one.
    Hold {
        /// Names this hold.
        hold: HoldId,
        /// How long requests wait, from the hold's start, and what they are told afterwards.
        patience: Patience,
        /// Where the probe lane leads, if anywhere.
        upstream: Option<Upstream>,
    },
    /// New requests get 503 and the notice; WebSockets are closed with 1013.
    Maintain {
        /// What everybody is told.
        notice: Notice,
        /// Where the probe lane leads, if anywhere.
        upstream: Option<Upstream>,
    },
}

impl Posture {
    /// The posture's word: `serve`, `hold` or `maintain`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Serve { .. } => "serve",
            Self::Hold { .. } => "hold",
            Self::Maintain { .. } => "maintain",
        }
    }

    /// Where the probe lane leads.
    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        match self {
            Self::Serve { upstream, .. } => Some(upstream),
            Self::Hold { upstream, .. } | Self::Maintain { upstream, .. } => upstream.as_ref(),
        }
    }
}

/// Names a hold, so that telling the front twice does not start its clock twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldId(pub String);

impl From<&str> for HoldId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// How long held requests wait, and what they are told when it was too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// Counted from the start of the hold, in milliseconds on the wire.
    #[serde(rename = "limit_ms", with = "milliseconds")]
    pub limit: Duration,
    /// Sent with 503 once the limit has passed, and when too many wait.
    pub notice: Notice,
}

/// A process that takes requests, and how to speak with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who must own the listening socket. Another owner counts as a refused connection. `None`: not checked.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Whether it learns the clients' addresses.
    #[serde(default)]
    pub forwarded: Forwarded,
}

impl Upstream {
    /// An upstream whose owner is not checked and that is told nothing about its clients.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { address, uid: None, forwarded: Forwarded::None }
    }
}

/// Which headers tell the upstream about the client. A service may punish them, so the default adds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// No header is added; what the client sent passes unchanged.
    #[default]
    #[serde(rename = "none")]
    None,
    /// `X-Forwarded-For` (appended), `X-Forwarded-Proto` and `X-Forwarded-Host` (set).
    #[serde(rename = "x-forwarded")]
    XForwarded,
    /// The same for clients of other machines only: a service that trusts this machine's clients may punish such headers.
    #[serde(rename = "x-forwarded-remote")]
    XForwardedRemote,
    /// `Forwarded` (appended), RFC 7239.
    #[serde(rename = "rfc7239")]
    Rfc7239,
}
