//! Short children: the service's interpreter, run as the service's user, with a home of its own and a limit.
//!
//! Knows how to run one and read what it said. Must not know what is asked.

mod shim;

pub(crate) use shim::main;

use super::stop::Stop;
use crate::polling::poll_until;
use crate::store::Identity;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use shim::{Order, Word};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

/// Of what a child says, this much is read.
const SAID_MAX: u64 = 512 * 1024;

/// What children get of the service's environment: what finds and loads programs, and no secret.
pub(super) const PASSED_ON: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ"];

/// Of each file that a child writes, its own words included, this much.
const FILE_MAX: u64 = 64 << 20;

/// How the service's interpreter is run to ask it something.
#[derive(Clone, Debug)]
pub struct Children {
    /// This program, which becomes each child.
    pub executable: PathBuf,
    /// The service's interpreter, absolute; `None` where the service is not run by node.
    pub interpreter: Option<PathBuf>,
    /// Whom children run as, if not the caller. Must be root to differ.
    pub identity: Option<Identity>,
    /// Where each child's own HOME and TMPDIR is made, and removed; `identity` must be able to pass through it.
    pub scratch: PathBuf,
    /// The service's environment. Only search paths and the locale are passed on.
    pub env: BTreeMap<String, String>,
    /// Longest time that one child may take, and most time that it may compute.
    pub limit: Duration,
    /// Longest time that all children that load native modules may take together.
    pub limit_all: Duration,
    /// Ends the child that runs, and everything after it.
    pub stop: Stop,
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
    /// This program could not be run to become it.
    #[error("starting a child by {}", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not take its limits or its user on.
    #[error("confining the child that becomes {}", path.display())]
    Confine {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not be executed.
    #[error("executing {} as uid {uid}", path.display())]
    Execute {
        path: PathBuf,
        uid: u32,
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
    /// It ended before it was what was asked.
    #[error("{} was not executed: {how}", path.display())]
    Lost { path: PathBuf, how: String },
    /// Nobody wants to know any more.
    #[error("given up")]
    GivenUp,
}

impl Children {
    /// Runs a program to its end, or to the limit. What is still of its group ends with it; with the caller, it does.
    pub(super) fn run<A: AsRef<OsStr>>(&self, program: &Path, args: &[A]) -> Result<Ran, Error> {
        if self.stop.is_asked() {
            return Err(Error::GivenUp);
        }
        let failed = |source| Error::Scratch { path: self.scratch.clone(), source };
        let home = self.home().map_err(failed)?;
        let mut stdout = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        let mut stderr = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        let (mut control, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(&self.executable)
            .arg(shim::NAME)
            .env_clear()
            .current_dir(home.path())
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout.try_clone().map_err(failed)?)
            .stderr(stderr.try_clone().map_err(failed)?)
            .spawn()
            .map_err(|source| Error::Start { path: self.executable.clone(), source })?;
        let pid = child.id();
        let order =
            serde_json::to_vec(&self.order(program, args, home.path())).expect("an order is plain data");
        // One that cannot be told has ended, and says so by that.
        let _ = control.write_all(&order).and_then(|()| control.shutdown(Shutdown::Write));
        let (status, end) =
            end(child, self.limit, &self.stop).map_err(|source| Error::Wait { pid, source })?;
        if end == End::Stopped {
            return Err(Error::GivenUp);
        }
        self.was_executed(program, control, status)?;
        Ok(Ran {
            status: (end == End::Own).then_some(status),
            stdout: said(&mut stdout).map_err(failed)?,
            stderr: said(&mut stderr).map_err(failed)?,
        })
    }

    /// Whether whoever children run as may execute the interpreter; an error says why not.
    pub(crate) fn may_execute(&self) -> io::Result<()> {
        self.interpreter.as_deref().map_or(Ok(()), |program| self.may(program, Access::EXEC_OK))
    }

    /// Whether whoever children run as may read a file; an error says why not.
    pub(super) fn may_read(&self, file: &Path) -> io::Result<()> {
        self.may(file, Access::READ_OK)
    }

    fn may(&self, file: &Path, access: Access) -> io::Result<()> {
        match &self.identity {
            Some(identity) => identity.run(|| Ok(rustix::fs::access(file, access)?)),
            None => Ok(rustix::fs::accessat(CWD, file, access, AtFlags::EACCESS)?),
        }
    }

    /// Whom children run as.
    pub(crate) fn uid(&self) -> u32 {
        self.identity.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |identity| identity.uid)
    }

    fn order<A: AsRef<OsStr>>(&self, program: &Path, args: &[A], home: &Path) -> Order {
        let passed_on = self.env.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
        let mut env: Vec<(OsString, OsString)> =
            passed_on.map(|(name, value)| (name.into(), value.into())).collect();
        env.extend(["HOME", "TMPDIR"].map(|name| (name.into(), home.into())));
        Order {
            parent: std::process::id(),
            program: program.into(),
            args: args.iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env,
            user: self.identity.clone(),
            limit: self.limit,
            file_max: FILE_MAX,
        }
    }

    /// Reads what the shim said. It has ended, and what it became had not its end of the line.
    fn was_executed(&self, program: &Path, mut control: UnixStream, status: ExitStatus) -> Result<(), Error> {
        let path = || program.to_owned();
        let mut text = String::new();
        // A line that was cut off says as little as none.
        let _ = control.read_to_string(&mut text);
        let words: Vec<Word> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let source = io::Error::from_raw_os_error;
        match words.as_slice() {
            [Word::Executes] => Ok(()),
            [Word::Executes, Word::Refused(number)] => {
                Err(Error::Execute { path: path(), uid: self.uid(), source: source(*number) })
            }
            [Word::Unfit(number)] => Err(Error::Confine { path: path(), source: source(*number) }),
            _ => Err(Error::Lost { path: path(), how: status.to_string() }),
        }
    }

    fn home(&self) -> io::Result<TempDir> {
        let home = tempfile::Builder::new().prefix("preflight-").tempdir_in(&self.scratch)?;
        if let Some(identity) = &self.identity {
            std::os::unix::fs::chown(home.path(), Some(identity.uid), Some(identity.gid))?;
            // Told here: a child that cannot enter its directory blames the program.
            identity.run(|| Ok(rustix::fs::access(home.path(), Access::WRITE_OK | Access::EXEC_OK)?))?;
        }
        Ok(home)
    }
}

/// What a child's end came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Own,
    Limit,
    Stopped,
}

/// Waits for the child, at most for `limit` and until it is given up, then kills its group.
fn end(mut child: Child, limit: Duration, stop: &Stop) -> io::Result<(ExitStatus, End)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child is one");
    let end = awaited(pid, limit, stop);
    // Before it is reaped: as long as it is a zombie nobody else can get the group's number.
    let killed = kill_process_group(pid, Signal::KILL);
    if killed.is_err() && !matches!(end, Ok(End::Own)) {
        // Not waited for what may go on for ever.
        killed?;
    }
    let status = child.wait()?;
    Ok((status, end?))
}

fn awaited(pid: Pid, limit: Duration, stop: &Stop) -> io::Result<End> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut polled: Vec<PollFd<'_>> =
        std::iter::once(PollFd::new(&pidfd, PollFlags::IN)).chain(stop.poll()).collect();
    Ok(match poll_until(&mut polled, limit)? {
        false => End::Limit,
        true if polled[0].revents().is_empty() => End::Stopped,
        true => End::Own,
    })
}

fn said(file: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(SAID_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Ran {
    /// Whether somebody else ended it: we at the limit, the kernel for its computing time or for want of memory.
    pub(super) fn was_cut_off(&self) -> bool {
        let cuts = [Signal::KILL, Signal::XCPU].map(Signal::as_raw);
        self.status.is_none_or(|status| status.signal().is_some_and(|signal| cuts.contains(&signal)))
    }

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
