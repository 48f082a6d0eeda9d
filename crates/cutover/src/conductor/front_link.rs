//! The daemon's hold on one service's front: it stands, it has the sockets, it is in the posture that the state wants.
//! Level-triggered: a front that died is replaced on the same sockets and told again.

use super::inbox::{Input, Reporter};
use super::interception::{Intercepted, Interceptor};
use super::lately::{Lately, exchanges};
use super::site::Site;
use crate::supervisor::process;
use cutover_core::{Exchanges, Instance, Posture};
use cutover_front::control::ControlClient;
use cutover_front::{Claim, Error, Stats};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

/// Limit of one call to a front.
const CALL: Duration = Duration::from_secs(5);
/// How long a running front may take to answer a new daemon.
const GREETING: Duration = Duration::from_secs(5);
/// The same for one that has already let a call pass.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Between two tries to reach a new one.
const GREETING_PAUSE: Duration = Duration::from_millis(5);
/// How long a new front may take to stand.
const BOOT: Duration = Duration::from_secs(10);
/// How long the process of a lost front may take to be gone.
const FAREWELL: Duration = Duration::from_millis(500);
/// Between two looks at the front's numbers.
const STATS: Duration = Duration::from_millis(500);
/// After a front could not be put up.
const PAUSE: Duration = Duration::from_millis(500);

/// A posture for the front, in core's word and in full.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub word: Posture,
    pub posture: cutover_front::Posture,
}

/// A want with its place in the order of wants.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    wanted: Wanted,
}

/// What is known of the front's stance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// It may let requests through.
    Unknown,
    /// There is none, or it boots closed.
    Closed,
    /// It confirmed the want of this number.
    Is(u64, Posture),
}

/// The daemon's hold on one front. Without a front it answers as a front that never serves.
#[derive(Clone)]
pub(super) struct FrontLink {
    wanted: Option<watch::Sender<Option<Numbered>>>,
    stance: watch::Receiver<Stance>,
    stats: watch::Receiver<Option<Stats>>,
    lately: Arc<Mutex<Lately>>,
    orders: mpsc::Sender<Order>,
}

/// What a front is asked once.
enum Order {
    /// Wait until no WebSocket is owed an answer; answer how many still are.
    Answers { limit: Duration, reply: oneshot::Sender<Option<u64>> },
    /// Let in-flight exchanges end; answer how many were cut.
    Drain { limit: Duration, reply: oneshot::Sender<Option<u64>> },
    /// Tell the numbers as they are now.
    Count { reply: oneshot::Sender<Option<Exchanges>> },
    /// Claim such calls from now on.
    Claim { claim: Claim, reply: oneshot::Sender<()> },
    /// Take the addresses over; answer why that could not be.
    TakeOver { limit: Duration, reply: oneshot::Sender<Result<(), String>> },
    /// End.
    Quit { reply: oneshot::Sender<()> },
}

impl FrontLink {
    /// A service that has no front. One that an earlier configuration left behind is ended: it would let requests through
    /// at any time.
    pub(super) async fn none(site: &Site) -> anyhow::Result<Self> {
        if let Some(client) = standing(&site.layout.front(&site.settings.name), GREETING).await? {
            client.quit(CALL).await?;
            client.gone().await;
        }
        let (_, stance) = watch::channel(Stance::Closed);
        let (_, stats) = watch::channel(None);
        let (orders, _) = mpsc::channel(1);
        let lately = Arc::new(Mutex::new(Lately::of(site.settings.policy.soak)));
        Ok(Self { wanted: None, stance, stats, lately, orders })
    }

    /// The link to a front, and the one who keeps it, who is still to be set to work.
    fn kept(
        site: Arc<Site>,
        first: Stance,
        listeners: Vec<TcpListener>,
        reporter: Reporter,
        interceptor: Option<Interceptor>,
    ) -> (Self, Actor) {
        let (wanted, desires) = watch::channel(None);
        let (confirm, stance) = watch::channel(first);
        let (count, stats) = watch::channel(None);
        let (orders, inbox) = mpsc::channel(4);
        let lately = Arc::new(Mutex::new(Lately::of(site.settings.policy.soak)));
        let looks = Arc::clone(&lately);
        let actor =
            Actor { site, listeners, desires, confirm, count, looks, orders: inbox, reporter, interceptor };
        (Self { wanted: Some(wanted), stance, stats, lately, orders }, actor)
    }

    /// Binds the public addresses (or takes them back from a front that still stands) and keeps a front up from now on.
    ///
    /// # Errors
    /// An address that cannot be bound, with who might hold it.
    pub(super) async fn up(
        site: Arc<Site>,
        reporter: Reporter,
        interceptor: Option<Interceptor>,
    ) -> anyhow::Result<Self> {
        let standing = standing(&site.layout.front(&site.settings.name), GREETING).await?;
        // A front that still stands is in its last posture until it is told otherwise.
        let first = if standing.is_some() { Stance::Unknown } else { Stance::Closed };
        let listeners = listeners(&site, standing.as_ref()).await?;
        let (link, actor) = Self::kept(site, first, listeners, reporter, interceptor);
        tokio::spawn(actor.run(standing));
        Ok(link)
    }

    /// A front whose addresses somebody else still has: until they are taken over there is none, and nobody is let in.
    pub(super) async fn awaiting(
        site: Arc<Site>,
        reporter: Reporter,
        interceptor: Option<Interceptor>,
    ) -> anyhow::Result<Self> {
        Self::none(&site).await?;
        let (link, actor) = Self::kept(site, Stance::Closed, Vec::new(), reporter, interceptor);
        tokio::spawn(actor.wait_and_run());
        Ok(link)
    }

    /// Binds the addresses that were somebody else's, within `limit`. Nothing where they are ours already.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub(super) async fn take_over(&self, limit: Duration) -> Result<(), String> {
        if self.wanted.is_none() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.orders.send(Order::TakeOver { limit, reply }).await.ok()?;
            answer.await.ok()
        };
        let answered = tokio::time::timeout(limit + CALL, asked).await.ok().flatten();
        answered.unwrap_or_else(|| Err(format!("the front was not to be asked within {:?}", limit + CALL)))
    }

    /// Says what the state wants.
    pub(super) fn want(&self, wanted: Wanted) {
        let Some(sender) = &self.wanted else { return };
        sender.send_if_modified(|now| {
            if now.as_ref().is_some_and(|now| now.wanted == wanted) {
                return false;
            }
            let number = now.as_ref().map_or(1, |now| now.number + 1);
            *now = Some(Numbered { number, wanted });
            true
        });
    }

    /// Waits until the front is known not to serve: it confirmed the newest want, or there is none. Answers whether it is.
    pub(super) async fn is_closed_within(&self, limit: Duration) -> bool {
        let newest = self.newest();
        self.reaches(limit, |stance| match stance {
            Stance::Unknown => false,
            Stance::Closed => true,
            Stance::Is(number, word) => number >= newest && word != Posture::Serve,
        })
        .await
    }

    /// Waits until the front confirmed that it serves. Answers whether it did.
    pub(super) async fn serves_within(&self, limit: Duration) -> bool {
        let newest = self.newest();
        self.reaches(limit, |stance| matches!(stance, Stance::Is(number, Posture::Serve) if number >= newest))
            .await
    }

    fn newest(&self) -> u64 {
        let wanted = self.wanted.as_ref().and_then(|wanted| wanted.borrow().as_ref().map(|now| now.number));
        wanted.unwrap_or(0)
    }

    async fn reaches(&self, limit: Duration, fits: impl Fn(Stance) -> bool) -> bool {
        let mut stance = self.stance.clone();
        match tokio::time::timeout(limit, stance.wait_for(|now| fits(*now))).await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) => fits(*self.stance.borrow()),
            Err(_) => false,
        }
    }

    /// Waits until the process that is about to be stopped owes nobody an answer over a WebSocket, for `limit` at most.
    /// Answers how many WebSockets still wait, or `None` without a front that could tell.
    pub(super) async fn answers(&self, limit: Duration) -> Option<u64> {
        self.ask(limit, |reply| Order::Answers { limit, reply }).await
    }

    /// Lets in-flight exchanges end within `limit`; answers how many were cut, or `None` without a front that could tell.
    pub(super) async fn drain(&self, limit: Duration) -> Option<u64> {
        self.ask(limit, |reply| Order::Drain { limit, reply }).await
    }

    /// How clients fared in the last moments; `None` without a front that was looked at twice.
    pub(super) fn lately(&self) -> Option<Exchanges> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner).counted()
    }

    /// The front's numbers as they are now; `None` without one that could tell.
    pub(super) async fn counted(&self) -> Option<Exchanges> {
        self.ask(CALL, |reply| Order::Count { reply }).await
    }

    async fn ask<T>(
        &self,
        limit: Duration,
        order: impl FnOnce(oneshot::Sender<Option<T>>) -> Order,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let answered = async {
            self.orders.send(order(reply)).await.ok()?;
            answer.await.ok().flatten()
        };
        tokio::time::timeout(limit + CALL, answered).await.ok().flatten()
    }

    /// Sets what is claimed of the clients' calls, by this front and by one that takes its place.
    pub(super) async fn claim(&self, claim: Claim) {
        let (reply, done) = oneshot::channel();
        let told = async {
            if self.orders.send(Order::Claim { claim, reply }).await.is_ok() {
                let _ = done.await;
            }
        };
        // One that is late is told once it can be.
        let _ = tokio::time::timeout(CALL, told).await;
    }

    /// Ends the front: its sockets are closed.
    pub(super) async fn quit(&self) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Quit { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// The front's numbers, half a second old at most.
    pub(super) fn stats(&self) -> Option<Stats> {
        self.stats.borrow().clone()
    }

    /// Every later reading of the numbers.
    pub(super) fn watch_stats(&self) -> watch::Receiver<Option<Stats>> {
        self.stats.clone()
    }
}

/// The front that outlived an earlier daemon. A dead one's socket refuses at once; a living one may be slow to answer.
///
/// # Errors
/// It is of another version of this program: what it does is not known, and it holds the addresses.
async fn standing(control: &Path, limit: Duration) -> anyhow::Result<Option<ControlClient>> {
    if UnixStream::connect(control).await.is_err() {
        return Ok(None);
    }
    match ControlClient::connect(control, limit).await {
        Ok(client) => Ok(Some(client)),
        Err(error @ Error::Foreign { .. }) => Err(anyhow::Error::from(error).context(
            "a front of another version of cutover stands; end the service with that version first",
        )),
        Err(_) => Ok(None),
    }
}

/// The wanted listeners: those that a standing front already has, the others bound anew.
async fn listeners(site: &Site, standing: Option<&ControlClient>) -> anyhow::Result<Vec<TcpListener>> {
    let mut have = match standing {
        Some(client) => client.fetch_listeners(CALL).await?,
        None => Vec::new(),
    };
    let mut listeners = Vec::new();
    for address in &site.settings.listen {
        let held = have.iter().position(|listener| listener.local_addr().ok() == Some(*address));
        listeners.push(match held {
            Some(at) => have.swap_remove(at),
            None => cutover_front::bind(*address)?,
        });
    }
    Ok(listeners)
}

/// Why a front is not steered any more.
enum Steered {
    /// It went, or it does not answer.
    Lost,
    /// Nobody wants it any more.
    Left,
}

struct Actor {
    site: Arc<Site>,
    listeners: Vec<TcpListener>,
    desires: watch::Receiver<Option<Numbered>>,
    confirm: watch::Sender<Stance>,
    count: watch::Sender<Option<Stats>>,
    looks: Arc<Mutex<Lately>>,
    orders: mpsc::Receiver<Order>,
    reporter: Reporter,
    interceptor: Option<Interceptor>,
}

impl Actor {
    /// Waits until the addresses are taken over, and is a front from then on.
    async fn wait_and_run(mut self) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::TakeOver { limit, mut reply } => {
                    let bound = tokio::select! {
                        bound = self.bind_within(limit) => bound,
                        // Whoever asked has given up: the address stays with whoever has it.
                        () = reply.closed() => continue,
                    };
                    let is_ours = bound.is_ok();
                    let _ = reply.send(bound);
                    if is_ours {
                        return self.run(None).await;
                    }
                }
                Order::Answers { reply, .. } | Order::Drain { reply, .. } => drop(reply.send(None)),
                Order::Count { reply } => drop(reply.send(None)),
                Order::Claim { claim, reply } => {
                    if let Some(ours) = &mut self.interceptor {
                        ours.claim = claim;
                    }
                    let _ = reply.send(());
                }
                Order::Quit { reply } => {
                    let _ = reply.send(());
                    return;
                }
            }
        }
    }

    async fn bind_within(&mut self, limit: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match listeners(&self.site, None).await {
                Ok(listeners) => {
                    self.listeners = listeners;
                    return Ok(());
                }
                Err(error) if begun.elapsed() > limit => return Err(format!("{error:#}")),
                Err(_) => tokio::time::sleep(GREETING_PAUSE).await,
            }
        }
    }

    async fn run(mut self, mut standing: Option<ControlClient>) {
        loop {
            let client = match standing.take() {
                Some(client) => Ok(client),
                None => self.boot().await,
            };
            let client = match client {
                Ok(client) => client,
                Err(error) => {
                    let told = super::acts::told(&error);
                    tracing::error!(service = self.site.settings.name, error = told, "no front");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let process = process::identify(client.hello().pid).ok().flatten();
            match self.steer(&client).await {
                Ok(Steered::Left) => {
                    self.confirm.send_replace(Stance::Closed);
                    return;
                }
                Ok(Steered::Lost) => tracing::warn!(service = self.site.settings.name, "the front is lost"),
                Err(error) => {
                    tracing::warn!(service = self.site.settings.name, %error, "the front is lost")
                }
            }
            self.confirm.send_replace(Stance::Unknown);
            drop(client);
            standing = self.replaced(process).await;
            if standing.is_none() {
                self.confirm.send_replace(Stance::Closed);
                self.reporter.send(Input::FrontLost).await;
            }
        }
    }

    /// A front that lost its connection but lives still lets requests through: it is taken up again, or ended before
    /// another takes its place.
    async fn replaced(&self, process: Option<Instance>) -> Option<ControlClient> {
        let process = process?;
        let gone = process::wait_gone(&process, FAREWELL).await;
        if matches!(gone, Ok(true)) {
            return None;
        }
        if let Ok(Some(client)) = standing(&self.site.layout.front(&self.site.settings.name), LAST_WORD).await
            && client.hello().pid == process.pid
        {
            return Some(client);
        }
        tracing::warn!(service = self.site.settings.name, %process, "the front does not answer: it is ended");
        while !matches!(process::wait_gone(&process, FAREWELL).await, Ok(true)) {
            if let Err(error) = process::kill(&process) {
                tracing::error!(
                    service = self.site.settings.name,
                    error = super::acts::told(&error),
                    "front"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        None
    }

    /// Puts a new front up. It boots closed.
    async fn boot(&self) -> Result<ControlClient, Error> {
        let name = &self.site.settings.name;
        let control = self.site.layout.front(name);
        let path = control.clone();
        let child = Command::new(&self.site.executable)
            .arg("front")
            .args(["--service", name, "--control"])
            .arg(&control)
            .arg("--probe")
            .arg(self.site.layout.probe_lane(name))
            .args(["--held-max", &self.site.settings.held_max.to_string()])
            .args(["--hold-ms", &self.site.settings.policy.hold.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|source| Error::Reach { path, limit: BOOT, source })?;
        let pid = child.id();
        let deadline = Instant::now() + BOOT;
        let connected = loop {
            let connected =
                ControlClient::connect(&control, deadline.saturating_duration_since(Instant::now())).await;
            // Whoever else answers under the name is not the one that was started.
            if !connected.as_ref().is_ok_and(|client| client.hello().pid != pid) {
                break connected;
            }
            tokio::time::sleep(GREETING_PAUSE).await;
        };
        if connected.is_err() {
            // Too late is never: two fronts must not share the sockets.
            let _ = child.kill();
        }
        // Reaped when it ends; its end is noticed on the control connection.
        drop(std::thread::spawn(move || child.wait()));
        connected
    }

    /// Keeps one front in the wanted posture until it is lost or nobody steers it any more.
    async fn steer(&mut self, client: &ControlClient) -> Result<Steered, Error> {
        // What an earlier daemon claimed is not claimed any more, and nobody is let in before what is.
        client.claim(self.interceptor.as_ref().map(|ours| ours.claim.clone()), CALL).await?;
        client.pass_listeners(&self.listeners, CALL).await?;
        self.desires.mark_changed();
        let mut look = tokio::time::interval(STATS);
        loop {
            tokio::select! {
                biased;
                () = client.gone() => return Ok(Steered::Lost),
                changed = self.desires.changed() => {
                    if changed.is_err() {
                        return Ok(Steered::Left);
                    }
                    if let Some(Numbered { number, wanted }) = self.next() {
                        crate::crash_point!("posture: before");
                        client.set_posture(wanted.posture, CALL).await?;
                        crate::crash_point!("posture: set");
                        self.confirm.send_replace(Stance::Is(number, wanted.word));
                    }
                }
                claimed = client.claimed() => {
                    if let Some(ours) = &self.interceptor {
                        ours.take(Intercepted::new(claimed, client.clone()));
                    }
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Claim { claim, reply } => {
                        if let Some(ours) = &mut self.interceptor {
                            ours.claim = claim.clone();
                            client.claim(Some(claim), CALL).await?;
                        }
                        let _ = reply.send(());
                    }
                    Order::Answers { limit, reply } => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            let _ = reply.send(client.answers(limit, limit + CALL).await.ok());
                        });
                    }
                    Order::Drain { limit, reply } => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            let drained = client.drain(limit, limit + CALL).await;
                            let _ = reply.send(drained.ok().map(|drained| drained.cut));
                        });
                    }
                    Order::Count { reply } => {
                        let counted = client.stats(CALL).await.ok();
                        let _ = reply.send(counted.as_ref().map(exchanges));
                    }
                    Order::TakeOver { reply, .. } => drop(reply.send(Ok(()))),
                    Order::Quit { reply } => {
                        client.quit(CALL).await?;
                        let _ = tokio::time::timeout(CALL, client.gone()).await;
                        let _ = reply.send(());
                        return Ok(Steered::Left);
                    }
                },
                _ = look.tick() => {
                    let stats = client.stats(CALL).await.ok();
                    if let Some(stats) = &stats {
                        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
                        looks.look(Instant::now(), exchanges(stats));
                    }
                    self.count.send_replace(stats);
                }
            }
        }
    }

    /// The newest want. A front that is about to be told to serve is not known to be closed any more: that is said while
    /// the want is still borrowed, so before a newer one can be asked about.
    fn next(&mut self) -> Option<Numbered> {
        let newest = self.desires.borrow_and_update();
        if newest.as_ref().is_some_and(|newest| newest.wanted.word == Posture::Serve) {
            self.confirm.send_replace(Stance::Unknown);
        }
        newest.clone()
    }
}
