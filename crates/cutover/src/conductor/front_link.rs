//! The daemon's hold on one service's front: it stands, it has the sockets, it is in the posture that the state wants.
//! Level-triggered: a front that died is replaced on the same sockets and told again.

mod actor;

use super::inbox::Reporter;
use super::interception::Interceptor;
use super::lately::Lately;
use super::site::Site;
use actor::{Actor, ended, listeners, standing};
use cutover_core::{Exchanges, Posture};
use cutover_front::{Claim, Stats};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Limit of one call to a front.
const CALL: Duration = Duration::from_secs(5);
/// How long a running front may take to answer a new daemon.
const GREETING: Duration = Duration::from_secs(5);
/// How long a front's end may take: one that is being put up is waited for, and its process may have to be killed.
const END: Duration = Duration::from_secs(30);

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
    trouble: watch::Receiver<Option<String>>,
    lately: Arc<Mutex<Lately>>,
    orders: mpsc::Sender<Order>,
    /// The front that stands, by its number; they are counted.
    standing: watch::Receiver<Option<u64>>,
    /// The front that is to be replaced, by its number.
    useless: watch::Sender<Option<u64>>,
}

/// Who waits for a front's end.
type Farewell = oneshot::Sender<Result<(), String>>;

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
    /// End; answer why that is not known to be so.
    Quit { reply: Farewell },
}

impl FrontLink {
    /// A service that has no front. One that an earlier configuration left behind is ended.
    pub(super) async fn none(site: &Site) -> anyhow::Result<Self> {
        Self::end_standing(site).await?;
        Ok(Self::absent(site))
    }

    /// Ends a front that nobody holds any more: it would let requests through at any time. Nothing where none stands.
    ///
    /// # Errors
    /// It does not end.
    pub(super) async fn end_standing(site: &Site) -> anyhow::Result<()> {
        if let Some(client) = standing(&site.layout.front(&site.settings.name), GREETING).await? {
            ended(client).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// No front, whatever stands.
    pub(super) fn absent(site: &Site) -> Self {
        let (_, stance) = watch::channel(Stance::Closed);
        let (_, stats) = watch::channel(None);
        let (_, trouble) = watch::channel(None);
        let (_, standing) = watch::channel(None);
        let (useless, _) = watch::channel(None);
        let (orders, _) = mpsc::channel(1);
        let lately = Arc::new(Mutex::new(Lately::of(site.settings.policy.soak)));
        Self { wanted: None, stance, stats, trouble, lately, orders, standing, useless }
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
        let (complaint, trouble) = watch::channel(None);
        let (orders, inbox) = mpsc::channel(4);
        let lately = Arc::new(Mutex::new(Lately::of(site.settings.policy.soak)));
        let (stands, standing) = watch::channel(None);
        let (useless, to_replace) = watch::channel(None);
        let looks = Arc::clone(&lately);
        let actor = Actor {
            site,
            listeners,
            desires,
            confirm,
            count,
            trouble: complaint,
            silences: 0,
            looks,
            orders: inbox,
            stands,
            useless: to_replace,
            reporter,
            interceptor,
        };
        (Self { wanted: Some(wanted), stance, stats, trouble, lately, orders, standing, useless }, actor)
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

    /// The front that stands, by its number; `None` while one is put up.
    pub(super) fn standing(&self) -> Option<u64> {
        *self.standing.borrow()
    }

    /// Ends the front of this number, for another on the same sockets. What it has in flight or holds is lost. Whatever stands
    /// or is put up in its place stays. Answers whether another stands within `limit`.
    pub(super) async fn replace(&self, old: Option<u64>, limit: Duration) -> bool {
        let mut standing = self.standing.clone();
        if old.is_some() {
            self.useless.send_replace(old);
        }
        let other = standing.wait_for(|now| now.is_some() && *now != old);
        tokio::time::timeout(limit, other).await.is_ok_and(|stands| stands.is_ok())
    }

    /// Whether the front confirmed that it serves, or may do so.
    pub(super) fn serves(&self) -> bool {
        matches!(*self.stance.borrow(), Stance::Is(_, Posture::Serve) | Stance::Unknown)
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

    /// Ends the front: its sockets are closed. Nothing where there is none. Must be idempotent: one that did not end is asked
    /// again.
    ///
    /// # Errors
    /// It is not known to have ended.
    pub(super) async fn quit(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            if self.orders.send(Order::Quit { reply }).await.is_err() {
                // Whoever kept it has left.
                return Ok(());
            }
            answer.await.unwrap_or_else(|_| Err("the front was lost while it was to end".into()))
        };
        let answered = tokio::time::timeout(END, asked).await;
        answered.unwrap_or_else(|_| Err(format!("the front has not ended within {END:?}")))
    }

    /// The front's numbers, half a second old at most.
    pub(super) fn stats(&self) -> Option<Stats> {
        self.stats.borrow().clone()
    }

    /// Why there is no front, where one is wanted and cannot be put up.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Every later reading of the numbers.
    pub(super) fn watch_stats(&self) -> watch::Receiver<Option<Stats>> {
        self.stats.clone()
    }
}
