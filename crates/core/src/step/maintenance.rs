//! Declared maintenance: a person decides. Its only exits are orders, and an old version known to be coherent.

use super::{Ordering, Told, Transition, ending, preparing, resting, rolling_back, wished};
use crate::readings::is_doubted;
use crate::{
    Act, Aim, Base, Cause, Cut, DataOrder, Extent, Generation, Installed, Kind, Maintenance, Order, Phase,
    Refusal, Resolution, Restarts, Run, Serving, Setup, State, Status, Traffic, Tree, Writes,
};

/// Enters maintenance at the end of its run.
pub(super) fn declared(state: &State, maintenance: Maintenance) -> Transition {
    let told = Told::new(Status::RestartFailed, Resolution::Maintenance);
    let Maintenance { run, target, causes, writes, .. } = &maintenance;
    let ended = ending(run, Some(target), told, causes.clone(), *writes);
    let mut next = state.clone();
    next.serving = Serving::Unproven;
    next.leaving = None;
    next.tree = Tree::Sealed;
    next.phase = Phase::Maintenance(maintenance);
    Transition::ending(next, ended)
}

/// Enters maintenance from the middle of a cut.
pub(super) fn of_cut(
    state: &State,
    cut: &Cut,
    coherent: Option<Generation>,
    causes: Vec<Cause>,
) -> Transition {
    let maintenance = Maintenance {
        run: cut.run.clone(),
        target: cut.target.clone(),
        coherent,
        place: cut.place,
        start: cut.start,
        writes: cut.writes,
        coherent_tree: Tree::Sealed,
        causes,
    };
    declared(state, maintenance)
}

/// Back in the maintenance that a run began in; what is coherent may have changed, and its target may have run.
pub(super) fn again(
    state: &State,
    base: &Maintenance,
    coherent: Option<Generation>,
    cut: &Cut,
    causes: Vec<Cause>,
) -> Transition {
    let told = Told::new(Status::RestartFailed, Resolution::Maintenance);
    let ended = ending(&cut.run, Some(&cut.target), told, causes.clone(), cut.writes);
    let mut maintenance = base.clone();
    maintenance.coherent = coherent;
    maintenance.coherent_tree = Tree::Sealed;
    if base.target == cut.target {
        maintenance.start = base.start.max(cut.start);
    }
    maintenance.causes.extend(causes);
    let mut next = state.clone();
    next.serving = Serving::Unproven;
    next.leaving = None;
    next.phase = Phase::Maintenance(maintenance);
    Transition::ending(next, ended)
}

pub(super) fn ordered(
    state: &State,
    maintenance: &Maintenance,
    ordering: &Ordering<'_>,
) -> Result<Transition, Refusal> {
    let mut next = state.clone();
    // What runs after any of these orders is not what ended for good.
    next.restarts = Restarts::Allowed;
    next.phase = match ordering.order {
        Order::Start | Order::Stop => return wished(state, ordering.order).map(Transition::to),
        Order::Cancel | Order::Hold | Order::Approve { .. } => {
            return Err(Refusal::NotNow { why: "no run is under way".into() });
        }
        Order::Restart => {
            return Err(Refusal::NotNow {
                why: "in maintenance: use `recover --retry`, `--rollback` or `--accept`".into(),
            });
        }
        Order::Rollback { .. } => {
            return Err(Refusal::NotNow {
                why: "in maintenance the way back is one, with the data that belongs to it: \
                      use `recover --rollback`"
                    .into(),
            });
        }
        Order::RecoverRollback => {
            if maintenance.run.kind == Kind::TreeChanged {
                return Err(Refusal::NotNow {
                    why: "there is no other version to go back to: use `recover --retry`".into(),
                });
            }
            rolling_back::ordered(maintenance, ordering.run)
        }
        Order::Update { wanted, .. } => {
            // Its data is laid down, and nothing but its tree keeps it from being started: another one may be.
            if !is_doubted(maintenance) {
                in_step(state, maintenance)?;
            }
            let run = Run {
                source: state.current.clone(),
                data: DataOrder::Keep,
                snapshot: ordering.run.clone(),
                ..run_of(maintenance, ordering, Kind::Update)
            };
            let aim = Aim::Wanted(wanted.clone());
            let preparation = resting::preparation(run, aim, Base::Maintenance(maintenance.clone()));
            Phase::Preparing(resting::held(preparation, ordering.order))
        }
        Order::Accept => {
            in_step(state, maintenance)?;
            let Some(current) = state.current.clone() else { return Err(Refusal::NothingKept) };
            next.wish = crate::Wish::Run;
            Phase::CuttingOver(at_start(maintenance, run_of(maintenance, ordering, Kind::Accept), current))
        }
        Order::Retry => {
            next.wish = crate::Wish::Run;
            retry(state, maintenance, ordering, &mut next.tree)?
        }
    };
    Ok(Transition::to(next))
}

fn retry(
    state: &State,
    maintenance: &Maintenance,
    ordering: &Ordering<'_>,
    tree: &mut Tree,
) -> Result<Phase, Refusal> {
    let run = run_of(maintenance, ordering, maintenance.run.kind);
    let target = &maintenance.target;
    if maintenance.run.kind == Kind::TreeChanged {
        *tree = Tree::Damaged;
        let aim = Aim::Resolved(target.release.clone());
        let run = Run { source: state.current.clone(), snapshot: run.id.clone(), ..run };
        return Ok(Phase::Preparing(resting::preparation(run, aim, Base::Maintenance(maintenance.clone()))));
    }
    let ran = state.current.as_ref() == Some(target) && maintenance.coherent == Some(target.generation);
    if ran {
        let cut = at_start(maintenance, run, target.clone());
        let traffic = if cut.start > Extent::Never { Traffic::Released } else { Traffic::Held };
        return Ok(Phase::CuttingOver(Cut { base: Base::Idle, traffic, ..cut }));
    }
    if maintenance.coherent.is_some()
        && maintenance.coherent == maintenance.run.source.as_ref().map(|source| source.generation)
    {
        let aim = Aim::Staged(target.clone());
        let run = Run { snapshot: run.id.clone(), ..run };
        return Ok(Phase::Preparing(resting::preparation(run, aim, Base::Maintenance(maintenance.clone()))));
    }
    Err(not_coherent(maintenance))
}

/// Resumes at Start: the snapshot of the run stays what it was, from the first start of its target on.
fn at_start(maintenance: &Maintenance, run: Run, target: Installed) -> Cut {
    let start = if target == maintenance.target { maintenance.start } else { Extent::Finished };
    Cut {
        run,
        target,
        act: Act::Start,
        base: Base::Maintenance(maintenance.clone()),
        attempts: 1,
        interruptions: 0,
        round: 0,
        switch: Extent::Finished,
        place: maintenance.place,
        start,
        live: None,
        traffic: Traffic::Held,
        writes: Writes::Kept,
        source_tree: Tree::Sealed,
        approved: Setup::default(),
    }
}

fn run_of(maintenance: &Maintenance, ordering: &Ordering<'_>, kind: Kind) -> Run {
    Run { id: ordering.run.clone(), kind, settings: ordering.settings.clone(), ..maintenance.run.clone() }
}

/// Refused unless code and data of what the pointer names are known to fit together.
fn in_step(state: &State, maintenance: &Maintenance) -> Result<(), Refusal> {
    if maintenance.coherent.is_some() && maintenance.coherent == state.current_generation() {
        Ok(())
    } else {
        Err(not_coherent(maintenance))
    }
}

fn not_coherent(maintenance: &Maintenance) -> Refusal {
    let why = if super::is_reseal(&maintenance.run) {
        "the tree is not what was sealed: use `recover --retry`"
    } else if is_doubted(maintenance) {
        "the installed version's tree is not what was sealed: `update` to it has it anew"
    } else {
        "code and data are not known to fit together: only `recover --rollback` is safe"
    };
    Refusal::NotNow { why: why.into() }
}

/// The old version came up by itself and proved itself: whatever is being prepared goes on from Idle.
pub(super) fn ended_by_itself(state: &State, maintenance: &Maintenance) -> Transition {
    let mut next = state.clone();
    match &mut next.phase {
        Phase::Preparing(preparation) => *preparation = preparing::at_rest(preparation),
        phase => *phase = Phase::Idle,
    }
    let told = Told::new(Status::RestartFailed, Resolution::OldVerified);
    let ended = ending(
        &maintenance.run,
        Some(&maintenance.target),
        told,
        maintenance.causes.clone(),
        maintenance.writes,
    );
    Transition::ending(next, ended)
}
