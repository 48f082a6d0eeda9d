//! The other end of a connection: a socket that several may hold, so that whoever waits can ask whether it is gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::framing::RequestWalk;

/// No request has an ambiguous head so far.
const NO_HEAD: u64 = u64::MAX;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl Socket {
    /// Whether the other end has closed or reset, even if bytes of it are still unread. Never waits.
    pub(crate) fn is_gone(&self) -> bool {
        #[cfg(target_os = "linux")]
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        #[cfg(not(target_os = "linux"))]
        let gone = PollFlags::HUP | PollFlags::ERR;
        let mut asked = [either!(self, stream => PollFd::new(stream, gone))];
        match poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => asked[0].revents().intersects(gone),
            // A poll that fails says nothing about the peer.
            Err(_) => false,
        }
    }

    /// Ends this direction; what was written still arrives.
    pub(crate) fn finish(&self) {
        // A peer that is gone already needs no farewell.
        let _ = either!(self, stream => rustix::net::shutdown(stream, Shutdown::Write));
    }

    /// Ends both directions now: the other side learns it at once, however long the socket is still held.
    pub(crate) fn abandon(&self) {
        // A peer that is gone already need not learn it.
        let _ = either!(self, stream => rustix::net::shutdown(stream, Shutdown::Both));
    }

    pub(crate) async fn read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        loop {
            either!(self, stream => stream.readable().await)?;
            match either!(self, stream => stream.try_read_buf(buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            either!(self, stream => stream.writable().await)?;
            match either!(self, stream => stream.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Reads and discards until the other end closes, so that closing does not destroy what it has not read yet.
    pub(crate) async fn linger(&self, limit: Duration) {
        let discard = async {
            let mut buffer = Vec::with_capacity(16 * 1024);
            while self.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                buffer.clear();
            }
        };
        let _ = tokio::time::timeout(limit, discard).await;
    }
}

/// What the strict reading of a client's bytes found, shared with whoever answers its requests.
#[derive(Debug)]
pub(crate) struct Judgement(AtomicU64);

impl Default for Judgement {
    fn default() -> Self {
        Self(AtomicU64::new(NO_HEAD))
    }
}

impl Judgement {
    /// Whether request number `number` (counted from 0) or an earlier one has an ambiguous head.
    pub(crate) fn condemns(&self, number: u64) -> bool {
        self.0.load(Relaxed) <= number
    }
}

/// One owner's view of a socket, for the HTTP engine.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Arc<Socket>,
    walk: Option<(RequestWalk, Arc<Judgement>)>,
}

impl Stream {
    /// A stream whose bytes are trusted: the upstream's.
    pub(crate) fn upstream(socket: Arc<Socket>) -> Self {
        Self { socket, walk: None }
    }

    /// A stream whose request framing is judged as it is read.
    pub(crate) fn client(socket: Arc<Socket>, judgement: Arc<Judgement>) -> Self {
        Self { socket, walk: Some((RequestWalk::default(), judgement)) }
    }

    pub(crate) fn into_socket(self) -> Arc<Socket> {
        self.socket
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            ready!(either!(&*this.socket, stream => stream.poll_read_ready(cx)))?;
            match either!(&*this.socket, stream => stream.try_read_buf(buffer)) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if let Some((walk, judgement)) = &mut this.walk {
            match walk.walk(&buffer.filled()[before..]) {
                Ok(None) => {}
                Ok(Some(head)) => judgement.0.store(head, Relaxed),
                Err(broken) => {
                    buffer.set_filled(before);
                    let why = format!("request body framing: {broken:?}");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(&*self.socket, stream => stream.poll_write_ready(cx)))?;
            match either!(&*self.socket, stream => stream.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(&*self.socket, stream => stream.poll_write_ready(cx)))?;
            match either!(&*self.socket, stream => stream.try_write_vectored(slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.finish();
        Poll::Ready(Ok(()))
    }
}

/// A socket and its other end.
#[cfg(test)]
pub(crate) fn pair() -> (Arc<Socket>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Arc::new(Socket::Unix(ours)), theirs)
}
