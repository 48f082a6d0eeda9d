//! The shim: the child of a keeper that becomes the service (`cutover exec --spec FILE`).
//!
//! It waits for its byte, becomes the service's user and executes the program in its own place, so that pid and start
//! time are those that the keeper wrote down before. Knows one spec. Must not know what came before or comes after.

use super::error::Error;
use super::keeper::{GO, option};
use super::record::{Launch, SPEC, Spec, expect};
use crate::causes::told;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The hidden subcommand.
pub(super) const NAME: &str = "exec";

/// Exit code of a shim that executed nothing, as of a shell that finds no program.
const NOT_EXECUTED: u8 = 127;

/// What a service manager tells the daemon about the daemon: a service that had it would speak in the daemon's name.
const OURS: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Becomes the service. `args` are what follows `exec` on the command line. Returns only if nothing was executed.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let control = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let (Some(spec), Ok(mut control)) = (option(args, "--spec"), control) else {
        eprintln!("usage: cutover exec --spec FILE (a keeper runs this, not people)");
        return ExitCode::from(2);
    };
    let mut byte = [0];
    if !matches!(control.read_exact(&mut byte), Ok(()) if byte == [GO]) {
        // The keeper is gone or has thought better of it.
        return ExitCode::from(NOT_EXECUTED);
    }
    let Err(error) = execute(&spec);
    drop(control.write_all(told(&error).as_bytes()));
    ExitCode::from(NOT_EXECUTED)
}

fn execute(spec: &Path) -> Result<Infallible, Error> {
    let directory = spec.parent().unwrap_or(Path::new("/"));
    let Spec { launch, .. } = expect(directory, SPEC)?;
    // A group of its own: who kills all of the service's does not kill its keeper.
    rustix::process::setsid().map_err(|errno| Error::Session(errno.into()))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    change_identity(&launch)?;
    std::env::set_current_dir(&launch.cwd)
        .map_err(|source| Error::Enter { path: launch.cwd.clone(), source })?;
    let source = Command::new(&launch.program)
        .args(&launch.args)
        .env_clear()
        .envs(launch.env.iter().filter(|(name, _)| !OURS.contains(&name.as_str())))
        .env(cutover_intent::NONCE_VARIABLE, &launch.nonce)
        .stdin(Stdio::null())
        .exec();
    Err(Error::Execute { path: launch.program, source })
}

/// Groups first: without root they could not be changed any more. The process has one thread, so the thread's ids are
/// the process's.
fn change_identity(launch: &Launch) -> Result<(), Error> {
    let Some(identity) = &launch.identity else { return Ok(()) };
    let failed = |errno: rustix::io::Errno| Error::Become {
        uid: identity.uid,
        gid: identity.gid,
        source: errno.into(),
    };
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_groups(&groups).map_err(failed)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}
