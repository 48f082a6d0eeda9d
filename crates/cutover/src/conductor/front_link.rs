//! The daemon's hold on one service's front: it stands, it has the sockets, it is in the posture that the state wants.
//! Level-triggered: a front that died is replaced on the same sockets and told again.

use super::inbox::{Input, Reporter};
use super::site::Site;
use cutover_core::Posture;
use cutover_front::control::ControlClient;
use cutover_front::{Error, Stats};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Limit of one call to a front.
const CALL: Duration = Duration::from_secs(5);
/// How long a running front may take to answer a new daemon.
const GREETING: Duration = Duration::from_millis(300);
/// How long a new front may take to stand.
const BOOT: Duration = Duration::from_secs(10);
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

/// The daemon's hold on one front. Without a front it answers as a front that never serves.
#[derive(Clone)]
pub(super) struct FrontLink {
    wanted: Option<watch::Sender<Option<Wanted>>>,
    confirmed: watch::Receiver<Option<Posture>>,
    stats: watch::Receiver<Option<Stats>>,
    orders: mpsc::Sender<Order>,
}

/// What a front is asked once.
enum Order {
    /// Let in-flight exchanges end; answer how many were cut.
    Drain { limit: Duration, reply: oneshot::Sender<Option<u64>> },
    /// End.
    Quit { reply: oneshot::Sender<()> },
}

impl FrontLink {
    /// A service that has no front.
    pub(super) fn none() -> Self {
        let (_, confirmed) = watch::channel(None);
        let (_, stats) = watch::channel(None);
        let (orders, _) = mpsc::channel(1);
        Self { wanted: None, confirmed, stats, orders }
    }

    /// Binds the public addresses (or takes them back from a front that still stands) and keeps a front up from now on.
    ///
    /// # Errors
    /// An address that cannot be bound, with who might hold it.
    pub(super) async fn up(site: Arc<Site>, reporter: Reporter) -> anyhow::Result<Self> {
        let (wanted, desires) = watch::channel(None);
        let (confirm, confirmed) = watch::channel(None);
        let (count, stats) = watch::channel(None);
        let (orders, inbox) = mpsc::channel(4);
        let standing = ControlClient::connect(&site.layout.front(&site.settings.name), GREETING).await.ok();
        let listeners = listeners(&site, standing.as_ref()).await?;
        let actor = Actor { site, listeners, desires, confirm, count, orders: inbox, reporter };
        tokio::spawn(actor.run(standing));
        Ok(Self { wanted: Some(wanted), confirmed, stats, orders })
    }

    /// Says what the state wants.
    pub(super) fn want(&self, wanted: Wanted) {
        if let Some(sender) = &self.wanted {
            sender.send_if_modified(|now| {
                let changed = now.as_ref() != Some(&wanted);
                *now = Some(wanted);
                changed
            });
        }
    }

    /// Waits until the posture that the front confirmed fits. `None` is a front that does not serve anybody.
    pub(super) async fn wait_until(
        &self,
        limit: Duration,
        fits: impl Fn(Option<Posture>) -> bool,
    ) -> Result<(), ()> {
        let mut confirmed = self.confirmed.clone();
        let fitting = confirmed.wait_for(|posture| fits(*posture));
        match tokio::time::timeout(limit, fitting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if fits(None) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    /// Lets in-flight exchanges end within `limit`; answers how many were cut, or `None` without a front.
    pub(super) async fn drain(&self, limit: Duration) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Drain { limit, reply }).await.ok()?;
        answer.await.ok().flatten()
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

async fn listeners(site: &Site, standing: Option<&ControlClient>) -> anyhow::Result<Vec<TcpListener>> {
    if let Some(client) = standing {
        let fetched = client.fetch_listeners(CALL).await?;
        let mut have: Vec<_> = fetched.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let mut want = site.settings.listen.clone();
        have.sort_unstable();
        want.sort_unstable();
        if have == want {
            return Ok(fetched);
        }
    }
    let mut bound = Vec::new();
    for address in &site.settings.listen {
        bound.push(cutover_front::bind(*address)?);
    }
    Ok(bound)
}

/// Why a front is not steered any more.
enum Steered {
    /// It went, or another daemon took it.
    Lost,
    /// Nobody wants it any more.
    Left,
}

struct Actor {
    site: Arc<Site>,
    listeners: Vec<TcpListener>,
    desires: watch::Receiver<Option<Wanted>>,
    confirm: watch::Sender<Option<Posture>>,
    count: watch::Sender<Option<Stats>>,
    orders: mpsc::Receiver<Order>,
    reporter: Reporter,
}

impl Actor {
    async fn run(mut self, mut standing: Option<ControlClient>) {
        loop {
            let client = match standing.take() {
                Some(client) => Ok(client),
                None => self.boot().await,
            };
            match client {
                Ok(client) => {
                    match self.steer(&client).await {
                        Ok(Steered::Left) => return,
                        Ok(Steered::Lost) => {
                            tracing::warn!(service = self.site.settings.name, "the front is lost")
                        }
                        Err(error) => {
                            tracing::warn!(service = self.site.settings.name, %error, "the front is lost")
                        }
                    }
                    self.confirm.send_replace(None);
                    self.reporter.send(Input::FrontLost).await;
                }
                Err(error) => {
                    tracing::error!(
                        service = self.site.settings.name,
                        error = super::acts::told(&error),
                        "no front"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
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
        match child {
            // Reaped when it ends; its end is noticed on the control connection.
            Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
            Err(source) => return Err(Error::Reach { path, limit: BOOT, source }),
        }
        ControlClient::connect(&control, BOOT).await
    }

    /// Keeps one front in the wanted posture until it is lost or nobody steers it any more.
    async fn steer(&mut self, client: &ControlClient) -> Result<Steered, Error> {
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
                    let wanted = self.desires.borrow_and_update().clone();
                    if let Some(Wanted { word, posture }) = wanted {
                        client.set_posture(posture, CALL).await?;
                        self.confirm.send_replace(Some(word));
                    }
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Drain { limit, reply } => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            let drained = client.drain(limit, limit + CALL).await;
                            let _ = reply.send(drained.ok().map(|drained| drained.cut));
                        });
                    }
                    Order::Quit { reply } => {
                        client.quit(CALL).await?;
                        let _ = tokio::time::timeout(CALL, client.gone()).await;
                        let _ = reply.send(());
                        return Ok(Steered::Left);
                    }
                },
                _ = look.tick() => {
                    self.count.send_replace(client.stats(CALL).await.ok());
                }
            }
        }
    }
}
