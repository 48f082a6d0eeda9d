//! What reaches a conductor, and the handle by which the rest of the daemon reaches it.

use super::acts::Executor;
use super::offer::{Available, Offer};
use super::telling::Trial;
use super::view::View;
use crate::supervisor::Live;
use cutover_core::{Event, Exit, Fault, Generation, Instance, Order, Refusal, RunId, TargetId, Ticket};
use cutover_front::Claim;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Everything that a conductor listens to.
pub(super) enum Input {
    /// Somebody asks for something.
    Order {
        order: Order,
        actor: String,
        expected: Expected,
        reply: oneshot::Sender<Result<Accepted, Refusal>>,
    },
    /// A room reports a fact. The reply comes when it is durable.
    Fact { event: Event, reply: oneshot::Sender<Result<(), Refusal>> },
    /// A service process lives.
    Born(Arc<Live>),
    /// A service process ended.
    Ended { instance: Instance, exit: Exit },
    /// The front died, or stands again.
    FrontLost,
    /// Something worth showing moved on.
    Progress(Progress),
    /// What the followed channel offers; `None`: nothing that an update would take. The reply comes when it is shown.
    Offered { offer: Option<Offer>, reply: oneshot::Sender<Option<Available>> },
    /// What keeps the resting service's process from being as wanted, or that nothing does any more.
    Trouble(Option<String>),
    /// In which way a process that is served is not ready, or that it is.
    Unready(Option<Fault>),
    /// A notice was tried in vain, or is not tried any more.
    Tried { target: TargetId, trial: Option<Trial> },
    /// What is wrong about a take-over, or that nothing is.
    Unsettled(Option<Fault>),
    /// The upkeep with this number has ended every process of the service, and found none left.
    Stopped(u64),
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, rounds of a proof.
    #[default]
    Count,
}

/// How far the act under way is. Shown, never journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Which act.
    pub ticket: Ticket,
    /// What it is doing.
    pub doing: String,
    /// Units done.
    pub done: u64,
    /// Units in all, where they are known.
    pub total: Option<u64>,
    /// Which units.
    #[serde(default)]
    pub unit: Unit,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.doing, self.done)?;
        if let Some(total) = self.total {
            write!(f, " of {total}")?;
        }
        match self.unit {
            Unit::Bytes => write!(f, " bytes"),
            Unit::Count => Ok(()),
        }
    }
}

/// The state that a caller believes the service to be in. Refused if it moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// The current generation.
    pub generation: Option<Generation>,
    /// The current version.
    pub version: Option<String>,
    /// The newest run.
    pub run: Option<RunId>,
}

/// An order was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The run that it began, or that was parked and goes on by it.
    pub run: Option<RunId>,
}

/// A conductor, from outside.
#[derive(Clone)]
pub struct Handle {
    /// The service's name.
    pub service: String,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) view: watch::Receiver<View>,
    pub(super) executor: Executor,
}

impl Handle {
    /// Gives an order and waits until it is durable, or refused.
    ///
    /// # Errors
    /// The refusal; nothing happened.
    pub async fn order(&self, order: Order, actor: String, expected: Expected) -> Result<Accepted, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Input::Order { order, actor, expected, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the service's front, for a daemon that ends with its services.
    ///
    /// # Errors
    /// It is not known to have ended.
    pub async fn close_front(&self) -> Result<(), String> {
        self.executor.front.quit().await
    }

    /// Sets what is claimed of the clients' calls, and waits until the front knows: WebSockets opened afterwards are under
    /// it. A front that is being replaced is told once it stands.
    pub async fn claim(&self, claim: Claim) {
        self.executor.front.claim(claim).await;
    }

    /// What can be seen now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Every later view.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}

fn gone() -> Refusal {
    Refusal::NotNow { why: "the daemon is going down".into() }
}

/// The executor's way to report.
#[derive(Clone)]
pub(super) struct Reporter {
    inbox: mpsc::Sender<Input>,
    last: Arc<Mutex<Option<Progress>>>,
}

impl Reporter {
    pub(super) fn new(inbox: mpsc::Sender<Input>) -> Self {
        Self { inbox, last: Arc::default() }
    }

    /// Reports a fact and waits until it is durable.
    pub(super) async fn fact(&self, event: Event) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        if self.inbox.send(Input::Fact { event, reply }).await.is_err() {
            return Err(Refusal::Stale);
        }
        answer.await.unwrap_or(Err(Refusal::Stale))
    }

    /// Reports what the followed channel offers, and waits until it is shown: what of it is available.
    ///
    /// # Errors
    /// The conductor is gone.
    pub(super) async fn offered(&self, offer: Option<Offer>) -> Result<Option<Available>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Offered { offer, reply }).await;
        answer.await.map_err(|_| gone())
    }

    pub(super) async fn send(&self, input: Input) {
        // A conductor that is gone has nobody to tell.
        let _ = self.inbox.send(input).await;
    }

    /// How far an act was when it last told.
    pub(super) fn reached(&self, ticket: &Ticket) -> Option<Progress> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|progress| progress.ticket == *ticket).cloned()
    }

    /// Shows progress; dropped rather than waited for.
    pub(super) fn progress(&self, progress: Progress) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
        let _ = self.inbox.try_send(Input::Progress(progress));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::{Act, RunId};

    #[test]
    fn what_an_act_told_last_is_told_of_no_other() {
        let (inbox, _full) = mpsc::channel(1);
        let reporter = Reporter::new(inbox);
        let ticket = |act| Ticket { run: RunId("r1".into()), act, round: 0 };
        let progress = |act, done| Progress {
            ticket: ticket(act),
            doing: "copying".into(),
            done,
            total: Some(9),
            unit: Unit::Bytes,
        };
        // The second is dropped on its way, and known all the same.
        reporter.progress(progress(Act::Stage, 4));
        reporter.progress(progress(Act::Stage, 5));
        let reached = reporter.reached(&ticket(Act::Stage)).map(|progress| progress.to_string());
        assert_eq!(reached.as_deref(), Some("copying, 5 of 9 bytes"));
        assert_eq!(reporter.reached(&ticket(Act::Preflight)), None);
    }
}
