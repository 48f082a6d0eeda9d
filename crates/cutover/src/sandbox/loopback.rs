//! The loopback of a new network namespace: it is there, first of all interfaces, and down.
//!
//! Knows one message of rtnetlink.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NEW_LINK: u16 = 16;
/// A request that is answered also if it succeeds.
const REQUEST_ACKNOWLEDGED: u16 = 5;
const ERROR: u16 = 2;
const LOOPBACK: i32 = 1;
const UP: u32 = 1;
const LENGTH: u32 = 32;

/// Raises it; with that it has its addresses.
pub(super) fn raise() -> Result<(), Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &message(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, length) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = &answer[..length.min(answer.len())];
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

fn message() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_ACKNOWLEDGED.to_ne_bytes());
    // Its number, the sender's (the kernel fills it in), and no family or type of interface.
    message.extend([1u32.to_ne_bytes(), [0; 4], [0; 4]].concat());
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend([UP.to_ne_bytes(), UP.to_ne_bytes()].concat());
    message
}
