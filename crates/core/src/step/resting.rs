//! Idle and Watching: orders are accepted, failures of a watched version begin a revert, foreign changes a reseal.

use super::{Ordering, Transition, cutting_over, preparing, wished};
use crate::{
    Act, Aim, Base, DataClass, DataOrder, DataWish, Expectation, Fault, Gate, Generation, Installed,
    Instance, Kept, Kind, Observations, Order, Phase, Preparation, Process, Refusal, Restarts,
    RestoreAfterRelease, Retreat, Run, RunId, Serving, Settings, State, Tree, Verdict, Wish, judge, wants,
};

pub(super) fn ordered(state: &State, ordering: &Ordering<'_>) -> Result<Transition, Refusal> {
    if let Some(parked) = &state.parked {
        return parked_order(state, parked, ordering.order);
    }
    match ordering.order {
        Order::Update { wanted, .. } => {
            let aim = Aim::Wanted(wanted.clone());
            Ok(begin(state, ordering, Kind::Update, DataOrder::Keep, aim))
        }
        Order::Rollback { to, data } => rollback(state, ordering, to, *data),
        Order::Start | Order::Stop => wished(state, ordering.order).map(Transition::to),
        Order::Restart => restart(state),
        Order::Cancel | Order::Hold | Order::Approve { .. } => {
            Err(Refusal::NotNow { why: "no run is under way".into() })
        }
        Order::Retry | Order::RecoverRollback | Order::Accept => {
            Err(Refusal::NotNow { why: "the service is not in maintenance: nothing to recover".into() })
        }
    }
}

/// A switched run on a stopped service: `start` proves it, `cancel` takes it back, everything else waits.
fn parked_order(state: &State, parked: &crate::Cut, order: &Order) -> Result<Transition, Refusal> {
    let mut next = state.clone();
    match order {
        Order::Start => {
            next = wished(state, order)?;
            next.parked = None;
            next.phase = Phase::CuttingOver(parked.clone());
            Ok(Transition::to(next))
        }
        Order::Stop => wished(state, order).map(Transition::to),
        Order::Cancel if parked.run.kind == Kind::TreeChanged => {
            Err(Refusal::Parked { run: parked.run.id.clone() })
        }
        Order::Cancel => {
            let mut cut = parked.clone();
            cut.act = Act::Stop;
            cut.round = cut.round.wrapping_add(1);
            let fault =
                Fault { code: "cancelled".into(), detail: "cancelled while it waited for `start`".into() };
            next.parked = None;
            let causes = vec![crate::Cause { act: parked.act, fault }];
            next.phase = Phase::RollingBack(Retreat {
                cut,
                causes,
                retried: crate::Retried::No,
                revived: crate::Revived::No,
                leave: crate::Leave::AsRuled,
            });
            Ok(Transition::to(next))
        }
        _ => Err(Refusal::Parked { run: parked.run.id.clone() }),
    }
}

fn restart(state: &State) -> Result<Transition, Refusal> {
    if state.wish == Wish::Run && state.restarts != Restarts::Allowed {
        return wished(state, &Order::Start).map(Transition::to);
    }
    let live = match &state.serving {
        Serving::Proven(live) | Serving::Waived(Some(live)) => live.clone(),
        Serving::Unproven | Serving::Waived(None) => {
            return Err(Refusal::NotNow {
                why: "no proven process to restart; it is being started already".into(),
            });
        }
    };
    let mut next = state.clone();
    next.serving =
        if matches!(state.serving, Serving::Waived(_)) { Serving::Waived(None) } else { Serving::Unproven };
    next.leaving = Some(live);
    Ok(Transition::to(next))
}

fn rollback(
    state: &State,
    ordering: &Ordering<'_>,
    to: &Installed,
    wish: DataWish,
) -> Result<Transition, Refusal> {
    if state.current.is_none() || state.current_generation() == Some(to.generation) {
        return Err(Refusal::NothingKept);
    }
    let kept = state.previous.as_ref().filter(|kept| kept.installed == *to);
    let data = match (wish, ordering.settings.class, kept) {
        (DataWish::Keep, DataClass::Migrated, _) => return Err(Refusal::KeepOnMigrated),
        (DataWish::Keep, DataClass::None | DataClass::Neutral, _) => DataOrder::Keep,
        // Older data that could not be taken back if the older version failed.
        (DataWish::Restore, DataClass::None, _) => {
            return Err(Refusal::NotNow {
                why: "no state is declared now, so what is there could not be copied before older data is laid \
                      down: declare `state` as it was, and roll back then"
                    .into(),
            });
        }
        (DataWish::Restore, _, Some(Kept { snapshot, settings, .. }))
            if settings.class != DataClass::None =>
        {
            DataOrder::Restore { snapshot: snapshot.clone() }
        }
        (DataWish::Restore, _, _) => {
            return Err(Refusal::NotNow {
                why: "there is no snapshot for that generation: use `--data keep` where the data allows it"
                    .into(),
            });
        }
    };
    Ok(begin(state, ordering, Kind::Rollback, data, Aim::Staged(to.clone())))
}

fn begin(state: &State, ordering: &Ordering<'_>, kind: Kind, data: DataOrder, aim: Aim) -> Transition {
    let base = match &state.phase {
        Phase::Watching(watch) => Base::Watching(watch.clone()),
        _ => Base::Idle,
    };
    let run = Run {
        id: ordering.run.clone(),
        kind,
        source: state.current.clone(),
        data,
        snapshot: ordering.run.clone(),
        settings: ordering.settings.clone(),
    };
    let mut next = state.clone();
    next.restarts = Restarts::Allowed;
    next.phase = Phase::Preparing(held(preparation(run, aim, base), ordering.order));
    Transition::to(next)
}

/// A preparation at the first act that its aim still needs.
pub(super) fn preparation(run: Run, aim: Aim, base: Base) -> Preparation {
    let act = match &aim {
        Aim::Wanted(_) => Act::Resolve,
        Aim::Resolved(_) => Act::Stage,
        Aim::Staged(_) => Act::Preflight,
    };
    Preparation { run, act, aim, base, gate: Gate::default() }
}

/// The same, held from its beginning if the order says so.
pub(super) fn held(mut preparation: Preparation, order: &Order) -> Preparation {
    if let Order::Update { hold, .. } = order {
        preparation.gate.hold = *hold;
    }
    preparation
}

/// The process of a resting service proved itself once (rule 3).
pub(super) fn ready(
    state: &State,
    expectation: &Expectation,
    observations: &Observations,
) -> Result<Transition, Refusal> {
    let wanted = match wants(state).process {
        Process::Run(installed) => installed.generation == expectation.generation,
        Process::Replace(leaving, installed) => {
            installed.generation == expectation.generation && leaving != expectation.instance
        }
        Process::Stopped | Process::LeaveAlone => false,
    };
    if !wanted {
        return Err(Refusal::Stale);
    }
    let instance = proven(state.current.as_ref(), expectation, observations)?;
    let mut next = state.clone();
    next.serving = match &state.serving {
        Serving::Waived(_) => Serving::Waived(Some(instance)),
        Serving::Unproven | Serving::Proven(_) => Serving::Proven(instance),
    };
    match &state.phase {
        Phase::Maintenance(maintenance)
        | Phase::Preparing(Preparation { base: Base::Maintenance(maintenance), .. }) => {
            Ok(super::maintenance::ended_by_itself(&next, maintenance))
        }
        _ => Ok(Transition::to(next)),
    }
}

/// The instance that the observations prove to run `installed`.
pub(super) fn proven(
    installed: Option<&Installed>,
    expectation: &Expectation,
    observations: &Observations,
) -> Result<Instance, Refusal> {
    let right = installed.is_some_and(|installed| {
        expectation.generation == installed.generation && expectation.version == installed.release.version
    });
    if !right {
        return Err(Refusal::Unproven { why: "the proof is about another generation or version".into() });
    }
    match judge(expectation, observations) {
        Verdict::Verified(evidence) => Ok(evidence.instance().clone()),
        verdict @ (Verdict::Refuted(_) | Verdict::Inconclusive(_)) => {
            Err(Refusal::Unproven { why: verdict.shortfall() })
        }
    }
}

pub(super) fn watch_ended(state: &State, run: &RunId) -> Result<Transition, Refusal> {
    let mut next = state.clone();
    match &mut next.phase {
        Phase::Watching(watch) if watch.run == *run => next.phase = Phase::Idle,
        // A run may wait for longer than the one before it is watched.
        Phase::Preparing(preparation) if matches!(&preparation.base, Base::Watching(watch) if watch.run == *run) =>
        {
            preparation.base = Base::Idle;
        }
        _ => return Err(Refusal::Stale),
    }
    Ok(Transition::to(next))
}

/// The watched version fails: go back where the data allows it, else alarm and keep serving (rules 14 and 17). A revert on
/// its way is the answer to all that is found later.
pub(super) fn degraded(state: &State, run: &RunId, fault: &Fault) -> Result<Transition, Refusal> {
    let reverts = state.previous.as_ref().is_some_and(may_revert);
    let (resting, ended) = match &state.phase {
        // A service that shall not run says nothing about its version.
        _ if state.wish == Wish::Stopped => return Err(Refusal::Stale),
        Phase::Watching(_) => (state.clone(), None),
        // Where there is nothing to go back to, what is being prepared may be the cure.
        Phase::Preparing(preparation)
            if reverts
                && matches!(preparation.base, Base::Watching(_))
                && !matches!(preparation.run.kind, Kind::AutoRevert | Kind::TreeChanged) =>
        {
            let Transition { state, ended } = preparing::faulted(state, preparation, fault);
            (state, ended)
        }
        _ => return Err(Refusal::Stale),
    };
    let Phase::Watching(watch) = resting.phase.clone() else { return Err(Refusal::Stale) };
    let mut next = resting;
    if let Some(kept) = next.previous.clone().filter(|_| reverts) {
        next.serving = Serving::Unproven;
        let data = match kept.settings.class {
            // Neutral is what the target said of itself: whether its writes may stay is looked at before old code runs.
            DataClass::Migrated | DataClass::Neutral => DataOrder::Restore { snapshot: kept.snapshot },
            DataClass::None => DataOrder::Keep,
        };
        let source = next.current.clone();
        let id = run.clone();
        let run =
            Run { snapshot: id.clone(), id, kind: Kind::AutoRevert, source, data, settings: kept.settings };
        let aim = Aim::Staged(kept.installed);
        next.phase = Phase::Preparing(preparation(run, aim, Base::Watching(watch)));
    }
    Ok(Transition { state: next, ended })
}

fn may_revert(kept: &Kept) -> bool {
    kept.settings.class != DataClass::Migrated
        || kept.settings.policy.restore_after_release == RestoreAfterRelease::Allowed
}

/// A sealed tree is not what was sealed (rule 13).
pub(super) fn tree_changed(
    state: &State,
    run: &RunId,
    generation: Generation,
    fault: &Fault,
    settings: &Settings,
) -> Transition {
    match &state.phase {
        Phase::CuttingOver(cut) => {
            let Transition { state, ended } = cutting_over::tree_changed(state, cut, generation, fault);
            if !matches!(state.phase, Phase::Idle) {
                return Transition { state, ended };
            }
            // An accepted process, and its tree is not what was sealed: not served for a moment.
            let Transition { state, .. } = tree_changed(&state, run, generation, fault, settings);
            return Transition { state, ended };
        }
        Phase::Maintenance(_) => return doubted(state, generation),
        Phase::RollingBack(_) => return Transition::to(state.clone()),
        Phase::Preparing(preparation) if super::is_reseal(&preparation.run) => {
            return Transition::to(state.clone());
        }
        Phase::Preparing(preparation) if matches!(preparation.base, Base::Maintenance(_)) => {
            return Transition::to(state.clone());
        }
        Phase::Idle | Phase::Watching(_) | Phase::Preparing(_) => {}
    }
    if state.current_generation() != Some(generation) {
        return Transition::to(state.clone());
    }
    let (mut next, ended) = match &state.phase {
        Phase::Preparing(preparation) => {
            let Transition { state, ended } = preparing::faulted(state, preparation, fault);
            (state, ended)
        }
        _ => (state.clone(), None),
    };
    let base = match &next.phase {
        Phase::Watching(watch) => Base::Watching(watch.clone()),
        _ => Base::Idle,
    };
    let Some(current) = next.current.clone() else { return Transition { state: next, ended } };
    let aim = Aim::Resolved(current.release.clone());
    let run = Run {
        id: run.clone(),
        kind: Kind::TreeChanged,
        source: Some(current),
        data: DataOrder::Keep,
        snapshot: run.clone(),
        settings: settings.clone(),
    };
    next.tree = Tree::Damaged;
    next.phase = Phase::Preparing(preparation(run, aim, base));
    Transition { state: next, ended }
}

/// A tree that maintenance may have counted on is damaged.
fn doubted(state: &State, generation: Generation) -> Transition {
    let mut next = state.clone();
    if let Phase::Maintenance(maintenance) = &mut next.phase {
        maintenance.doubt(generation);
    }
    Transition::to(next)
}
