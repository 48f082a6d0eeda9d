//! An open-loop load generator: requests leave at scheduled instants whatever became of the earlier ones, and every
//! latency counts from the scheduled instant, so a service that stalls cannot hide it.
//!
//! It knows HTTP/1.1, WebSockets and how to tell a failure; it knows nothing of updates. Targets are this machine's
//! loopback only. Nothing is ever sent twice: what a client's retry would paper over is a failure here.
//!
//! ```no_run
//! # async fn example(front: std::net::SocketAddr) -> Result<(), cutover_testkit::load::Error> {
//! use cutover_testkit::load::{Load, LoadPlan};
//! let load = Load::start(LoadPlan::new(front))?;
//! // … the switch …
//! let report = load.stop().await?;
//! assert_eq!(report.failed, 0, "{report}");
//! # Ok(())
//! # }
//! ```

mod exchange;
mod record;
mod report;
mod session;
mod sockets;

pub use record::{Connection, Kind, Log, Outcome, Record, RequestRecord, SocketEvent, SocketRecord};
pub use report::{Report, SocketReport};

use exchange::Client;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// The most requests one load may schedule.
pub const REQUESTS_MAX: u64 = 2_000_000;
/// The most requests that may be under way at once; one more is recorded as [`Outcome::NotSent`].
pub const UNDER_WAY_MAX: usize = 4096;
/// The most WebSocket clients.
pub const CLIENTS_MAX: usize = 1000;
/// The largest body of an echo, in bytes.
pub const ECHO_MAX: usize = 16 << 20;
/// How long after the hold limit an answer is still waited for, so that its status is known; it has failed anyway.
pub const GRACE: Duration = Duration::from_secs(1);

/// What is sent where, how often, and what counts as failed.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where requests go, in turn: `127.0.0.1` or `[::1]`, nothing else.
    pub targets: Vec<SocketAddr>,
    /// Requests per second, at least 1.
    pub rate: u32,
    /// What is sent, in turn; each entry alternates between a kept and a fresh connection.
    pub mix: Vec<Entry>,
    /// Headers of every request and WebSocket upgrade, for instance a bearer token.
    pub headers: Vec<(String, String)>,
    /// WebSocket clients beside the requests.
    pub sockets: Option<SocketPlan>,
    /// An answer later than this after its scheduled instant counts as failed.
    pub hold_limit: Duration,
    /// Scheduling ends by itself after this time.
    pub duration_max: Duration,
    /// Where [`Load::stop`] writes the raw log, one JSON line per record.
    pub log: Option<PathBuf>,
}

impl LoadPlan {
    /// 100 requests per second for `/`, held at most 30 s, for at most 5 min.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            targets: vec![target],
            rate: 100,
            mix: vec![Entry::Get { path: "/".into() }],
            headers: Vec::new(),
            sockets: None,
            hold_limit: Duration::from_secs(30),
            duration_max: Duration::from_secs(300),
            log: None,
        }
    }
}

/// One kind of request. In paths `{n}` stands for the request's number, counted from 0.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A GET whose whole body is read.
    Get {
        /// Path and query.
        path: String,
    },
    /// A POST whose answer must be the very body that was sent.
    Echo {
        /// Path and query.
        path: String,
        /// Length of the body, at most [`ECHO_MAX`].
        bytes: usize,
    },
    /// A GET of a streamed body of known length.
    Stream {
        /// Path and query.
        path: String,
        /// The length that the body must have.
        bytes: u64,
    },
    /// One request over a WebSocket in OpenClaw's framing; it must be answered with `ok: true`.
    Rpc {
        /// The WebSocket's path.
        path: String,
        /// How a new WebSocket is opened.
        handshake: Handshake,
        /// The method.
        method: String,
        /// Its parameters.
        params: Value,
    },
}

/// What must happen on a new WebSocket before it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Nothing.
    None,
    /// OpenClaw's: wait for `connect.challenge`, send `connect`, wait for `hello-ok`. The client is the simplest that
    /// a gateway admits from loopback: id `gateway-client`, mode `backend`, with the shared token.
    OpenClaw {
        /// The gateway's token.
        token: String,
    },
}

/// Clients that hold a WebSocket open, use it regularly, and reconnect when it is lost.
#[derive(Clone, Debug)]
pub struct SocketPlan {
    /// How many, at most [`CLIENTS_MAX`].
    pub clients: usize,
    /// The WebSocket's path.
    pub path: String,
    /// How a new WebSocket is opened.
    pub handshake: Handshake,
    /// What a client sends.
    pub exchange: SocketExchange,
    /// Between two sendings of one client; also between two tries to reconnect.
    pub every: Duration,
}

impl SocketPlan {
    /// Clients that send protocol pings every 100 ms, which any server answers.
    #[must_use]
    pub fn pings(clients: usize, path: &str) -> Self {
        Self {
            clients,
            path: path.to_owned(),
            handshake: Handshake::None,
            exchange: SocketExchange::Ping,
            every: Duration::from_millis(100),
        }
    }
}

/// What a WebSocket client sends and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketExchange {
    /// A numbered ping frame, answered by the pong with the same number.
    Ping,
    /// A request `echo` with `{seq}`, answered with `payload.params.seq` of the same number.
    Echo,
    /// A request of this method without parameters, answered with `ok: true`.
    Rpc {
        /// The method.
        method: String,
    },
}

/// Why a load was refused, or its log not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A target is not this machine.
    #[error("send load to {0}: only 127.0.0.1 and [::1] are allowed")]
    ForeignTarget(SocketAddr),
    /// Something is missing, zero or beyond its bound.
    #[error("plan {what}: {allowed}")]
    OutOfBounds {
        /// Which part of the plan.
        what: &'static str,
        /// What is allowed.
        allowed: String,
    },
    /// A header's name or value cannot be sent.
    #[error("send header {0:?}")]
    Header(String),
    /// The raw log could not be written.
    #[error("write log {}", .path.display())]
    WriteLog {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A raw log could not be read.
    #[error("read log {}", .path.display())]
    ReadLog {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// A load that runs. Dropping it cuts everything off.
#[derive(Debug)]
#[must_use = "a load that is dropped ends at once"]
pub struct Load {
    log: Log,
    log_path: Option<PathBuf>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts on the current tokio runtime.
    ///
    /// # Errors
    /// If the plan goes beyond its bounds or this machine; nothing was sent then.
    pub fn start(plan: LoadPlan) -> Result<Self, Error> {
        check(&plan)?;
        let headers = headers(&plan.headers)?;
        let log_path = plan.log.clone();
        let log = Log::started_now();
        let stopping = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let deadline = Instant::now() + plan.duration_max;
        let reach = Reach { headers, limit: plan.hold_limit + GRACE, hold_limit: plan.hold_limit };
        if let Some(sockets) = plan.sockets.clone() {
            for client in 0..sockets.clients {
                let target = plan.targets[client % plan.targets.len()];
                let client =
                    sockets::SocketClient::new(client, target, sockets.clone(), reach.clone(), log.clone());
                tasks.spawn(client.run(ended(stopping.subscribe(), deadline)));
            }
        }
        let client = Arc::new(Client::new(reach, plan.mix.clone()));
        tasks.spawn(send_all(plan, client, log.clone(), ended(stopping.subscribe(), deadline)));
        Ok(Self { log, log_path, stopping, tasks })
    }

    /// The raw log as it grows; it may be kept longer than the load.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Schedules no more, waits for what is under way (at most the hold limit and [`GRACE`]), and sums up.
    ///
    /// # Errors
    /// If the raw log could not be written where the plan wants it.
    pub async fn stop(mut self) -> Result<Report, Error> {
        self.stopping.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            surface(ended);
        }
        if let Some(path) = &self.log_path {
            self.log.write(path)?;
        }
        Ok(self.log.report())
    }
}

/// What every connection needs to know.
#[derive(Clone, Debug)]
struct Reach {
    headers: HeaderMap,
    hold_limit: Duration,
    /// After this an exchange is given up.
    limit: Duration,
}

/// A request to be made.
#[derive(Clone, Copy, Debug)]
struct Errand {
    n: u64,
    /// Index into the mix.
    entry: usize,
    connection: Connection,
    target: SocketAddr,
    scheduled: Instant,
}

impl Errand {
    /// Turns through the mix; each entry's turns alternate between kept and fresh, and pairs of them between targets.
    fn of(n: u64, plan: &LoadPlan, scheduled: Instant) -> Self {
        let index =
            |value: u64, length: usize| usize::try_from(value % length as u64).expect("below a usize");
        let turn = n / plan.mix.len() as u64;
        Self {
            n,
            entry: index(n, plan.mix.len()),
            connection: if turn.is_multiple_of(2) { Connection::Kept } else { Connection::Fresh },
            target: plan.targets[index(turn / 2, plan.targets.len())],
            scheduled,
        }
    }
}

async fn send_all(plan: LoadPlan, client: Arc<Client>, log: Log, ended: impl Future<Output = ()>) {
    let began = Instant::now();
    tokio::pin!(ended);
    let mut under_way = JoinSet::new();
    for n in 0..REQUESTS_MAX {
        let scheduled = began + Duration::from_nanos(n * 1_000_000_000 / u64::from(plan.rate));
        tokio::select! {
            biased;
            () = &mut ended => break,
            () = sleep_until(scheduled) => {}
        }
        while let Some(ended) = under_way.try_join_next() {
            surface(ended);
        }
        let errand = Errand::of(n, &plan, scheduled);
        if under_way.len() >= UNDER_WAY_MAX {
            log.push(client.not_sent(&errand, &log));
            continue;
        }
        let (client, log) = (Arc::clone(&client), log.clone());
        under_way.spawn(async move {
            let record = client.run(&errand, &log).await;
            log.push(record);
        });
    }
    while let Some(ended) = under_way.join_next().await {
        surface(ended);
    }
}

/// A task of ours that panicked must not look like one that found nothing.
fn surface(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn ended(mut stopping: watch::Receiver<bool>, deadline: Instant) {
    tokio::select! {
        // A load that is gone stops its tasks anyway.
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = sleep_until(deadline) => {}
    }
}

fn check(plan: &LoadPlan) -> Result<(), Error> {
    let out = |what, allowed: String| Err(Error::OutOfBounds { what, allowed });
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if let Some(foreign) = plan.targets.iter().find(|target| !loopback.contains(&target.ip())) {
        return Err(Error::ForeignTarget(*foreign));
    }
    if plan.targets.is_empty() || plan.mix.is_empty() {
        return out("targets and mix", "at least one of each".into());
    }
    let count = u128::from(plan.rate) * plan.duration_max.as_millis() / 1000;
    if plan.rate == 0 || count > u128::from(REQUESTS_MAX) {
        return out("rate", format!("1 or more, at most {REQUESTS_MAX} requests in duration_max"));
    }
    if plan.mix.iter().any(|entry| matches!(entry, Entry::Echo { bytes, .. } if *bytes > ECHO_MAX)) {
        return out("echo", format!("at most {ECHO_MAX} bytes"));
    }
    if let Some(sockets) = &plan.sockets
        && (sockets.clients > CLIENTS_MAX || sockets.every.is_zero())
    {
        return out("sockets", format!("at most {CLIENTS_MAX}, with a pause"));
    }
    Ok(())
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, Error> {
    let parse = |(name, value): &(String, String)| {
        let parsed = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        parsed.ok_or_else(|| Error::Header(name.clone()))
    };
    pairs.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> LoadPlan {
        LoadPlan::new(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn load_never_leaves_this_machine() {
        for foreign in ["127.0.0.2:1", "0.0.0.0:1", "[::]:1", "192.0.2.1:80", "[::ffff:127.0.0.1]:1"] {
            let refused = check(&LoadPlan { targets: vec![foreign.parse().unwrap()], ..plan() });
            assert!(matches!(refused, Err(Error::ForeignTarget(_))), "{foreign}");
        }
        check(&LoadPlan { targets: vec!["[::1]:1".parse().unwrap()], ..plan() }).unwrap();
    }

    #[test]
    fn a_plan_without_bounds_is_refused() {
        let refused = |plan| matches!(check(&plan), Err(Error::OutOfBounds { .. }));
        assert!(refused(LoadPlan { rate: 0, ..plan() }));
        assert!(refused(LoadPlan { rate: 10_000, ..plan() }));
        assert!(refused(LoadPlan { mix: vec![], ..plan() }));
        assert!(refused(LoadPlan { targets: vec![], ..plan() }));
        assert!(refused(LoadPlan { sockets: Some(SocketPlan::pings(1001, "/")), ..plan() }));
        assert!(headers(&[("bad name".into(), "x".into())]).is_err());
    }

    #[test]
    fn every_entry_goes_half_over_kept_and_half_over_fresh_connections_to_every_target() {
        let plan = LoadPlan {
            targets: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()],
            mix: vec![Entry::Get { path: "/".into() }, Entry::Get { path: "/{n}".into() }],
            ..plan()
        };
        let now = Instant::now();
        for entry in 0..2 {
            for connection in [Connection::Kept, Connection::Fresh] {
                for target in &plan.targets {
                    let hits = (0..80).map(|n| Errand::of(n, &plan, now)).filter(|errand| {
                        errand.entry == entry && errand.connection == connection && errand.target == *target
                    });
                    assert_eq!(hits.count(), 10);
                }
            }
        }
    }
}
