//! Before the cut: nothing has changed, every fault leads back to the base.

use super::{Told, Transition, ending, wished};
use crate::{
    Act, Aim, Approval, Awaited, Base, Cause, Cut, Done, Event, Extent, Fault, Hold, Installed, Kind, Look,
    Maintenance, Opening, Order, Phase, PlanId, Preparation, Refusal, Resolution, Restarts, Setup, State,
    Status, Traffic, Tree, Wish, Writes, act,
};

pub(super) fn step(state: &State, preparation: &Preparation, event: &Event) -> Result<Transition, Refusal> {
    let under_way = |ticket: &crate::Ticket| *ticket == preparation.ticket();
    match event {
        Event::Finished { ticket, done, .. } if under_way(ticket) => finished(state, preparation, done),
        Event::Faulted { ticket, fault, .. } if under_way(ticket) => Ok(faulted(state, preparation, fault)),
        _ => Err(Refusal::Stale),
    }
}

pub(super) fn ordered(
    state: &State,
    preparation: &Preparation,
    order: &Order,
) -> Result<Transition, Refusal> {
    match order {
        Order::Start | Order::Stop => wished(state, order).map(Transition::to),
        Order::Cancel if !super::is_reseal(&preparation.run) => {
            let fault =
                Fault { code: "cancelled".into(), detail: "cancelled before anything changed".into() };
            Ok(faulted(state, preparation, &fault))
        }
        Order::Cancel => Err(Refusal::NotNow {
            why: "the running tree is damaged: resealing it cannot be cancelled; `stop` stops the service"
                .into(),
        }),
        Order::Hold => held(preparation).map(|next| to(state, next)),
        Order::Approve { plan } => approved(preparation, plan).map(|next| to(state, next)),
        Order::Update { .. }
        | Order::Rollback { .. }
        | Order::Restart
        | Order::Retry
        | Order::RecoverRollback
        | Order::Accept => Err(in_the_way(preparation)),
    }
}

/// What is under way already, and what ends it where something does.
fn in_the_way(preparation: &Preparation) -> Refusal {
    let run = preparation.run.id.clone();
    if super::is_reseal(&preparation.run) {
        return Refusal::AlreadyRunning { run };
    }
    match (preparation.act, preparation.awaited()) {
        (Act::Await, Awaited::Approval) => Refusal::Awaiting { run },
        _ => Refusal::Preparing { run },
    }
}

fn to(state: &State, preparation: Preparation) -> Transition {
    let mut next = state.clone();
    next.phase = Phase::Preparing(preparation);
    Transition::to(next)
}

/// From here on it waits for a person's word, and one that was given counts no more. Nothing was stopped yet.
fn held(preparation: &Preparation) -> Result<Preparation, Refusal> {
    let why = match preparation.run.kind {
        Kind::AutoRevert => "a version that fails is being taken back: that is not held",
        Kind::TreeChanged => "the running tree is damaged: sealing it again is not held",
        Kind::Update | Kind::Rollback | Kind::Accept => "",
    };
    if !why.is_empty() {
        return Err(Refusal::NotNow { why: why.into() });
    }
    if preparation.awaited() == Awaited::Approval {
        return Err(Refusal::AlreadySo);
    }
    let mut next = preparation.clone();
    next.gate.hold = Hold::Asked;
    next.gate.approval = Approval::Missing;
    Ok(if matches!(next.act, Act::Await | Act::Drain) { next.again(Act::Await) } else { next })
}

/// A person's word on exactly what is prepared. It is looked at once more before anything stops.
fn approved(preparation: &Preparation, plan: &PlanId) -> Result<Preparation, Refusal> {
    let not_now = |why: &str| Err(Refusal::NotNow { why: why.into() });
    match (preparation.awaited(), preparation.plan()) {
        (Awaited::Approval, Some(now)) if preparation.act == Act::Await && now != *plan => {
            Err(Refusal::AnotherPlan { plan: now })
        }
        (Awaited::Approval, Some(_)) if preparation.act == Act::Await => {
            let mut next = preparation.clone();
            next.gate.approval = Approval::Given;
            next.gate.look = Look::Stale;
            // What it missed while nobody had approved it was no window of its own.
            next.gate.opening = Opening::Unseen;
            next.gate.moved.clear();
            Ok(next.again(Act::Await))
        }
        (Awaited::Approval, _) => not_now(
            "it is not prepared yet: what is approved is looked at first, and its status shows when it waits",
        ),
        _ if preparation.gate.approval == Approval::Given => Err(Refusal::AlreadySo),
        _ => not_now("the run does not wait for an approval"),
    }
}

/// The old version serves again, so that stopping it takes what it always takes.
pub(super) fn at_rest(preparation: &Preparation) -> Preparation {
    let next = Preparation { base: Base::Idle, ..preparation.clone() };
    let is_past = matches!(next.act, Act::Await | Act::Drain) && next.awaited() != Awaited::Nothing;
    if is_past { next.again(Act::Await) } else { next }
}

/// Who was away from a run that waits, or that has waited, does not know how long.
pub(super) fn recovered(preparation: &Preparation) -> Preparation {
    let mut next = preparation.clone();
    let is_kept_waiting = next.needs_approval() || !next.windows().is_empty();
    if !is_kept_waiting || !matches!(next.act, Act::Rehearse | Act::Await | Act::Drain) {
        return next;
    }
    next.gate.look = Look::Stale;
    // On the way to the stop it takes the gate once more.
    if next.act == Act::Drain { next.again(Act::Await) } else { next }
}

fn finished(state: &State, preparation: &Preparation, done: &Done) -> Result<Transition, Refusal> {
    let mut next = preparation.clone();
    match (preparation.act, done) {
        (Act::Resolve, Done::AlreadyCurrent { release }) => {
            return already_current(state, preparation, release);
        }
        (Act::Resolve, Done::Resolved { release }) => next.aim = Aim::Resolved(release.clone()),
        (Act::Stage, Done::Staged { installed }) => {
            if preparation.aim != Aim::Resolved(installed.release.clone()) {
                return Err(Refusal::Unproven { why: "another release was staged than was resolved".into() });
            }
            next.aim = Aim::Staged(installed.clone());
        }
        (Act::Preflight, Done::Checked(checked)) => match preparation.refusal(checked) {
            Some(fault) => return Ok(faulted(state, preparation, &fault)),
            None => next = preparation.looked(checked),
        },
        (Act::Rehearse, Done::Mendable { fault }) => return Ok(mendable(state, next, fault)),
        // What ended in its rehearsal is not switched to because another one could not be.
        (Act::Rehearse, Done::Skipped { .. }) if let Some(fault) = &preparation.gate.mendable => {
            return Ok(faulted(state, preparation, fault));
        }
        (Act::Await, Done::Skipped { .. } | Done::Done { .. })
            if preparation.awaited() == Awaited::Approval =>
        {
            return Err(Refusal::Unproven { why: "nobody has approved it".into() });
        }
        // It was waited for.
        (Act::Await, Done::Done { .. }) => (next.gate.look, next.gate.opening) = (Look::Stale, Opening::Seen),
        (Act::Rehearse | Act::Await | Act::Drain, Done::Skipped { .. })
        | (Act::Rehearse | Act::Drain, Done::Done { .. }) => {}
        (Act::Drain, Done::Missed { .. }) => return Ok(to(state, missed(next))),
        (Act::Await, Done::Missed { .. }) if matches!(next.awaited(), Awaited::Window(_)) => {
            return Ok(to(state, missed(next)));
        }
        _ => return Err(Refusal::Stale),
    }
    if next.act == Act::Await && next.gate.look == Look::Stale {
        return Ok(to(state, next.again(Act::Preflight)));
    }
    let Some(act) = act::after(&act::PREPARING, preparation.act) else {
        return cut(state, preparation);
    };
    next.act = act;
    Ok(to(state, next))
}

/// The target's own repair may help: that is for another look to find out. It is tried once.
fn mendable(state: &State, mut preparation: Preparation, fault: &Fault) -> Transition {
    if preparation.gate.mendable.is_some() {
        return faulted(state, &preparation, fault);
    }
    preparation.gate.mendable = Some(fault.clone());
    to(state, preparation.again(Act::Preflight))
}

/// A window opened and closed, and nothing could be stopped in it: the next is waited for.
fn missed(mut preparation: Preparation) -> Preparation {
    preparation.gate.opening = Opening::Missed;
    preparation.again(Act::Await)
}

/// Nothing to do: no restart, nothing written but this.
fn already_current(
    state: &State,
    preparation: &Preparation,
    release: &crate::Release,
) -> Result<Transition, Refusal> {
    let current = state.current.as_ref().filter(|installed| installed.release == *release);
    if current.is_none()
        || matches!(preparation.base, Base::Maintenance(_))
        || super::is_reseal(&preparation.run)
    {
        return Err(Refusal::Unproven {
            why: "the release is not the current one, or it is not in order".into(),
        });
    }
    let told = Told { status: None, resolution: base_resolution(state, &preparation.base) };
    let ended = ending(&preparation.run, current, told, Vec::new(), Writes::Kept);
    let mut state = state.clone();
    state.phase = base_phase(&preparation.base);
    Ok(Transition { state, ended: Some(ended) })
}

/// The cut: from here on the world changes.
fn cut(state: &State, preparation: &Preparation) -> Result<Transition, Refusal> {
    let Aim::Staged(target) = &preparation.aim else {
        return Err(Refusal::Unproven { why: "nothing is staged".into() });
    };
    let mut state = state.clone();
    if !super::is_reseal(&preparation.run) {
        state.parked = None;
    }
    state.restarts = Restarts::Allowed;
    state.phase = Phase::CuttingOver(first_act(preparation, target));
    Ok(Transition::to(state))
}

fn first_act(preparation: &Preparation, target: &Installed) -> Cut {
    let run = preparation.run.clone();
    let acts = act::cutting_over(&run.settings, &run.data);
    Cut {
        act: acts[0],
        run,
        target: target.clone(),
        base: preparation.base.clone(),
        attempts: 1,
        interruptions: 0,
        round: 0,
        switch: Extent::Never,
        place: Extent::Never,
        start: Extent::Never,
        live: None,
        traffic: Traffic::Held,
        writes: Writes::Kept,
        source_tree: Tree::Sealed,
        approved: match preparation.gate.approval {
            Approval::Given => preparation.gate.setup.clone(),
            Approval::Missing => Setup::default(),
        },
    }
}

/// Back to the base, nothing changed.
pub(super) fn faulted(state: &State, preparation: &Preparation, fault: &Fault) -> Transition {
    let causes = vec![Cause { act: preparation.act, fault: fault.clone() }];
    if super::is_reseal(&preparation.run)
        && let Some(damaged) = &preparation.run.source
    {
        let maintenance = Maintenance {
            run: preparation.run.clone(),
            target: damaged.clone(),
            coherent: None,
            place: Extent::Never,
            start: Extent::Never,
            writes: Writes::Kept,
            coherent_tree: crate::Tree::Sealed,
            causes,
        };
        return super::maintenance::declared(state, maintenance);
    }
    let target = match &preparation.aim {
        Aim::Staged(installed) => Some(installed),
        Aim::Wanted(_) | Aim::Resolved(_) => None,
    };
    let told = Told::new(Status::UpdateFailed, base_resolution(state, &preparation.base));
    let ended = ending(&preparation.run, target, told, causes, Writes::Kept);
    let mut next = state.clone();
    next.phase = base_phase(&preparation.base);
    if matches!(preparation.base, Base::Maintenance(_)) {
        return Transition { state: next, ended: Some(ended) };
    }
    Transition::ending(next, ended)
}

/// How a run that changed nothing is resolved: by what serves, if it has proven itself.
fn base_resolution(state: &State, base: &Base) -> Resolution {
    match base {
        Base::Maintenance(_) => Resolution::Maintenance,
        Base::Idle | Base::Watching(_) => match (&state.serving, &state.current, state.wish) {
            (crate::Serving::Proven(_), _, _) => Resolution::OldVerified,
            (_, None, _) | (_, _, Wish::Stopped) => Resolution::None,
            _ => Resolution::OldUnverified,
        },
    }
}

/// The resting phase that a base stands for.
pub(super) fn base_phase(base: &Base) -> Phase {
    match base {
        Base::Idle => Phase::Idle,
        Base::Watching(watch) => Phase::Watching(watch.clone()),
        Base::Maintenance(maintenance) => Phase::Maintenance(maintenance.clone()),
    }
}
