//! The one function that decides: state and event to state, pure and total. One file per phase below.

mod cutting_over;
mod maintenance;
mod preparing;
mod resting;
mod rolling_back;

use crate::{
    Act, Boot, Cause, Cut, Ending, Event, Exit, Fault, Installed, Instance, Kind, Order, Phase, Refusal,
    Resolution, Restarts, Run, Serving, State, Status, Writes,
};

/// Version of the rules in this file and below. Journaled with every entry; it must be raised whenever an old
/// journal would replay to another state.
pub const STEP_VERSION: u32 = 6;

/// What an event led to.
#[must_use = "an event that is not followed is a lost fact"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state that follows.
    pub state: State,
    /// A run that this event ended.
    pub ended: Option<Ending>,
}

impl Transition {
    fn to(state: State) -> Self {
        Self { state, ended: None }
    }

    fn ending(mut state: State, ending: Ending) -> Self {
        state.last = Some(ending.clone());
        Self { state, ended: Some(ending) }
    }
}

/// Applies one event. Pure, total, and the only place where a state changes.
///
/// # Errors
/// A [`Refusal`] if the event does not apply; the state then stays as it was and nothing is journaled.
pub fn step(state: &State, event: &Event) -> Result<Transition, Refusal> {
    match event {
        Event::Ordered { run, order, settings, .. } => ordered(state, &Ordering { run, order, settings }),
        Event::Exited { instance, exit, restart_prevent_exit_status, restart_force_exit_status } => {
            let codes = Codes { prevent: restart_prevent_exit_status, force: restart_force_exit_status };
            Ok(exited(state, instance, exit, &codes))
        }
        Event::FrontLost => Ok(Transition::to(state.clone())),
        Event::Recovered { boot, live, .. } => Ok(recovered(state, *boot, live.as_ref())),
        Event::TreeChanged { run, generation, fault, settings } => {
            Ok(resting::tree_changed(state, run, *generation, fault, settings))
        }
        Event::Degraded { run, fault } => resting::degraded(state, run, fault),
        Event::WatchEnded { run } => resting::watch_ended(state, run),
        Event::Ready { expectation, observations } => resting::ready(state, expectation, observations),
        Event::Spawned { generation, .. } => Ok(Transition::to(spawned(state, *generation))),
        // What was measured, and who was told what, is on record and changes nothing.
        Event::Measured { .. }
        | Event::Subscribed { .. }
        | Event::Alarmed { .. }
        | Event::Calmed { .. }
        | Event::Told { .. } => Ok(Transition::to(state.clone())),
        Event::Finished { .. }
        | Event::Faulted { .. }
        | Event::SnapshotStale { .. }
        | Event::Released { .. } => match &state.phase {
            Phase::Preparing(preparation) => preparing::step(state, preparation, event),
            Phase::CuttingOver(cut) => cutting_over::step(state, cut, event),
            Phase::RollingBack(retreat) => rolling_back::step(state, retreat, event),
            Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => Err(Refusal::Stale),
        },
    }
}

/// An order with what it may begin.
struct Ordering<'a> {
    run: &'a crate::RunId,
    order: &'a Order,
    settings: &'a crate::Settings,
}

fn ordered(state: &State, ordering: &Ordering<'_>) -> Result<Transition, Refusal> {
    match &state.phase {
        Phase::Preparing(preparation) => preparing::ordered(state, preparation, ordering.order),
        Phase::CuttingOver(Cut { run, .. }) => Err(past_the_cut(run, ordering.order)),
        Phase::RollingBack(retreat) => Err(past_the_cut(&retreat.cut.run, ordering.order)),
        Phase::Idle | Phase::Watching(_) => resting::ordered(state, ordering),
        Phase::Maintenance(maintenance) => maintenance::ordered(state, maintenance, ordering),
    }
}

fn past_the_cut(run: &Run, order: &Order) -> Refusal {
    let run = run.id.clone();
    match order {
        Order::Start | Order::Stop | Order::Cancel | Order::Hold | Order::Approve { .. } | Order::Restart => {
            Refusal::PastTheCut { run }
        }
        Order::Update { .. }
        | Order::Rollback { .. }
        | Order::Retry
        | Order::RecoverRollback
        | Order::Accept => Refusal::AlreadyRunning { run },
    }
}

/// Changes the durable wish, in any resting phase.
fn wished(state: &State, order: &Order) -> Result<State, Refusal> {
    let wish = if *order == Order::Start { crate::Wish::Run } else { crate::Wish::Stopped };
    let halted = *order == Order::Start && state.restarts != Restarts::Allowed;
    if wish == state.wish && !halted {
        return Err(Refusal::AlreadySo);
    }
    let mut next = state.clone();
    next.wish = wish;
    next.restarts = Restarts::Allowed;
    if wish == crate::Wish::Stopped {
        next.serving = Serving::Unproven;
        next.leaving = None;
    }
    Ok(next)
}

/// A keeper is journaled: from here on its generation may run.
fn spawned(state: &State, generation: crate::Generation) -> State {
    let mut next = state.clone();
    if let Phase::CuttingOver(cut) = &mut next.phase
        && cut.act == Act::Start
        && cut.target.generation == generation
    {
        cut.start = cut.start.max(crate::Extent::Begun);
        next.serving = Serving::Unproven;
    }
    next
}

/// What exit codes of a service mean, as its settings say.
struct Codes<'a> {
    /// Starting again cannot help.
    prevent: &'a [i32],
    /// It asks to be started again.
    force: &'a [i32],
}

/// Whether the end of a process was its own wish to be started again: it had proven itself, and ended with a code that
/// its settings name for that. What never was in order has not asked for anything.
#[must_use]
pub fn asks_for_a_restart(state: &State, instance: &Instance, exit: &Exit, force: &[i32]) -> bool {
    let was_proven = matches!(&state.serving, Serving::Proven(live) if live == instance);
    was_proven && matches!(exit, Exit::Code(code) if force.contains(code))
}

/// A process ended. Always a fact; where nobody depends on that process it is information only.
fn exited(state: &State, instance: &Instance, exit: &Exit, codes: &Codes<'_>) -> Transition {
    let mut next = forget(state, instance);
    match &state.phase {
        // It was in order and wants to begin anew: an interruption, and no evidence against the target. One that wants
        // nothing else is at fault, also where there is no way back: else it would be started for ever.
        Phase::CuttingOver(cut)
            if cut.live.as_ref() == Some(instance)
                && matches!(cut.act, Act::Prove | Act::Release | Act::Soak)
                && cut.attempts < cutting_over::ATTEMPTS_MAX
                && asks_for_a_restart(state, instance, exit, codes.force) =>
        {
            cutting_over::recovered(&next, cut, Boot::Same, None)
        }
        Phase::CuttingOver(cut)
            if cut.live.as_ref() == Some(instance)
                && matches!(cut.act, Act::Prove | Act::Release | Act::Soak) =>
        {
            let fault = Fault { code: "exited".into(), detail: format!("the new process ended: {exit:?}") };
            cutting_over::faulted(&next, cut, &fault, cutting_over::Process::Gone)
        }
        Phase::RollingBack(retreat) if retreat.cut.act == Act::Prove => {
            rolling_back::exited(&next, retreat, instance, exit)
        }
        Phase::Idle | Phase::Watching(_) | Phase::Preparing(_) | Phase::Maintenance(_) => {
            // How a process ends that was asked to says nothing about the next one.
            let was_asked = state.leaving.as_ref() == Some(instance);
            if let Exit::Code(code) = exit
                && codes.prevent.contains(code)
                && !was_asked
            {
                next.restarts = Restarts::Halted { code: *code };
            }
            Transition::to(next)
        }
        Phase::CuttingOver(_) | Phase::RollingBack(_) => Transition::to(next),
    }
}

/// The state without any claim that `instance` lives.
fn forget(state: &State, instance: &Instance) -> State {
    let mut next = state.clone();
    next.serving = match &state.serving {
        Serving::Proven(live) if live == instance => Serving::Unproven,
        Serving::Waived(Some(live)) if live == instance => Serving::Waived(None),
        other => other.clone(),
    };
    if next.leaving.as_ref() == Some(instance) {
        next.leaving = None;
    }
    next
}

/// The daemon began again: whatever does not live any more is forgotten, and an open run counts the interruption.
fn recovered(state: &State, boot: Boot, live: Option<&Instance>) -> Transition {
    let mut next = state.clone();
    next.serving = match &state.serving {
        Serving::Proven(instance) if live != Some(instance) => Serving::Unproven,
        Serving::Waived(Some(instance)) if live != Some(instance) => Serving::Waived(None),
        other => other.clone(),
    };
    if next.leaving.as_ref() != live {
        next.leaving = None;
    }
    match &state.phase {
        Phase::CuttingOver(cut) => cutting_over::recovered(&next, cut, boot, live),
        Phase::RollingBack(retreat) => rolling_back::recovered(&next, retreat),
        Phase::Preparing(preparation) => {
            next.phase = Phase::Preparing(preparing::recovered(preparation));
            Transition::to(next)
        }
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => Transition::to(next),
    }
}

/// An ending of `run`, with what is told.
fn ending(run: &Run, target: Option<&Installed>, told: Told, causes: Vec<Cause>, writes: Writes) -> Ending {
    Ending {
        run: run.id.clone(),
        kind: run.kind,
        target: target.cloned(),
        status: told.status,
        resolution: told.resolution,
        causes,
        writes,
    }
}

/// What an ending tells.
#[derive(Clone, Copy)]
struct Told {
    status: Option<Status>,
    resolution: Resolution,
}

impl Told {
    const fn new(status: Status, resolution: Resolution) -> Self {
        Self { status: Some(status), resolution }
    }
}

/// The word that a retreat under way tells.
pub(crate) fn told_of_retreat(retreat: &crate::Retreat) -> Status {
    rolling_back::told(retreat)
}

/// Whether `run` is a reseal: same release, no way back.
fn is_reseal(run: &Run) -> bool {
    run.kind == Kind::TreeChanged
}
