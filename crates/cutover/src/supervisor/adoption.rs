//! What became of an instance, from its directory and the process table alone.
//!
//! Knows the records and how they follow each other. Must not know what the daemon remembers.

use super::error::Error;
use super::live::Live;
use super::process::{self, Handle};
use super::record::{self, EXIT, ExecRecord, Exit, ExitRecord, INSTANCE, KEEPER, KeeperRecord};
use super::thread;
use cutover_core::Instance;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the records are looked at while a keeper is about to write one.
const LOOK: Duration = Duration::from_millis(5);

/// An instance as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Nothing was executed, and nothing will be.
    NeverStarted,
    /// It runs; its keeper is `None` if that was killed.
    Running(Live),
    /// It has ended, and how is on record.
    Exited {
        /// Who it was.
        instance: Instance,
        /// Its end.
        exit: Exit,
    },
    /// It is gone and nobody saw how: its keeper was killed, or the machine was.
    Lost {
        /// Who it was.
        instance: Instance,
    },
}

/// Finds out what became of the instance in `directory`. A keeper that is just starting or just ending one is waited
/// for, at most for `limit`.
///
/// # Errors
/// [`Error::Undecided`] if that was too short: the question may be put again. Others say what could not be read.
pub async fn adopt(directory: &Path, limit: Duration) -> Result<Adopted, Error> {
    let directory = directory.to_owned();
    thread::run("adopt", move || {
        let begun = Instant::now();
        loop {
            match look(&directory)? {
                Seen::Decided(adopted) => return Ok(adopted),
                Seen::Pending(keeper) => {
                    let left = limit.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        return Err(Error::Undecided { path: directory });
                    }
                    // Its end decides at the latest; until then the records may.
                    if let Some(handle) = Handle::open(&keeper)? {
                        handle.wait(left.min(LOOK))?;
                    }
                }
            }
        }
    })
    .await?
}

/// What was executed in the instance's directory, whatever became of it since; `None` if nothing was.
///
/// # Errors
/// If the record cannot be read.
pub fn executed(directory: &Path) -> Result<Option<ExecRecord>, Error> {
    record::read(directory, INSTANCE)
}

/// Who keeps the instance in `directory`, or kept it; `None` if no keeper ever got ready.
///
/// # Errors
/// If the record cannot be read.
pub fn kept(directory: &Path) -> Result<Option<KeeperRecord>, Error> {
    record::read(directory, KEEPER)
}

enum Seen {
    Decided(Adopted),
    /// This keeper is about to write the next record, or to go.
    Pending(Instance),
}

fn look(directory: &Path) -> Result<Seen, Error> {
    // Without this record it never said that it was ready, so it was never told to go.
    let Some(KeeperRecord { keeper }) = record::read(directory, KEEPER)? else {
        return Ok(Seen::Decided(Adopted::NeverStarted));
    };
    // Who lives is asked before the records are read: what somebody wrote before it went is there when it has gone.
    let kept = process::is_alive(&keeper)?;
    let Some(record) = record::read::<ExecRecord>(directory, INSTANCE)? else {
        return Ok(if kept { Seen::Pending(keeper) } else { Seen::Decided(Adopted::NeverStarted) });
    };
    let instance = record.instance.clone();
    let alive = process::is_alive(&instance)?;
    if let Some(ExitRecord { exit, .. }) = record::read(directory, EXIT)? {
        return Ok(Seen::Decided(Adopted::Exited { instance, exit }));
    }
    Ok(match (alive, kept) {
        (true, _) => {
            let keeper = kept.then_some(keeper);
            Seen::Decided(Adopted::Running(Live { keeper, record, directory: directory.to_owned() }))
        }
        (false, true) => Seen::Pending(keeper),
        (false, false) => Seen::Decided(Adopted::Lost { instance }),
    })
}
