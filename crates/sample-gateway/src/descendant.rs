//! Processes that the gateway leaves behind on purpose: each in a session of its own, each with an end.
//!
//! They are the same executable in another role, so that no shell or tool of the machine is needed.

use crate::process::SUBCOMMAND;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The hidden role's name on the command line.
pub(crate) const ROLE: &str = "descendant";

/// Starts a descendant that lives for `life`; it holds `socket` (as its standard input) until its end.
pub(crate) fn start(life: Duration, socket: Option<OwnedFd>) -> io::Result<u32> {
    let child = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, ROLE, &life.as_millis().to_string()])
        .stdin(socket.map_or_else(Stdio::null, Stdio::from))
        .spawn()?;
    Ok(child.id())
}

/// Is the descendant: leaves the session, lives its time, ends.
pub(crate) fn live(life: Duration) -> ExitCode {
    // Fails only for a process group leader, which a freshly spawned child of ours is not.
    if let Err(error) = rustix::process::setsid() {
        eprintln!("setsid: {error}");
        return ExitCode::FAILURE;
    }
    std::thread::sleep(life);
    ExitCode::SUCCESS
}
