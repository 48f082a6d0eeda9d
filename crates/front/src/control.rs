//! The control protocol: what the daemon may order, what the front answers. Newline-delimited JSON; listening sockets
//! travel beside it as descriptors. One daemon at a time: a newer connection replaces the older.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::client::ControlClient;
use crate::milliseconds;
use crate::{Claim, Claimed, Drained, Posture, Say, Stats};

/// The protocol's number; a front of another number is not understood.
pub const PROTOCOL: u32 = 3;

/// The front's first line on each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The service's name.
    pub service: String,
    /// The front's process.
    pub pid: u32,
    /// The posture it is in.
    pub posture: Posture,
    /// The addresses it accepts on.
    pub listening: Vec<SocketAddr>,
}

/// One order; answers bear its number and may come in another order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Chosen by the daemon, unique on its connection.
    pub id: u64,
    /// What is to be done.
    pub order: Order,
}

/// What the daemon may order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Accept on exactly the sockets that come with this line.
    Listen {
        /// How many come with it.
        sockets: usize,
    },
    /// Hand duplicates of the listening sockets back.
    Sockets,
    /// Take this posture.
    Posture(Posture),
    /// Wait until no WebSocket of a former upstream is owed an answer.
    Answers {
        /// After which what is owed then is told.
        #[serde(rename = "limit_ms", with = "milliseconds")]
        limit: Duration,
    },
    /// Wait until no exchange with a former upstream is open.
    Drain {
        /// After which what is left is cut.
        #[serde(rename = "limit_ms", with = "milliseconds")]
        limit: Duration,
    },
    /// Claim such calls from now on, or none.
    Claim(Option<Claim>),
    /// Say this on a WebSocket.
    Say(Say),
    /// Tell the numbers.
    Stats,
    /// Stop accepting, finish what is open, end.
    Quit,
}

impl Order {
    /// The order in words, for errors.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Sockets => "hand back its sockets",
            Self::Posture(posture) => posture.word(),
            Self::Answers { .. } => "wait for answers",
            Self::Drain { .. } => "drain",
            Self::Claim(_) => "claim calls",
            Self::Say(_) => "say something",
            Self::Stats => "tell its numbers",
            Self::Quit => "quit",
        }
    }
}

/// A line of the front's after its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// An order was obeyed or refused.
    Reply(Reply),
    /// A client has called what is claimed.
    Claimed(Claimed),
}

/// The answer to one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The order's number.
    pub id: u64,
    /// What became of it.
    pub answer: Answer,
}

/// What the front may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The addresses that are accepted on now.
    Listening(Vec<SocketAddr>),
    /// So many sockets come with this line.
    Sockets(usize),
    /// The front is in this posture now.
    Is(Posture),
    /// So many WebSockets are still owed an answer.
    Owed(u64),
    /// The drain has ended.
    Drained(Drained),
    /// Such calls are claimed.
    Claims,
    /// Whether there was still somebody to say it to.
    Said(bool),
    /// The numbers.
    Stats(Stats),
    /// The front stops accepting and ends.
    Quitting,
    /// Nothing was changed.
    Refused(String),
}
