//! Short children: the service's interpreter, run as the service's user, with a home of its own and a limit.
//!
//! Knows how to run one and read what it said. Must not know what is asked.

use crate::store::Identity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Of what a child says, this much is read.
const SAID_MAX: u64 = 512 * 1024;

/// What children get of the service's environment: what finds and loads programs, and no secret.
const PASSED_ON: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ"];

/// How the service's interpreter is run to ask it something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Children {
    /// The service's interpreter, absolute; `None` where the service is not run by node.
    pub interpreter: Option<PathBuf>,
    /// Whom children run as, if not the caller. Must be root to differ.
    pub identity: Option<Identity>,
    /// Where each child's own HOME and TMPDIR is made, and removed; `identity` must be able to pass through it.
    pub scratch: PathBuf,
    /// The service's environment. Only search paths and the locale are passed on.
    pub env: BTreeMap<String, String>,
    /// Longest time that one child may take.
    pub limit: Duration,
    /// Longest time that all children that load native modules may take together.
    pub limit_all: Duration,
}

/// What became of a child.
#[derive(Debug)]
pub(super) struct Ran {
    /// How it ended; `None` if it was killed at the limit.
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

/// Why a child could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It could not be given a home.
    #[error("making a place for a child in {}", path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not be executed.
    #[error("executing {}", path.display())]
    Execute {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Its end could not be seen.
    #[error("waiting for pid {pid}")]
    Wait {
        pid: u32,
        #[source]
        source: io::Error,
    },
}

impl Children {
    /// Runs a program to its end, or to the limit; all that it started ends with it.
    pub(super) fn run<A: AsRef<OsStr>>(&self, program: &Path, args: &[A]) -> Result<Ran, Error> {
        let failed = |source| Error::Scratch { path: self.scratch.clone(), source };
        let home = self.home().map_err(failed)?;
        let mut stdout = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        let mut stderr = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str())))
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .current_dir(home.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(failed)?)
            .stderr(stderr.try_clone().map_err(failed)?);
        let started = match &self.identity {
            None => command.spawn(),
            Some(identity) => identity.run(|| command.spawn()),
        };
        let child = started.map_err(|source| Error::Execute { path: program.to_owned(), source })?;
        let pid = child.id();
        let status = end(child, self.limit).map_err(|source| Error::Wait { pid, source })?;
        Ok(Ran {
            status,
            stdout: said(&mut stdout).map_err(failed)?,
            stderr: said(&mut stderr).map_err(failed)?,
        })
    }

    fn home(&self) -> io::Result<TempDir> {
        let home = tempfile::Builder::new().prefix("preflight-").tempdir_in(&self.scratch)?;
        if let Some(identity) = &self.identity {
            std::os::unix::fs::chown(home.path(), Some(identity.uid), Some(identity.gid))?;
            // Told here: a spawn that cannot enter its directory blames the program.
            identity.run(|| Ok(rustix::fs::access(home.path(), Access::WRITE_OK | Access::EXEC_OK)?))?;
        }
        Ok(home)
    }
}

/// Waits for the child, at most for `limit`, then kills its group.
fn end(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child is one");
    let ended = has_ended(pid, limit);
    // Before it is reaped: as long as it is a zombie nobody else can get the group's number.
    let killed = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    match (ended?, killed) {
        (true, _) => Ok(Some(status)),
        (false, Ok(())) => Ok(None),
        (false, Err(errno)) => Err(errno.into()),
    }
}

fn has_ended(pid: Pid, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if begun.elapsed() >= limit => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn said(file: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(SAID_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Ran {
    /// How it ended, in words, with the last that it complained of.
    pub(super) fn how(&self, limit: Duration) -> String {
        let ended = match self.status {
            None => format!("no answer within {limit:?}"),
            Some(status) => status.to_string(),
        };
        match self.stderr.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) => format!("{ended}, {}", last.trim()),
            None => ended,
        }
    }
}
