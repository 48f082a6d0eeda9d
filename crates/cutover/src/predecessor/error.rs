//! What can go wrong in this room. What a person reads ends with what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A predecessor cannot be found, ended or brought back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error(
        "nobody listens on port {port}; start the service as you always do, or name its port with --port or its process with --pid"
    )]
    NobodyListens {
        /// The port.
        port: u16,
    },
    /// Somebody listens who may not be looked into.
    #[error(
        "who listens on port {port} may not be looked into: run this as the user whose process it is, or as root"
    )]
    Hidden {
        /// The port.
        port: u16,
    },
    /// The named process listens nowhere.
    #[error("pid {pid} listens on no TCP port; `ss -ltnp` tells who does")]
    Silent {
        /// The process.
        pid: u32,
    },
    /// There is no such process.
    #[error("there is no process with pid {pid}; `ss -ltnp` tells who listens")]
    Gone {
        /// Its pid.
        pid: u32,
    },
    /// The process is one of ours.
    #[error("port {port} is held by cutover's own front already; `cutover status` tells of what")]
    Ours {
        /// The port.
        port: u16,
    },
    /// The process belongs to somebody else.
    #[error("pid {pid} runs as uid {uid}; run this as that user, or as root")]
    Foreign {
        /// The process.
        pid: u32,
        /// Whose it is.
        uid: u32,
    },
    /// Something keeps the process that is not asked here.
    #[error(
        "pid {pid} is kept by {unit}, a unit of another user's manager, or one whose main process it is not, which would start it \
         again: run this as the user whose manager keeps it, or stop it and start the gateway by hand first"
    )]
    KeptElsewhere {
        /// The process.
        pid: u32,
        /// The unit.
        unit: String,
    },
    /// The system's manager keeps the process, and it takes root to ask it.
    #[error(
        "pid {pid} is kept by the system unit {unit}: run this as root (`sudo cutover adopt openclaw …`), whose daemon runs it then"
    )]
    SystemUnit {
        /// The process.
        pid: u32,
        /// The unit.
        unit: String,
    },
    /// Something that is not asked here starts the process again.
    #[error(
        "pid {pid} is started again by {by} whenever it ends: {how}; then start the gateway by itself, and adopt it"
    )]
    Respawned {
        /// The process.
        pid: u32,
        /// What starts it.
        by: String,
        /// How it is taken out of there.
        how: String,
    },
    /// This program would be ended together with the process.
    #[error(
        "this runs inside of what it would end, pid {pid} or its unit: type it in a shell of another session, over ssh or on a \
         terminal of its own"
    )]
    Inside {
        /// The process.
        pid: u32,
    },
    /// A unit keeps more than the process.
    #[error(
        "pid {pid} was started below {unit}, which keeps pid {other} as well, and both would be ended: start the gateway by itself \
         and adopt it then"
    )]
    Shared {
        /// The process.
        pid: u32,
        /// The unit.
        unit: String,
        /// What else it keeps.
        other: u32,
    },
    /// The process has left no command line.
    #[error(
        "the command line of pid {pid} cannot be read: it says `{said}`; name the one that starts the service after `--`: \
         `cutover adopt openclaw -- node …/dist/index.js gateway --port {port}`"
    )]
    NoCommand {
        /// The process.
        pid: u32,
        /// What stands there.
        said: String,
        /// Its port.
        port: u16,
    },
    /// The script that the process runs belongs to no package.
    #[error("{entry} belongs to no npm package named {wanted}: {found}; nothing else can be adopted as it")]
    NotThePackage {
        /// The script, resolved.
        entry: PathBuf,
        /// The package that is looked for.
        wanted: String,
        /// What was found.
        found: String,
    },
    /// A file or directory cannot be read.
    #[error("reading {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record cannot be written.
    #[error("writing {path}; nothing is done that is not on record: free space there and try again")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record makes no sense.
    #[error("{path}, line {line} is not understood; look at it, and move it away if the take-over is over")]
    Parse {
        /// Where.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// systemd's program did not do what it was asked for.
    #[error("`{command}` failed: {said}")]
    Manager {
        /// What was called.
        command: String,
        /// What it said.
        said: String,
    },
    /// A process cannot be looked at or ended.
    #[error(transparent)]
    Process(#[from] crate::supervisor::Error),
    /// It was ended and somebody listens there again.
    #[error(
        "{address} is still held by {holder} after {after:?}: something starts the service again; disable that (`cat \
         /proc/PID/cgroup` tells what keeps it) and try again"
    )]
    Held {
        /// Where.
        address: SocketAddr,
        /// By whom.
        holder: String,
        /// How long was waited.
        after: Duration,
    },
    /// It was ended and somebody started it again.
    #[error(
        "{0}, after it was ended: {how}, so that nothing starts it by itself, and begin anew", how = .0.how
    )]
    Revived(super::Rival),
    /// It cannot be started again.
    #[error("starting {program} again; by hand, with the environment that it had: `{by_hand}`")]
    Start {
        /// The program.
        program: PathBuf,
        /// Its directory and its command line, as they are typed; no secret.
        by_hand: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was started again and does not show itself.
    #[error(
        "the old service does not answer as {version} on {address} after {after:?}: {last}; what the old service says itself is in {log}"
    )]
    Unproven {
        /// Where it is asked.
        address: SocketAddr,
        /// What it must say.
        version: String,
        /// How long it was asked.
        after: Duration,
        /// What it said last.
        last: String,
        /// Where its output goes.
        log: String,
    },
    /// A question cannot be put.
    #[error(transparent)]
    Probe(#[from] crate::probe::Error),
}
