//! One request from its scheduled instant to its record, over HTTP or, for an RPC, over a WebSocket.

use super::record::{Kind, Outcome, RequestRecord};
use super::session::{Session, Trouble};
use super::{Connection, Entry, Errand, GRACE, Handshake, Log, Reach, Record};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

type Sender = SendRequest<Full<Bytes>>;

/// Idle things of one kind, by where they lead; the latest used is the first to be used again.
#[derive(Debug)]
struct Idle<K, V>(Mutex<HashMap<K, Vec<V>>>);

impl<K: std::hash::Hash + Eq, V> Idle<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn take(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key)?.pop()
    }

    fn put(&self, key: K, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(value);
    }
}

/// What is known of an exchange when it ends.
#[derive(Debug)]
struct Fate {
    outcome: Outcome,
    status: Option<u16>,
    bytes: u64,
    cause: Option<String>,
}

impl Fate {
    fn failed(outcome: Outcome, cause: impl ToString) -> Self {
        Self { outcome, status: None, bytes: 0, cause: Some(cause.to_string()) }
    }
}

/// What an answer must be.
enum Expected {
    Whole,
    Length(u64),
    Body(Bytes),
}

/// The sender of all requests of a load.
#[derive(Debug)]
pub(super) struct Client {
    reach: Reach,
    mix: Vec<Entry>,
    connections: Idle<SocketAddr, Sender>,
    sessions: Idle<(SocketAddr, usize), Session>,
}

impl Client {
    pub(super) fn new(reach: Reach, mix: Vec<Entry>) -> Self {
        Self { reach, mix, connections: Idle::new(), sessions: Idle::new() }
    }

    /// Makes one request; always answers its record.
    pub(super) async fn run(&self, errand: &Errand, log: &Log) -> Record {
        let sent_us = log.now_us();
        let entry = &self.mix[errand.entry];
        let exchange = async {
            match entry {
                Entry::Get { path } => self.http(errand, path, Bytes::new(), Expected::Whole).await,
                Entry::Stream { path, bytes } => {
                    self.http(errand, path, Bytes::new(), Expected::Length(*bytes)).await
                }
                Entry::Echo { path, bytes } => {
                    let body = pattern(errand.n, *bytes);
                    self.http(errand, path, body.clone(), Expected::Body(body)).await
                }
                Entry::Rpc { path, handshake, method, params } => {
                    self.call(errand, &numbered(path, errand.n), handshake, method, params).await
                }
            }
        };
        let mut fate = match timeout_at(errand.scheduled + self.reach.hold_limit + GRACE, exchange).await {
            Ok(fate) => fate,
            Err(_) => Fate::failed(Outcome::Unanswered, "no answer within the hold limit and the grace"),
        };
        let done = Instant::now();
        if fate.outcome == Outcome::Ok && done - errand.scheduled > self.reach.hold_limit {
            fate.outcome = Outcome::Slow;
        }
        self.record(errand, log, sent_us, log.at_us(done), fate)
    }

    /// The record of a request that was not made.
    pub(super) fn not_sent(&self, errand: &Errand, log: &Log) -> Record {
        let now_us = log.now_us();
        self.record(errand, log, now_us, now_us, Fate::failed(Outcome::NotSent, "too many under way"))
    }

    fn record(&self, errand: &Errand, log: &Log, sent_us: u64, done_us: u64, fate: Fate) -> Record {
        let kind = match self.mix[errand.entry] {
            Entry::Get { .. } => Kind::Get,
            Entry::Echo { .. } => Kind::Echo,
            Entry::Stream { .. } => Kind::Stream,
            Entry::Rpc { .. } => Kind::Rpc,
        };
        let Fate { outcome, status, bytes, cause } = fate;
        Record::Request(RequestRecord {
            n: errand.n,
            kind,
            connection: errand.connection,
            target: errand.target,
            scheduled_us: log.at_us(errand.scheduled),
            sent_us,
            done_us,
            outcome,
            status,
            bytes,
            cause,
        })
    }

    async fn http(&self, errand: &Errand, path: &str, body: Bytes, expected: Expected) -> Fate {
        let request = match self.request(errand, path, body, &expected) {
            Ok(request) => request,
            Err(error) => return Fate::failed(Outcome::NotSent, error),
        };
        let mut sender = match self.sender(errand).await {
            Ok(sender) => sender,
            Err(error) => return Fate::failed(Outcome::Connect, error),
        };
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Fate::failed(Outcome::Cut, chain(&error)),
        };
        let fate = read(response, &expected).await;
        if errand.connection == Connection::Kept && fate.outcome == Outcome::Ok {
            self.connections.put(errand.target, sender);
        }
        fate
    }

    fn request(
        &self,
        errand: &Errand,
        path: &str,
        body: Bytes,
        expected: &Expected,
    ) -> http::Result<Request<Full<Bytes>>> {
        let method = if matches!(expected, Expected::Body(_)) { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(numbered(path, errand.n));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.reach.headers.clone());
        }
        request = request.header(header::HOST, errand.target.to_string());
        if errand.connection == Connection::Fresh {
            request = request.header(header::CONNECTION, "close");
        }
        request.body(Full::new(body))
    }

    /// A kept connection that is still open as far as can be known, or a new one.
    async fn sender(&self, errand: &Errand) -> Result<Sender, String> {
        if errand.connection == Connection::Kept {
            while let Some(mut sender) = self.connections.take(&errand.target) {
                if sender.ready().await.is_ok() {
                    return Ok(sender);
                }
            }
        }
        let stream = TcpStream::connect(errand.target).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        // Ends with the connection; what goes wrong there is told to the request that meets it.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn call(
        &self,
        errand: &Errand,
        path: &str,
        handshake: &Handshake,
        method: &str,
        params: &Value,
    ) -> Fate {
        let key = (errand.target, errand.entry);
        let kept = if errand.connection == Connection::Kept { self.kept_session(&key) } else { None };
        let session = match kept {
            Some(session) => Ok(session),
            None => Session::open(errand.target, path, &self.reach.headers, handshake).await,
        };
        let mut session = match session {
            Ok(session) => session,
            Err(trouble) => return trouble.into(),
        };
        match session.call(method, params).await {
            Ok(bytes) => {
                match errand.connection {
                    Connection::Kept => self.sessions.put(key, session),
                    Connection::Fresh => session.leave().await,
                }
                Fate { outcome: Outcome::Ok, status: None, bytes, cause: None }
            }
            Err(trouble) => trouble.into(),
        }
    }

    fn kept_session(&self, key: &(SocketAddr, usize)) -> Option<Session> {
        while let Some(mut session) = self.sessions.take(key) {
            if session.is_open() {
                return Some(session);
            }
        }
        None
    }
}

impl From<Trouble> for Fate {
    fn from(trouble: Trouble) -> Self {
        let status = if let Trouble::Rejected { status } = trouble { Some(status) } else { None };
        let outcome = match trouble {
            Trouble::Connect(_) => Outcome::Connect,
            Trouble::Rejected { status } if status >= 500 => Outcome::ServerError,
            Trouble::Rejected { .. } => Outcome::UnexpectedStatus,
            Trouble::Closed { .. } => Outcome::Cut,
            Trouble::Refused(_) => Outcome::Refused,
        };
        Self { outcome, status, bytes: 0, cause: Some(trouble.to_string()) }
    }
}

/// Reads a whole answer and judges it.
async fn read(response: http::Response<Incoming>, expected: &Expected) -> Fate {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = 0_u64;
    let mut is_same = true;
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let Some(piece) = frame.data_ref() else { continue };
                if let Expected::Body(sent) = expected {
                    let at = usize::try_from(bytes).unwrap_or(usize::MAX);
                    is_same &= sent.get(at..at.saturating_add(piece.len())) == Some(&piece[..]);
                }
                bytes += piece.len() as u64;
            }
            Err(error) => {
                broken = Some(chain(&error));
                break;
            }
        }
    }
    let (outcome, cause) = judge(status, bytes, is_same, broken, expected);
    Fate { outcome, status: Some(status.as_u16()), bytes, cause }
}

fn judge(
    status: StatusCode,
    bytes: u64,
    is_same: bool,
    broken: Option<String>,
    expected: &Expected,
) -> (Outcome, Option<String>) {
    if status.is_server_error() {
        return (Outcome::ServerError, broken);
    }
    if let Some(cause) = broken {
        return (Outcome::Truncated, Some(cause));
    }
    if !status.is_success() && !status.is_redirection() {
        return (Outcome::UnexpectedStatus, None);
    }
    let length = match expected {
        Expected::Whole => bytes,
        Expected::Length(length) => *length,
        Expected::Body(body) => body.len() as u64,
    };
    if bytes != length {
        return (Outcome::Truncated, Some(format!("{bytes} bytes instead of {length}")));
    }
    if !is_same {
        return (Outcome::Mismatch, Some("not the body that was sent".to_owned()));
    }
    (Outcome::Ok, None)
}

fn numbered(path: &str, n: u64) -> String {
    path.replace("{n}", &n.to_string())
}

/// A body that no other request of the load has.
fn pattern(n: u64, length: usize) -> Bytes {
    format!("{n:016x}.").bytes().cycle().take(length).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
