//! The inner half: the first process of the new space. It furnishes the house, runs the command, buries what dies, and
//! with its own end everything else ends.
//!
//! Must not know why the command runs.

use super::wire::{Input, Obstacle, Order, Word, order, say};
use super::{house, limits, loopback, rights};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

pub(super) const NAME: &str = "inside";

pub(super) fn main() -> ExitCode {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let Ok((control, order)) = order() else { return ExitCode::FAILURE };
    // The outer half may have died before its death was bound to ours.
    if bound.is_err() || is_orphaned(&control) || rustix::process::getpid().as_raw_pid() != 1 {
        return ExitCode::FAILURE;
    }
    say(&control, &run(&order).unwrap_or_else(Word::from));
    ExitCode::SUCCESS
}

fn is_orphaned(control: &UnixStream) -> bool {
    let mut polled = [PollFd::new(control, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(rustix::event::poll(&mut polled, Some(&at_once)), Ok(0))
}

fn run(order: &Order) -> Result<Word, Obstacle> {
    loopback::raise().map_err(Obstacle::at("raising the loopback"))?;
    limits::yield_memory()?;
    let sandbox = &order.sandbox;
    house::furnish(sandbox)?;
    limits::take_on(order)?;
    if let Some(identity) = &sandbox.identity {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        for stream in [io::stdout().as_fd(), io::stderr().as_fd()] {
            // So that the command can open /dev/stdout, which asks for rights on the pipe itself.
            let given = rustix::fs::fchown(stream, Some(uid), Some(gid));
            given.map_err(Obstacle::at("giving the command its outputs"))?;
        }
    }
    let mut command = Command::new(&sandbox.program);
    command.args(&sandbox.args).env_clear().envs(&sandbox.env).current_dir(&sandbox.cwd);
    command.stdin(match order.input {
        Input::Nothing => Stdio::null(),
        Input::Caller => {
            let caller = io::stdout().as_fd().try_clone_to_owned();
            Stdio::from(caller.map_err(Obstacle::at("giving the command its input"))?)
        }
    });
    let started = rights::without(sandbox.identity.as_ref(), || command.spawn())?;
    match started {
        Ok(child) => reap(child.id()),
        Err(error) => Ok(Word::NotExecuted(error.raw_os_error().unwrap_or(0))),
    }
}

/// Buries everybody until the command itself has ended.
fn reap(pid: u32) -> Result<Word, Obstacle> {
    loop {
        let (ended, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(Obstacle::at("waiting for the command")(errno)),
        };
        if !u32::try_from(ended.as_raw_pid()).is_ok_and(|ended| ended == pid) {
            continue;
        }
        return Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Word::Code(code),
            (None, Some(signal)) => Word::Signal(signal),
            (None, None) => Word::Failed(format!("wait status {:#x}", status.as_raw())),
        });
    }
}
