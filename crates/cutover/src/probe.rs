//! The probe: how to ask a live process for its health, version, plugins and identity. It must not know what the right
//! answer is: it reports what was seen, what was not to be had and what does not apply, and judges nothing.

mod answers;
mod assembly;
mod hello;
mod http;
mod idle;
mod observer;
mod places;
mod process;
mod questions;
mod settings;
mod tripwire;
mod wire;

pub use answers::{Clock, Failed, ServiceAnswers, observe_service, shows_page};
pub use assembly::assemble;
pub use idle::{IdleAsk, IdleQuestion, is_idle};
pub use observer::{Observer, Sight};
pub use places::{Places, places};
pub use process::{Before, ProcessFacts, observe_process};
pub use questions::{Greeting, Questions, VersionQuestion};
pub use settings::{
    Address, Ask, Field, Fields, FirstFrame, Hello, HttpCheck, Pointer, ProbeSettings, Token, VersionProbe,
};
pub use tripwire::TripwireScanner;

use crate::causes::told as why;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a question could not be put, or was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configured path is not one.
    #[error("{path:?} is not a request path; it must begin with / and hold no spaces or fragments")]
    Path {
        /// What was configured.
        path: String,
    },
    /// A configured header is not one.
    #[error("{name:?} with its value is not a header that can be sent")]
    Header {
        /// The header's name; its value may be a secret.
        name: String,
    },
    /// A configured pointer is not one.
    #[error("{pointer:?} is not a JSON pointer; it must be empty or begin with /")]
    Pointer {
        /// What was configured.
        pointer: String,
    },
    /// A configured host name cannot stand in a request.
    #[error("{authority:?} is not a host that a request can name")]
    Authority {
        /// What was configured.
        authority: String,
    },
    /// Nobody could be reached there.
    #[error("connecting to {address}")]
    Connect {
        /// Where.
        address: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The whole exchange did not end in time.
    #[error("no answer within {limit:?}")]
    Unanswered {
        /// The limit that was passed.
        limit: Duration,
    },
    /// What came back was not HTTP, or broke off.
    #[error("reading the HTTP answer")]
    Http {
        /// What the HTTP reader found.
        #[source]
        source: hyper::Error,
    },
    /// The body is longer than any answer to a probe, or broke off.
    #[error("reading the answer's body, of which at most {limit_bytes} bytes are read")]
    Body {
        /// The most that is read.
        limit_bytes: usize,
        /// What the reader found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer points elsewhere; probes do not follow.
    #[error("redirected with {status} to {location:?}, which is not followed")]
    Redirected {
        /// The status.
        status: u16,
        /// Where it points.
        location: String,
    },
    /// The answer's status says nothing about what was asked.
    #[error("answered with status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The answer is not JSON.
    #[error("the answer is not JSON")]
    Json {
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// The document lacks the value.
    #[error("nothing at {pointer:?} in the answer")]
    NoValue {
        /// Where it was looked for.
        pointer: String,
    },
    /// The document has something else there.
    #[error("{kind} instead of a value that can be compared at {pointer:?} in the answer")]
    WrongKind {
        /// Where it was looked for.
        pointer: String,
        /// What was found.
        kind: &'static str,
    },
    /// The WebSocket did not open, or broke.
    #[error("talking WebSocket")]
    WebSocket {
        /// What the WebSocket reader found.
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    /// The other side closed before it answered.
    #[error("the WebSocket was closed before an answer ({code} {reason:?})")]
    Closed {
        /// Its close code; 1005 stands for none, 1006 for a connection that just ended.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// The service answered a call with an error.
    #[error("the service refused {method}: {answer}")]
    CallRefused {
        /// What was called.
        method: String,
        /// Its words.
        answer: String,
    },
    /// The service answered the handshake with an error.
    #[error("the service refused the handshake: {answer}")]
    Refused {
        /// Code, message and details as it gave them.
        answer: String,
    },
    /// The service's log could not be read.
    #[error("reading log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn why(&self) -> String {
        why(self)
    }
}
