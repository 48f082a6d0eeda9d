//! Bringing the predecessor back: its unit, or its own command line in its own directory and environment; and the proof.

use super::{Error, Line, Predecessor, Record, Step};
use crate::causes::told;
use crate::probe::{Address, ProbeSettings, observe_service};
use crate::shell::{quoted, shown};
use crate::store::Identity;
use cutover_core::Seen;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two questions.
const LOOK: Duration = Duration::from_millis(100);

/// How long somebody who starts it again is waited for at least: as long as the longest pause that a supervisor makes by default.
const AGAIN: Duration = Duration::from_secs(20);
/// And at most, however long they took the last time: meanwhile nobody serves. A table of jobs looks once a minute.
pub const AGAIN_MAX: Duration = Duration::from_secs(90);

/// Where a process whose output went to no file says what it says now.
const OUTPUT: &str = "predecessor.log";

impl Record {
    /// Brings the predecessor back and proves that it answers on its old address as its old version. Nobody else
    /// may hold the address, and that it returns is on record already. Must be idempotent: it may run again after a crash.
    ///
    /// # Errors
    /// It does not start, or does not show itself; what is known is told with what to do by hand.
    pub async fn bring_back(
        &self,
        service: &Path,
        probe: &ProbeSettings,
        limit: Duration,
    ) -> Result<Duration, Error> {
        let begun = Instant::now();
        let old = self.predecessor.clone();
        match &old.unit {
            // Also if it runs: it may have been taken out of what is started.
            Some(unit) => unit.restore(limit).await?,
            // Also one that a command started which was killed before it listened.
            None if old.comes_by_itself(self.patience()).await? => {}
            None => old.start(service)?,
        }
        crate::crash_point!("predecessor: started again");
        let log = match (&old.output[1], &old.unit) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(unit)) => format!("`{}`", unit.journal()),
            (None, None) => service.join(OUTPUT).display().to_string(),
        };
        old.proven(probe, limit, &log).await?;
        Ok(begun.elapsed())
    }
}

impl Record {
    /// How long somebody who starts it again is given the time to do so before we do: two would run, of which one fights for
    /// the address for ever. As long as they took the last time, and none where nobody did. By wall clocks, within limits: one
    /// that was set in between makes the wait too short or too long by no more than these.
    fn patience(&self) -> Duration {
        let Some(at) = self.lines.iter().rposition(|line| matches!(line.step, Step::Revived { .. })) else {
            return Duration::ZERO;
        };
        let is_end = |line: &&Line| matches!(line.step, Step::Ending | Step::Gone);
        let ended = self.lines[..at].iter().rev().find(is_end);
        let took = ended.map(|ended| self.lines[at].at.duration_since(ended.at));
        let took = took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
        took.saturating_add(AGAIN).min(AGAIN_MAX)
    }
}

impl Predecessor {
    /// Whether it lives, or comes to live within the time that is given to who starts it.
    async fn comes_by_itself(&self, patience: Duration) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            if !self.lives()?.is_empty() {
                return Ok(true);
            }
            if begun.elapsed() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts it as it was started before.
    fn start(&self, service: &Path) -> Result<(), Error> {
        let own = rustix::process::geteuid();
        let identity =
            Identity { uid: self.account.uid, gid: self.account.gid, groups: self.account.groups.clone() };
        let spare = OpenOptions::new().append(true).create(true).mode(0o600).open(service.join(OUTPUT));
        // The paths are the account's: they are opened with its rights and not with ours.
        let start = |spare: &File| {
            let output = |path: &Option<PathBuf>| match path {
                Some(path) => {
                    OpenOptions::new().append(true).create(true).open(path).or_else(|_| spare.try_clone())
                }
                None => spare.try_clone(),
            };
            let (out, err) = (output(&self.output[0])?, output(&self.output[1])?);
            let mut command = Command::new(&self.program);
            if let Some(name) = self.command.first() {
                command.arg0(name);
            }
            command.args(self.command.iter().skip(1)).env_clear().envs(&self.env).current_dir(&self.cwd);
            // A group of its own: what ends this command does not end it.
            command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
            command.spawn()
        };
        let is_other = own.is_root() && own.as_raw() != self.account.uid;
        let started =
            spare.and_then(|spare| if is_other { identity.run(|| start(&spare)) } else { start(&spare) });
        let child = started.map_err(|source| Error::Start {
            program: self.program.clone(),
            by_hand: format!("cd {} && {}", quoted(&self.cwd.display().to_string()), shown(&self.command)),
            source,
        })?;
        // Reaped if it ends while this program still runs; afterwards it is init's.
        std::thread::spawn(move || {
            let mut child = child;
            child.wait()
        });
        Ok(())
    }

    /// Asks on its old address until it says that it is ready and its old version, and one process of its listened there
    /// before it did and after.
    async fn proven(&self, probe: &ProbeSettings, limit: Duration, log: &str) -> Result<(), Error> {
        let address = self.addresses[0];
        let begun = Instant::now();
        loop {
            let last = match self.answered(probe).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                // A question that cannot be put now may be put later.
                Err(error) => told(&error),
            };
            if begun.elapsed() > limit {
                let version = self.package.version.clone();
                return Err(Error::Unproven { address, version, after: limit, last, log: log.to_owned() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look; in words, what is not so.
    async fn answered(&self, probe: &ProbeSettings) -> Result<Result<(), String>, Error> {
        let before = match self.listener().await? {
            Ok(listener) => listener,
            Err(why) => return Ok(Err(why)),
        };
        if let Err(why) = answers(self.addresses[0], probe, &self.package.version).await {
            return Ok(Err(why));
        }
        Ok(match self.listener().await? {
            Ok(after) if after == before => Ok(()),
            Ok(_) => Err("it was started anew while it was asked".into()),
            Err(why) => Err(why),
        })
    }
}

/// Whether a service answers on an address, ready and as a version; and the plugins that it tells.
///
/// # Errors
/// In words, what it is instead.
pub async fn answers(
    address: SocketAddr,
    probe: &ProbeSettings,
    version: &str,
) -> Result<Seen<Vec<String>>, String> {
    let clock = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let seen = observe_service(probe, &Address::Tcp(address), &clock).await;
    let instead = |seen: &Seen<String>| match seen {
        Seen::Yes { value, .. } => format!("it says that it is {value}"),
        Seen::Missing { why, .. } | Seen::NotApplicable { why } => why.clone(),
    };
    if seen.version.value().map(String::as_str) != Some(version) {
        return Err(instead(&seen.version));
    }
    match seen.ready.value() {
        Some(true) => Ok(seen.plugins),
        Some(false) => Err("it is not ready".into()),
        None => Err("its readiness is not to be had".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_starts_it_again_is_waited_for_as_long_as_they_took_and_nobody_where_nobody_did() {
        let patience = |steps: &[(i64, Step)]| {
            let ground = tempfile::tempdir().unwrap();
            let mut record = crate::predecessor::record::tests::begun(ground.path());
            record.lines.extend(steps.iter().map(|(second, step)| Line {
                at: jiff::Timestamp::from_second(*second).unwrap(),
                step: step.clone(),
            }));
            record.patience().as_secs()
        };
        let revived = || Step::Revived { by: "cron (pid 7)".into() };
        assert_eq!(patience(&[(100, Step::Ending), (101, Step::Gone)]), 0);
        assert_eq!(patience(&[(100, Step::Ending), (100, revived())]), 20);
        assert_eq!(patience(&[(100, Step::Ending), (101, Step::Gone), (155, revived())]), 74);
        let (taken, later) = ((130, Step::Taken { gap_ms: 1 }), (9_000, revived()));
        assert_eq!(patience(&[(101, Step::Gone), taken, later]), 90, "nobody serves meanwhile");
        assert_eq!(patience(&[(101, Step::Gone), (50, revived())]), 20, "the clock was set back");
    }
}
