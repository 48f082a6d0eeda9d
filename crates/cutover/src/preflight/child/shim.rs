//! What a child is before it is what is asked: `cutover child`, which becomes it.
//!
//! It takes the limits and the user upon itself and lets the kernel kill it when the thread that waits for it is gone: it
//! does not outlive its asker. What it has started itself may. Knows one order. Must not know what is asked.

use crate::sandbox::confine;
use crate::store::Identity;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The hidden subcommand.
pub(super) const NAME: &str = "child";

/// Exit code of a shim that executed nothing, as of a shell that finds no program.
const NOT_EXECUTED: u8 = 127;

/// What the shim is to become, sent to its standard input. The environment is sent too: the loader of a shim that is still
/// root must not obey it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Who waits for it.
    pub parent: u32,
    pub program: OsString,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub user: Option<Identity>,
    /// How long it may compute.
    pub limit: Duration,
    /// Bytes of one file.
    pub file_max: u64,
}

/// What the shim answers, one a line. After [`Word::Executes`] nothing more comes if that worked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Limits and user are taken on.
    Executes,
    /// They are not; the error's number.
    Unfit(i32),
    /// There was nothing to execute; the error's number.
    Refused(i32),
}

/// Becomes what it is told to. Returns only if nothing was executed.
#[must_use]
pub(crate) fn main() -> ExitCode {
    let control = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let order = control.and_then(|mut control| {
        let mut text = Vec::new();
        control.read_to_end(&mut text)?;
        Ok((control, serde_json::from_slice::<Order>(&text)?))
    });
    let Ok((mut control, order)) = order else {
        eprintln!("usage: cutover {NAME} (a preflight runs this, not people)");
        return ExitCode::from(2);
    };
    if let Err(error) = take_on(&order) {
        say(&mut control, &Word::Unfit(number(&error)));
        return ExitCode::from(NOT_EXECUTED);
    }
    say(&mut control, &Word::Executes);
    let Order { program, args, env, .. } = order;
    let error = Command::new(program).args(args).env_clear().envs(env).stdin(Stdio::null()).exec();
    say(&mut control, &Word::Refused(number(&error)));
    ExitCode::from(NOT_EXECUTED)
}

fn take_on(order: &Order) -> io::Result<()> {
    confine(order.limit, order.file_max)?;
    if let Some(user) = &order.user {
        user.take_on()?;
    }
    // After the user: a change of that takes the signal away again.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().and_then(|parent| u32::try_from(Pid::as_raw(Some(parent))).ok());
    if parent == Some(order.parent) { Ok(()) } else { Err(io::Error::from(rustix::io::Errno::SRCH)) }
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

fn say(control: &mut UnixStream, word: &Word) {
    let line = serde_json::to_string(word).expect("a word is plain data");
    // Who asked is gone if it cannot be told: then this process is about to be killed.
    let _ = writeln!(control, "{line}");
}
