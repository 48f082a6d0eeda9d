//! Going back. Always from the first act; a fault on the way is maintenance.

use super::{Told, Transition, ending, maintenance, resting};
use crate::{
    Act, Base, Cause, Done, Event, Exit, Extent, Fault, Generation, Instance, Kind, LayDown, Leave, Phase,
    Refusal, Resolution, Retreat, Retried, Revived, Serving, Setup, State, Status, Traffic, Wish, Writes,
    act, readings,
};

/// Tries of the whole way back, interruptions included.
const ATTEMPTS_MAX: u8 = 3;

pub(super) fn step(state: &State, retreat: &Retreat, event: &Event) -> Result<Transition, Refusal> {
    match event {
        Event::Finished { ticket, done, .. } if *ticket == retreat.cut.ticket() => {
            finished(state, retreat, done)
        }
        Event::Faulted { ticket, fault, .. } if *ticket == retreat.cut.ticket() => {
            Ok(faulted(state, retreat, fault))
        }
        _ => Err(Refusal::Stale),
    }
}

fn finished(state: &State, retreat: &Retreat, done: &Done) -> Result<Transition, Refusal> {
    let mut next = state.clone();
    let mut retreat = retreat.clone();
    retreat.retried = Retried::No;
    let when = readings::restoring(&retreat);
    let cut = &mut retreat.cut;
    match (cut.act, done) {
        // From here on they may be given up, whether or not anybody is still there to tell.
        (Act::Stop, Done::Done { .. }) => {
            let may_be = readings::touches_data(cut) && when != LayDown::Never;
            if may_be && cut.is_exposed() {
                cut.writes = Writes::GivenUp;
            }
        }
        (Act::Restore, Done::Done { .. }) => {
            if readings::touches_data(cut) && cut.is_exposed() {
                cut.writes = Writes::GivenUp;
            }
        }
        (Act::Restore, Done::Skipped { .. }) if retreat.leave == Leave::Given => {
            return Err(Refusal::Unproven { why: "the older data was ordered and is not laid down".into() });
        }
        // They are as old code can use them, and stay.
        (Act::Restore, Done::Skipped { .. }) => {
            if cut.place == Extent::Never {
                cut.writes = Writes::Kept;
            }
        }
        (Act::SwitchBack, Done::Done { .. }) => {
            next.current = cut.run.source.clone();
            if let Some(transition) = ends_here(&next, &retreat) {
                return Ok(transition);
            }
        }
        (Act::Start, Done::Started { instance }) => cut.live = Some(instance.clone()),
        (Act::Prove, Done::Observed { expectation, observations }) => {
            let instance = resting::proven(cut.run.source.as_ref(), expectation, observations)?;
            if cut.live.as_ref() != Some(&instance) {
                return Err(Refusal::Unproven {
                    why: format!("{instance} is not the process that was started"),
                });
            }
            next.serving = Serving::Proven(instance);
            return Ok(ended(&next, &retreat, Resolution::OldVerified));
        }
        _ => return Err(Refusal::Stale),
    }
    let Some(act) = act::after(&act::ROLLING_BACK, retreat.cut.act) else { return Err(Refusal::Stale) };
    retreat.cut.act = act;
    // Whatever becomes of the daemon from here on, it is not known any more that the pointer is at the target.
    if act == Act::SwitchBack && retreat.cut.switch == Extent::Finished {
        retreat.cut.switch = Extent::Begun;
    }
    next.phase = Phase::RollingBack(retreat);
    Ok(Transition::to(next))
}

/// After SwitchBack some retreats are at their end: back in the maintenance they began in, nothing to go back to, or a
/// service that shall not run.
fn ends_here(state: &State, retreat: &Retreat) -> Option<Transition> {
    if let Base::Maintenance(base) = &retreat.cut.base {
        let mut next = state.clone();
        next.phase = Phase::Maintenance(base.clone());
        next.serving = Serving::Unproven;
        let told = Told::new(told(retreat), Resolution::Maintenance);
        let ended = ending(
            &retreat.cut.run,
            Some(&retreat.cut.target),
            told,
            retreat.causes.clone(),
            retreat.cut.writes,
        );
        return Some(Transition { state: next, ended: Some(ended) });
    }
    if retreat.cut.run.source.is_none() {
        return Some(ended(state, retreat, Resolution::None));
    }
    (state.wish == Wish::Stopped).then(|| ended(state, retreat, Resolution::OldUnverified))
}

fn ended(state: &State, retreat: &Retreat, resolution: Resolution) -> Transition {
    let mut next = state.clone();
    next.phase = Phase::Idle;
    if retreat.cut.run.kind == Kind::AutoRevert {
        next.previous = None;
    }
    let told = Told::new(told(retreat), resolution);
    let cut = &retreat.cut;
    Transition::ending(next, ending(&cut.run, Some(&cut.target), told, retreat.causes.clone(), cut.writes))
}

/// `package_update_failed` only if the switch was never begun, or there never was anything else (rule 15).
pub(super) fn told(retreat: &Retreat) -> Status {
    if retreat.cut.switch == Extent::Never || retreat.cut.run.source.is_none() {
        Status::UpdateFailed
    } else {
        Status::RestartFailed
    }
}

fn faulted(state: &State, retreat: &Retreat, fault: &Fault) -> Transition {
    let mut retreat = retreat.clone();
    let act = retreat.cut.act;
    retreat.causes.push(Cause { act, fault: fault.clone() });
    if retreat.retried == Retried::No && matches!(act, Act::Stop | Act::Restore | Act::SwitchBack) {
        retreat.retried = Retried::Once;
        retreat.cut.round = retreat.cut.round.wrapping_add(1);
        let mut next = state.clone();
        next.phase = Phase::RollingBack(retreat);
        return Transition::to(next);
    }
    declared(state, retreat)
}

/// Maintenance; the old generation is coherent if only its start or its proof failed.
fn declared(state: &State, retreat: Retreat) -> Transition {
    let coherent = coherent(state, &retreat);
    let Retreat { cut, causes, .. } = retreat;
    if let Base::Maintenance(base) = &cut.base {
        return maintenance::again(state, base, coherent, &cut, causes);
    }
    maintenance::of_cut(state, &cut, coherent, causes)
}

fn coherent(state: &State, retreat: &Retreat) -> Option<Generation> {
    let source = retreat.cut.run.source.as_ref().map(|source| source.generation);
    // Old code cannot go on with what was written, and it must not be given up: the target's is the data still.
    let is_the_targets = retreat.cut.act == Act::Restore && readings::restoring(retreat) == LayDown::Never;
    if is_the_targets && !matches!(retreat.cut.base, Base::Maintenance(_)) {
        return (retreat.cut.switch == Extent::Finished).then_some(retreat.cut.target.generation);
    }
    let started = matches!(retreat.cut.act, Act::Start | Act::Prove);
    source.filter(|source| started && state.current_generation() == Some(*source))
}

/// The process that is being proven went. If the target was never started it is the old one, which had been asked to
/// end before the run turned round: it is started once.
pub(super) fn exited(state: &State, retreat: &Retreat, instance: &Instance, exit: &Exit) -> Transition {
    if retreat.cut.live.as_ref() != Some(instance) {
        return Transition::to(state.clone());
    }
    let mut retreat = retreat.clone();
    retreat.cut.live = None;
    if retreat.cut.start == Extent::Never && retreat.revived == Revived::No {
        retreat.revived = Revived::Once;
        retreat.cut.act = Act::Start;
        retreat.cut.round = retreat.cut.round.wrapping_add(1);
        let mut next = state.clone();
        next.phase = Phase::RollingBack(retreat);
        return Transition::to(next);
    }
    let fault = Fault { code: "exited".into(), detail: format!("the old version ended: {exit:?}") };
    retreat.causes.push(Cause { act: Act::Prove, fault });
    declared(state, retreat)
}

/// Resuming in the middle could put old code on migrated data: always from the first act, three times in all.
pub(super) fn recovered(state: &State, retreat: &Retreat) -> Transition {
    let mut retreat = retreat.clone();
    if retreat.cut.attempts >= ATTEMPTS_MAX {
        let fault =
            Fault { code: "interrupted".into(), detail: "going back was interrupted three times".into() };
        retreat.causes.push(Cause { act: retreat.cut.act, fault });
        return declared(state, retreat);
    }
    retreat.cut.attempts += 1;
    retreat.cut.act = Act::Stop;
    retreat.cut.live = None;
    retreat.retried = Retried::No;
    retreat.cut.round = retreat.cut.round.wrapping_add(1);
    let mut next = state.clone();
    next.serving = Serving::Unproven;
    next.phase = Phase::RollingBack(retreat);
    Transition::to(next)
}

/// The retreat that a person orders from maintenance: the whole chain from its first act.
pub(super) fn ordered(maintenance: &crate::Maintenance, run: &crate::RunId) -> Phase {
    let mut order = maintenance.run.clone();
    order.id = run.clone();
    order.kind = Kind::Rollback;
    let cut = crate::Cut {
        run: order,
        target: maintenance.target.clone(),
        act: Act::Stop,
        base: Base::Idle,
        attempts: 1,
        interruptions: 0,
        round: 0,
        switch: Extent::Finished,
        place: maintenance.place,
        start: maintenance.start,
        live: None,
        traffic: Traffic::Released,
        writes: Writes::Kept,
        source_tree: crate::Tree::Sealed,
        approved: Setup::default(),
    };
    // A person's word is leave to give up what was written, even if old code could go on with it as far as anybody can tell.
    let leave = Leave::Given;
    Phase::RollingBack(Retreat { cut, causes: Vec::new(), retried: Retried::No, revived: Revived::No, leave })
}
