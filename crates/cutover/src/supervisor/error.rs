//! What can go wrong in this room, one variant per operation that failed.

use cutover_core::Instance;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A fault while starting, watching or stopping a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path in a launch depends on the daemon's own directory.
    #[error("{} is not an absolute path", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The instance's directory could not be made.
    #[error("make instance directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An instance was already prepared in this directory: each start needs a new one.
    #[error("{} has been used for another start", path.display())]
    Used {
        /// The directory.
        path: PathBuf,
    },
    /// A record could not be made durable.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record does not say what it should.
    #[error("understand {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The keeper or the shim could not be spawned.
    #[error("spawn {}", path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The keeper reported nothing in time or ended before it was ready. Nothing ran.
    #[error("the keeper in {} did not become ready within {limit:?}: {said}", path.display())]
    NotReady {
        /// The instance's directory; `keeper.log` in it may say more.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
        /// What it said instead, if anything.
        said: String,
    },
    /// The keeper got the word but could not spawn the service. Nothing ran.
    #[error("the keeper did not start the service: {why}")]
    NotStarted {
        /// The keeper's own account.
        why: String,
    },
    /// The program could not be executed: it is missing, not executable, or its directory or user is wrong.
    #[error("the service's program was not executed: {why}")]
    NotExecuted {
        /// The shim's own account.
        why: String,
    },
    /// It is not known whether the service runs; [`adopt`](super::adopt) tells, now or later.
    #[error("it is not yet decided what became of the start in {}", path.display())]
    Undecided {
        /// The instance's directory.
        path: PathBuf,
    },
    /// Who a process is could not be read.
    #[error("identify pid {pid}")]
    Identify {
        /// Its pid.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process could not be watched for its end.
    #[error("watch pid {pid}")]
    Watch {
        /// Its pid.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process could not be signalled.
    #[error("signal pid {pid}")]
    Signal {
        /// Its pid.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list of processes could not be read.
    #[error("list processes")]
    Processes(#[source] io::Error),
    /// Something survived its KILL for the whole budget.
    #[error("still alive {after:?} after KILL: {}", name(instances))]
    StillAlive {
        /// What is still alive.
        instances: Vec<Instance>,
        /// How long was waited after KILL.
        after: Duration,
    },
    /// A thread for a blocking wait could not be made, or it ended without an answer.
    #[error("wait on a thread")]
    Thread(#[source] io::Error),
    /// The keeper could not become what it must be: leader of a session, reaper of orphans, deaf to signals.
    #[error("become a keeper")]
    Keeper(#[source] io::Error),
    /// The shim could not leave its keeper's session.
    #[error("begin a session")]
    Session(#[source] io::Error),
    /// The shim could not become the service's user.
    #[error("become uid {uid}, gid {gid}")]
    Become {
        /// The uid.
        uid: u32,
        /// The gid.
        gid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service's working directory cannot be entered.
    #[error("enter {}", path.display())]
    Enter {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("execute {}", path.display())]
    Execute {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service's output could not be collected.
    #[error("collect the service's output")]
    Output(#[source] io::Error),
    /// No such user.
    #[error("no user {name} in /etc/passwd; give a numeric uid and gid for users that are kept elsewhere")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// No such group.
    #[error("no group {name} in /etc/group; give a numeric gid for groups that are kept elsewhere")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// A numeric uid that has no entry needs a group beside it.
    #[error("uid {uid} has no entry in /etc/passwd: set the group too")]
    GroupMissing {
        /// The uid.
        uid: u32,
    },
    /// Only root can start a process as somebody else.
    #[error(
        "running as uid {uid}, gid {gid} needs root, this daemon is uid {own}: drop user and group, or run it as root"
    )]
    NotRoot {
        /// The uid that is wanted.
        uid: u32,
        /// The gid that is wanted.
        gid: u32,
        /// The uid that the daemon has.
        own: u32,
    },
}

fn name(instances: &[Instance]) -> String {
    let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
    names.join(", ")
}
