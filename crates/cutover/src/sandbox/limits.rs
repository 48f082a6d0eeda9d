//! How much of the machine the command may take.
//!
//! Knows the limits of one process. Must not know why they are as they are.

use super::wire::{Obstacle, Order};
use rustix::process::{Resource, Rlimit};
use std::fs;
use std::io;
use std::time::Duration;

/// Where memory is short, the kernel takes this one before all others.
const FIRST_TO_GO: &str = "1000";

/// What is asked for memory goes first when there is none; must run before `/proc` is made read-only.
pub(super) fn yield_memory() -> Result<(), Obstacle> {
    fs::write("/proc/self/oom_score_adj", FIRST_TO_GO)
        .map_err(Obstacle::at("being the first to give memory back"))
}

/// Takes them on, for whatever is started from here on.
pub(super) fn take_on(order: &Order) -> Result<(), Obstacle> {
    confine(order.limit, order.sandbox.file_max).map_err(Obstacle::at("taking limits on"))
}

/// Limits this process: it computes no longer than so, writes no more to one file than so many bytes, and leaves no core.
/// Never above what is already so.
pub(crate) fn confine(computing: Duration, file_max: u64) -> io::Result<()> {
    let limits =
        [(Resource::Core, 0), (Resource::Cpu, computing.as_secs().max(1)), (Resource::Fsize, file_max)];
    limits.into_iter().try_for_each(|(resource, max)| lower(resource, max))
}

fn lower(resource: Resource, max: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum.map_or(max, |hard| hard.min(max));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })?)
}
