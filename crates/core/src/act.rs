//! The acts of a run and their order. An act is one thing done to the world under one ticket.

use crate::{DataOrder, ReleaseRule, RunId, Settings, Strategy};
use serde::{Deserialize, Serialize};

/// One thing done to the world. Each must be idempotent: the same ticket may run again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Find the exact release and freeze it.
    Resolve,
    /// Fetch it into a sealed generation.
    Stage,
    /// Look for what would break, before anything stops.
    Preflight,
    /// Boot it in isolation on copied state.
    Rehearse,
    /// Wait for a window or an approval.
    Await,
    /// Let the service finish its work while it still serves.
    Drain,
    /// End the live process, its descendants included, and prove it gone.
    Stop,
    /// Copy declared state.
    Snapshot,
    /// Lay an ordered older snapshot down.
    Place,
    /// Move the pointer to the target.
    Switch,
    /// Ask the old process by intent and signal to end itself, and see it gone.
    Signal,
    /// Start what the run names.
    Start,
    /// Prove the live process.
    Prove,
    /// Declare the traffic released, then open the front.
    Release,
    /// Prove on, under traffic.
    Soak,
    /// Put the snapshot back.
    Restore,
    /// Move the pointer back to the source.
    SwitchBack,
}

/// Which execution of which act: an answer under any other ticket is stale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The run.
    pub run: RunId,
    /// Its act.
    pub act: Act,
    /// Counts re-entries of acts within the run (retries, interruptions, a stale snapshot).
    pub round: u8,
}

/// The acts before the cut, in order.
pub const PREPARING: [Act; 6] =
    [Act::Resolve, Act::Stage, Act::Preflight, Act::Rehearse, Act::Await, Act::Drain];

/// The acts of going back, in order.
pub const ROLLING_BACK: [Act; 5] = [Act::Stop, Act::Restore, Act::SwitchBack, Act::Start, Act::Prove];

/// The acts of the cut, in order.
#[must_use]
pub fn cutting_over(settings: &Settings, data: &DataOrder) -> Vec<Act> {
    let mut acts = match settings.strategy {
        Strategy::StopStart => vec![Act::Stop, Act::Snapshot],
        Strategy::Signal => vec![Act::Snapshot],
    };
    if matches!(data, DataOrder::Restore { .. }) {
        acts.push(Act::Place);
    }
    acts.push(Act::Switch);
    if settings.strategy == Strategy::Signal {
        acts.push(Act::Signal);
    }
    acts.extend([Act::Start, Act::Prove]);
    acts.extend(match settings.policy.release {
        ReleaseRule::AfterProve => [Act::Release, Act::Soak],
        ReleaseRule::AfterSoak | ReleaseRule::ByData => [Act::Soak, Act::Release],
    });
    acts
}

/// The act that follows `act` in `order`, or `None` after the last.
#[must_use]
pub(crate) fn after(order: &[Act], act: Act) -> Option<Act> {
    order.iter().position(|a| *a == act).and_then(|at| order.get(at + 1)).copied()
}
