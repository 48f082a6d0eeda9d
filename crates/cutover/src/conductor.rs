//! The loop of one service: event, step, append, act. The only caller of `cutover_core::step` and of the journal's append.
//! Must not know how any effect is done, nor any wire format.

mod acts;
mod age;
mod alarm;
mod chronicle;
mod crashes;
mod following;
mod front_link;
mod health;
mod inbox;
mod interception;
mod lately;
mod ledger;
mod life;
mod offer;
mod outward;
mod plan;
mod possible;
mod pruning;
mod seal_watch;
mod setup;
mod site;
mod succession;
mod telling;
mod tripped;
mod upkeep;
mod view;
mod window;

pub use chronicle::{Chronicle, Error as ChronicleError};
pub use inbox::{Accepted, Expected, Handle, Progress, Unit};
pub use interception::{Intercepted, Interceptor};
pub use ledger::{Ledger, wall_ms};
pub use offer::Available;
pub use plan::Plan;
pub use telling::{Telling, Trial};
pub use view::{View, Waiting};

pub(crate) use age::youngest_first;
pub(crate) use site::{free_port, passage, private_directory, resolved};
pub(crate) use tripped::{generation_of, tripped};

use crate::config::{Layout, ServiceSettings};
use crate::supervisor::Live;
use acts::Executor;
use alarm::{Readiness, Succession};
use crashes::Crashes;
use cutover_core::{
    Act, Awaited, Boot, Entry, Event, Instance, Order, Phase, Posture, Process, Refusal, RunId, State,
    Target, Ticket, Transition, patience, posture, wants,
};
use front_link::FrontLink;
use inbox::{Input, Reporter};
use jiff::Timestamp;
use offer::Offer;
use site::Site;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use succession::{Settlement, Standing};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use upkeep::Upkeep;

/// Inputs that may wait.
const INBOX: usize = 256;
/// Clock ticks a second, as `/proc/PID/stat` counts: the same on every Linux.
const TICKS: u64 = 100;
/// Between two tries of an append that failed.
const APPEND_PAUSE: Duration = Duration::from_secs(1);

/// What a conductor needs to begin.
pub struct Beginning {
    /// The service.
    pub settings: ServiceSettings,
    /// Where things lie.
    pub layout: Layout,
    /// This program.
    pub executable: PathBuf,
    /// The journal.
    pub ledger: Ledger,
    /// Who answers calls of the service's clients in its place, if somebody does.
    pub interceptor: Option<Interceptor>,
}

struct Conductor {
    executor: Executor,
    ledger: Ledger,
    /// Shared with views, which are many and do not outlive the next entry.
    chronicle: Arc<Chronicle>,
    inbox: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    live: Option<Arc<Live>>,
    acting: Option<(Ticket, Task)>,
    tending: Option<(Upkeep, Task)>,
    /// Which upkeep is tended: what an earlier one reports late is not about now.
    tended: u64,
    /// Whether the upkeep has found that no process is left.
    stopped: bool,
    progress: Option<Progress>,
    /// What the followed channel offered when it was last looked at.
    offer: Option<Offer>,
    /// Trouble with the journal or with telling what runs.
    trouble: Option<String>,
    /// What keeps the resting service's process from being as wanted.
    upkeep_trouble: Option<String>,
    /// What is done about a take-over, and how that stands.
    settling: Option<(Settlement, Task)>,
    succession_is_due: bool,
    succession: Succession,
    /// Of the process that is served.
    readiness: Readiness,
    /// The process that a run started since the alarm that lasts was raised.
    from_run: Option<Instance>,
    /// Notices that were tried in vain so far, at most one for each who is told.
    trials: Vec<Trial>,
    /// Unexpected exits, for the crash limit and the back-off.
    crashes: Crashes,
    born: Instant,
    /// When a revert was last begun because a watched version was halted.
    halt_heeded: Option<Instant>,
    booted: Boot,
    watch_ends: Option<(RunId, Instant)>,
    sweep_is_due: bool,
    seq: u64,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Task {
    /// Ends it and waits until nothing of it runs any more, save blocking work, which has locks of its own.
    async fn end(mut self) {
        self.0.abort();
        // Aborted or done: both are an end.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins a service's conductor: reads its story, finds what lives, and goes on from there. `inherited` is the daemon's
/// own environment: the service gets a little of it, its package manager what concerns that.
///
/// # Errors
/// Settings that do not fit this machine, an address that cannot be bound, or a journal that does not replay: then
/// nothing was touched.
pub async fn begin(beginning: Beginning, inherited: &[(OsString, OsString)]) -> anyhow::Result<Handle> {
    let Beginning { settings, layout, executable, ledger, interceptor } = beginning;
    let name = settings.name.clone();
    let chronicle = Arc::new(ledger.read(&name)?);
    let site = Arc::new(Site::new(settings, layout, executable, inherited)?);
    let (sender, inbox) = mpsc::channel(INBOX);
    let reporter = Reporter::new(sender.clone());
    let front = match succession::standing(&site, &chronicle.state)? {
        // One that stands is ended with all else, which is tried until it is so.
        Standing::Leaving => FrontLink::absent(&site),
        _ if !site.has_front() => FrontLink::none(&site).await?,
        Standing::Awaiting => FrontLink::awaiting(Arc::clone(&site), reporter.clone(), interceptor).await?,
        Standing::Ours => match FrontLink::up(Arc::clone(&site), reporter.clone(), interceptor.clone()).await
        {
            // Where a front of ours stands it has them, and nobody else came back to them.
            Err(error) if is_taken(&error) && succession::came_back(&site).await? => {
                FrontLink::awaiting(Arc::clone(&site), reporter.clone(), interceptor).await?
            }
            link => link?,
        },
    };
    let executor = Executor::new(site, front, reporter);
    let (view, seen) = watch::channel(first_view(&name, &executor.site, &chronicle));
    let handle = Handle { service: name, inbox: sender, view: seen, executor: executor.clone() };
    let conductor = Conductor {
        executor,
        ledger,
        chronicle,
        inbox,
        view,
        live: None,
        acting: None,
        tending: None,
        tended: 0,
        stopped: false,
        progress: None,
        offer: None,
        trouble: None,
        upkeep_trouble: None,
        settling: None,
        succession_is_due: true,
        succession: Succession::Unknown,
        readiness: Readiness::Unknown,
        from_run: None,
        trials: Vec::new(),
        crashes: Crashes::default(),
        born: Instant::now(),
        halt_heeded: None,
        booted: Boot::Same,
        watch_ends: None,
        sweep_is_due: false,
        seq: 0,
    };
    offer::watch_for(&handle);
    telling::attend(&handle);
    tokio::spawn(conductor.run());
    Ok(handle)
}

/// Whether somebody else has an address of the front's.
fn is_taken(error: &anyhow::Error) -> bool {
    let Some(cutover_front::Error::Bind { source, .. }) = error.downcast_ref() else { return false };
    source.kind() == std::io::ErrorKind::AddrInUse
}

/// Ends everything of a service that is ours, so that its address is free: its front and its processes. For a service that
/// no daemon has; whoever calls holds the daemon's lock. Must be idempotent: it may run again after a crash.
///
/// # Errors
/// Settings that do not fit this machine, or something that does not end.
pub async fn vacate(
    settings: ServiceSettings,
    layout: Layout,
    executable: PathBuf,
    inherited: &[(OsString, OsString)],
) -> anyhow::Result<()> {
    let site = Arc::new(Site::new(settings, layout, executable, inherited)?);
    let front = FrontLink::none(&site).await?;
    let (inbox, _) = mpsc::channel(1);
    let policy = site.settings.policy.clone();
    let executor = Executor::new(site, front, Reporter::new(inbox));
    let failed = |fault: cutover_core::Fault| anyhow::anyhow!("{}: {}", fault.code, fault.detail);
    executor.stop_all(&policy).await.map_err(failed)?;
    executor.vacate_seats().await;
    Ok(())
}

fn first_view(name: &str, site: &Site, chronicle: &Arc<Chronicle>) -> View {
    let settings = site.settings.for_run();
    View {
        service: name.to_owned(),
        report: chronicle.report(name, chronicle.latest(), &site.layout.flags),
        current: chronicle.state.current.clone(),
        progress: None,
        front: None,
        process: None,
        since: None,
        stopped: false,
        trouble: None,
        alarm: chronicle.notifications.alarm.clone(),
        tellings: Vec::new(),
        available: None,
        channel: site.settings.channel().to_owned(),
        orders: possible::orders(&chronicle.state, &settings),
        settings,
        limit_ms: patience(&chronicle.state)
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        waiting: waiting(chronicle),
        address: Some(site.address()),
        listen: site.settings.listen.clone(),
        seq: 0,
        flags: site.layout.flags.clone(),
        chronicle: Arc::clone(chronicle),
    }
}

/// Until when the run under way waits, if it waits for something.
fn waiting(chronicle: &Chronicle) -> Option<Waiting> {
    let Phase::Preparing(preparation) = &chronicle.state.phase else { return None };
    if preparation.act != Act::Await || preparation.awaited() == Awaited::Nothing {
        return None;
    }
    let (windows, now) = (preparation.windows(), Timestamp::now());
    let ms = |at: Timestamp| u64::try_from(at.as_millisecond()).ok();
    // A zone that is not known ends the act, and says so.
    let is_closed = !windows.is_empty() && !window::is_open(windows, now).unwrap_or(false);
    let opens = if is_closed { window::opens(windows, now).ok().flatten() } else { None };
    let first = chronicle.record(&preparation.run.id)?.waits_since?;
    let limit = u64::try_from(preparation.run.settings.policy.clearance.limit.as_millis()).ok();
    Some(Waiting {
        opens_at: opens.and_then(ms),
        gives_up_at: limit.map(|limit| first.wall_ms.saturating_add(limit)),
    })
}

/// When a process of this boot began, on the wall clock as it is now.
fn since(instance: &Instance) -> u64 {
    let began = instance.start_time.saturating_mul(1000) / TICKS;
    wall_ms().saturating_sub(cutover_intent::boot_time_ms().saturating_sub(began))
}

impl Conductor {
    async fn run(mut self) {
        self.subscribe().await;
        self.recover().await;
        let mut stats = self.executor.front.watch_stats();
        loop {
            let was_due_at = self.heeds_at();
            self.follow().await;
            let watch_ends = self.watch_ends.as_ref().map(|(_, at)| *at);
            // What fell due while this was followed is due still.
            let (calms_at, heeds_at) = (self.calms_at(), was_due_at.or_else(|| self.heeds_at()));
            tokio::select! {
                input = self.inbox.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => return,
                },
                () = until(watch_ends) => {
                    if let Some((run, _)) = self.watch_ends.take() {
                        let _ = self.apply(Event::WatchEnded { run }).await;
                    }
                }
                // Who is not troubled any more is so by nothing but time.
                () = until(calms_at) => {}
                () = until(heeds_at) => {}
                Ok(()) = stats.changed() => self.publish(),
            }
        }
    }

    /// Journals who is told from now on, where that is not who was.
    async fn subscribe(&mut self) {
        let settings = &self.executor.site.settings.notify;
        let targets: Vec<Target> = settings.iter().map(|settings| settings.target.clone()).collect();
        if targets != self.chronicle.notifications.targets {
            let _ = self.apply(Event::Subscribed { targets }).await;
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Order { order, actor, expected, reply } => {
                let answer = self.order(order, actor, &expected).await;
                // Whoever has the answer and looks must see the run that it speaks of.
                self.publish();
                let _ = reply.send(answer);
            }
            Input::Fact { event, reply } => {
                let _ = reply.send(self.apply(event).await);
            }
            Input::Born(live) => self.born(live),
            Input::Ended { instance, exit } => self.ended(instance, exit).await,
            Input::FrontLost => {
                let _ = self.apply(Event::FrontLost).await;
            }
            Input::Progress(progress) => {
                if self.acting.as_ref().is_some_and(|(ticket, _)| *ticket == progress.ticket) {
                    self.progress = Some(progress);
                    self.publish();
                }
            }
            Input::Offered { offer, reply } => {
                self.offer = offer;
                self.publish();
                let _ = reply.send(self.available());
            }
            Input::Trouble(trouble) => self.upkeep_trouble = trouble,
            Input::Unready(fault) => self.readiness = fault.map_or(Readiness::Ready, Readiness::Unready),
            Input::Tried { target, trial } => {
                self.trials.retain(|known| known.target != target);
                self.trials.extend(trial);
            }
            Input::Stopped(upkeep) => self.stopped = upkeep == self.tended,
            Input::Unsettled(trouble) => {
                self.succession = trouble.map_or(Succession::Settled, Succession::Troubled);
            }
        }
    }

    async fn order(&mut self, order: Order, actor: String, expected: &Expected) -> Result<Accepted, Refusal> {
        self.expects(expected)?;
        self.heeds(&order)?;
        if !self.ledger.has_room() {
            return Err(Refusal::NotNow {
                why: "the journal's reserve is gone: free space in the state directory".into(),
            });
        }
        let run = ledger::fresh_run();
        let settings = self.executor.site.settings.for_run();
        let before = (self.chronicle.state.open_run().cloned(), self.chronicle.state.parked.is_some());
        // These are about the run under way.
        let is_about_it = matches!(order, Order::Hold | Order::Approve { .. });
        match self.write(Event::Ordered { run, order, actor, settings }).await {
            Ok(()) => {
                let state = &self.chronicle.state;
                // A run that was under way already is not this order's; one that was parked goes on by it.
                let is_its_own = is_about_it
                    || state.open_run() != before.0.as_ref()
                    || (before.1 && state.parked.is_none());
                Ok(Accepted { run: state.open_run().filter(|_| is_its_own).cloned() })
            }
            Err(Unwritten::Refused(refusal)) => Err(refusal),
            // A person can ask again; facts cannot.
            Err(Unwritten::Journal(why)) => Err(Refusal::NotNow { why }),
        }
    }

    fn expects(&self, expected: &Expected) -> Result<(), Refusal> {
        let current = self.chronicle.state.current.as_ref();
        let generation = current.map(|current| current.generation);
        let version = current.map(|current| current.release.version.as_str());
        let generation_moved = expected.generation.is_some() && expected.generation != generation;
        let version_moved = expected.version.is_some() && expected.version.as_deref() != version;
        let run_moved = expected.run.is_some()
            && expected.run.as_ref() != self.chronicle.latest().map(|record| &record.run);
        if run_moved {
            return Err(Refusal::NotNow {
                why: "another run has begun since you looked: look again and decide".into(),
            });
        }
        if generation_moved || version_moved {
            let now = version.unwrap_or("nothing");
            return Err(Refusal::NotNow {
                why: format!("the service moved on: it is at {now} now; look again and decide"),
            });
        }
        Ok(())
    }

    /// Takes a fact in, however long the journal refuses it: until it is durable nothing is done.
    async fn apply(&mut self, event: Event) -> Result<(), Refusal> {
        loop {
            match self.write(event.clone()).await {
                Ok(()) => return Ok(()),
                Err(Unwritten::Refused(refusal)) => return Err(refusal),
                Err(Unwritten::Journal(why)) => {
                    tracing::error!(
                        service = self.executor.site.settings.name,
                        why,
                        "nothing is done until the journal takes it"
                    );
                    self.trouble = Some(why);
                    self.publish();
                    tokio::time::sleep(APPEND_PAUSE).await;
                }
            }
        }
    }

    /// Event, step, append. Nothing is done about an event before it is durable.
    async fn write(&mut self, event: Event) -> Result<(), Unwritten> {
        let transition = self.chronicle.foresee(&event).map_err(Unwritten::Refused)?;
        if is_idle_news(&event, &self.chronicle.state, &transition) {
            return Ok(());
        }
        let service = self.executor.site.settings.name.clone();
        let appended = self.ledger.append(&service, event, &transition, &self.chronicle).await;
        let entry = appended.map_err(|error| {
            Unwritten::Journal(format!("the journal takes no entry: {}", acts::told(&error)))
        })?;
        crate::crash_point!("appended");
        self.trouble = None;
        self.take_in(&entry, transition);
        Ok(())
    }

    fn take_in(&mut self, entry: &Entry, transition: Transition) {
        let service = &self.executor.site.settings.name;
        let from = phase(&self.chronicle.state);
        let ended = Arc::make_mut(&mut self.chronicle).apply(entry, transition);
        let state = &self.chronicle.state;
        tracing::info!(service, run = ?state.open_run(), from, event = word(&entry.event), to = phase(state));
        if let Some(ending) = ended {
            tracing::info!(service, run = %ending.run, status = ?ending.status, resolution = ?ending.resolution, "run ended");
            self.sweep_is_due = true;
            self.succession_is_due = true;
        }
    }

    fn available(&self) -> Option<Available> {
        self.offer.as_ref().and_then(|offer| offer.available(&self.chronicle.state))
    }

    fn publish(&mut self) {
        let mut view = first_view(&self.executor.site.settings.name, &self.executor.site, &self.chronicle);
        view.progress.clone_from(&self.progress);
        view.front = self.executor.front.stats();
        view.available = self.available();
        // One that was found gone lives no more, also while its keeper's word about its end is still to come.
        view.process = self.live.as_ref().filter(|_| !self.stopped).map(|live| live.instance().clone());
        view.since = view.process.as_ref().map(since);
        view.stopped = self.stopped;
        // Exits are no trouble of a process that has proven itself since, nor of one that shall not run.
        let is_down = posture(&self.chronicle.state) != Posture::Serve
            && matches!(wants(&self.chronicle.state).process, Process::Run(_));
        let looping = self.crashes.note().filter(|_| is_down);
        let unready = self.readiness.trouble();
        let is_served = posture(&self.chronicle.state) == Posture::Serve;
        let unready = unready.map(|fault| match (fault.code.as_str(), is_served) {
            (alarm::CUT_OFF, _) => fault.detail.clone(),
            (_, true) => format!("it serves and is not ready: {}", fault.detail),
            (_, false) => format!("it does not become ready: {}", fault.detail),
        });
        let front = self.executor.front.trouble();
        let others = [front, looping, unready, self.succession_note(), self.upkeep_trouble.clone()];
        view.trouble = self.trouble.clone().or_else(|| others.into_iter().flatten().next());
        if self.is_leaving() {
            view.orders.values_mut().for_each(|refusal| refusal.clone_from(&view.trouble));
        }
        view.tellings = telling::tellings(&self.chronicle.notifications, &self.trials);
        self.seq += 1;
        view.seq = self.seq;
        self.view.send_replace(view);
    }
}

/// Why an event was not taken in. Nothing happened.
enum Unwritten {
    Refused(Refusal),
    /// The journal's trouble, in words.
    Journal(String),
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Facts that change nothing and belong to no run are not worth an entry.
fn is_idle_news(event: &Event, state: &State, transition: &Transition) -> bool {
    let news = matches!(event, Event::FrontLost | Event::Exited { .. } | Event::TreeChanged { .. });
    news && transition.state == *state && state.open_run().is_none()
}

fn phase(state: &State) -> String {
    let act = |act: Act| format!("{act:?}");
    match &state.phase {
        Phase::Idle => "Idle".into(),
        Phase::Preparing(preparation) => format!("Preparing/{}", act(preparation.act)),
        Phase::CuttingOver(cut) => format!("CuttingOver/{}", act(cut.act)),
        Phase::RollingBack(retreat) => format!("RollingBack/{}", act(retreat.cut.act)),
        Phase::Watching(_) => "Watching".into(),
        Phase::Maintenance(_) => "Maintenance".into(),
    }
}

fn word(event: &Event) -> &'static str {
    match event {
        Event::Ordered { .. } => "ordered",
        Event::Finished { .. } => "finished",
        Event::Faulted { .. } => "faulted",
        Event::SnapshotStale { .. } => "snapshot stale",
        Event::Spawned { .. } => "spawned",
        Event::Exited { .. } => "exited",
        Event::Ready { .. } => "ready",
        Event::Degraded { .. } => "degraded",
        Event::Released { .. } => "released",
        Event::WatchEnded { .. } => "watch ended",
        Event::TreeChanged { .. } => "tree changed",
        Event::FrontLost => "front lost",
        Event::Recovered { .. } => "recovered",
        Event::Measured { .. } => "measured",
        Event::Subscribed { .. } => "subscribed",
        Event::Alarmed { .. } => "alarmed",
        Event::Calmed { .. } => "calmed",
        Event::Told { .. } => "told",
    }
}
