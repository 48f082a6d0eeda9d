//! The loop of one service: event, step, append, act. The only caller of `cutover_core::step` and of the journal's append.
//! Must not know how any effect is done, nor any wire format.

mod acts;
mod chronicle;
mod front_link;
mod inbox;
mod ledger;
mod plan;
mod site;
mod upkeep;
mod view;

pub use chronicle::{Chronicle, Error as ChronicleError};
pub use inbox::{Accepted, Expected, Handle, Progress};
pub use ledger::{Ledger, wall_ms};
pub use plan::Plan;
pub use view::View;

pub(crate) use site::private_directory;

use crate::config::{Layout, ServiceSettings};
use crate::supervisor::Live;
use acts::Executor;
use cutover_core::{
    Act, Effect, Event, Exit, Fault, Instance, Order, Phase, Posture, Refusal, RunId, Settings, State,
    Ticket, Transition, patience, posture, report, wants,
};
use cutover_front::Notice;
use front_link::{FrontLink, Wanted};
use inbox::{Input, Reporter};
use site::Site;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use upkeep::Upkeep;

/// Inputs that may wait.
const INBOX: usize = 256;
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
}

struct Conductor {
    executor: Executor,
    ledger: Ledger,
    chronicle: Chronicle,
    inbox: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    live: Option<Arc<Live>>,
    acting: Option<(Ticket, Task)>,
    tending: Option<(Upkeep, Task)>,
    progress: Option<Progress>,
    trouble: Option<String>,
    /// Unexpected exits, for the crash limit.
    crashes: VecDeque<Instant>,
    born: Instant,
    failures: u32,
    watch_ends: Option<(RunId, Instant)>,
    seq: u64,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

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
    let Beginning { settings, layout, executable, ledger } = beginning;
    let name = settings.name.clone();
    let chronicle = ledger.read(&name)?;
    let site = Arc::new(Site::new(settings, layout, executable, inherited)?);
    let (sender, inbox) = mpsc::channel(INBOX);
    let reporter = Reporter { inbox: sender.clone() };
    let front = if site.has_front() {
        FrontLink::up(Arc::clone(&site), reporter.clone()).await?
    } else {
        FrontLink::none()
    };
    let executor = Executor { site, front, reporter };
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
        progress: None,
        trouble: None,
        crashes: VecDeque::new(),
        born: Instant::now(),
        failures: 0,
        watch_ends: None,
        seq: 0,
    };
    tokio::spawn(conductor.run());
    Ok(handle)
}

fn first_view(name: &str, site: &Site, chronicle: &Chronicle) -> View {
    View {
        service: name.to_owned(),
        report: report(name, &chronicle.state, chronicle.latest()),
        current: chronicle.state.current.clone(),
        progress: None,
        front: None,
        process: None,
        trouble: None,
        address: Some(site.address()),
        listen: site.settings.listen.clone(),
        seq: 0,
        chronicle: chronicle.clone(),
    }
}

impl Conductor {
    async fn run(mut self) {
        self.recover().await;
        let mut stats = self.executor.front.watch_stats();
        loop {
            self.follow();
            let watch_ends = self.watch_ends.as_ref().map(|(_, at)| *at);
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
                Ok(()) = stats.changed() => self.publish(),
            }
        }
    }

    /// Finds out what lives and tells the state; whatever was under way goes on from there.
    async fn recover(&mut self) {
        let running = match self.executor.running().await {
            Ok(running) => running,
            Err(fault) => {
                self.trouble = Some(fault.detail);
                Vec::new()
            }
        };
        let live = running.into_iter().next().map(Arc::new);
        let boot_id = self.ledger.boot_id().clone();
        let boot = self.chronicle.boot(&boot_id);
        let instance = live.as_ref().map(|live| live.instance().clone());
        if let Some(live) = live {
            self.born(live);
        }
        if self.chronicle.state != State::new() {
            let _ = self.apply(Event::Recovered { boot, boot_id, live: instance }).await;
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Order { order, actor, expected, reply } => {
                let _ = reply.send(self.order(order, actor, &expected).await);
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
        }
    }

    async fn order(&mut self, order: Order, actor: String, expected: &Expected) -> Result<Accepted, Refusal> {
        self.expects(expected)?;
        if !self.ledger.has_room() {
            return Err(Refusal::NotNow {
                why: "the journal's reserve is gone: free space in the state directory".into(),
            });
        }
        let run = RunId(uuid::Uuid::now_v7().to_string());
        let settings = self.executor.site.settings.for_run();
        self.apply(Event::Ordered { run, order, actor, settings }).await?;
        Ok(Accepted { run: self.chronicle.state.open_run().cloned() })
    }

    fn expects(&self, expected: &Expected) -> Result<(), Refusal> {
        let current = self.chronicle.state.current.as_ref();
        let generation = current.map(|current| current.generation);
        let version = current.map(|current| current.release.version.as_str());
        let generation_moved = expected.generation.is_some() && expected.generation != generation;
        let version_moved = expected.version.is_some() && expected.version.as_deref() != version;
        if generation_moved || version_moved {
            let now = version.unwrap_or("nothing");
            return Err(Refusal::NotNow {
                why: format!("the service moved on: it is at {now} now; look again and decide"),
            });
        }
        Ok(())
    }

    /// Event, step, append. Nothing is done about an event before it is durable.
    async fn apply(&mut self, event: Event) -> Result<(), Refusal> {
        let transition = self.chronicle.foresee(&event)?;
        if is_idle_news(&event, &self.chronicle.state, &transition) {
            return Ok(());
        }
        let service = self.executor.site.settings.name.clone();
        let entry = loop {
            match self.ledger.append(&service, event.clone(), &transition, &self.chronicle).await {
                Ok(entry) => break entry,
                Err(error) => {
                    let told = acts::told(&error);
                    tracing::error!(
                        service,
                        error = told,
                        "the journal takes no entry; nothing is done until it does"
                    );
                    self.trouble = Some(told);
                    self.publish();
                    tokio::time::sleep(APPEND_PAUSE).await;
                }
            }
        };
        self.trouble = None;
        let from = phase(&self.chronicle.state);
        let ended = self.chronicle.apply(&entry, transition);
        tracing::info!(service, run = ?self.chronicle.state.open_run(), from, event = word(&entry.event), to = phase(&self.chronicle.state));
        if let Some(ending) = ended {
            tracing::info!(service, run = %ending.run, status = ?ending.status, resolution = ?ending.resolution, "run ended");
            self.prune();
        }
        if matches!(entry.event, Event::Ready { .. }) {
            self.failures = 0;
        }
        Ok(())
    }

    /// A process lives: whoever ends, its keeper's word reaches the inbox.
    fn born(&mut self, live: Arc<Live>) {
        if self.live.as_ref().is_some_and(|known| known.instance() == live.instance()) {
            return;
        }
        self.live = Some(Arc::clone(&live));
        self.born = Instant::now();
        let reporter = self.executor.reporter.clone();
        tokio::spawn(async move {
            let exit = match live.exited(Duration::from_secs(2)).await {
                Ok(exit) => acts::exit(exit),
                Err(error) => Exit::Unknown(acts::told(&error)),
            };
            reporter.send(Input::Ended { instance: live.instance().clone(), exit }).await;
        });
    }

    async fn ended(&mut self, instance: Instance, exit: Exit) {
        let was_live = self.live.as_ref().is_some_and(|live| *live.instance() == instance);
        if !was_live {
            return;
        }
        let expected = self.chronicle.state.leaving.as_ref() == Some(&instance)
            || matches!(self.tending, Some((Upkeep::Stop, _)));
        self.live = None;
        let policy = self.executor.site.settings.policy.clone();
        self.failures = match (expected, self.born.elapsed() >= policy.crash_window) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.failures.saturating_add(1),
        };
        let config = exit == Exit::Code(cutover_core::EXIT_CONFIG);
        let told = format!("{exit:?}");
        let _ = self.apply(Event::Exited { instance, exit }).await;
        if expected || matches!(wants(&self.chronicle.state).process, cutover_core::Process::LeaveAlone) {
            return;
        }
        let now = Instant::now();
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|at| now.duration_since(*at) > policy.crash_window) {
            self.crashes.pop_front();
        }
        if config || self.crashes.len() >= policy.crash_limit as usize {
            let detail =
                format!("{} exits within {:?}, the last: {told}", self.crashes.len(), policy.crash_window);
            let fault = Fault { code: "crash_limit".into(), detail };
            let run = RunId(uuid::Uuid::now_v7().to_string());
            let _ = self.apply(Event::Degraded { run, fault }).await;
        }
    }

    /// Makes the world follow the state: the front's posture, the act under way, the process at rest.
    fn follow(&mut self) {
        let state = self.chronicle.state.clone();
        self.front(&state);
        let wanted = wants(&state).act;
        let same =
            self.acting.as_ref().map(|(ticket, _)| ticket) == wanted.as_ref().map(|(ticket, _)| ticket);
        if !same {
            self.progress = None;
            self.acting = wanted.map(|(ticket, effect)| self.begin_act(&state, ticket, effect));
        }
        let upkeep = Upkeep::of(&state, self.live.as_deref());
        if self.tending.as_ref().map(|(now, _)| now) != Some(&upkeep) {
            let settings = self.executor.site.settings.for_run();
            let task = upkeep::tend(
                self.executor.clone(),
                upkeep.clone(),
                self.live.clone(),
                settings,
                self.failures,
            );
            self.tending = Some((upkeep, Task(tokio::spawn(task))));
        }
        self.watch(&state);
        self.publish();
    }

    fn begin_act(&self, state: &State, ticket: Ticket, effect: Effect) -> (Ticket, Task) {
        let limit = patience(state).unwrap_or(self.executor.site.settings.policy.hard_cap);
        let settings = settings_of(state).unwrap_or_else(|| self.executor.site.settings.for_run());
        tracing::debug!(service = self.executor.site.settings.name, act = ?ticket.act, round = ticket.round, "act");
        let task = self.executor.clone().perform(ticket.clone(), effect, settings, limit);
        (ticket, Task(tokio::spawn(task)))
    }

    fn watch(&mut self, state: &State) {
        let Phase::Watching(watch) = &state.phase else {
            self.watch_ends = None;
            return;
        };
        if self.watch_ends.as_ref().is_none_or(|(run, _)| *run != watch.run) {
            self.watch_ends = Some((watch.run.clone(), Instant::now() + watch.settings.policy.watch));
        }
    }

    fn front(&self, state: &State) {
        let site = &self.executor.site;
        if !site.has_front() {
            return;
        }
        let word = posture(state);
        let upstream = cutover_front::Upstream {
            address: site.address(),
            uid: site.identity.as_ref().map(|identity| identity.uid),
            forwarded: site.settings.forwarded,
        };
        let notice = self.notice(state);
        let patience = cutover_front::Patience { limit: site.settings.policy.hold, notice: notice.clone() };
        let posture = match word {
            Posture::Serve => cutover_front::Posture::Serve { upstream, patience },
            Posture::Hold => cutover_front::Posture::Hold {
                hold: cutover_front::HoldId(hold_id(state)),
                patience,
                upstream: Some(upstream),
            },
            Posture::Maintain => cutover_front::Posture::Maintain { notice, upstream: Some(upstream) },
        };
        self.executor.front.want(Wanted { word, posture });
    }

    fn notice(&self, state: &State) -> Notice {
        let name = &self.executor.site.settings.name;
        let report = report(name, state, self.chronicle.latest());
        let trouble = report.causes.last().map(|cause| &cause.fault).or(report.origin.as_ref());
        let reason = match trouble {
            Some(fault) => fault.detail.clone(),
            None => report.next.clone().unwrap_or_else(|| "It is being started or replaced.".into()),
        };
        Notice {
            service: name.clone(),
            sentence: report.sentence,
            reason,
            what_serves: report.serving.version,
            commands: report.recovery,
            retry_after: 5,
            run_id: report.run_id.map(|run| run.0),
        }
    }

    fn publish(&mut self) {
        let mut view = first_view(&self.executor.site.settings.name, &self.executor.site, &self.chronicle);
        view.progress.clone_from(&self.progress);
        view.front = self.executor.front.stats();
        view.process = self.live.as_ref().map(|live| live.instance().clone());
        view.trouble.clone_from(&self.trouble);
        self.seq += 1;
        view.seq = self.seq;
        self.view.send_replace(view);
    }

    /// Generations and snapshots that nothing needs any more go when a run has ended.
    fn prune(&self) {
        let executor = self.executor.clone();
        let mut needed: std::collections::BTreeSet<_> = self.chronicle.state.needed().into_iter().collect();
        needed.extend(self.live.as_ref().map(|live| live.record.generation));
        let keep = self.executor.site.settings.policy.keep as usize;
        let snapshots = snapshots_of(&self.chronicle.state);
        tokio::spawn(async move {
            let store = executor.site.store.clone();
            let pruned = acts::blocking("prune", move || store.prune(keep, &needed)).await;
            if let Err(fault) = pruned {
                tracing::warn!(
                    service = executor.site.settings.name,
                    detail = fault.detail,
                    "old generations stay"
                );
            }
            executor.discard_snapshots(snapshots).await;
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Facts that change nothing and belong to no run are not worth an entry.
fn is_idle_news(event: &Event, state: &State, transition: &Transition) -> bool {
    let news = matches!(event, Event::FrontLost | Event::Exited { .. });
    news && transition.state == *state && state.open_run().is_none()
}

/// A hold keeps its clock as long as its reason lasts.
fn hold_id(state: &State) -> String {
    state.open_run().map_or_else(|| "start".to_owned(), |run| run.0.clone())
}

fn settings_of(state: &State) -> Option<Settings> {
    match &state.phase {
        Phase::Preparing(preparation) => Some(preparation.run.settings.clone()),
        Phase::CuttingOver(cut) => Some(cut.run.settings.clone()),
        Phase::RollingBack(retreat) => Some(retreat.cut.run.settings.clone()),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

/// The snapshots that a state may still need.
fn snapshots_of(state: &State) -> Vec<RunId> {
    let mut runs: Vec<RunId> = state.previous.iter().map(|kept| kept.snapshot.clone()).collect();
    runs.extend(state.parked.iter().map(|cut| cut.run.snapshot.clone()));
    runs.extend(state.open_run().cloned());
    match &state.phase {
        Phase::CuttingOver(cut) => runs.push(cut.run.snapshot.clone()),
        Phase::RollingBack(retreat) => runs.push(retreat.cut.run.snapshot.clone()),
        Phase::Maintenance(maintenance) => runs.push(maintenance.run.snapshot.clone()),
        Phase::Idle | Phase::Watching(_) | Phase::Preparing(_) => {}
    }
    runs
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
    }
}
