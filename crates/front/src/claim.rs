//! Calls over a WebSocket that are not for the service: the daemon answers them, inside the service's own stream.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::milliseconds;

/// Which calls are claimed, and where a session's rights are found. It holds for WebSockets that are opened afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// A call whose method begins with one of these is claimed.
    pub prefixes: Vec<String>,
    /// The method of the one call that opens a session. Its answer says what the client may do.
    pub hello: String,
    /// JSON pointer to the granted scopes in that answer: a list of strings.
    pub scopes: String,
    /// JSON pointer to the number of the session's protocol in that answer.
    pub protocol: String,
    /// What that answer has in some places, whatever the service put there.
    #[serde(default)]
    pub places: Vec<Place>,
    /// What events of the service have in a place, whatever it put there; what holds now, also of WebSockets that are open. They
    /// pass all the same: clients count events.
    #[serde(default)]
    pub events: Vec<EventPlace>,
}

/// A place in a message of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// JSON pointer. Nothing is done where its parent is no object of the message.
    pub pointer: String,
    /// What is there. Without it there is nothing.
    pub value: Option<Value>,
}

/// A place in the events of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventPlace {
    /// The event's name.
    pub event: String,
    /// The place.
    pub place: Place,
}

/// A claimed call, as the daemon gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claimed {
    /// The WebSocket that it came on. No front gives a number twice.
    pub connection: u64,
    /// What the service granted to that session; empty before its answer.
    pub scopes: Vec<String>,
    /// The protocol that the service told that session.
    pub protocol: Option<u64>,
    /// The call: an object with `id` and `method`.
    pub call: Value,
    /// How long ago it came, in milliseconds on the wire. More than a moment where an earlier daemon has not answered it.
    #[serde(rename = "age_ms", with = "milliseconds")]
    pub age: Duration,
}

/// What the daemon has to say on a WebSocket. A client with a claimed call that is not answered yet keeps its WebSocket
/// while the service is stopped and started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// On which.
    pub connection: u64,
    /// The id of the claimed call that this answers; none for an event.
    #[serde(default)]
    pub answers: Option<Value>,
    /// The message.
    pub message: Value,
    /// Whether the client is to come back on another WebSocket: closed with 1012 after the message.
    #[serde(default)]
    pub closes: bool,
}
