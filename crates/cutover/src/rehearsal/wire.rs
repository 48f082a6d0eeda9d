//! What is said between the caller and the one inside: the order in a variable, then one line each.

use crate::probe::Questions;
use crate::supervisor::{Exit, Launch};
use cutover_core::{Instance, Observations};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The variable that holds the order. Not an argument: it holds secrets, and arguments can be read by everybody.
pub(super) const ORDER: &str = "CUTOVER_REHEARSAL";

/// What is started, and what it is asked.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// The start, by whom the house belongs to: its own identity is passed over. Its log is told and not kept.
    pub launch: Launch,
    /// The questions.
    pub questions: Questions,
    /// Where the service listens, inside.
    pub address: SocketAddr,
    /// The generation's resolved directory.
    pub root: PathBuf,
    /// A directory that is private in the house, for records of the start.
    pub place: PathBuf,
    /// Between two rounds.
    pub pause: Duration,
    /// From TERM to KILL, when enough was seen.
    pub grace: Duration,
}

/// What the one inside says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The service's program is executed, as this process.
    Started(Instance),
    /// Nothing was executed.
    NotStarted(String),
    /// What one round saw.
    Round(Box<Observations>),
    /// The process ended by itself.
    Exited(Exit),
    /// It was told to end, and nothing is left of it.
    Stopped { took: Duration, forced: bool },
    /// It could not be ended, or it cannot be told.
    NotStopped(String),
}
