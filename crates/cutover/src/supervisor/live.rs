//! An instance that was started and of which it is known who it is.
//!
//! Knows one process, its keeper and its directory. Must not know whether it is healthy.

use super::error::Error;
use super::kin;
use super::process::{self, Handle, Links};
use super::record::{self, EXIT, ExecRecord, Exit, ExitRecord};
use super::stop::{self, StopBudget, Stopped};
use super::thread;
use cutover_core::Instance;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a keeper's record is looked for while it is about to be written.
const LOOK: Duration = Duration::from_millis(5);

/// A service's process with all that is on record about it. Plain data: whether it still lives is asked each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The keeper; `None` if it was killed, and then nobody will know the exit code.
    pub keeper: Option<Instance>,
    /// What was executed, and as which process.
    pub record: ExecRecord,
    /// The instance's directory.
    pub directory: PathBuf,
}

impl Live {
    /// Who the process is.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.record.instance
    }

    /// The same service carried on by a process that this one started in its place, and that bears `nonce`. What was
    /// executed is not on record for it, nor will be how it ends.
    #[must_use]
    pub fn succeeded_by(&self, successor: Instance, nonce: String) -> Self {
        let record = ExecRecord { instance: successor, nonce, ..self.record.clone() };
        Self { record, ..self.clone() }
    }

    /// Whether the process itself still runs.
    ///
    /// # Errors
    /// If it cannot be told; that is never an answer.
    pub fn is_alive(&self) -> Result<bool, Error> {
        process::is_alive(self.instance())
    }

    /// Where the process's own links point now; `None` if it is gone.
    ///
    /// # Errors
    /// If they may not be read.
    pub fn links(&self) -> Result<Option<Links>, Error> {
        process::links(self.instance())
    }

    /// The process, if it lives, and everything that descends from it or bears its nonce: whoever may hold its port.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn family(&self) -> Result<Vec<Instance>, Error> {
        let mut family = kin::alive(std::slice::from_ref(self.instance()))?;
        family.extend(self.descendants()?);
        Ok(family)
    }

    /// What descends from the process or bears its nonce, also after the process itself has gone.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn descendants(&self) -> Result<Vec<Instance>, Error> {
        // What the process leaves behind is adopted by its keeper.
        let roots: Vec<Instance> = self.keeper.iter().chain([self.instance()]).cloned().collect();
        kin::descendants(&roots, &self.record.nonce)
    }

    /// Waits for the end of the process, however long that takes, and then at most for `limit` for its keeper's record.
    ///
    /// # Errors
    /// If the process cannot be watched or the record not read. A record that is missing is [`Exit::Unknown`].
    pub async fn exited(&self, limit: Duration) -> Result<Exit, Error> {
        process::ended(self.instance()).await?;
        let begun = Instant::now();
        loop {
            // The keeper is asked first: what it wrote before it went is there when it has gone.
            let kept = match &self.keeper {
                Some(keeper) => process::is_alive(keeper)?,
                None => false,
            };
            if let Some(found) = record::read::<ExitRecord>(&self.directory, EXIT)? {
                if found.instance == *self.instance() {
                    return Ok(found.exit);
                }
                return Ok(Exit::Unknown {
                    why: "it was not started by a keeper but by its predecessor".into(),
                });
            }
            if !kept {
                return Ok(Exit::Unknown { why: "its keeper was gone before it ended".into() });
            }
            if begun.elapsed() >= limit {
                let why = format!("its keeper did not write it down within {limit:?}");
                return Ok(Exit::Unknown { why });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the process is gone, at most for `limit`; answers whether it is. Its descendants may still live.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub async fn wait_gone(&self, limit: Duration) -> Result<bool, Error> {
        process::wait_gone(self.instance(), limit).await
    }

    /// Sends SIGUSR1. Only for a service that restarts itself on it: to any other it means death or a debugger.
    ///
    /// # Errors
    /// [`Error::Signal`] if it may not be signalled.
    pub fn signal_restart(&self) -> Result<(), Error> {
        match Handle::open(self.instance())? {
            Some(handle) => handle.signal(Signal::USR1),
            None => Ok(()),
        }
    }

    /// Ends the process and then everything that belongs to it or is named in `extra`, and proves all of it gone. Not
    /// for a service that was told to restart itself: its successor descends from it.
    ///
    /// Dropping the future does not end the stop. Stopping again is harmless.
    ///
    /// # Errors
    /// [`Error::StillAlive`] names what survived; others say what could not be watched, signalled or listed.
    pub async fn stop(&self, budget: StopBudget, extra: &[Instance]) -> Result<Stopped, Error> {
        let (live, extra) = (self.clone(), extra.to_vec());
        thread::run("stop", move || stop::stop(&live, budget, &extra)).await?
    }
}
