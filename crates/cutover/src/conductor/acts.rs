//! The executor: turns an effect into calls of rooms and the result into an event. One file per group of acts; each
//! must be idempotent, since the same ticket may run again after a crash at any line.

mod data;
mod going;
mod preparing;
mod proving;
mod starting;

pub(super) use proving::{Proof, Prover};
pub(super) use starting::Starting;

use super::front_link::FrontLink;
use super::inbox::{Progress, Reporter};
use super::site::Site;
use crate::probe::Before;
use crate::store;
use crate::supervisor::{self, Live};
use cutover_core::{Done, Effect, Event, Exit, Fault, Generation, Posture, Settings, Ticket};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// How long an instance's records may take to settle.
const RECORDS: Duration = Duration::from_secs(5);

/// Everything that acts need.
#[derive(Clone)]
pub(super) struct Executor {
    pub site: Arc<Site>,
    pub front: FrontLink,
    pub reporter: Reporter,
}

/// The fault of a tree that a foreign hand changed.
pub(super) const TREE_CHANGED: &str = "tree_changed";

/// What an act comes to: a result, or a fault.
pub(super) type Outcome = Result<Done, Fault>;

impl Executor {
    /// Does one act and reports its end. `limit` is the act's patience; a limit that passes is a fault, never a success.
    pub(super) async fn perform(self, ticket: Ticket, effect: Effect, settings: Settings, limit: Duration) {
        let outcome = match tokio::time::timeout(limit, self.act(&ticket, effect, &settings)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(fault("timeout", format!("not done within {limit:?}"))),
        };
        let event = match outcome {
            Ok(Reported::Done(done)) => Event::Finished { ticket, done },
            Ok(Reported::Event(event)) => event,
            Err(fault) => Event::Faulted { ticket, fault },
        };
        if let Err(refusal) = self.reporter.fact(event).await {
            tracing::debug!(%refusal, "an act's end was refused");
        }
    }

    async fn act(&self, ticket: &Ticket, effect: Effect, settings: &Settings) -> Result<Reported, Fault> {
        let done = match effect {
            Effect::Resolve(wanted) => self.resolve(&wanted).await,
            Effect::Stage(release) => self.stage(ticket, &release).await,
            Effect::Preflight { target, source } => self.preflight(&target, source.as_ref()).await,
            Effect::Rehearse(_) => skipped("no isolated rehearsal in this version"),
            Effect::Await => skipped("no window or approval is configured"),
            Effect::Drain => self.warm(ticket, settings).await,
            Effect::Stop => self.stop(settings).await,
            Effect::Snapshot(run) => self.snapshot(&run, settings).await,
            Effect::Place(run) => self.place(&run, &ticket.run).await,
            Effect::Switch(installed) => self.switch(Some(&installed)).await,
            Effect::Signal => self.signal(&ticket.run, settings).await,
            Effect::Start { installed, compare } => {
                return self.start(ticket, &installed, compare.as_ref(), settings).await;
            }
            Effect::Prove { installed, instance } => {
                self.prove(ticket, &installed, instance.as_ref(), settings, Proof::Prove).await
            }
            Effect::Soak { installed, instance } => {
                self.prove(ticket, &installed, instance.as_ref(), settings, Proof::Soak).await
            }
            Effect::Release => return Ok(Reported::Event(Event::Released { ticket: ticket.clone() })),
            Effect::Restore(run) => self.restore(&run, &ticket.run).await,
            Effect::Nothing(why) => Ok(Done::Done { note: why.to_owned() }),
            Effect::SwitchBack(source) => self.switch(source.as_ref()).await,
        };
        done.map(Reported::Done)
    }

    /// Waits until the front is known not to serve: no process is ended or started under open traffic.
    pub(super) async fn closed(&self, limit: Duration) -> Result<(), Fault> {
        self.front.wait_until(limit, |posture| posture != Some(Posture::Serve)).await.map_err(|()| {
            fault("front_open", format!("the front did not confirm within {limit:?} that it holds"))
        })
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

    /// Whether a generation's tree still is what was sealed. A tree that cannot be read is a fault of another name: it
    /// says nothing about a foreign hand.
    pub(super) async fn sealed(&self, generation: Generation) -> Result<(), Fault> {
        let store = self.site.store.clone();
        let compared = tokio::task::spawn_blocking(move || store.compare(generation)).await;
        compared.expect("BUG: comparing a tree panicked").map_err(|error| match error {
            store::Error::Changed { .. } => chain(TREE_CHANGED)(error),
            other => chain("tree_unreadable")(other),
        })
    }

    /// The process that ran before the one marked `nonce`.
    pub(super) async fn before(&self, nonce: &str) -> Result<Option<Before>, Fault> {
        for directory in self.site.instance_directories() {
            let mark = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if mark == nonce {
                continue;
            }
            let before = match supervisor::adopt(&directory, RECORDS).await.map_err(chain("supervisor"))? {
                supervisor::Adopted::Running(live) => Before::from(&live),
                supervisor::Adopted::Exited { instance, .. } | supervisor::Adopted::Lost { instance } => {
                    Before { instance, keeper: None, nonce: mark }
                }
                supervisor::Adopted::NeverStarted => continue,
            };
            return Ok(Some(before));
        }
        Ok(None)
    }

    pub(super) fn progress(&self, ticket: &Ticket, doing: impl Into<String>, done: u64, total: Option<u64>) {
        self.reporter.progress(Progress { ticket: ticket.clone(), doing: doing.into(), done, total });
    }
}

/// What an act reports.
pub(super) enum Reported {
    Done(Done),
    Event(Event),
}

fn skipped(why: &str) -> Outcome {
    Ok(Done::Skipped { why: why.to_owned() })
}

/// A fault with a stable word.
pub(super) fn fault(code: &str, detail: impl Display) -> Fault {
    Fault { code: code.to_owned(), detail: detail.to_string() }
}

/// A fault that tells an error's whole chain.
pub(super) fn chain<E: std::error::Error>(code: &'static str) -> impl Fn(E) -> Fault {
    move |error| fault(code, told(&error))
}

/// An error with all its causes, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
    tokio::task::spawn_blocking(work).await.expect("BUG: a room panicked").map_err(|error| chain(code)(error))
}

/// An exit as the core knows it.
pub(super) fn exit(exit: supervisor::Exit) -> Exit {
    match exit {
        supervisor::Exit::Code(code) => Exit::Code(code),
        supervisor::Exit::Signal(signal) => Exit::Signal(signal),
        supervisor::Exit::ExecFailed { why } | supervisor::Exit::Unknown { why } => Exit::Unknown(why),
    }
}
