//! Who owns a listening TCP port, as the kernel's tables say. Another local user must not be able to take a dead
//! service's port and receive its requests.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State `TCP_LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// Whether every socket that listens at `address` belongs to `uid`, and there is one.
pub(crate) fn listens_as(address: SocketAddr, uid: u32) -> io::Result<bool> {
    let mut owners = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match File::open(table) {
            Ok(file) => collect(BufReader::new(file), address, &mut owners)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(!owners.is_empty() && owners.iter().all(|owner| *owner == uid))
}

fn collect(table: impl BufRead, address: SocketAddr, owners: &mut Vec<u32>) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // Listening sockets come first; the rest of the table may be long.
        if state != LISTEN {
            return Ok(());
        }
        if local_address(local).is_some_and(|local| takes(local, address))
            && let Some(owner) = fields.nth(3).and_then(|uid| uid.parse().ok())
        {
            owners.push(owner);
        }
    }
    Ok(())
}

/// Whether a socket listening at `local` receives connections to `address`.
fn takes(local: SocketAddr, address: SocketAddr) -> bool {
    if local.port() != address.port() {
        return false;
    }
    let (listening, wanted) = (local.ip().to_canonical(), address.ip().to_canonical());
    listening == wanted
        || listening == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        || (listening == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && wanted.is_ipv4())
}

/// Parses `0100007F:1F90`: 32-bit words in the host's byte order, the port in hexadecimal.
fn local_address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_owner_of_a_listener_is_found() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let mut address = listener.local_addr().unwrap();
            if address.ip().is_unspecified() {
                address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            assert!(listens_as(address, me()).unwrap(), "{bound}");
            assert!(!listens_as(address, me() + 1).unwrap(), "{bound}");
        }
    }

    #[test]
    fn where_nobody_listens_nobody_is_the_owner() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!listens_as(address, me()).unwrap());
    }

    #[test]
    fn a_dual_stack_listener_takes_ipv4_too() {
        assert!(takes("[::]:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
        assert!(takes("[::ffff:127.0.0.1]:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
        assert!(!takes("0.0.0.0:80".parse().unwrap(), "[::1]:80".parse().unwrap()));
        assert!(!takes("127.0.0.1:81".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
    }
}
