//! Who listens on a port.
//!
//! Knows the kernel's tables of both address families. Must not know who ought to listen.

use super::error::Error;
use super::{kin, process};
use cutover_core::Instance;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address; an unspecified IPv6 address may take IPv4 connections too.
    pub address: SocketAddr,
    /// The uid that made it.
    pub uid: u32,
    /// The kernel's number of the socket.
    pub inode: u64,
    /// The processes that have it open, oldest first. None if they may not be looked into.
    pub owners: Vec<Instance>,
}

/// Somebody outside the family who listens on its port. Named to people, never killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The uid that made the socket.
    pub uid: u32,
    /// The process, where it could be found.
    pub instance: Option<Instance>,
    /// The name that the kernel knows it by.
    pub command: Option<String>,
}

impl From<Listener> for Holder {
    fn from(row: Listener) -> Self {
        Self {
            address: row.address,
            uid: row.uid,
            command: row.owners.first().and_then(|owner| kin::command(owner.pid)),
            instance: row.owners.into_iter().next(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command.as_deref().unwrap_or("somebody"))?;
        match &self.instance {
            Some(instance) => write!(f, " (pid {})", instance.pid),
            None => write!(f, " (of uid {})", self.uid),
        }
    }
}

/// A port, seen from one family of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Sockets that a member has open.
    pub own: Vec<Listener>,
    /// All others, and those whose owner is not known.
    pub foreign: Vec<Holder>,
}

/// Finds all listeners on a TCP port in the network namespace of the caller.
///
/// # Errors
/// [`Error::Read`] if the kernel's tables cannot be read, [`Error::Processes`] if the processes cannot be listed.
pub fn listeners(port: u16) -> Result<Vec<Listener>, Error> {
    let mut found = rows()?;
    found.retain(|row| row.address.port() == port);
    if !found.is_empty() {
        let mut owners = owners(&found.iter().map(|row| row.inode).collect())?;
        for row in &mut found {
            row.owners = owners.remove(&row.inode).unwrap_or_default();
            row.owners.sort_unstable_by_key(|owner| (owner.start_time, owner.pid));
        }
    }
    Ok(found)
}

/// Finds the listeners of which the kernel gives one what is sent to an address from this machine: those on exactly it, or
/// else on every address of its family, or else of both. More than one where they share it.
///
/// # Errors
/// As [`listeners`].
pub fn receiving(address: SocketAddr) -> Result<Vec<Listener>, Error> {
    let everywhere = |ip: IpAddr| ip.to_canonical().is_unspecified();
    // What is sent to every address goes to this machine's own.
    let asked = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let all = listeners(address.port())?;
    let fits: [&dyn Fn(IpAddr) -> bool; 3] =
        [&|ip| ip.to_canonical() == asked, &|ip| everywhere(ip) && ip.is_ipv4() == asked.is_ipv4(), &|ip| {
            everywhere(ip) && ip.is_ipv6()
        }];
    let of = |fits: &&dyn Fn(IpAddr) -> bool| -> Vec<Listener> {
        all.iter().filter(|row| fits(row.address.ip())).cloned().collect()
    };
    Ok(fits.iter().map(of).find(|rows| !rows.is_empty()).unwrap_or_default())
}

/// Finds all TCP addresses that one process listens on, lowest port first.
///
/// # Errors
/// As [`listeners`].
pub fn listening(instance: &Instance) -> Result<Vec<SocketAddr>, Error> {
    let rows = rows()?;
    let directory = PathBuf::from(format!("/proc/{}/fd", instance.pid));
    let own = sockets(&directory, &rows.iter().map(|row| row.inode).collect());
    let mut found: Vec<SocketAddr> =
        rows.into_iter().filter(|row| own.contains(&row.inode)).map(|row| row.address).collect();
    found.sort_unstable_by_key(|address| (address.port(), address.is_ipv6()));
    found.dedup();
    Ok(found)
}

/// All listeners, of whom nobody knows yet whose they are.
fn rows() -> Result<Vec<Listener>, Error> {
    let mut rows = read_table(Path::new("/proc/net/tcp"))?;
    rows.extend(read_table(Path::new("/proc/net/tcp6"))?);
    Ok(rows)
}

/// Splits the listeners on a port into those of `family` and those of others.
///
/// # Errors
/// As [`listeners`].
pub fn holding(port: u16, family: &[Instance]) -> Result<Holding, Error> {
    let is_own = |row: &Listener| row.owners.iter().any(|owner| family.contains(owner));
    let (own, others): (Vec<_>, Vec<_>) = listeners(port)?.into_iter().partition(is_own);
    Ok(Holding { own, foreign: others.into_iter().map(Holder::from).collect() })
}

fn read_table(path: &Path) -> Result<Vec<Listener>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().skip(1).filter_map(parse_row).collect()),
        // A kernel without IPv6 has no table of it, and nobody listens there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with("tcp6") => Ok(Vec::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Reads one row if it is a listener's.
fn parse_row(row: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = SocketAddr::new(parse_address(address)?, port);
    Some(Listener {
        address,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
        owners: Vec::new(),
    })
}

/// The kernel prints each 32 bits of an address as a number in the machine's own byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for start in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(start..start + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

fn owners(inodes: &HashSet<u64>) -> Result<HashMap<u64, Vec<Instance>>, Error> {
    let mut found: HashMap<u64, Vec<Instance>> = HashMap::new();
    for pid in kin::pids()? {
        let held = sockets(&PathBuf::from(format!("/proc/{pid}/fd")), inodes);
        if held.is_empty() {
            continue;
        }
        let Some(owner) = process::identify(pid)? else { continue };
        for inode in held {
            found.entry(inode).or_default().push(owner.clone());
        }
    }
    Ok(found)
}

/// The wanted sockets among the descriptors of a process. Another user's may not be read: then it owns none that is known.
fn sockets(directory: &Path, wanted: &HashSet<u64>) -> HashSet<u64> {
    let Ok(entries) = std::fs::read_dir(directory) else { return HashSet::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inodes = links.filter_map(|link| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse::<u64>().ok()
    });
    inodes.filter(|inode| wanted.contains(inode)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_with_its_owner_in_both_families() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(socket) = TcpListener::bind((host, 0)) else {
                eprintln!("skipped: this machine has no {host}");
                continue;
            };
            let address = socket.local_addr().unwrap();
            let own = process::own().unwrap();
            let found = listeners(address.port()).unwrap();
            let row = found.iter().find(|row| row.address == address).unwrap();
            assert!(row.owners.contains(&own), "{row:?}");
            assert_eq!(row.uid, rustix::process::geteuid().as_raw());
            let seen = holding(address.port(), std::slice::from_ref(&own)).unwrap();
            assert!(seen.own.iter().any(|row| row.address == address));
            let seen = holding(address.port(), &[]).unwrap();
            let holder = seen.foreign.iter().find(|holder| holder.address == address).unwrap();
            assert!(holder.instance.is_some() && holder.command.is_some(), "{holder:?}");
            drop(socket);
            assert!(!listeners(address.port()).unwrap().iter().any(|row| row.address == address));
        }
    }

    #[test]
    fn what_is_sent_to_an_address_goes_to_whoever_listens_on_it_and_else_to_whoever_listens_everywhere() {
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let of = |address: &str| -> Vec<SocketAddr> {
            let found = receiving(SocketAddr::new(address.parse().unwrap(), port)).unwrap();
            found.iter().map(|row| row.address).collect()
        };
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), port);
        for asked in ["127.0.0.1", "127.0.0.9", "0.0.0.0", "::ffff:127.0.0.1"] {
            assert_eq!(of(asked), [at("0.0.0.0")], "{asked}");
        }
        assert!(of("::1").is_empty());
        if TcpListener::bind("[::1]:0").is_err() {
            return eprintln!("skipped: this machine has no IPv6");
        }
        let beside = only_ipv6(port).unwrap();
        assert_eq!(of("127.0.0.1"), [at("0.0.0.0")], "who listens on the other family has none of it");
        assert_eq!((of("::1"), of("::")), (vec![at("::")], vec![at("::")]));
        drop((everywhere, beside));
    }

    #[test]
    fn what_is_sent_to_one_address_goes_to_nobody_who_listens_on_another_and_to_who_listens_in_both_families()
    {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let of = |address: &str, port| receiving(SocketAddr::new(address.parse().unwrap(), port)).unwrap();
        assert_eq!((of("127.0.0.1", port).len(), of("127.0.0.9", port).len()), (1, 0));
        let Ok(both) = TcpListener::bind("[::]:0") else {
            return eprintln!("skipped: this machine has no IPv6");
        };
        let port = both.local_addr().unwrap().port();
        assert_eq!(of("127.0.0.1", port)[0].address, both.local_addr().unwrap());
        drop((one, both));
    }

    fn only_ipv6(port: u16) -> rustix::io::Result<std::os::fd::OwnedFd> {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
        let socket = socket(AddressFamily::INET6, SocketType::STREAM, None)?;
        sockopt::set_ipv6_v6only(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        listen(&socket, 1)?;
        Ok(socket)
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let row =
            "  0: 0100007F:1F90 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000  1000  0 77 1 0";
        assert_eq!(parse_row(row), None);
        let listener = parse_row(&row.replace(" 01 ", " 0A ")).unwrap();
        assert_eq!((listener.uid, listener.inode, listener.address.port()), (1000, 77, 8080));
    }
}
