//! The rehearsal: a service is started where it can do no harm, asked what a live one is asked, and ended.
//!
//! ```text
//! the caller ── the sandbox ── `cutover rehearsal` (starts, asks, ends) ── a keeper ── the service
//! ```
//!
//! The network inside is a loopback of its own, so the asking is done inside too, by the probe. What is seen is told round
//! after round, until the caller has seen enough. Knows a start and questions. Must not know which answers are right.

mod inside;
mod wire;

pub use inside::main;
pub use wire::Order;

use crate::sandbox::{self, Sandbox};
use crate::supervisor::Exit;
use cutover_core::{Instance, Observations};
use rustix::event::PollFd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use wire::{ORDER, Word};

/// The hidden word of the command line under which the one inside is run.
pub const NAME: &str = "rehearsal";

/// This program, wherever it lies: in the house its path may not be there, and the service's user may not go there.
const ITSELF: &str = "/proc/self/exe";

/// A start in a house of its own.
#[derive(Clone)]
pub struct Rehearsal {
    /// The house, with copies laid over live state. Which program it is for is said here.
    pub house: Sandbox,
    /// What happens in it.
    pub order: Order,
}

/// What is seen of it, while it goes on.
#[derive(Debug)]
pub enum Sighting {
    /// It was executed, as this process.
    Started(Instance),
    /// One round.
    Round(Observations),
}

/// Whether more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Yes.
    More,
    /// No: it is ended.
    Enough,
}

/// What became of it.
#[derive(Debug)]
#[must_use = "what was not isolated was not run"]
pub enum Outcome {
    /// It was run, and nothing of it is left.
    Played {
        /// How it ended.
        end: End,
        /// The end of its log.
        log: String,
    },
    /// The kernel refuses such a house; nothing was executed.
    NoIsolation {
        /// What was refused, and how.
        why: String,
    },
}

/// How a rehearsed service ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// As it was told to, when enough was seen.
    Stopped {
        /// From TERM to its end.
        took: Duration,
        /// Whether that took KILL.
        forced: bool,
    },
    /// By itself.
    Exited(Exit),
    /// It was not executed.
    NotStarted(String),
    /// It did not come to an end of its own; everything inside was killed.
    Killed(String),
}

/// Whether the kernel grants such a house: it is made and left at once. `None` if it does, else what it refused.
///
/// # Errors
/// As [`Sandbox::run`].
pub fn refused(
    house: &Sandbox,
    executable: &Path,
    limit: Duration,
) -> Result<Option<String>, sandbox::Error> {
    Ok(match inside(house.clone(), BTreeMap::new()).run(executable, limit, None)? {
        sandbox::Outcome::Ended(_) => None,
        sandbox::Outcome::NoIsolation { why } => Some(why),
    })
}

impl Rehearsal {
    /// Starts it, tells `watch` what is seen, and ends it when `watch` has seen enough, or at `limit`. As soon as `unwanted`
    /// is ready everything ends at once.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn run(
        self,
        executable: &Path,
        limit: Duration,
        unwanted: Option<PollFd<'_>>,
        watch: impl FnMut(Sighting) -> Next + Send,
    ) -> Result<Outcome, sandbox::Error> {
        let Self { house, mut order } = self;
        order.launch.log.path = order.place.join("service.log");
        order.launch.identity = None;
        let order = serde_json::to_string(&order).expect("an order is plain data");
        let house = inside(house, BTreeMap::from([(ORDER.to_owned(), order)]));
        let (outcome, end) = house.converse(executable, limit, unwanted, |talk| listen(talk, watch))?;
        Ok(match outcome {
            sandbox::Outcome::NoIsolation { why } => Outcome::NoIsolation { why },
            sandbox::Outcome::Ended(ended) => {
                let lost = || match ended.exit {
                    sandbox::Exit::Limit => End::Killed(format!("at the limit of {limit:?}")),
                    other => End::Killed(format!("the one that started it ended: {other:?}")),
                };
                Outcome::Played { end: end.unwrap_or_else(lost), log: ended.stderr.text() }
            }
        })
    }
}

/// The house with the one inside in it.
fn inside(house: Sandbox, env: BTreeMap<String, String>) -> Sandbox {
    Sandbox { program: ITSELF.into(), args: vec![NAME.into()], env, cwd: "/".into(), ..house }
}

/// Hears the one inside to its end.
fn listen(talk: UnixStream, mut watch: impl FnMut(Sighting) -> Next) -> Option<End> {
    let mut end = None;
    let mut wanted = Next::More;
    for line in BufReader::new(&talk).lines().map_while(Result::ok) {
        let Ok(word) = serde_json::from_str(&line) else { continue };
        let sighting = match word {
            Word::Started(instance) => Sighting::Started(instance),
            Word::Round(seen) => Sighting::Round(*seen),
            Word::Ended(how) => {
                end = Some(how);
                continue;
            }
        };
        // One that was told to end may have been looking.
        if wanted == Next::More {
            wanted = watch(sighting);
            if wanted == Next::Enough {
                // One that is gone needs no word.
                let _ = talk.shutdown(Shutdown::Write);
            }
        }
    }
    end
}
