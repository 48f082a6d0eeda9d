//! What the command may do: what its user may, and nothing that could change the house.

use super::calls;
use super::wire::Obstacle;
use crate::store::Identity;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;

/// What is left to root: to be above the rights of files, to change who it is, and low ports.
const ROOTS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Does `work` as the command's user, without a right that furnished the house. Rights are a thread's on Linux: children
/// that it starts have no more, and nobody else has less.
pub(super) fn without<T: Send>(
    identity: Option<&Identity>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<io::Result<T>, Obstacle> {
    let dropped = || {
        bound()?;
        rustix::thread::clear_ambient_capability_set()?;
        if let Some(identity) = identity {
            identity.take_on()?;
        }
        let own = rustix::thread::capabilities(None)?.permitted;
        let kept = if rustix::process::geteuid().is_root() { ROOTS & own } else { CapabilitySet::empty() };
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::set_no_new_privs(true)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            dropped().map_err(|errno: Errno| Obstacle::at("giving up rights")(errno))?;
            calls::refuse().map_err(Obstacle::at("closing the way to the machine's sockets"))?;
            Ok(work())
        });
        thread.join().expect("BUG: giving up rights panicked")
    })
}

/// Nothing that is executed from here on can get more than [`ROOTS`].
fn bound() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if ROOTS.contains(one) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
