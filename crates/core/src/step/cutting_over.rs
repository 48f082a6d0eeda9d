//! Past the cut, going forward.

use super::{Told, Transition, ending, maintenance, resting};
use crate::{
    Act, Base, Boot, Cause, Cut, DataClass, Done, Event, Expectation, Extent, Fault, Generation, Instance,
    Kept, Kind, LayDown, Leave, Observations, Phase, Refusal, Resolution, RestoreAfterRelease, Retreat,
    Retried, Revived, RollbackRule, Serving, State, Status, Traffic, Tree, Watch, Wish, Writes, act,
    readings,
};

/// Whether the process that a fault is about still lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Alive,
    Gone,
}

/// Interruptions that do not count as attempts: a daemon that dies of the act itself.
const INTERRUPTIONS_MAX: u8 = 5;
/// Forward acts are attempted at most twice.
pub(super) const ATTEMPTS_MAX: u8 = 2;

pub(super) fn step(state: &State, cut: &Cut, event: &Event) -> Result<Transition, Refusal> {
    match event {
        Event::Finished { ticket, done, .. } if *ticket == cut.ticket() => finished(state, cut, done),
        Event::Faulted { ticket, fault, .. } if *ticket == cut.ticket() => {
            Ok(faulted(state, cut, fault, Process::Alive))
        }
        Event::SnapshotStale { ticket } if *ticket == cut.ticket() && cut.act == Act::Start => {
            Ok(stale(state, cut))
        }
        Event::Released { ticket } if *ticket == cut.ticket() && cut.act == Act::Release => {
            released(state, cut)
        }
        _ => Err(Refusal::Stale),
    }
}

fn finished(state: &State, cut: &Cut, done: &Done) -> Result<Transition, Refusal> {
    let mut next = state.clone();
    let mut cut = cut.clone();
    match (cut.act, done) {
        (Act::Stop | Act::Signal, Done::Done { .. }) => {
            next.serving = Serving::Unproven;
            next.leaving = None;
        }
        (Act::Snapshot, Done::Done { .. } | Done::Skipped { .. }) => {}
        (Act::Place, Done::Done { .. }) => cut.place = Extent::Finished,
        // What a person ordered was not done.
        (Act::Place, Done::Skipped { .. }) if readings::placing(&cut.run) == LayDown::Always => {
            return Err(Refusal::Unproven { why: "the older data was ordered and is not laid down".into() });
        }
        // What is there stays: nothing was laid down.
        (Act::Place, Done::Skipped { .. }) => {
            cut.place = Extent::Never;
            cut.writes = Writes::Kept;
        }
        (Act::Switch, Done::Done { .. }) => {
            cut.switch = Extent::Finished;
            next.current = Some(cut.target.clone());
            if let Some(transition) = parks(&next, &cut) {
                return Ok(transition);
            }
        }
        (Act::Start, Done::Started { instance }) => {
            cut.start = Extent::Finished;
            cut.live = Some(instance.clone());
        }
        (Act::Prove, Done::Observed { expectation, observations }) => {
            next.serving = Serving::Proven(proven(&cut, expectation, observations)?);
            if cut.run.kind == Kind::Accept {
                return Ok(committed(&next, &cut));
            }
        }
        (Act::Soak, Done::Observed { expectation, observations }) => {
            next.serving = Serving::Proven(proven(&cut, expectation, observations)?);
        }
        _ => return Err(Refusal::Stale),
    }
    advanced(next, cut)
}

/// On to the next act, or the commit after the last. An act outside the order commits nothing.
fn advanced(mut next: State, mut cut: Cut) -> Result<Transition, Refusal> {
    let order = cut.order();
    if order.last() == Some(&cut.act) {
        return Ok(committed(&next, &cut));
    }
    let act = act::after(&order, cut.act).ok_or(Refusal::Stale)?;
    // A daemon that dies of an act does not finish it. Of the proof on, acts are gone through again and again.
    if !matches!(cut.act, Act::Prove | Act::Release | Act::Soak) {
        cut.interruptions = 0;
    }
    match act {
        Act::Switch => cut.switch = cut.switch.max(Extent::Begun),
        // From here on it may be laid down, whether or not anybody is still there to tell.
        Act::Place => {
            cut.place = cut.place.max(Extent::Begun);
            if readings::placing(&cut.run) != LayDown::Never {
                cut.writes = Writes::GivenUp;
            }
        }
        _ => {}
    }
    cut.act = act;
    next.phase = Phase::CuttingOver(cut);
    Ok(Transition::to(next))
}

/// The observations must be about the instance that this run started.
fn proven(cut: &Cut, expectation: &Expectation, observations: &Observations) -> Result<Instance, Refusal> {
    let instance = resting::proven(Some(&cut.target), expectation, observations)?;
    if cut.live.as_ref() == Some(&instance) {
        Ok(instance)
    } else {
        Err(Refusal::Unproven { why: format!("{instance} is not the process that this run started") })
    }
}

/// Rule 12 (and 13 on a stopped service): a switched run of a stopped service is parked, never started. What was parked
/// before its tree was sealed again goes on under its own name, and the sealing ends.
fn parks(state: &State, cut: &Cut) -> Option<Transition> {
    let mut next = state.clone();
    let scheduled = Told::new(Status::RestartScheduled, Resolution::None);
    let (mut waiting, ended) = match next.parked.take() {
        Some(parked) => {
            let ended = ending(&cut.run, Some(&cut.target), scheduled, Vec::new(), cut.writes);
            (Cut { target: cut.target.clone(), ..parked }, Some(ended))
        }
        None => (Cut { act: Act::Start, switch: Extent::Finished, ..cut.clone() }, None),
    };
    if super::is_reseal(&cut.run) {
        next.tree = Tree::Sealed;
    }
    if next.wish == Wish::Run || cut.run.kind == Kind::Accept {
        let ended = ended?;
        next.phase = Phase::CuttingOver(waiting);
        return Some(Transition { state: next, ended: Some(ended) });
    }
    next.serving = Serving::Unproven;
    next.phase = Phase::Idle;
    if super::is_reseal(&cut.run)
        && let Base::Watching(watch) = &cut.base
    {
        next.phase = Phase::Watching(watch.clone());
    }
    waiting.base = Base::Idle;
    next.last = Some(ending(&waiting.run, Some(&waiting.target), scheduled, Vec::new(), waiting.writes));
    next.parked = Some(waiting);
    Some(Transition { state: next, ended })
}

fn released(state: &State, cut: &Cut) -> Result<Transition, Refusal> {
    if !matches!(&state.serving, Serving::Proven(live) if cut.live.as_ref() == Some(live)) {
        return Err(Refusal::Unproven { why: "nothing proven to release the traffic to".into() });
    }
    let mut cut = cut.clone();
    cut.traffic = Traffic::Released;
    advanced(state.clone(), cut)
}

/// The state moved on while the old version still could write: take the snapshot again (rule 1).
fn stale(state: &State, cut: &Cut) -> Transition {
    let mut next = state.clone();
    let mut cut = cut.clone();
    cut.act = cut.order()[0];
    cut.start = Extent::Never;
    cut.live = None;
    cut.round = cut.round.wrapping_add(1);
    next.serving = Serving::Unproven;
    next.phase = Phase::CuttingOver(cut);
    Transition::to(next)
}

/// The run is complete: its record is written, nothing is deleted (rule 6).
fn committed(state: &State, cut: &Cut) -> Transition {
    let mut next = state.clone();
    next.current = Some(cut.target.clone());
    next.tree = Tree::Sealed;
    let watch = Watch { run: cut.run.id.clone(), settings: cut.run.settings.clone() };
    let verified = Told::new(Status::RestartVerified, Resolution::None);
    let old = Told::new(Status::RestartFailed, Resolution::OldVerified);
    let told = match cut.run.kind {
        Kind::Update | Kind::Rollback => {
            next.previous = cut.run.source.clone().map(|installed| Kept {
                installed,
                snapshot: cut.run.snapshot.clone(),
                settings: cut.run.settings.clone(),
            });
            next.phase = Phase::Watching(watch);
            verified
        }
        Kind::TreeChanged => {
            next.phase = Phase::Watching(watch);
            verified
        }
        Kind::AutoRevert => {
            next.skipped.extend(cut.run.source.as_ref().map(|source| source.release.clone()));
            next.previous = None;
            next.phase = Phase::Idle;
            old
        }
        Kind::Accept if accepts_target(cut) => {
            next.phase = Phase::Watching(watch);
            verified
        }
        Kind::Accept => {
            next.phase = Phase::Idle;
            old
        }
    };
    Transition::ending(next, ending(&cut.run, Some(&cut.target), told, Vec::new(), cut.writes))
}

/// `accept` is a success of the update only if what it started is what the update meant to install.
fn accepts_target(cut: &Cut) -> bool {
    matches!(&cut.base, Base::Maintenance(maintenance) if maintenance.target == cut.target)
}

/// A fault past the cut: back, or maintenance where going back would lose or break data.
pub(super) fn faulted(state: &State, cut: &Cut, fault: &Fault, process: Process) -> Transition {
    let causes = vec![Cause { act: cut.act, fault: fault.clone() }];
    let coherent = (cut.switch == Extent::Finished).then_some(cut.target.generation);
    match cut.run.kind {
        Kind::Accept => accept_faulted(state, cut, causes, process),
        Kind::TreeChanged => maintenance::of_cut(state, cut, None, causes),
        Kind::Update | Kind::Rollback | Kind::AutoRevert if forbids_rollback(cut) => {
            maintenance::of_cut(state, cut, coherent, causes)
        }
        Kind::Update | Kind::Rollback | Kind::AutoRevert => retreat(state, cut, causes),
    }
}

fn retreat(state: &State, cut: &Cut, causes: Vec<Cause>) -> Transition {
    let mut next = state.clone();
    let mut cut = cut.clone();
    cut.act = Act::Stop;
    cut.live = None;
    cut.attempts = 1;
    cut.interruptions = 0;
    cut.round = cut.round.wrapping_add(1);
    next.serving = Serving::Unproven;
    let leave = Leave::AsRuled;
    next.phase =
        Phase::RollingBack(Retreat { cut, causes, retried: Retried::No, revived: Revived::No, leave });
    Transition::to(next)
}

/// A person accepted an incomplete proof: what lives serves, told as what it is; nothing alive is maintenance again.
fn accept_faulted(state: &State, cut: &Cut, causes: Vec<Cause>, process: Process) -> Transition {
    if process == Process::Gone || cut.act != Act::Prove || cut.live.is_none() {
        let Base::Maintenance(base) = &cut.base else {
            return maintenance::of_cut(state, cut, Some(cut.target.generation), causes);
        };
        return maintenance::again(state, base, Some(cut.target.generation), cut, causes);
    }
    let mut next = state.clone();
    next.serving = Serving::Waived(cut.live.clone());
    next.phase = Phase::Idle;
    let told = Told::new(Status::RestartFailed, Resolution::AcceptedUnverified);
    Transition::ending(next, ending(&cut.run, Some(&cut.target), told, causes, cut.writes))
}

/// Whether this run may not go back on its own.
fn forbids_rollback(cut: &Cut) -> bool {
    let policy = &cut.run.settings.policy;
    let loses_writes = cut.run.settings.class == DataClass::Migrated
        && cut.is_exposed()
        && policy.restore_after_release == RestoreAfterRelease::Refused;
    if cut.run.source.is_none() {
        return loses_writes;
    }
    let refused = policy.rollback == RollbackRule::Never && cut.switch == Extent::Finished;
    let nowhere = cut.source_tree == Tree::Damaged && cut.switch == Extent::Finished;
    loses_writes || refused || nowhere
}

/// A tree changed during the cut: a fault of the target, or a source that cannot be gone back to.
pub(super) fn tree_changed(state: &State, cut: &Cut, generation: Generation, fault: &Fault) -> Transition {
    if cut.target.generation == generation {
        let Transition { mut state, ended } = faulted(state, cut, fault, Process::Alive);
        if let Phase::Maintenance(maintenance) = &mut state.phase {
            maintenance.doubt(generation);
        }
        return Transition { state, ended };
    }
    let mut next = state.clone();
    if cut.run.source.as_ref().is_some_and(|source| source.generation == generation)
        && let Phase::CuttingOver(cut) = &mut next.phase
    {
        cut.source_tree = Tree::Damaged;
    }
    Transition::to(next)
}

/// The daemon began again in the middle of the cut. An interruption is no evidence against the target.
pub(super) fn recovered(state: &State, cut: &Cut, boot: Boot, live: Option<&Instance>) -> Transition {
    let proving = matches!(cut.act, Act::Prove | Act::Release | Act::Soak);
    let alive = cut.live.is_some() && cut.live.as_ref() == live;
    let counts = boot == Boot::New || (proving && !alive);
    let mut next_cut = cut.clone();
    let over = if counts {
        next_cut.attempts = next_cut.attempts.saturating_add(1);
        cut.attempts >= ATTEMPTS_MAX
    } else {
        next_cut.interruptions = next_cut.interruptions.saturating_add(1);
        cut.interruptions >= INTERRUPTIONS_MAX
    };
    let fault = Fault {
        code: "interrupted".into(),
        detail: format!(
            "interrupted too often ({} attempts, {} interruptions)",
            cut.attempts, cut.interruptions
        ),
    };
    if cut.run.kind == Kind::Accept {
        return faulted(state, cut, &fault, Process::Gone);
    }
    if over {
        if !forbids_rollback(cut) && !super::is_reseal(&cut.run) {
            return faulted(state, cut, &fault, Process::Gone);
        }
        next_cut.attempts = cut.attempts;
        next_cut.interruptions = cut.interruptions;
    }
    if proving {
        next_cut.act = if alive { Act::Prove } else { Act::Start };
        if !alive {
            next_cut.live = None;
        }
    }
    next_cut.round = next_cut.round.wrapping_add(1);
    let mut next = state.clone();
    next.phase = Phase::CuttingOver(next_cut);
    Transition::to(next)
}
