//! The public sockets: bound by the daemon, accepted on here. The front keeps a duplicate of each, to hand it back.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::fstat;
use rustix::net::sockopt::{set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::Error;
use crate::connection::converse;
use crate::front::Shared;
use crate::peer::Socket;
use crate::proxy::Lane;

/// How many clients may wait in a socket's backlog while a front is being replaced.
const BACKLOG: i32 = 4096;
/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds a public address: reusable at once after a restart, non-blocking, with a long backlog.
///
/// # Errors
/// [`Error::Bind`] if the address is taken or not this machine's.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = || -> io::Result<TcpListener> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bound().map_err(|source| Error::Bind { address, source })
}

/// The sockets that the front accepts on.
#[derive(Default)]
pub(crate) struct Listeners {
    open: Mutex<Vec<Open>>,
}

struct Open {
    socket: TcpListener,
    address: SocketAddr,
    inode: u64,
    _accepting: DropGuard,
}

impl Listeners {
    /// Accepts on exactly these sockets from now on. One that is already accepted on is not disturbed.
    pub(crate) fn replace(&self, shared: &Arc<Shared>, sockets: Vec<TcpListener>) -> io::Result<()> {
        let mut fresh = Vec::new();
        for socket in sockets {
            fresh.push(Fresh::check(socket)?);
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|old| fresh.iter().any(|new| new.inode == old.inode));
        for new in fresh {
            if open.iter().all(|old| old.inode != new.inode) {
                open.push(new.accept(shared)?);
            }
        }
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|open| open.address).collect()
    }

    /// Duplicates of all sockets, for a daemon that has lost its own.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|open| open.socket.try_clone()).collect()
    }

    /// Stops accepting; clients in the backlog wait for whoever holds the sockets next.
    pub(crate) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

struct Fresh {
    socket: TcpListener,
    address: SocketAddr,
    inode: u64,
}

impl Fresh {
    fn check(socket: TcpListener) -> io::Result<Self> {
        if !socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a passed socket does not listen"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { address: socket.local_addr()?, inode: fstat(&socket)?.st_ino, socket })
    }

    fn accept(self, shared: &Arc<Shared>) -> io::Result<Open> {
        let accepting = CancellationToken::new();
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        tokio::spawn(accept(Arc::clone(shared), listener, accepting.clone()));
        info!(address = %self.address, "accepting");
        Ok(Open {
            socket: self.socket,
            address: self.address,
            inode: self.inode,
            _accepting: accepting.drop_guard(),
        })
    }
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener, accepting: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Small answers must not wait for an acknowledgement; a dead socket will show itself later.
                let _ = stream.set_nodelay(true);
                let client = converse(Arc::clone(&shared), Socket::Tcp(stream), Some(address), Lane::Public);
                shared.clients.spawn(client);
            }
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
