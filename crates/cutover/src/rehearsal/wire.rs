//! What is said between the caller and the one inside: the order in a variable, then one line each.

use super::End;
use crate::probe::Questions;
use crate::supervisor::Launch;
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
    /// What one round saw.
    Round(Box<Observations>),
    /// It is over.
    Ended(End),
}
