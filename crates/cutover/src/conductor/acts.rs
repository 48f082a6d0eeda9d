//! The executor: turns an effect into calls of rooms and the result into an event. One file per group of acts; each
//! must be idempotent, since the same ticket may run again after a crash at any line.

mod clearing;
mod configuration;
mod data;
mod draining;
mod going;
mod house;
mod preflight;
mod preparing;
mod prover;
mod proving;
mod rehearsing;
mod repairing;
mod sealed;
mod seating;
mod starting;
mod sweeping;
mod traffic;
mod trial;

pub(super) use crate::causes::told;
pub(super) use going::stop_limits;
pub(super) use preparing::{Served, served};
pub(super) use prover::{Proof, Prover};
pub(super) use rehearsing::LOG_ENDS;
use repairing::Visit;
use starting::Origin;
pub(super) use starting::Starting;
pub(super) use trial::Enough;

use super::front_link::FrontLink;
use super::inbox::{Progress, Reporter, Unit};
use super::site::Site;
use crate::predecessor::Record;
use crate::probe::Before;
use crate::store::Tally;
use crate::supervisor::{self, Live};
use cutover_core::{Done, Effect, Event, Exchanges, Exit, Fault, Instance, Release, RunId, Settings, Ticket};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How long an instance's records may take to settle.
const RECORDS: Duration = Duration::from_secs(5);

/// Everything that acts need.
#[derive(Clone)]
pub(super) struct Executor {
    pub site: Arc<Site>,
    pub front: FrontLink,
    pub reporter: Reporter,
    /// Held by whoever changes declared state, a snapshot or the pointer, until that is really over.
    pub hands: Arc<Mutex<()>>,
    /// Held by a sweep.
    pub broom: Arc<Mutex<()>>,
    /// The run after whose end was swept last.
    pub swept: watch::Sender<Option<RunId>>,
    /// Held by whoever reads a whole tree.
    pub eyes: Arc<Mutex<()>>,
    /// What the act under way copies.
    pub tally: Tally,
}

/// An act with what it needs to know of the state.
pub(super) struct Assignment {
    pub ticket: Ticket,
    pub effect: Effect,
    pub settings: Settings,
    /// A limit that passes is a fault, never a success.
    pub limit: Duration,
    /// What needs no update as long as it proves itself, if there is anything.
    pub served: Option<Served>,
    /// Releases that a channel does not install by itself.
    pub skipped: Vec<Release>,
    /// How clients fared with what this run stopped.
    pub before: Option<Exchanges>,
}

/// The fault of a tree that a foreign hand changed.
pub(super) const TREE_CHANGED: &str = "tree_changed";

/// The fault of a program that did not come to run. Its tree was compared right before, by its entries.
pub(super) const EXEC_FAILED: &str = "exec_failed";
/// The fault of a port that a stranger holds.
pub(super) const PORT_TAKEN: &str = "port_taken";
/// The fault of a look that could not tell who lives.
pub(super) const UNTOLD: &str = "identity";

/// The fault of a process that is not the one that was started.
pub(super) const WRONG_PROCESS: &str = "wrong_process";

/// What an act comes to: a result, or a fault.
pub(super) type Outcome = Result<Done, Fault>;

impl Executor {
    pub(super) fn new(site: Arc<Site>, front: FrontLink, reporter: Reporter) -> Self {
        let [hands, broom, eyes] = std::array::from_fn(|_| Arc::new(Mutex::new(())));
        let swept = watch::channel(None).0;
        Self { site, front, reporter, hands, broom, eyes, swept, tally: Tally::default() }
    }

    /// Does one act and reports its end.
    pub(super) async fn perform(self, assignment: Assignment) {
        let this = Self { tally: Tally::default(), ..self };
        let (ticket, limit) = (assignment.ticket.clone(), assignment.limit);
        let waits = matches!(assignment.effect, Effect::Await { .. });
        let outcome = match tokio::time::timeout(limit, this.act(assignment)).await {
            Ok(outcome) => outcome,
            Err(_) if waits => {
                Err(fault("timeout", "what it waited for did not come in time: see `policy.await_limit`"))
            }
            Err(_) => {
                let reached = this.reporter.reached(&ticket);
                let last = reached.map_or_else(String::new, |progress| {
                    format!("; the last that was told of it: {progress}")
                });
                Err(fault("timeout", format!("not done within {limit:?}{last}")))
            }
        };
        crate::crash_point!("act done");
        let copied = Some(this.tally.bytes());
        let event = match outcome {
            Ok(Reported::Done(done)) => Event::Finished { ticket: ticket.clone(), done, copied },
            Ok(Reported::Event(event)) => event,
            Err(fault) => Event::Faulted { ticket: ticket.clone(), fault, copied },
        };
        let Err(refusal) = this.reporter.fact(event).await else { return };
        tracing::debug!(%refusal, act = ?ticket.act, "an act's end was refused");
        // If the act still is under way its result was not what the state needs, and nobody else will end it.
        let fault = fault("refused", refusal);
        let _ = this.reporter.fact(Event::Faulted { ticket, fault, copied }).await;
    }

    /// Does not do an act whose end might find no room in the journal.
    pub(super) async fn decline(self, ticket: Ticket) {
        let fault = fault("no_space", "the journal's reserve is gone: free space in the state directory");
        let _ = self.reporter.fact(Event::Faulted { ticket, fault, copied: Some(0) }).await;
    }

    async fn act(&self, assignment: Assignment) -> Result<Reported, Fault> {
        let Assignment { ticket, effect, settings, served, skipped, before, .. } = assignment;
        let (ticket, settings) = (&ticket, &settings);
        let done = match effect {
            Effect::Resolve(wanted) => {
                self.resolve(&wanted, served.as_ref(), &skipped, &settings.policy).await
            }
            Effect::Stage(release) => self.stage(ticket, &release).await,
            Effect::Preflight { target, source, mendable } => {
                let visit = Visit { run: &ticket.run, mendable: mendable.as_ref() };
                self.preflight(visit, &target, source.as_ref(), settings).await
            }
            Effect::Rehearse { target, source } => {
                self.rehearse(ticket, &target, source.as_ref(), &settings.policy).await
            }
            Effect::Await { awaited, opening } => self.clear(ticket, &awaited, opening).await,
            Effect::Drain { until, windows } => match self.drain(ticket, until, &windows, settings).await {
                Ok(done) => self.as_looked_at(ticket, &windows, done).await,
                Err(fault) => Err(fault),
            },
            Effect::Stop => {
                self.measure(&ticket.run).await;
                self.stop(settings).await
            }
            Effect::Snapshot(run) => self.snapshot(&run, settings).await,
            Effect::Place { snapshot, when } => {
                self.lay_down_if(when, &snapshot, &ticket.run, settings.class).await
            }
            Effect::Switch(installed) => self.switch(Some(&installed)).await,
            Effect::Signal => {
                self.measure(&ticket.run).await;
                self.signal(&ticket.run, settings).await
            }
            Effect::Start { installed, compare, approved } => {
                let origin = Origin { compare: compare.as_ref(), approved: &approved };
                return self.start(ticket, &installed, &origin, settings).await;
            }
            Effect::Prove { installed, instance, approved } => {
                self.still_proven_by(&approved)?;
                self.prove(ticket, &installed, instance.as_ref(), settings, Proof::Prove, None).await
            }
            Effect::ProveBack { installed, instance } => {
                self.prove(ticket, &installed, instance.as_ref(), settings, Proof::Return, None).await
            }
            Effect::Soak { installed, instance, approved } => {
                self.still_proven_by(&approved)?;
                self.prove(ticket, &installed, instance.as_ref(), settings, Proof::Soak, before).await
            }
            Effect::Release => return Ok(Reported::Event(Event::Released { ticket: ticket.clone() })),
            Effect::Restore { snapshot, when } => {
                self.lay_down_if(when, &snapshot, &ticket.run, settings.class).await
            }
            Effect::Nothing(why) => Ok(Done::Done { note: why.to_owned() }),
            Effect::SwitchBack(source) => self.switch(source.as_ref()).await,
        };
        done.map(Reported::Done)
    }

    /// Waits until the front is known not to serve: no process is ended or started under open traffic.
    pub(super) async fn closed(&self, limit: Duration) -> Result<(), Fault> {
        if self.front.is_closed_within(limit).await {
            return Ok(());
        }
        Err(fault("front_open", format!("the front did not confirm within {limit:?} that it holds")))
    }

    /// Runs blocking work that changes state, snapshots or the pointer. It has the service's only pair of hands until it is
    /// really over, even if nobody waits for it any more: what follows waits for it.
    pub(super) async fn with_hands<T, E>(
        &self,
        code: &'static str,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let hands = Arc::clone(&self.hands).lock_owned().await;
        blocking(code, move || {
            let _hands = hands;
            work()
        })
        .await
    }

    /// All running processes of the service, newest first.
    pub(super) async fn running(&self) -> Result<Vec<Live>, Fault> {
        let mut running = Vec::new();
        for directory in self.site.instance_directories() {
            match supervisor::adopt(&directory, RECORDS).await.map_err(chain("supervisor"))? {
                supervisor::Adopted::Running(live) => running.push(live),
                supervisor::Adopted::NeverStarted
                | supervisor::Adopted::Exited { .. }
                | supervisor::Adopted::Lost { .. } => {}
            }
        }
        Ok(running)
    }

    /// How an instance ended; `None` if nothing is on record about it.
    pub(super) async fn exit_of(&self, instance: &Instance) -> Option<Exit> {
        for directory in self.site.instance_directories() {
            match supervisor::adopt(&directory, RECORDS).await {
                Ok(supervisor::Adopted::Exited { instance: found, exit: how }) if found == *instance => {
                    return Some(exit(how));
                }
                Ok(supervisor::Adopted::Lost { instance: found }) if found == *instance => {
                    return Some(Exit::Unknown("its keeper was gone before it ended".into()));
                }
                _ => {}
            }
        }
        None
    }

    /// The process that ran before the one marked `nonce`; before the first of ours, who served until then.
    pub(super) async fn before(&self, nonce: &str) -> Result<Option<Before>, Fault> {
        for directory in self.site.instance_directories() {
            let mark = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if mark == nonce {
                continue;
            }
            let before = match supervisor::adopt(&directory, RECORDS).await.map_err(chain("supervisor"))? {
                supervisor::Adopted::Running(live) => Before::from(&live),
                supervisor::Adopted::Exited { instance, .. } | supervisor::Adopted::Lost { instance } => {
                    // One that has ended may have left a child to its keeper.
                    let kept = supervisor::kept(&directory).map_err(chain("supervisor"))?;
                    Before { instance, keeper: kept.map(|kept| kept.keeper), nonce: mark }
                }
                supervisor::Adopted::NeverStarted => continue,
            };
            return Ok(Some(before));
        }
        let record = Record::read(&self.site.directory()).map_err(chain("predecessor"))?;
        let instance = record.map(|record| record.predecessor.instance);
        Ok(instance.map(|instance| Before { instance, keeper: None, nonce: String::new() }))
    }

    pub(super) fn progress(&self, ticket: &Ticket, doing: impl Into<String>, done: u64, total: Option<u64>) {
        let (ticket, doing, unit) = (ticket.clone(), doing.into(), Unit::Count);
        self.reporter.progress(Progress { ticket, doing, done, total, unit });
    }
}

/// What an act reports.
pub(super) enum Reported {
    Done(Done),
    Event(Event),
}

fn unneeded(why: &str) -> Outcome {
    Ok(Done::Skipped { why: why.to_owned() })
}

/// Trouble that is tried again or left for later.
pub(super) fn warn(executor: &Executor, what: &str, fault: &Fault) {
    let service = &executor.site.settings.name;
    tracing::warn!(service, fault = fault.code, detail = fault.detail, "{what}");
}

/// A fault with a stable word.
pub(super) fn fault(code: &str, detail: impl Display) -> Fault {
    Fault { code: code.to_owned(), detail: detail.to_string() }
}

/// A fault that tells an error's whole chain.
pub(super) fn chain<E: std::error::Error>(code: &'static str) -> impl Fn(E) -> Fault {
    move |error| fault(code, told(&error))
}

/// Runs blocking work of a room.
pub(super) async fn blocking<T, E>(
    code: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| chain(code)(error)),
        // The daemon ends, and nobody waits for this any more.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => panic!("BUG: a room panicked: {error}"),
    }
}

/// An exit as the core knows it.
pub(super) fn exit(exit: supervisor::Exit) -> Exit {
    match exit {
        supervisor::Exit::Code(code) => Exit::Code(code),
        supervisor::Exit::Signal(signal) => Exit::Signal(signal),
        supervisor::Exit::ExecFailed { why } | supervisor::Exit::Unknown { why } => Exit::Unknown(why),
    }
}
