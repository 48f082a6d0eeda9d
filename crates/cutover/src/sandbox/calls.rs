//! What the command cannot ask of the kernel: sockets that lead out of the house by a path, past every mount.
//!
//! Knows numbers of system calls. Must not know who is bound by them.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

/// `socket` and `socketpair`.
#[cfg(target_arch = "x86_64")]
const SOCKETS: [i64; 2] = [41, 53];
#[cfg(not(target_arch = "x86_64"))]
const SOCKETS: [i64; 2] = [198, 199];

/// Makes sockets too, where no filter sees it.
const IO_URING_SETUP: i64 = 425;

/// With this, x86-64 has the same calls once more.
const X32: i64 = 0x4000_0000;

/// Families that end at the loopback: whatever else the kernel speaks may lead further.
const FAMILIES: [AddressFamily; 3] = [AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK];

/// One of a pair of these can still be pointed at anybody. (`RAW` is another word for the other.)
const UNBOUND: [SocketType; 2] = [SocketType::DGRAM, SocketType::RAW];

/// The bits of a type that are the type.
const TYPE: u64 = 0xf;

/// Binds this thread and what it starts. Must be called after the right to gain privileges was given up.
pub(super) fn refuse() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, BackendError> {
    let is =
        |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let others = FAMILIES.map(|family| is(0, SeccompCmpOp::Ne, u64::from(family.as_raw())));
    let single = vec![SeccompRule::new(others.into_iter().collect::<Result<_, _>>()?)?];
    let pairs = UNBOUND
        .map(|kind| SeccompRule::new(vec![is(1, SeccompCmpOp::MaskedEq(TYPE), u64::from(kind.as_raw()))?]));
    let pairs: Vec<SeccompRule> = pairs.into_iter().collect::<Result<_, _>>()?;
    let mut rules = BTreeMap::new();
    for bit in [0, X32] {
        rules.insert(SOCKETS[0] | bit, single.clone());
        rules.insert(SOCKETS[1] | bit, pairs.clone());
        rules.insert(IO_URING_SETUP | bit, Vec::new());
    }
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::try_from(ARCH)?)?.try_into()
}
