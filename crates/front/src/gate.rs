//! The gate: who may pass to the upstream now, who waits, and who is turned away.
//!
//! Requests wait in the order in which they arrived and are let through in that order, in batches. An upstream that
//! refuses connections while serving closes the gate like a hold, until it answers again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tracing::{debug, info};

use crate::peer::Socket;
use crate::stats::{Counters, Drained, Stats, count};
use crate::upstream::{Epoch, Pass, Reuse};
use crate::{HoldId, Notice, Patience, Posture};

/// How many held requests are let through at once; the first batch at once, the next after each pause.
const BATCH: usize = 64;
const BATCH_PAUSE: Duration = Duration::from_millis(5);
/// How often a waiting request asks whether its client is still there.
const CLIENT_CHECK: Duration = Duration::from_millis(250);
/// The pauses between attempts to reach an upstream that refuses.
const KNOCK_FIRST: Duration = Duration::from_millis(2);
const KNOCK_LAST: Duration = Duration::from_millis(10);
/// How long a new posture waits for exchanges that are all but over, so that a process that is then told to stop has
/// no request in its socket that it has not read.
const SETTLE: Duration = Duration::from_millis(10);
/// How long a cut exchange may take to end: a WebSocket waits for its client's farewell.
const CUT_LIMIT: Duration = Duration::from_secs(2);

/// How many may wait, and how large they may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) held_max: usize,
    pub(crate) held_head_max: usize,
}

pub(crate) struct Gate {
    inner: Mutex<Inner>,
    arrivals: AtomicU64,
    counters: Arc<Counters>,
    caps: Caps,
}

struct Inner {
    posture: Posture,
    /// The one being served; `None` unless the posture is `Serve`.
    epoch: Option<Arc<Epoch>>,
    /// Earlier ones that still have exchanges.
    former: Vec<Arc<Epoch>>,
    /// The probe lane's.
    lane: Option<Arc<Epoch>>,
    /// Runs while the gate is closed and requests wait: in a hold, and in `Serve` while the upstream refuses.
    clock: Option<Clock>,
    clocks: u64,
    queue: BTreeMap<u64, Waiter>,
    is_releasing: bool,
    longest_wait: Duration,
}

struct Clock {
    serial: u64,
    since: Instant,
    patience: Patience,
}

impl Clock {
    fn is_over(&self) -> bool {
        self.since.elapsed() >= self.patience.limit
    }
}

struct Waiter {
    since: Instant,
    answer: oneshot::Sender<Admission>,
}

/// The gate's answer.
pub(crate) enum Admission {
    Go(Pass),
    Refused(Notice),
}

/// A request at the gate. It keeps its place in the order if it has to come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    number: u64,
    since: Instant,
    head_bytes: usize,
}

impl Arrival {
    /// How long ago it first came to the gate.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// The client has left; nothing must be done in its name any more.
#[derive(Debug, thiserror::Error)]
#[error("the client has left")]
pub(crate) struct ClientGone;

enum Knock {
    Go(Pass),
    Wait(oneshot::Receiver<Admission>),
    Refused(Notice),
}

impl Gate {
    /// A closed gate: it holds, by the name `boot`.
    pub(crate) fn closed(patience: Patience, counters: Arc<Counters>, caps: Caps) -> Arc<Self> {
        let posture =
            Posture::Hold { hold: HoldId::from("boot"), patience: patience.clone(), upstream: None };
        let clock = Clock { serial: 0, since: Instant::now(), patience };
        let gate = Arc::new(Self {
            inner: Mutex::new(Inner {
                posture,
                epoch: None,
                former: Vec::new(),
                lane: None,
                clock: Some(clock),
                clocks: 0,
                queue: BTreeMap::new(),
                is_releasing: false,
                longest_wait: Duration::ZERO,
            }),
            arrivals: AtomicU64::new(0),
            counters,
            caps,
        });
        gate.arm(&gate.lock());
        gate
    }

    pub(crate) fn posture(&self) -> Posture {
        self.lock().posture.clone()
    }

    /// Takes a new posture. When this returns, no request passes under the old one any more.
    pub(crate) fn set(self: &Arc<Self>, posture: Posture) {
        let mut inner = self.lock();
        info!(from = inner.posture.word(), to = posture.word(), held = inner.queue.len(), "posture");
        inner.change_lane(&posture);
        match &posture {
            Posture::Serve { upstream, patience } => {
                if inner.epoch.as_ref().is_some_and(|epoch| epoch.upstream() == upstream) {
                    if let Some(clock) = &mut inner.clock {
                        clock.patience = patience.clone();
                        self.restart_alarm(&mut inner);
                    }
                } else {
                    inner.retire();
                    // A connection that is still open leads to the process that it was made to.
                    let same = inner.former.iter().filter(|epoch| epoch.upstream() == upstream);
                    same.for_each(|epoch| epoch.take_in());
                    inner.epoch = Some(Epoch::new(upstream.clone(), Reuse::Pooled));
                    inner.clock = None;
                }
            }
            Posture::Hold { hold, patience, .. } => {
                let kept = match (&inner.posture, &inner.clock) {
                    (Posture::Hold { hold: current, .. }, Some(clock)) if current == hold => {
                        Some(clock.since)
                    }
                    _ => None,
                };
                inner.retire();
                inner.former.iter().for_each(|epoch| epoch.hold_back());
                if kept.is_none() {
                    inner.longest_wait = Duration::ZERO;
                    self.counters.begin_hold();
                }
                let since = kept.unwrap_or_else(Instant::now);
                inner.clock = Some(Clock { serial: 0, since, patience: patience.clone() });
                self.restart_alarm(&mut inner);
            }
            Posture::Maintain { notice, .. } => {
                inner.retire();
                inner.clock = None;
                inner.former.iter().for_each(|epoch| epoch.maintain());
                inner.refuse_all(notice);
            }
        }
        inner.posture = posture;
        self.release(&mut inner);
    }

    /// The front ends: nobody is kept waiting for it. What is in flight may finish.
    pub(crate) fn dismiss(self: &Arc<Self>) {
        let notice = self.lock().notice();
        self.set(Posture::Maintain { notice, upstream: None });
    }

    /// Waits, briefly, until exchanges that are all but over have ended and idle connections are closed.
    pub(crate) async fn settle(&self) {
        let former = self.lock().former.clone();
        let disconnected = async {
            for epoch in &former {
                epoch.disconnected().await;
            }
        };
        let _ = timeout(SETTLE, disconnected).await;
    }

    /// Registers a request; its place in the order is from now.
    pub(crate) fn arrive(&self, head_bytes: usize) -> Arrival {
        Arrival { number: self.arrivals.fetch_add(1, Relaxed), since: Instant::now(), head_bytes }
    }

    /// Waits until the request may pass, is turned away, or its client has left.
    pub(crate) async fn admit(&self, arrival: Arrival, client: &Socket) -> Result<Admission, ClientGone> {
        let mut answer = match self.knock(arrival) {
            Knock::Go(pass) => return Ok(Admission::Go(pass)),
            Knock::Refused(notice) => return Ok(Admission::Refused(notice)),
            Knock::Wait(answer) => answer,
        };
        let place = Place { gate: self, number: arrival.number };
        let mut checks = interval_at(TokioInstant::now() + CLIENT_CHECK, CLIENT_CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let admission = loop {
            tokio::select! {
                biased;
                admission = &mut answer => break admission.map_err(|_| ClientGone)?,
                _ = checks.tick() => if client.is_gone() { return Err(ClientGone) },
            }
        };
        drop(place);
        if client.is_gone() {
            count(&self.counters.gone_total);
            return Err(ClientGone);
        }
        Ok(admission)
    }

    /// The probe lane's own way in: open whenever there is an upstream.
    pub(crate) fn admit_probe(&self) -> Admission {
        let inner = self.lock();
        match &inner.lane {
            Some(epoch) => Admission::Go(Pass::probe(epoch)),
            None => Admission::Refused(inner.notice()),
        }
    }

    /// The upstream refused a connection: the gate closes until it takes one.
    pub(crate) fn refused(self: &Arc<Self>, epoch: &Arc<Epoch>, why: &io::Error) {
        let mut inner = self.lock();
        let Posture::Serve { patience, .. } = &inner.posture else { return };
        if inner.clock.is_some() || !inner.epoch.as_ref().is_some_and(|current| Arc::ptr_eq(current, epoch)) {
            return;
        }
        info!(upstream = %epoch.upstream().address, %why, "upstream refuses connections");
        inner.clock = Some(Clock { serial: 0, since: Instant::now(), patience: patience.clone() });
        self.restart_alarm(&mut inner);
        let (gate, epoch) = (Arc::clone(self), Arc::clone(epoch));
        tokio::spawn(async move {
            let reached = epoch.retired().clone().run_until_cancelled_owned(reach(&epoch)).await;
            if reached.is_some() {
                gate.reached(&epoch);
            }
        });
    }

    /// How long a request may wait in all, and what it is told then.
    pub(crate) fn patience(&self) -> Patience {
        let inner = self.lock();
        match &inner.posture {
            Posture::Serve { patience, .. } | Posture::Hold { patience, .. } => patience.clone(),
            Posture::Maintain { notice, .. } => Patience { limit: Duration::ZERO, notice: notice.clone() },
        }
    }

    /// Begins a drain: what it will wait for are the exchanges with former upstreams that are open now. Their WebSockets
    /// are given no further message.
    pub(crate) fn begin_drain(&self) -> Drain {
        let former = self.lock().former.clone();
        former.iter().for_each(|epoch| epoch.drain());
        let open = former.iter().map(|epoch| epoch.open_exchanges()).sum();
        let closed = self.counters.closed_total.load(Relaxed);
        Drain { former, open, closed, begun: Instant::now(), counters: Arc::clone(&self.counters) }
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = self.lock();
        let waiting = inner.queue.values().next().map_or(Duration::ZERO, |oldest| oldest.since.elapsed());
        let longest = inner.longest_wait.max(waiting);
        Stats {
            posture: inner.posture.word().to_owned(),
            expired: inner.clock.as_ref().is_some_and(Clock::is_over),
            held: inner.queue.len() as u64,
            longest_wait_ms: u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
            ..self.counters.read()
        }
    }

    fn knock(&self, arrival: Arrival) -> Knock {
        let mut inner = self.lock();
        if let Posture::Maintain { notice, .. } = &inner.posture {
            return Knock::Refused(notice.clone());
        }
        if let Some(clock) = &inner.clock
            && clock.is_over()
        {
            return Knock::Refused(clock.patience.notice.clone());
        }
        if let (None, true, Some(epoch)) = (&inner.clock, inner.queue.is_empty(), &inner.epoch) {
            return Knock::Go(Pass::public(epoch, &self.counters));
        }
        if inner.queue.len() >= self.caps.held_max || arrival.head_bytes > self.caps.held_head_max {
            return Knock::Refused(inner.notice());
        }
        count(&self.counters.held_since);
        count(&self.counters.held_total);
        let (answer, answered) = oneshot::channel();
        inner.queue.insert(arrival.number, Waiter { since: arrival.since, answer });
        Knock::Wait(answered)
    }

    fn reached(self: &Arc<Self>, epoch: &Arc<Epoch>) {
        let mut inner = self.lock();
        if inner.epoch.as_ref().is_some_and(|current| Arc::ptr_eq(current, epoch)) {
            info!(upstream = %epoch.upstream().address, held = inner.queue.len(), "upstream takes connections");
            inner.clock = None;
            self.release(&mut inner);
        }
    }

    /// Lets the first batch through now and the others after it, as long as the gate stays open.
    fn release(self: &Arc<Self>, inner: &mut Inner) {
        inner.let_through(&self.counters);
        if inner.queue.is_empty() || !inner.is_open() || inner.is_releasing {
            return;
        }
        inner.is_releasing = true;
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                sleep(BATCH_PAUSE).await;
                let mut inner = gate.lock();
                inner.let_through(&gate.counters);
                if inner.queue.is_empty() || !inner.is_open() {
                    inner.is_releasing = false;
                    return;
                }
            }
        });
    }

    fn restart_alarm(self: &Arc<Self>, inner: &mut Inner) {
        inner.clocks += 1;
        let serial = inner.clocks;
        if let Some(clock) = &mut inner.clock {
            clock.serial = serial;
        }
        self.arm(inner);
    }

    /// Turns all waiting requests away when the clock is over, if it still runs then.
    fn arm(self: &Arc<Self>, inner: &Inner) {
        let Some(clock) = &inner.clock else { return };
        // A limit beyond the clock's range never ends.
        let Some(end) = clock.since.checked_add(clock.patience.limit) else { return };
        let (gate, serial) = (Arc::downgrade(self), clock.serial);
        tokio::spawn(async move {
            sleep_until(end.into()).await;
            let Some(gate) = gate.upgrade() else { return };
            let mut inner = gate.lock();
            if let Some(notice) = inner
                .clock
                .as_ref()
                .filter(|clock| clock.serial == serial)
                .map(|clock| clock.patience.notice.clone())
            {
                info!(held = inner.queue.len(), "the hold has reached its limit");
                inner.refuse_all(&notice);
                // Those who call over a WebSocket are told as well, whether or not anybody comes to drain.
                inner.former.iter().for_each(|epoch| epoch.drain());
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_open(&self) -> bool {
        self.epoch.is_some() && self.clock.is_none()
    }

    fn retire(&mut self) {
        if let Some(epoch) = self.epoch.take() {
            epoch.retire();
            self.former.push(epoch);
        }
        self.former.retain(|epoch| epoch.open_exchanges() > 0 || !epoch.is_disconnected());
    }

    fn change_lane(&mut self, posture: &Posture) {
        let wanted = posture.upstream();
        if self.lane.as_ref().map(|epoch| epoch.upstream()) == wanted {
            return;
        }
        if let Some(former) = self.lane.take() {
            former.retire();
            former.cut();
        }
        self.lane = wanted.map(|upstream| Epoch::new(upstream.clone(), Reuse::Single));
    }

    fn let_through(&mut self, counters: &Arc<Counters>) {
        if !self.is_open() {
            return;
        }
        let Some(epoch) = self.epoch.clone() else { return };
        let mut passed = 0;
        while passed < BATCH {
            let Some((_, waiter)) = self.queue.pop_first() else { return };
            self.longest_wait = self.longest_wait.max(waiter.since.elapsed());
            if waiter.answer.send(Admission::Go(Pass::public(&epoch, counters))).is_ok() {
                passed += 1;
            }
        }
    }

    fn refuse_all(&mut self, notice: &Notice) {
        while let Some((_, waiter)) = self.queue.pop_first() {
            self.longest_wait = self.longest_wait.max(waiter.since.elapsed());
            // Whoever has left needs no answer.
            let _ = waiter.answer.send(Admission::Refused(notice.clone()));
        }
    }

    fn notice(&self) -> Notice {
        match &self.posture {
            Posture::Serve { patience, .. } | Posture::Hold { patience, .. } => patience.notice.clone(),
            Posture::Maintain { notice, .. } => notice.clone(),
        }
    }
}

/// A drain under way.
pub(crate) struct Drain {
    former: Vec<Arc<Epoch>>,
    open: u64,
    closed: u64,
    begun: Instant,
    counters: Arc<Counters>,
}

impl Drain {
    /// Waits until nobody is owed an answer, for `limit` at most; answers how many WebSockets still are.
    pub(crate) async fn answers(self, limit: Duration) -> u64 {
        let all = async {
            for epoch in &self.former {
                epoch.answered().await;
            }
        };
        let _ = timeout(limit, all).await;
        self.former.iter().map(|epoch| epoch.owing()).sum()
    }

    /// Waits until all is over; at the limit cuts what is left.
    pub(crate) async fn finish(self, limit: Duration) -> Drained {
        let all_quiet = async {
            for epoch in &self.former {
                epoch.quiet().await;
            }
        };
        tokio::pin!(all_quiet);
        if timeout(limit, &mut all_quiet).await.is_err() {
            self.former.iter().for_each(|epoch| epoch.cut());
            if timeout(CUT_LIMIT, all_quiet).await.is_err() {
                debug!("some cut exchanges have not ended yet");
            }
        }
        Drained {
            open: self.open,
            cut: self.counters.cut.load(Relaxed),
            websockets: self.counters.closed_total.load(Relaxed) - self.closed,
            waited: self.begun.elapsed(),
        }
    }
}

async fn reach(epoch: &Epoch) {
    let mut pause = KNOCK_FIRST;
    loop {
        sleep(pause).await;
        match epoch.connect().await {
            Ok(link) => return epoch.give_back(link),
            Err(error) => debug!(%error, "upstream still refuses"),
        }
        pause = (pause * 2).min(KNOCK_LAST);
    }
}

/// A place in the queue; given up when its request is.
struct Place<'g> {
    gate: &'g Gate,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.gate.lock().queue.remove(&self.number).is_some() {
            count(&self.gate.counters.gone_total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    use crate::Upstream;

    fn patience() -> Patience {
        Patience { limit: Duration::from_secs(60), notice: Notice::unexplained("web") }
    }

    fn gate() -> Arc<Gate> {
        Gate::closed(patience(), Arc::default(), Caps { held_max: 4096, held_head_max: 1024 })
    }

    #[tokio::test]
    async fn requests_pass_in_the_order_of_their_arrival_and_who_comes_later_queues_behind() {
        let gate = gate();
        let (here, _there) = UnixStream::pair().unwrap();
        let client = Arc::new(Socket::Unix(here));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut all = JoinSet::new();
        let mut come = |number: usize| {
            let (gate, client, order) = (gate.clone(), client.clone(), order.clone());
            let arrival = gate.arrive(0);
            all.spawn(async move {
                let admission = gate.admit(arrival, &client).await;
                assert!(matches!(admission, Ok(Admission::Go(_))));
                order.lock().unwrap().push(number);
            });
        };
        for number in 0..1000 {
            come(number);
        }
        while gate.stats().held < 1000 {
            tokio::task::yield_now().await;
        }
        let upstream = Upstream::at("127.0.0.1:9".parse().unwrap());
        gate.set(Posture::Serve { upstream, patience: patience() });
        for number in 1000..1100 {
            come(number);
        }
        assert_eq!(gate.stats().held, 1000 - BATCH as u64, "the first batch passes at once, and nobody else");
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
        assert!(order.lock().unwrap().iter().copied().eq(0..1100));
    }

    #[tokio::test]
    async fn who_comes_back_keeps_the_place_it_had() {
        let gate = gate();
        let first = gate.arrive(0);
        let second = gate.arrive(0);
        let (Knock::Wait(mut second), Knock::Wait(mut first)) = (gate.knock(second), gate.knock(first))
        else {
            panic!("a closed gate lets nobody pass");
        };
        gate.lock().queue.pop_first().unwrap();
        assert!(first.try_recv().is_err());
        assert!(
            matches!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed)),
            "the first is at the head"
        );
        assert!(matches!(second.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    }
}
