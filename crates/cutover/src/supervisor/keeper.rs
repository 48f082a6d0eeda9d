//! The keeper: the tiny parent of one instance (`cutover keeper --dir DIR`).
//!
//! It writes down who it is and waits on its standard input: end of file and nothing ever ran, the byte `g` and it lets
//! the shim execute the service. It reaps all that the service leaves behind, copies its output, writes down how it
//! ended, and goes when nothing is left. It has no policy and outlives the daemon.
//!
//! Knows one directory. Must not know why the service runs, nor whether it ought to.

use super::error::Error;
use super::file;
use super::output::Output;
use super::record::{
    self, EXIT, ExecRecord, Exit, ExitRecord, INSTANCE, KEEPER, KeeperRecord, Launch, Moment, Reserved, SPEC,
    Spec,
};
use super::{launch, process};
use crate::causes::told;
use cutover_core::Instance;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

/// The byte that lets the service be executed: from the daemon to the keeper, and from the keeper to the shim.
pub(super) const GO: u8 = b'g';

/// How long output may still come from somebody outside the family after the last of it has gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a keeper says on its standard output, one line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Word {
    /// `keeper.json` is durable.
    Ready(Instance),
    /// The service's program is executed.
    Started(Instance),
    /// The service's program could not be executed; `exit.json` is durable.
    ExecFailed(String),
    /// Nothing was executed, for the keeper's own reasons.
    Failed(String),
}

/// Runs a keeper until all that it keeps has gone. `args` are what follows `keeper` on the command line.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let Some(directory) = option(args, "--dir") else {
        eprintln!("usage: cutover keeper --dir DIR (the daemon runs this, not people)");
        return ExitCode::from(2);
    };
    match keep(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = told(&error);
            eprintln!("{why}");
            say(&Word::Failed(why));
            ExitCode::FAILURE
        }
    }
}

/// The path in `NAME PATH`, if that is all there is.
pub(super) fn option(args: Vec<OsString>, name: &str) -> Option<PathBuf> {
    let [given, path] = <[OsString; 2]>::try_from(args).ok()?;
    (given == name).then(|| path.into())
}

fn keep(directory: &Path) -> Result<(), Error> {
    become_keeper().map_err(Error::Keeper)?;
    let spec: Spec = record::expect(directory, SPEC)?;
    let exit = Reserved::exit_in(directory)?;
    let keeper = process::own()?;
    record::write(directory, KEEPER, &KeeperRecord { keeper: keeper.clone() })?;
    say(&Word::Ready(keeper));
    if !told_to_go() {
        return Ok(());
    }
    let (output, writer) = Output::start(&spec.launch.log).map_err(Error::Output)?;
    let shim = Shim::spawn(directory, &spec.launch, writer)?;
    let instance = shim.instance.clone();
    match shim.go() {
        Ok(()) => {
            say(&Word::Started(instance.clone()));
            reap(&instance, exit, &output, None)
        }
        Err(why) => {
            let answer = reap(&instance, exit, &output, Some(why.clone()));
            say(&Word::ExecFailed(why));
            answer
        }
    }
}

/// Own session (no terminal, no group to be killed with), reaper of orphans, deaf to what is meant for others.
fn become_keeper() -> io::Result<()> {
    match rustix::process::setsid() {
        // Refused to the leader of a group: then it is one of its own already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Caught rather than ignored: what is ignored stays so for the service. Catching SIGCHLD undoes an inherited ignore,
    // under which the kernel would reap the children and keep their exit codes to itself.
    for signal in [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

fn told_to_go() -> bool {
    let mut byte = [0];
    matches!(io::stdin().read_exact(&mut byte), Ok(()) if byte == [GO])
}

/// Says it to the daemon, if there still is one.
fn say(word: &Word) {
    let mut line = serde_json::to_vec(word).expect("a word is plain data");
    line.push(b'\n');
    let mut out = io::stdout().lock();
    drop(out.write_all(&line).and_then(|()| out.flush()));
}

/// The child that becomes the service: it waits for its byte before it executes anything.
struct Shim {
    instance: Instance,
    control: UnixStream,
}

impl Shim {
    /// Spawns the shim and makes durable who it is. If that fails it is let go without its byte, and nothing ran.
    fn spawn(directory: &Path, launch: &Launch, output: OwnedFd) -> Result<Self, Error> {
        let entry_file = file::identify(&launch.entry)?;
        if let Some(identity) = &launch.identity {
            // So that the service can open /dev/stdout, which asks for rights on the pipe itself.
            let (uid, gid) =
                (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
            rustix::fs::fchown(&output, Some(uid), Some(gid)).map_err(|errno| Error::Output(errno.into()))?;
        }
        // Our own file, also after it was replaced by another version of itself.
        let executable = PathBuf::from("/proc/self/exe");
        let failed = |source| Error::Spawn { path: executable.clone(), source };
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        // The command is dropped with this statement and our copies of the child's ends with it: only so does end of
        // file on the control socket mean that the shim has executed the program or is gone.
        let child = Command::new(&executable)
            .args([launch::NAME.as_ref(), "--spec".as_ref(), directory.join(SPEC).as_os_str()])
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let gone = || Error::Identify { pid: child.id(), source: io::ErrorKind::NotFound.into() };
        let instance = process::identify(child.id())?.ok_or_else(gone)?;
        let argv = std::iter::once(launch.program.display().to_string()).chain(launch.args.iter().cloned());
        let record = ExecRecord {
            instance: instance.clone(),
            argv: argv.collect(),
            cwd: cwd(launch),
            entry: launch.entry.clone(),
            entry_file,
            generation: launch.generation,
            nonce: launch.nonce.clone(),
            at: Moment::now(),
        };
        record::write(directory, INSTANCE, &record)?;
        Ok(Self { instance, control })
    }

    /// Lets it execute the program. It closes the socket by doing so and says why if it cannot.
    fn go(mut self) -> Result<(), String> {
        let mut why = String::new();
        match self.control.write_all(&[GO]).and_then(|()| self.control.read_to_string(&mut why)) {
            Ok(0) => Ok(()),
            Ok(_) => Err(why),
            // It was killed before it got that far: how it ended is what will be told.
            Err(_) => Ok(()),
        }
    }
}

/// The working directory as the kernel will name it. One that cannot be entered is for the shim to report.
fn cwd(launch: &Launch) -> PathBuf {
    launch.cwd.canonicalize().unwrap_or_else(|_| launch.cwd.clone())
}

/// Waits for every child, its own and the adopted, until none is left.
fn reap(
    service: &Instance,
    exit: Reserved,
    output: &Output,
    exec_failed: Option<String>,
) -> Result<(), Error> {
    let mut exit = Some(exit);
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => (pid, status),
            Ok(None) | Err(Errno::INTR) => continue,
            Err(Errno::CHILD) => break,
            Err(errno) => return Err(Error::Watch { pid: service.pid, source: errno.into() }),
        };
        let is_service = u32::try_from(pid.as_raw_pid()).is_ok_and(|pid| pid == service.pid);
        if is_service && let Some(reserved) = exit.take() {
            output.catch_up();
            let exit = exec_failed.clone().map_or_else(|| how(status), |why| Exit::ExecFailed { why });
            let log_bytes_dropped = output.dropped();
            let record = ExitRecord { instance: service.clone(), exit, at: Moment::now(), log_bytes_dropped };
            if let Err(error) = reserved.fill(record) {
                // The others still need their reaper; without the record the exit is unknown, and told so.
                eprintln!("{EXIT}: {}", told(&error));
            }
        }
    }
    if !output.finish(LAST_WORDS) {
        eprintln!("the output is still held open by somebody who is not of the service");
    }
    Ok(())
}

fn how(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown { why: format!("wait status {:#x}", status.as_raw()) },
    }
}
