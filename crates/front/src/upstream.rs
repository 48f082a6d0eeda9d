//! Connections to the process that takes requests, as long as it is the one.
//!
//! An epoch is one stretch of serving from one upstream. When it is retired, no request leaves on any of its
//! connections again: its idle ones are closed at once, its busy ones when their exchange ends.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::body::Inbound;
use crate::peer::{Socket, Stream};
use crate::stats::{Counters, Gauge, count};
use crate::{Forwarded, Upstream, headers, owner};

/// How long one connection attempt may take. Loopback answers at once; more means an overflowing backlog.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// An idle connection older than this is not used again: node closes its side after 5 s, and a request that meets
/// the closing socket is lost.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection that has just ended an exchange may take to say that it is ready for the next.
const READY_LIMIT: Duration = Duration::from_millis(5);

/// What becomes of the messages that clients send on the WebSockets of an epoch. Control frames always pass, and so does
/// everything that the service sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// They pass.
    Open,
    /// They are kept back.
    Held,
    /// They are kept back for good: the service is being stopped.
    Draining,
}

/// Whether connections are kept for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// For the public lane.
    Pooled,
    /// For the probe lane: each exchange has a connection of its own.
    Single,
}

/// One stretch of serving from one upstream.
pub(crate) struct Epoch {
    upstream: Upstream,
    /// `None` where nothing is kept, or no longer.
    idle: Mutex<Option<VecDeque<Link>>>,
    exchanges: TaskTracker,
    connections: TaskTracker,
    /// WebSockets that may have been given a message whose answer is still to come.
    talks: TaskTracker,
    intake: watch::Sender<Intake>,
    retired: CancellationToken,
    cut: CancellationToken,
    maintained: CancellationToken,
}

/// A connection to the upstream that is not sending.
pub(crate) struct Link {
    sender: SendRequest<Inbound>,
    socket: Arc<Socket>,
    since: Instant,
}

/// What became of a request that was given to an epoch.
pub(crate) enum Outcome {
    Answered(Response<Incoming>, Link),
    /// Nothing went upstream: nobody takes connections there.
    Refused(Outgoing, io::Error),
    /// Nothing went upstream: the epoch is over, or the connection was closed before its first byte.
    Unsent(Outgoing),
    /// Something went upstream and no answer came back; the request is there if it may be sent again.
    Lost(Option<Outgoing>),
}

impl Epoch {
    pub(crate) fn new(upstream: Upstream, reuse: Reuse) -> Arc<Self> {
        let idle = match reuse {
            Reuse::Pooled => Some(VecDeque::new()),
            Reuse::Single => None,
        };
        Arc::new(Self {
            upstream,
            idle: Mutex::new(idle),
            exchanges: TaskTracker::new(),
            connections: TaskTracker::new(),
            talks: TaskTracker::new(),
            intake: watch::Sender::new(Intake::Open),
            retired: CancellationToken::new(),
            cut: CancellationToken::new(),
            maintained: CancellationToken::new(),
        })
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Ends the epoch: idle connections close now, no further request is sent.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
        self.lock_idle().take();
        self.exchanges.close();
        self.connections.close();
    }

    /// From here on the service is given no further message on a WebSocket.
    pub(crate) fn hold_back(&self) {
        self.talks.close();
        self.intake.send_if_modified(|intake| {
            let is_open = *intake == Intake::Open;
            if is_open {
                *intake = Intake::Held;
            }
            is_open
        });
    }

    /// The service is being stopped: a WebSocket may end as soon as nothing is expected on it any more.
    pub(crate) fn drain(&self) {
        self.talks.close();
        self.intake.send_replace(Intake::Draining);
    }

    /// The service serves on: what was kept back passes.
    pub(crate) fn take_in(&self) {
        self.talks.reopen();
        self.intake.send_replace(Intake::Open);
    }

    pub(crate) fn intake(&self) -> watch::Receiver<Intake> {
        self.intake.subscribe()
    }

    /// Registers a WebSocket that may have been given a message.
    pub(crate) fn talk(&self) -> TaskTrackerToken {
        self.talks.token()
    }

    /// Waits until every WebSocket of an epoch that holds back is between two messages and has its answers, as far as can
    /// be known.
    pub(crate) async fn answered(&self) {
        self.talks.wait().await;
    }

    /// How many WebSockets are still waited for.
    pub(crate) fn owing(&self) -> u64 {
        self.talks.len() as u64
    }

    /// Tells long-lived streams that maintenance has begun.
    pub(crate) fn maintain(&self) {
        self.maintained.cancel();
    }

    /// Closes every connection of the epoch, whatever runs on it.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    pub(crate) fn cutting(&self) -> &CancellationToken {
        &self.cut
    }

    pub(crate) fn maintained(&self) -> &CancellationToken {
        &self.maintained
    }

    /// Exchanges not yet over, WebSockets included.
    pub(crate) fn open_exchanges(&self) -> u64 {
        self.exchanges.len() as u64
    }

    /// Waits until a retired epoch has no exchange left.
    pub(crate) async fn quiet(&self) {
        self.exchanges.wait().await;
    }

    /// Whether no connection of the epoch speaks HTTP any more.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.connections.is_empty()
    }

    /// Waits until a retired epoch has no connection left that speaks HTTP.
    pub(crate) async fn disconnected(&self) {
        self.connections.wait().await;
    }

    /// Keeps a connection for the next request, if this epoch still keeps any.
    pub(crate) fn give_back(&self, mut link: Link) {
        if link.sender.is_closed() {
            return;
        }
        if let Some(idle) = self.lock_idle().as_mut() {
            link.since = Instant::now();
            while idle.front().is_some_and(|oldest| oldest.since.elapsed() > IDLE_LIMIT) {
                idle.pop_front();
            }
            idle.push_back(link);
        }
    }

    /// Connects to the upstream. Any failure means that nobody (or not the right one) takes connections there.
    pub(crate) async fn connect(&self) -> io::Result<Link> {
        self.check_owner()?;
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(self.upstream.address)).await??;
        refuse_oneself(&stream)?;
        // Asked again, because whoever accepted may not be who listened a moment ago.
        self.check_owner()?;
        stream.set_nodelay(true)?;
        let socket = Arc::new(Socket::Tcp(stream));
        let io = TokioIo::new(Stream::upstream(Arc::clone(&socket)));
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(io::Error::other)?;
        let cut = self.cut.clone();
        self.connections.spawn(async move {
            tokio::select! {
                // Its failure is told to the exchange that runs on it.
                _ = connection.with_upgrades() => {}
                () = cut.cancelled_owned() => {}
            }
        });
        Ok(Link { sender, socket, since: Instant::now() })
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&self, mut outgoing: Outgoing, client: Option<IpAddr>) -> Outcome {
        let mut link = match self.idle_link(&outgoing).await {
            Some(link) => link,
            None => match self.connect().await {
                Ok(link) => link,
                Err(error) => return Outcome::Refused(outgoing, error),
            },
        };
        if self.retired.is_cancelled() {
            return Outcome::Unsent(outgoing);
        }
        outgoing.introduce(client, self.upstream.forwarded);
        let spare = outgoing.copy();
        match link.sender.try_send_request(outgoing.request).await {
            Ok(response) => Outcome::Answered(response, link),
            Err(mut error) => match error.take_message() {
                Some(request) => Outcome::Unsent(Outgoing { request, introduced: true }),
                None => Outcome::Lost(spare),
            },
        }
    }

    async fn idle_link(&self, outgoing: &Outgoing) -> Option<Link> {
        loop {
            let mut link = self.lock_idle().as_mut()?.pop_back()?;
            if link.since.elapsed() > IDLE_LIMIT || link.sender.is_closed() {
                continue;
            }
            if !link.sender.is_ready()
                && !matches!(timeout(READY_LIMIT, link.sender.ready()).await, Ok(Ok(())))
            {
                continue;
            }
            // What cannot be sent twice is worth one question to the kernel.
            if outgoing.is_replayable() || !link.socket.is_gone() {
                return Some(link);
            }
        }
    }

    fn check_owner(&self) -> io::Result<()> {
        let Some(uid) = self.upstream.uid else { return Ok(()) };
        if owner::listens_as(self.upstream.address, uid)? {
            return Ok(());
        }
        let why = format!("no listener of uid {uid} at {}", self.upstream.address);
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, why))
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<Link>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a port in the ephemeral range where nobody listens may meet itself, and would then keep the
/// service from binding its port.
fn refuse_oneself(stream: &TcpStream) -> io::Result<()> {
    let (own, peer): (SocketAddr, SocketAddr) = (stream.local_addr()?, stream.peer_addr()?);
    if own != peer {
        return Ok(());
    }
    // Without a linger of zero the port would stay in TIME_WAIT.
    set_socket_linger(stream, Some(Duration::ZERO))?;
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the connection met itself"))
}

/// A request ready for the upstream hop.
pub(crate) struct Outgoing {
    request: Request<Inbound>,
    /// Whether the forwarded headers stand in it already.
    introduced: bool,
}

impl Outgoing {
    pub(crate) fn new(request: Request<Inbound>) -> Self {
        Self { request, introduced: false }
    }

    /// Whether sending it twice is the same as sending it once: a GET or HEAD without a body.
    pub(crate) fn is_replayable(&self) -> bool {
        matches!(self.request.body(), Inbound::Empty)
            && (self.request.method() == Method::GET || self.request.method() == Method::HEAD)
    }

    fn introduce(&mut self, client: Option<IpAddr>, how: Forwarded) {
        if let (Some(client), false) = (client, self.introduced) {
            headers::add_forwarded(self.request.headers_mut(), how, client);
        }
        self.introduced = true;
    }

    fn copy(&self) -> Option<Self> {
        if !self.is_replayable() {
            return None;
        }
        let mut request = Request::new(Inbound::Empty);
        request.method_mut().clone_from(self.request.method());
        request.uri_mut().clone_from(self.request.uri());
        request.headers_mut().clone_from(self.request.headers());
        Some(Self { request, introduced: self.introduced })
    }
}

/// The right to one exchange with one epoch's upstream; while it lives, the exchange counts as open.
pub(crate) struct Pass {
    epoch: Arc<Epoch>,
    counters: Option<Arc<Counters>>,
    open: Option<TaskTrackerToken>,
    _gauge: Option<Gauge>,
}

impl Pass {
    /// A pass for the public lane.
    pub(crate) fn public(epoch: &Arc<Epoch>, counters: &Arc<Counters>) -> Self {
        Self {
            open: Some(epoch.exchanges.token()),
            _gauge: Some(Gauge::raise(counters, |counters| &counters.in_flight)),
            counters: Some(Arc::clone(counters)),
            epoch: Arc::clone(epoch),
        }
    }

    /// A pass for the probe lane, which is counted nowhere.
    pub(crate) fn probe(epoch: &Arc<Epoch>) -> Self {
        Self { open: Some(epoch.exchanges.token()), _gauge: None, counters: None, epoch: Arc::clone(epoch) }
    }

    pub(crate) fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// The counters, where this lane is counted.
    pub(crate) fn counters(&self) -> Option<&Arc<Counters>> {
        self.counters.as_ref()
    }

    /// Counts the exchange as cut.
    pub(crate) fn count_cut(&self) {
        if let Some(counters) = &self.counters {
            count(&counters.cut);
            count(&counters.cut_total);
        }
    }

    /// Its upstream is not needed any more: nobody has to wait for the end of this exchange.
    pub(crate) fn release(&mut self) {
        self.open = None;
    }

    /// From here on the exchange is a WebSocket, no longer a request.
    pub(crate) fn into_websocket(mut self) -> Self {
        if let Some(counters) = &self.counters {
            self._gauge = Some(Gauge::raise(counters, |counters| &counters.websockets));
            count(&counters.upgraded_total);
        }
        self
    }
}
