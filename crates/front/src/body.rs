//! The bodies that pass through, and what becomes of an answer that the upstream does not finish.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::upstream::{Link, Pass};

/// A request's body on its way to the upstream.
pub(crate) enum Inbound {
    Empty,
    Streamed(Incoming),
}

impl From<Incoming> for Inbound {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Streamed(body) }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// An answer's body on its way to the client.
pub(crate) enum Outbound {
    Whole(Option<Bytes>),
    Relayed(Box<Relayed>),
}

impl Outbound {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl From<Bytes> for Outbound {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Relayed(relayed) => relayed.pass.is_none() || relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}

/// An upstream's body, with what must be given back when it ends.
pub(crate) struct Relayed {
    body: Incoming,
    link: Option<Link>,
    /// `None` once the exchange is over.
    pass: Option<Pass>,
    kind: Kind,
}

/// How a body that was cut ends for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Cleanly: its reader connects again and resumes.
    EventStream,
    /// Without its last chunk, so that nobody takes a part for the whole.
    Other,
}

impl Relayed {
    pub(crate) fn new(headers: &HeaderMap, body: Incoming, link: Link, pass: Pass) -> Self {
        let is_stream = headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"));
        let kind = if is_stream { Kind::EventStream } else { Kind::Other };
        let mut relayed = Self { body, link: Some(link), pass: Some(pass), kind };
        if relayed.body.is_end_stream() {
            relayed.finish();
        }
        relayed
    }

    fn finish(&mut self) {
        if let (Some(pass), Some(link)) = (self.pass.take(), self.link.take()) {
            pass.epoch().give_back(link);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if self.body.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.link = None;
                if let Some(pass) = self.pass.take() {
                    pass.count_cut();
                }
                match self.kind {
                    Kind::EventStream => Poll::Ready(None),
                    Kind::Other => Poll::Ready(Some(Err(io::Error::other(error)))),
                }
            }
        }
    }
}
