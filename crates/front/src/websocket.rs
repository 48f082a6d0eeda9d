//! A WebSocket between a client and the service: bytes pass untouched, frames are only walked, so that a close frame
//! can be put where one may stand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tracing::debug;

use crate::frames::{FrameWalk, close_frame};
use crate::peer::{Socket, Stream};
use crate::stats::count;
use crate::upstream::{Link, Pass};

/// How long both sides may take to finish the handshake that they have agreed on.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How long the other side's farewell is waited for.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// How long a frame that has begun may take to end, when the socket is to be closed.
const FRAME_LIMIT: Duration = Duration::from_millis(250);
const BUFFER: usize = 16 * 1024;

/// RFC 6455 registry: the service is being restarted, come back.
const SERVICE_RESTART: (u16, &str) = (1012, "service restart");
/// RFC 6455 registry: the service cannot be had now, come back later.
const TRY_AGAIN_LATER: (u16, &str) = (1013, "try again later");

/// Joins the two halves once both handshakes are through, and relays until one side ends.
pub(crate) async fn join(client: OnUpgrade, service: OnUpgrade, link: Link, pass: Pass) {
    let both = timeout(UPGRADE_LIMIT, async { tokio::try_join!(client, service) }).await;
    let Ok(Ok((client, service))) = both else {
        debug!("a WebSocket handshake was not finished");
        return;
    };
    drop(link);
    let (Some((client, from_client)), Some((service, from_service))) = (raw(client), raw(service)) else {
        return;
    };
    let down = Flow::new(Arc::clone(&service), Arc::clone(&client), &from_service);
    let up = Flow::new(Arc::clone(&client), Arc::clone(&service), &from_client);
    Relay { client, service, down, up, pass }.run().await;
}

fn raw(upgraded: Upgraded) -> Option<(Arc<Socket>, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner().into_socket(), parts.read_buf))
}

struct Relay {
    client: Arc<Socket>,
    service: Arc<Socket>,
    /// From the service to the client.
    down: Flow,
    /// From the client to the service.
    up: Flow,
    pass: Pass,
}

/// Why a relay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    ClientGone,
    /// The client takes no more, but may have said something still.
    ClientDeaf,
    ServiceGone,
    /// The service takes no more, but may have said something still.
    ServiceDeaf,
    Cut,
    Maintained,
}

impl Relay {
    async fn run(mut self) {
        let (cutting, maintained) =
            (self.pass.epoch().cutting().clone(), self.pass.epoch().maintained().clone());
        let mut over = tokio::select! {
            end = self.down.pump() => match end { End::Source => Over::ServiceGone, End::Sink => Over::ClientDeaf },
            end = self.up.pump() => match end { End::Source => Over::ClientGone, End::Sink => Over::ServiceDeaf },
            () = cutting.cancelled() => Over::Cut,
            () = maintained.cancelled() => Over::Maintained,
        };
        if over == Over::ClientDeaf {
            let _ = timeout(FAREWELL_LIMIT, self.up.pump()).await;
            over = Over::ClientGone;
        }
        if over == Over::ServiceDeaf {
            let _ = timeout(FAREWELL_LIMIT, self.down.pump()).await;
            over = Over::ServiceGone;
        }
        match over {
            Over::ClientGone | Over::ClientDeaf => {
                self.service.finish();
                // A client may only have ended its half; one that is gone must not take away what the service has
                // not read yet, as closing on unread bytes would.
                if timeout(FAREWELL_LIMIT, self.down.pump()).await == Ok(End::Sink) {
                    self.service.linger(FAREWELL_LIMIT).await;
                }
            }
            Over::Cut => {
                self.service.abandon();
                self.close_client(SERVICE_RESTART).await;
            }
            Over::Maintained => {
                self.service.abandon();
                self.close_client(TRY_AGAIN_LATER).await;
            }
            Over::ServiceGone | Over::ServiceDeaf => {
                if !self.down.walk.has_closed()
                    && let Some(counters) = self.pass.counters()
                {
                    count(&counters.abnormal_total);
                }
                self.close_client(SERVICE_RESTART).await;
            }
        }
    }

    /// Ends the client's side: with a close frame unless the service has sent one, and not inside a frame.
    async fn close_client(&mut self, (code, reason): (u16, &str)) {
        // The rest of a frame that is on its way.
        let _ = timeout(FRAME_LIMIT, self.down.flush()).await;
        if !self.down.walk.has_closed() {
            if let Some(counters) = self.pass.counters() {
                count(&counters.closed_total);
            }
            if !self.down.walk.is_at_boundary() {
                return;
            }
            self.down.buffer = close_frame(code, reason);
            self.down.sent = 0;
            if !matches!(timeout(FAREWELL_LIMIT, self.down.flush()).await, Ok(Ok(()))) {
                return;
            }
        }
        let answered = timeout(FAREWELL_LIMIT, self.up.until_closed()).await;
        self.client.finish();
        if answered.is_ok() {
            self.client.linger(FAREWELL_LIMIT).await;
        }
    }
}

/// Which side ended a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Sink,
}

/// One direction. The walk covers exactly the bytes that were delivered, so that it may be stopped anywhere.
struct Flow {
    from: Arc<Socket>,
    to: Arc<Socket>,
    buffer: Vec<u8>,
    sent: usize,
    walk: FrameWalk,
}

impl Flow {
    fn new(from: Arc<Socket>, to: Arc<Socket>, early: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER.max(early.len()));
        buffer.extend_from_slice(early);
        Self { from, to, buffer, sent: 0, walk: FrameWalk::default() }
    }

    async fn pump(&mut self) -> End {
        loop {
            if self.flush().await.is_err() {
                return End::Sink;
            }
            match self.read().await {
                Ok(0) | Err(_) => return End::Source,
                Ok(_) => {}
            }
        }
    }

    /// Reads the next bytes; those before must have been sent.
    async fn read(&mut self) -> io::Result<usize> {
        self.buffer.clear();
        self.sent = 0;
        self.from.read(&mut self.buffer).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.buffer.len() {
            let written = self.to.write(&self.buffer[self.sent..]).await?;
            self.walk.walk(&self.buffer[self.sent..self.sent + written]);
            self.sent += written;
        }
        Ok(())
    }

    /// Reads on, delivering nothing, until a close frame or the end.
    async fn until_closed(&mut self) {
        self.walk.walk(&self.buffer[self.sent..]);
        while !self.walk.has_closed() {
            match self.read().await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.walk.walk(&self.buffer),
            }
        }
    }
}
