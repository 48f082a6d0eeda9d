//! A client that speaks HTTP/1.1 by hand, so that it can also speak it badly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No test waits longer than this for one thing.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Visitor<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) buffer: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether the body ended as its framing says.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Visitor {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::on(timeout(LIMIT, TcpStream::connect(address)).await.expect("in time").expect("a connection"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Visitor<S> {
    pub(crate) fn on(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("to send");
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.ask_for(target).await;
        self.answer().await
    }

    pub(crate) async fn ask_for(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
    }

    pub(crate) async fn post(&mut self, target: &str, body: &str) {
        let length = body.len();
        self.send(format!("POST {target} HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
    }

    /// Reads one answer to its end.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await {
                if chunk.is_empty() {
                    return answer;
                }
                answer.body += &chunk;
            }
            answer.is_whole = false;
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.fill().await > 0 {}
            answer.is_whole = self.buffer.len() >= length;
            let taken = self.buffer.len().min(length);
            answer.body =
                String::from_utf8_lossy(&self.buffer.drain(..taken).collect::<Vec<_>>()).into_owned();
        }
        answer
    }

    pub(crate) async fn head(&mut self) -> Answer {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
                return Answer { status, head, body: String::new(), is_whole: true };
            }
            assert!(
                self.fill().await > 0,
                "closed without an answer: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// The next chunk; empty at the end, `None` if the stream breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..end]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if self.buffer.len() >= end + 2 + size + 2 {
                    let chunk: Vec<u8> = self.buffer.drain(..end + 2 + size + 2).collect();
                    return Some(String::from_utf8(chunk[end + 2..end + 2 + size].to_vec()).unwrap());
                }
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// Reads some bytes; 0 at the end, which a reset is too.
    pub(crate) async fn fill(&mut self) -> usize {
        timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await.expect("bytes in time").unwrap_or(0)
    }

    /// Whether the front has ended the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.fill().await == 0
    }
}
