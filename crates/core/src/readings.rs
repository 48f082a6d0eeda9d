//! What a state wants of the world: three readings, functions of the state alone.

use crate::{
    Act, Aim, Awaited, Base, Cut, DataClass, DataOrder, Extent, Fault, Installed, Instance, Kind, Leave,
    Maintenance, Opening, Phase, Preparation, Release, Restarts, RestoreAfterRelease, Retreat, Run, RunId,
    Serving, Settings, Setup, State, Ticket, Traffic, Tree, Wanted, Window, Wish,
};
use std::time::Duration;

/// What the world must be made to be.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// The service's process.
    pub process: Process,
    /// The act under way.
    pub act: Option<(Ticket, Effect)>,
}

/// What is wanted of the service's process outside of acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// It runs from this generation; an exit is answered by a start with capped back-off.
    Run(Installed),
    /// This one shall end first, then the generation runs again.
    Replace(Instance, Installed),
    /// It does not run.
    Stopped,
    /// The act under way decides.
    LeaveAlone,
}

/// An act with what it needs to know. Every effect must be idempotent and establish its own precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find the exact release.
    Resolve(Wanted),
    /// Fetch and seal it.
    Stage(Release),
    /// Look for what would break, compared with what runs now.
    Preflight {
        /// The sealed target.
        target: Installed,
        /// What runs now.
        source: Option<Installed>,
        /// How its rehearsal failed, where the target's own repair may help.
        mendable: Option<Fault>,
    },
    /// Boot it in isolation, on a copy of the state.
    Rehearse {
        /// The sealed target.
        target: Installed,
        /// What runs now: what it fails at too is not the target's fault.
        source: Option<Installed>,
    },
    /// Wait for a window or an approval.
    Await {
        /// For what.
        awaited: Awaited,
        /// How it fared with its windows: one that opened and is closed now was missed, which is a result.
        opening: Opening,
    },
    /// Let the service finish its work while it serves.
    Drain {
        /// What is waited for.
        until: Until,
        /// One of these must still be open at its end, if there are any.
        windows: Vec<Window>,
    },
    /// End every process of the service, proven gone. Must first see the front hold.
    Stop,
    /// Copy declared state under this run's name. Must first prove the old process gone (`StopStart`).
    Snapshot(RunId),
    /// Lay down an older snapshot.
    Place {
        /// Whose.
        snapshot: RunId,
        /// When.
        when: LayDown,
    },
    /// Move the pointer.
    Switch(Installed),
    /// Ask the old process by intent and signal to end itself.
    Signal,
    /// Start this generation; a live instance of it is adopted.
    Start {
        /// What to start.
        installed: Installed,
        /// The snapshot that the stopped state must still equal, unless the target is known to have run. A journaled
        /// keeper may not have come to its exec; then whatever ran since may have changed the state.
        compare: Option<RunId>,
        /// What the settings must still say, if a person approved that.
        approved: Setup,
    },
    /// Prove this process, from zero.
    Prove {
        /// What must run.
        installed: Installed,
        /// The process.
        instance: Option<Instance>,
        /// What the settings must still say, if a person approved that: other probes would prove something else.
        approved: Setup,
    },
    /// Prove the old version's process, from zero. It has served before: a log that could not take its output is nothing that
    /// clients must wait for.
    ProveBack {
        /// What must run.
        installed: Installed,
        /// The process.
        instance: Option<Instance>,
    },
    /// Append `Released`; the front follows the posture.
    Release,
    /// Prove on, under traffic.
    Soak {
        /// What must run.
        installed: Installed,
        /// The process.
        instance: Option<Instance>,
        /// What the settings must still say, if a person approved that: other probes would prove something else.
        approved: Setup,
    },
    /// Put this run's snapshot back. Must first prove the target gone.
    Restore {
        /// Whose.
        snapshot: RunId,
        /// When.
        when: LayDown,
    },
    /// Nothing to undo: the counterpart was never begun.
    Nothing(&'static str),
    /// Move the pointer back, or remove it where there was none.
    SwitchBack(Option<Installed>),
}

/// What the last act before the cut waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For the service's word that nothing is under way, as far as it has one, and for a while.
    Idle,
    /// For nothing: what runs is to be left.
    Now,
}

/// When a snapshot is laid down over what was written since. Skipped is told for writes that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayDown {
    /// In any case: nobody was told that the writes are safe, or a person gave them up.
    Always,
    /// Only if old code could not go on with them, as far as a comparison tells.
    IfMigrated,
    /// Never. If old code could not go on with them, that is a fault.
    Never,
}

/// What the front shows to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Posture {
    /// Requests go to the service.
    Serve,
    /// Requests wait.
    Hold,
    /// Declared maintenance: 503 with what happened and what to type.
    Maintain,
}

/// What the world must be made to be.
pub fn wants(state: &State) -> Wants {
    Wants { process: process(state), act: act(state) }
}

fn process(state: &State) -> Process {
    if matches!(state.phase, Phase::CuttingOver(_) | Phase::RollingBack(_)) {
        return Process::LeaveAlone;
    }
    if state.wish == Wish::Stopped || state.restarts != Restarts::Allowed || state.parked.is_some() {
        return Process::Stopped;
    }
    let Some(current) = state.current.clone() else { return Process::Stopped };
    // What runs of a damaged tree goes on until it is sealed again; what ended is not started from it.
    if state.tree == Tree::Damaged {
        return Process::LeaveAlone;
    }
    if maintenance(state).is_some_and(|maintenance| !revives(maintenance, &current)) {
        return Process::Stopped;
    }
    match &state.leaving {
        Some(leaving) => Process::Replace(leaving.clone(), current),
        None => Process::Run(current),
    }
}

/// The maintenance that the service is in: it lasts until a run that was ordered out of it is past its preparation.
pub(crate) fn maintenance(state: &State) -> Option<&Maintenance> {
    match &state.phase {
        Phase::Maintenance(maintenance)
        | Phase::Preparing(Preparation { base: Base::Maintenance(maintenance), .. }) => Some(maintenance),
        _ => None,
    }
}

/// Whether pointer and data fit together, and nothing but the tree between them keeps it from being started: it turned out to
/// be changed, so that starting it fails as often as it is tried.
pub(crate) fn is_doubted(maintenance: &Maintenance) -> bool {
    maintenance.coherent_tree == Tree::Damaged && maintenance.run.kind != Kind::TreeChanged
}

/// Whether maintenance may try the old version again by itself: its code and data are known to fit together.
fn revives(maintenance: &Maintenance, current: &Installed) -> bool {
    maintenance.coherent == Some(current.generation)
        && maintenance.run.source.as_ref() == Some(current)
        && maintenance.target != *current
}

fn act(state: &State) -> Option<(Ticket, Effect)> {
    match &state.phase {
        Phase::Preparing(preparation) => Some((preparation.ticket(), preparing(preparation)?)),
        Phase::CuttingOver(cut) => Some((cut.ticket(), forward(cut)?)),
        Phase::RollingBack(retreat) => Some((retreat.cut.ticket(), back(retreat)?)),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

fn preparing(preparation: &Preparation) -> Option<Effect> {
    let effect = match (preparation.act, &preparation.aim) {
        (Act::Resolve, Aim::Wanted(wanted)) => Effect::Resolve(wanted.clone()),
        (Act::Stage, Aim::Resolved(release)) => Effect::Stage(release.clone()),
        (Act::Preflight, Aim::Staged(target)) => {
            let mendable = preparation.gate.mendable.clone();
            Effect::Preflight { target: target.clone(), source: preparation.run.source.clone(), mendable }
        }
        (Act::Rehearse, Aim::Staged(target)) => {
            Effect::Rehearse { target: target.clone(), source: preparation.run.source.clone() }
        }
        (Act::Await, _) => {
            Effect::Await { awaited: preparation.awaited(), opening: preparation.gate.opening }
        }
        (Act::Drain, _) => {
            let until = match preparation.run.kind {
                Kind::Update | Kind::Rollback => Until::Idle,
                // What runs fails, or runs from a tree that is not what was sealed.
                Kind::AutoRevert | Kind::TreeChanged | Kind::Accept => Until::Now,
            };
            Effect::Drain { until, windows: preparation.windows().to_vec() }
        }
        _ => return None,
    };
    Some(effect)
}

fn forward(cut: &Cut) -> Option<Effect> {
    let installed = cut.target.clone();
    let instance = cut.live.clone();
    let approved = cut.approved.clone();
    let effect = match cut.act {
        Act::Stop => Effect::Stop,
        Act::Snapshot => Effect::Snapshot(cut.run.snapshot.clone()),
        Act::Place => match &cut.run.data {
            DataOrder::Restore { snapshot } => {
                Effect::Place { snapshot: snapshot.clone(), when: placing(&cut.run) }
            }
            DataOrder::Keep => return None,
        },
        Act::Switch => Effect::Switch(installed),
        Act::Signal => Effect::Signal,
        Act::Start => {
            let compare = (cut.start < Extent::Finished && cut.place == Extent::Never)
                .then(|| cut.run.snapshot.clone());
            Effect::Start { installed, compare, approved }
        }
        // Nobody approves a revert.
        Act::Prove if cut.run.kind == Kind::AutoRevert => Effect::ProveBack { installed, instance },
        Act::Prove => Effect::Prove { installed, instance, approved },
        Act::Release => Effect::Release,
        Act::Soak => Effect::Soak { installed, instance, approved },
        _ => return None,
    };
    Some(effect)
}

fn back(retreat: &Retreat) -> Option<Effect> {
    let cut = &retreat.cut;
    let effect = match (cut.act, &cut.run.source) {
        (Act::Stop, _) if cut.start == Extent::Never => Effect::Nothing("the target was never started"),
        (Act::Stop, _) => Effect::Stop,
        (Act::Restore, _) if !touches_data(cut) => {
            Effect::Nothing("the data is as the source wrote it, or keeps its writes")
        }
        (Act::Restore, _) => Effect::Restore { snapshot: cut.run.snapshot.clone(), when: restoring(retreat) },
        (Act::SwitchBack, _) if cut.switch == Extent::Never => Effect::Nothing("the pointer never moved"),
        (Act::SwitchBack, source) => Effect::SwitchBack(source.clone()),
        (Act::Start, Some(source)) => {
            Effect::Start { installed: source.clone(), compare: None, approved: Setup::default() }
        }
        (Act::Prove, Some(source)) => {
            Effect::ProveBack { installed: source.clone(), instance: cut.live.clone() }
        }
        _ => return None,
    };
    Some(effect)
}

/// Whether the data may be another than the source left, and somebody may have to read it.
pub(crate) fn touches_data(cut: &Cut) -> bool {
    let may_differ = match cut.run.settings.class {
        DataClass::None => false,
        DataClass::Neutral => cut.run.source.is_some(),
        DataClass::Migrated => true,
    };
    (may_differ && cut.start > Extent::Never) || cut.place > Extent::Never
}

/// Writes that somebody may have been told of stay if old code can go on with them, unless a person gave them up.
pub(crate) fn restoring(retreat: &Retreat) -> LayDown {
    let cut = &retreat.cut;
    let settings = &cut.run.settings;
    let is_kept_back = settings.policy.restore_after_release == RestoreAfterRelease::Refused;
    match settings.class {
        _ if cut.place > Extent::Never || retreat.leave == Leave::Given => LayDown::Always,
        DataClass::Neutral if cut.is_exposed() && is_kept_back => LayDown::Never,
        DataClass::Migrated if !cut.is_exposed() => LayDown::Always,
        DataClass::None | DataClass::Neutral | DataClass::Migrated => LayDown::IfMigrated,
    }
}

/// A person who orders older data means it; nobody has ordered a revert.
pub(crate) fn placing(run: &Run) -> LayDown {
    let policy = &run.settings.policy;
    match run.kind {
        Kind::AutoRevert if policy.restore_after_release == RestoreAfterRelease::Refused => LayDown::Never,
        Kind::AutoRevert => LayDown::IfMigrated,
        Kind::Update | Kind::Rollback | Kind::TreeChanged | Kind::Accept => LayDown::Always,
    }
}

/// What the front shows. Serving is bound to the live instance that was last proven.
#[must_use]
pub fn posture(state: &State) -> Posture {
    let proven = matches!(state.serving, Serving::Proven(_));
    match &state.phase {
        Phase::CuttingOver(cut) => {
            let proven = matches!(&state.serving, Serving::Proven(live) if cut.live.as_ref() == Some(live));
            let released = cut.traffic == Traffic::Released && proven;
            match () {
                () if cut.run.kind == Kind::Accept => Posture::Maintain,
                () if released => Posture::Serve,
                () if state.tree == Tree::Damaged => Posture::Maintain,
                () => Posture::Hold,
            }
        }
        Phase::RollingBack(retreat) => match retreat.cut.base {
            Base::Maintenance(_) => Posture::Maintain,
            Base::Idle | Base::Watching(_) => Posture::Hold,
        },
        _ if maintenance(state).is_some() => Posture::Maintain,
        Phase::Maintenance(_) | Phase::Idle | Phase::Watching(_) | Phase::Preparing(_) => {
            resting(state, proven)
        }
    }
}

fn resting(state: &State, proven: bool) -> Posture {
    let stopped = state.wish == Wish::Stopped || state.restarts != Restarts::Allowed;
    if state.tree == Tree::Damaged || stopped || state.current.is_none() || state.parked.is_some() {
        return Posture::Maintain;
    }
    if proven || matches!(state.serving, Serving::Waived(Some(_))) { Posture::Serve } else { Posture::Hold }
}

/// How long the act under way, or the watch, may last at most. The clock is the boot-time clock; a limit that passes is
/// a fault named `timeout`, never a success.
#[must_use]
pub fn patience(state: &State) -> Option<Duration> {
    let (run, act): (&Run, Act) = match &state.phase {
        Phase::Preparing(preparation) => (&preparation.run, preparation.act),
        Phase::CuttingOver(cut) => (&cut.run, cut.act),
        Phase::RollingBack(retreat) => (&retreat.cut.run, retreat.cut.act),
        Phase::Watching(watch) => return Some(watch.settings.policy.watch),
        Phase::Idle | Phase::Maintenance(_) => return None,
    };
    Some(limit(act, &run.settings))
}

/// Past TERM's grace a KILL and the descendants need a moment.
const KILL_SLACK: Duration = Duration::from_secs(15);

fn limit(act: Act, settings: &Settings) -> Duration {
    let policy = &settings.policy;
    match act {
        Act::Stop => policy.drain + policy.stop_grace + KILL_SLACK,
        Act::Signal => policy.drain + policy.stop_grace + KILL_SLACK,
        // The bulk of the state is copied meanwhile, which takes what it takes.
        Act::Drain => policy.drain + policy.hard_cap,
        Act::Await => policy.clearance.limit,
        Act::Soak => policy.soak + policy.start_deadline,
        Act::Resolve
        | Act::Stage
        | Act::Preflight
        | Act::Rehearse
        | Act::Snapshot
        | Act::Place
        | Act::Switch
        | Act::Start
        | Act::Prove
        | Act::Release
        | Act::Restore
        | Act::SwitchBack => policy.hard_cap,
    }
}
