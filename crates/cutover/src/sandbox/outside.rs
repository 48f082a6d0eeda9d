//! The outer half: makes the namespaces, lets the inner half be the first process of the new space, and ends it at the
//! limit.
//!
//! Must not know what the house looks like.

use super::wire::{Obstacle, Order, Word, order, say};
use super::{NAME as SANDBOX, inside};
use crate::polling::poll_until;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "outside";

/// What the inner half needs to furnish the house, and the command does not get.
const FURNISHING: [CapabilitySet; 3] =
    [CapabilitySet::SYS_ADMIN, CapabilitySet::NET_ADMIN, CapabilitySet::SETPCAP];

pub(super) fn main() -> ExitCode {
    // The caller's end is ours, and ours the inner half's.
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let Ok((control, order)) = order() else { return ExitCode::FAILURE };
    let word = bound.map_err(Obstacle::at("binding to the caller's life")).and_then(|()| run(&order));
    say(&control, &word.unwrap_or_else(Word::from));
    ExitCode::SUCCESS
}

fn run(order: &Order) -> Result<Word, Obstacle> {
    let begun = Instant::now();
    part()?;
    let failed = |source| Obstacle::at("starting the first process")(source);
    let (mut control, theirs) = UnixStream::pair().map_err(failed)?;
    let mut child = Command::new("/proc/self/exe")
        .args([SANDBOX, inside::NAME])
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .map_err(Obstacle::at("starting the first process"))?;
    let line = serde_json::to_string(order).expect("an order is plain data");
    // One that is gone already is seen below.
    let _ = control.write_all(format!("{line}\n").as_bytes());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child is one");
    let watched = watch(pid, order.limit.saturating_sub(begun.elapsed()));
    if !matches!(watched, Ok(true)) {
        let _ = child.kill();
    }
    // The kernel lets the first process go only when the others of its space have gone.
    let status = child.wait().map_err(Obstacle::at("waiting for the first process"))?;
    let is_in_time = watched.map_err(Obstacle::at("watching the first process"))?;
    let mut said = String::new();
    // The other end is closed, so that this does not wait.
    let _ = BufReader::new(control).read_line(&mut said);
    match serde_json::from_str(&said) {
        Ok(word) => Ok(word),
        Err(_) if !is_in_time => Ok(Word::Limit),
        Err(_) => Ok(Word::Failed(format!("the first process ended without a word: {status}"))),
    }
}

/// Leaves the machine's namespaces. Without root that takes a user namespace, in which the user keeps its number.
fn part() -> Result<(), Obstacle> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
    if !uid.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    unshare(flags).map_err(Obstacle::refusal("leaving the machine's namespaces"))?;
    if uid.is_root() {
        return Ok(());
    }
    let map = |name: &str, line: String| {
        let path = format!("/proc/self/{name}");
        fs::write(&path, line).map_err(Obstacle::refusal(path))
    };
    map("setgroups", "deny".into())?;
    map("uid_map", format!("{uid} {uid} 1", uid = uid.as_raw()))?;
    map("gid_map", format!("{gid} {gid} 1", gid = gid.as_raw()))?;
    // Executing the inner half as an ordinary user would lose what a new user namespace gives.
    let keep = || {
        let own = rustix::thread::capabilities(None)?;
        rustix::thread::set_capabilities(None, CapabilitySets { inheritable: own.permitted, ..own })?;
        FURNISHING.iter().try_for_each(|one| rustix::thread::configure_capability_in_ambient_set(*one, true))
    };
    keep().map_err(|errno: Errno| Obstacle::refusal("keeping the rights to furnish the house")(errno))
}

/// Only sharing a table of files with other threads makes this unsound, which is not asked for.
#[expect(
    deprecated,
    reason = "the other name of the same call is unsafe for the sake of a flag that is not used"
)]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    rustix::thread::unshare(flags)
}

/// Whether it ended within the limit. One that did not is killed.
fn watch(pid: Pid, limit: Duration) -> Result<bool, Errno> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let has_ended = poll_until(&mut [PollFd::new(&pidfd, PollFlags::IN)], limit)?;
    if !has_ended {
        pidfd_send_signal(&pidfd, Signal::KILL)?;
    }
    Ok(has_ended)
}
