//! Lines with file descriptors over a Unix socket: the carriage of the control protocol, same for both ends.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How many descriptors one line may carry.
pub(crate) const DESCRIPTORS_MAX: usize = 32;
/// Longest line in bytes.
pub(crate) const LINE_MAX: usize = 4 * 1024 * 1024;

/// Both directions of a connection.
pub(crate) fn split(stream: UnixStream) -> (LineReader, LineWriter) {
    let stream = Arc::new(stream);
    let reader = LineReader { stream: Arc::clone(&stream), inbox: Vec::new(), descriptors: VecDeque::new() };
    (reader, LineWriter { stream })
}

pub(crate) struct LineReader {
    stream: Arc<UnixStream>,
    inbox: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl LineReader {
    /// The next line without its end; `None` when the other side has closed. May be dropped and called again.
    pub(crate) async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.inbox.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.inbox.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a control line is too long"));
            }
            self.stream.readable().await?;
            let received = self
                .stream
                .try_io(Interest::READABLE, || receive(&self.stream, &mut self.inbox, &mut self.descriptors));
            match received {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The descriptors that came with the last line, if there are so many.
    pub(crate) fn take_descriptors(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (count <= self.descriptors.len()).then(|| self.descriptors.drain(..count).collect())
    }
}

fn receive(
    stream: &UnixStream,
    inbox: &mut Vec<u8>,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 16 * 1024];
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    inbox.extend_from_slice(&bytes[..received.bytes]);
    Ok(received.bytes)
}

pub(crate) struct LineWriter {
    stream: Arc<UnixStream>,
}

impl LineWriter {
    /// Sends a value as one line, descriptors with its first byte.
    pub(crate) async fn send<T: serde::Serialize>(
        &self,
        value: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let mut sent = 0;
        while sent < line.len() {
            self.stream.writable().await?;
            let carried = if sent == 0 { descriptors } else { &[] };
            let written = self
                .stream
                .try_io(Interest::WRITABLE, || Ok(transmit(&self.stream, &line[sent..], carried)?));
            match written {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn transmit(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}
