//! One request's way through the front: judged, admitted, sent, and its answer relayed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::Notice;
use crate::body::{Inbound, Outbound, Relayed};
use crate::claims::Claims;
use crate::gate::{Admission, Arrival, ClientGone, Gate};
use crate::headers;
use crate::notice::Asker;
use crate::peer::{Judgement, Socket};
use crate::stats::{Counters, count};
use crate::upstream::{Link, Outcome, Outgoing, Pass};
use crate::websocket;

/// How often a bodyless GET or HEAD is sent once more; a request that kills its service must not do so for ever.
const REPLAYS_MAX: u32 = 2;
/// How often a connection may be closed under a request before its first byte, and the pause after the second time.
const UNSENT_MAX: u32 = 8;
const UNSENT_PAUSE: Duration = Duration::from_millis(10);

/// Which way a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The public sockets.
    Public,
    /// The owner's own socket: the same path, but admitted while others are held.
    Probe,
}

/// One client connection, as its requests see it.
pub(crate) struct Client {
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) websockets: TaskTracker,
    pub(crate) claims: Arc<Claims>,
    pub(crate) socket: Arc<Socket>,
    pub(crate) judgement: Arc<Judgement>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) lane: Lane,
    pub(crate) requests: AtomicU64,
}

impl Client {
    /// Answers one request. An error means that the client has left.
    pub(crate) async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Outbound>, ClientGone> {
        let number = self.requests.fetch_add(1, Relaxed);
        if self.judgement.condemns(number) || request.method() == Method::CONNECT {
            count(&self.counters.malformed_total);
            return Ok(malformed());
        }
        let asker = Asker::of(self.address, request.headers());
        let upgrade =
            headers::asks_for_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let arrival = self.gate.arrive(head_bytes(&request));
        let outgoing = outgoing(request);
        match self.lane {
            Lane::Public => self.exchange(outgoing, upgrade, arrival, asker).await,
            Lane::Probe => Ok(self.probe(outgoing, upgrade, asker).await),
        }
    }

    async fn exchange(
        &self,
        mut outgoing: Outgoing,
        upgrade: Option<OnUpgrade>,
        arrival: Arrival,
        asker: Asker,
    ) -> Result<Response<Outbound>, ClientGone> {
        let (mut replays, mut unsent) = (0, 0);
        loop {
            let pass = match self.gate.admit(arrival, &self.socket).await? {
                Admission::Go(pass) => pass,
                Admission::Refused(notice) => return Ok(self.turn_away(&notice, asker)),
            };
            match pass.epoch().send(outgoing, self.address).await {
                Outcome::Answered(response, link) => return Ok(self.relay(response, link, pass, upgrade)),
                Outcome::Refused(back, why) => {
                    self.gate.refused(pass.epoch(), &why);
                    let patience = self.gate.patience();
                    if arrival.age() > patience.limit && !pass.epoch().retired().is_cancelled() {
                        return Ok(self.turn_away(&patience.notice, asker));
                    }
                    outgoing = back;
                }
                Outcome::Unsent(back) => {
                    if !pass.epoch().retired().is_cancelled() {
                        unsent += 1;
                    }
                    if unsent > UNSENT_MAX {
                        return Ok(self.fail(&pass, "the service closes every connection unread"));
                    }
                    if unsent > 1 {
                        sleep(UNSENT_PAUSE).await;
                    }
                    outgoing = back;
                }
                Outcome::Lost(Some(back)) if replays < REPLAYS_MAX => {
                    replays += 1;
                    count(&self.counters.replayed_total);
                    outgoing = back;
                }
                Outcome::Lost(_) => {
                    return Ok(self.fail(&pass, "the service ended before it answered this request"));
                }
            }
        }
    }

    /// The probe lane tells what is, at once: nothing is held and nothing is sent twice.
    async fn probe(
        &self,
        outgoing: Outgoing,
        upgrade: Option<OnUpgrade>,
        asker: Asker,
    ) -> Response<Outbound> {
        let pass = match self.gate.admit_probe() {
            Admission::Go(pass) => pass,
            Admission::Refused(notice) => return notice.answer(asker).map(Outbound::from),
        };
        match pass.epoch().send(outgoing, self.address).await {
            Outcome::Answered(response, link) => self.relay(response, link, pass, upgrade),
            Outcome::Refused(_, why) => bad_gateway(&format!("the service refuses connections: {why}")),
            Outcome::Unsent(_) => bad_gateway("the service closed the connection unread"),
            Outcome::Lost(_) => bad_gateway("the service ended before it answered this request"),
        }
    }

    fn turn_away(&self, notice: &Notice, asker: Asker) -> Response<Outbound> {
        count(&self.counters.refused_5xx);
        notice.answer(asker).map(Outbound::from)
    }

    fn fail(&self, pass: &Pass, why: &str) -> Response<Outbound> {
        pass.count_cut();
        count(&self.counters.refused_5xx);
        bad_gateway(why)
    }

    fn relay(
        &self,
        mut response: Response<Incoming>,
        link: Link,
        pass: Pass,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Outbound> {
        if let Some(counters) = pass.counters() {
            count(&counters.served_total);
            if response.status().is_server_error() {
                count(&counters.bad_total);
            }
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade.filter(|_| headers::asks_for_websocket(response.headers())) else {
                return self.fail(&pass, "the service switched to a protocol that nobody asked for");
            };
            let service = hyper::upgrade::on(&mut response);
            let seat = match self.lane {
                Lane::Public => self.claims.enter(),
                Lane::Probe => None,
            };
            self.websockets.spawn(websocket::join(client, service, link, pass.into_websocket(), seat));
            let (mut head, _) = response.into_parts();
            headers::for_client(&mut head.headers);
            head.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
            headers::set_websocket_hop(&mut head.headers);
            return Response::from_parts(head, Outbound::empty());
        }
        let (mut head, body) = response.into_parts();
        headers::for_client(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = Relayed::new(&head.headers, body, link, pass);
        Response::from_parts(head, Outbound::Relayed(Box::new(body)))
    }
}

/// Makes a client's request one for the upstream hop: HTTP/1.1, path only, without what belongs to the client's hop.
fn outgoing(request: Request<Incoming>) -> Outgoing {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        // The target's authority stands above the Host header (RFC 9112, 3.2.2).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    headers::for_upstream(&mut head.headers);
    let mut outgoing = Request::new(Inbound::from(body));
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = head.uri;
    *outgoing.headers_mut() = head.headers;
    Outgoing::new(outgoing)
}

fn head_bytes(request: &Request<Incoming>) -> usize {
    let fields: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields + request.uri().path_and_query().map_or(0, |target| target.as_str().len())
}

fn malformed() -> Response<Outbound> {
    debug!("a request's framing is ambiguous");
    let mut response = plain(StatusCode::BAD_REQUEST, "ambiguous request framing");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn bad_gateway(why: &str) -> Response<Outbound> {
    let text = serde_json::json!({ "error": "bad_gateway", "reason": why }).to_string();
    let mut response = plain(StatusCode::BAD_GATEWAY, "");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.map(|_| Outbound::from(Bytes::from(text)))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Outbound> {
    let mut response = Response::new(Outbound::from(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    *response.headers_mut() =
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))]);
    response
}
