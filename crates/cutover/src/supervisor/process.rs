//! One process: whether it lives, when it ends, and signals that reach it or nobody.
//!
//! Knows pids, start times and pidfds. Must not know what a process is for.

use super::error::Error;
use super::thread;
use crate::polling::poll_until;
use cutover_core::Instance;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Reads who the process with this pid is now; `None` if nobody has the pid. A zombie still has it.
///
/// # Errors
/// [`Error::Identify`] if `/proc` cannot be read.
pub fn identify(pid: u32) -> Result<Option<Instance>, Error> {
    match cutover_intent::identity::instance(pid) {
        Ok(instance) => Ok(Some(instance)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Identify { pid, source }),
    }
}

/// Reads who the calling process is.
///
/// # Errors
/// [`Error::Identify`] if `/proc` cannot be read.
pub fn own() -> Result<Instance, Error> {
    let pid = std::process::id();
    let missing = || Error::Identify { pid, source: io::ErrorKind::NotFound.into() };
    identify(pid)?.ok_or_else(missing)
}

/// Whether this very process still runs. A zombie does not, nor does a later owner of its pid or one of another boot.
///
/// # Errors
/// [`Error::Identify`] or [`Error::Watch`] if it cannot be told; that is never an answer.
pub fn is_alive(instance: &Instance) -> Result<bool, Error> {
    match Handle::open(instance)? {
        Some(handle) => Ok(!handle.wait(Duration::ZERO)?),
        None => Ok(false),
    }
}

/// Waits until this very process is gone, at most for `limit`; answers whether it is.
///
/// # Errors
/// As [`is_alive`], and [`Error::Thread`].
pub async fn wait_gone(instance: &Instance, limit: Duration) -> Result<bool, Error> {
    match Handle::open(instance)? {
        Some(handle) => thread::run("wait-gone", move || handle.wait(limit)).await?,
        None => Ok(true),
    }
}

/// Waits without a limit until this very process is gone. Dropping the future ends the wait.
///
/// # Errors
/// As [`wait_gone`].
pub async fn ended(instance: &Instance) -> Result<(), Error> {
    let Some(handle) = Handle::open(instance)? else { return Ok(()) };
    // Closing our end ends the thread: nobody could take its answer any more.
    let (ours, theirs) = UnixStream::pair().map_err(Error::Thread)?;
    let answer = thread::run("wait-ended", move || handle.wait_or_cancelled(&theirs)).await?;
    drop(ours);
    answer
}

/// Sends SIGKILL to this very process; nothing if it is gone.
///
/// # Errors
/// If it cannot be told whose the pid is, or it may not be signalled.
pub fn kill(instance: &Instance) -> Result<(), Error> {
    match Handle::open(instance)? {
        Some(handle) => handle.signal(Signal::KILL),
        None => Ok(()),
    }
}

/// Where a process's own links point, as the kernel keeps them: no argument or title can change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// The executed file (the interpreter, for a script). It ends in ` (deleted)` if that file is gone.
    pub exe: PathBuf,
    /// Device and inode of the executed file, also when it has been replaced or deleted.
    pub exe_file: (u64, u64),
    /// The working directory.
    pub cwd: PathBuf,
}

/// Reads the links of this very process; `None` if it is gone.
///
/// # Errors
/// [`Error::Identify`] if they may not be read, or it cannot be told whose they are.
pub fn links(instance: &Instance) -> Result<Option<Links>, Error> {
    use std::os::unix::fs::MetadataExt;
    let pid = instance.pid;
    let read = || -> io::Result<Links> {
        let file = std::fs::metadata(format!("/proc/{pid}/exe"))?;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"))?;
        Ok(Links { exe, exe_file: (file.dev(), file.ino()), cwd })
    };
    let answer = read();
    // Looked at afterwards: if it still is the same process now, it was when the links were read.
    if !is_alive(instance)? {
        return Ok(None);
    }
    answer.map(Some).map_err(|source| Error::Identify { pid, source })
}

/// A hold on one process: what is waited for and signalled is this very process, whoever gets its pid later.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) instance: Instance,
    pidfd: OwnedFd,
}

impl Handle {
    /// Takes hold of a process; `None` if it is gone and reaped, or of another boot.
    pub(super) fn open(instance: &Instance) -> Result<Option<Self>, Error> {
        let pid = instance.pid;
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // Nobody has the number, or a thread of somebody else has it, which is no process of that number: the kernel calls
            // that invalid, and newer ones (6.18) call it not there.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::Watch { pid, source: errno.into() }),
        };
        // Read after opening: if the instance has the pid now it had it then too, so the descriptor is its own.
        match self::identify(pid)? {
            Some(found) if found == *instance => Ok(Some(Self { instance: instance.clone(), pidfd })),
            _ => Ok(None),
        }
    }

    /// Waits for the end of the process, at most for `limit`; answers whether it has ended.
    pub(super) fn wait(&self, limit: Duration) -> Result<bool, Error> {
        let ended = poll_until(&mut [readable(self.pidfd.as_fd())], limit);
        ended.map_err(|errno| Error::Watch { pid: self.instance.pid, source: errno.into() })
    }

    fn wait_or_cancelled(&self, cancel: &UnixStream) -> Result<(), Error> {
        let mut fds = [readable(self.pidfd.as_fd()), readable(cancel.as_fd())];
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Watch { pid: self.instance.pid, source: errno.into() }),
            }
        }
    }

    /// Sends a signal. A process that ended in the meantime needs none.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Signal { pid: self.instance.pid, source: errno.into() }),
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
