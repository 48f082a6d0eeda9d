//! Whoever starts the predecessor again after its end: found by what runs, told with what to type.

use super::found::{ancestry, variables};
use super::{Error, Record, Step, respawner};
use std::fmt;

/// A predecessor that somebody started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The process.
    pub pid: u32,
    /// Who started it.
    pub by: String,
    /// How it is taken out of there.
    pub how: String,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} started the old service again, as pid {}", self.by, self.pid)
    }
}

impl Record {
    /// Looks whether the predecessor lives, whoever has the address. One that is started again and again is not there in between:
    /// that none is seen says little about the next moment.
    ///
    /// # Errors
    /// What runs cannot be read.
    pub fn rival(&self) -> Result<Option<Rival>, Error> {
        let again = self.predecessor.lives()?.into_iter().next();
        Ok(again.map(|again| self.rival_of(again.pid)))
    }

    pub(super) fn rival_of(&self, pid: u32) -> Rival {
        let (above, parent) = ancestry(pid);
        if let Some(known) = respawner::above(&above, &variables(pid).unwrap_or_default()) {
            return Rival { pid, by: known.name, how: known.how };
        }
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let unit = self.predecessor.unit.as_ref();
        if let Some(unit) = unit.filter(|unit| cgroup.contains(&format!("/{}", unit.name))) {
            let how = format!("type `{}`", unit.command("disable --now"));
            return Rival { pid, by: unit.name.clone(), how };
        }
        match parent {
            Some(by) => {
                Rival { pid, how: format!("take it out of what {by} runs, and type `kill {pid}`"), by }
            }
            None => Rival {
                pid,
                by: "somebody who has ended since".into(),
                how: format!(
                    "find what starts it (a crontab, a timer, a script), take it out there, and type `kill {pid}`"
                ),
            },
        }
    }

    /// Whether that this one starts it again is on record already.
    #[must_use]
    pub fn knows(&self, rival: &Rival) -> bool {
        let is_it = |step: &Step| matches!(step, Step::Revived { by } if name(by) == name(&rival.by));
        self.lines.iter().any(|line| is_it(&line.step))
    }
}

/// Who it is, whatever the pid: cron has another one for each job.
fn name(by: &str) -> &str {
    by.split_once(" (pid ").map_or(by, |(name, _)| name)
}
