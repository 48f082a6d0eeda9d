//! Working as another user for the length of one call.

use super::{Error, Result};
use rustix::fs::{Access, Gid, Uid};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use tokio::process::{Child, Command};

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Runs `work` on a thread of its own that belongs to this user; children that it starts do too. On Linux
    /// credentials are per thread, so nobody else is affected, and the thread ends with them.
    ///
    /// # Errors
    /// If the user cannot be taken on (the caller is not root), before `work` runs.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.take_on()?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Starts a program as this user, or as the caller where nobody is named. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the user cannot be taken on or the program cannot be executed.
    pub(crate) fn spawn(identity: Option<&Self>, command: &mut Command) -> io::Result<Child> {
        let Some(identity) = identity else { return command.spawn() };
        let runtime = tokio::runtime::Handle::current();
        identity.run(|| {
            let _inside = runtime.enter();
            command.spawn()
        })
    }

    /// Makes the calling thread this user's, for good; in a process of one thread that is the process.
    ///
    /// # Errors
    /// The caller is not root.
    pub(crate) fn take_on(&self) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        // Groups first: without root they could not be changed any more.
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    }

    /// Proves by the kernel's own judgement that this user may create entries in `dir`.
    pub(super) fn may_write(&self, dir: &Path) -> Result<()> {
        let asked = self.run(|| Ok(rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK)?));
        asked.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::Denied { path: dir.to_owned(), uid: self.uid }
            }
            _ => Error::read(dir)(error),
        })
    }
}
