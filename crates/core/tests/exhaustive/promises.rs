//! What must hold of every state and of every transition, each promise by its name. Knows the core's public types and the
//! words of the documentation; must not call what it checks to find out what is right.

use super::alphabet::{Case, Nature, ticket};
use super::gate;
use cutover_core::{
    Act, Aim, Base, Cut, DataClass, DataOrder, DataWish, Done, Effect, Event, Exit, Extent, Generation, Hold,
    Installed, Instance, Kind, LayDown, Leave, Maintenance, Order, Phase, Posture, Preparation, Process,
    Refusal, Restarts, RestoreAfterRelease, Retreat, Run, RunId, Serving, State, Status, Traffic, Transition,
    Tree, Wanted, Wish, Writes, patience, posture, report, step, wants,
};

/// One event applied to one state.
pub(crate) struct Taken<'a> {
    pub(crate) before: &'a State,
    pub(crate) case: &'a Case,
    pub(crate) result: &'a Result<Transition, Refusal>,
}

impl Taken<'_> {
    pub(crate) fn after(&self) -> Option<&State> {
        self.result.as_ref().ok().map(|transition| &transition.state)
    }

    /// The instance that the event's observations are about.
    fn proven(&self) -> Option<(&Instance, Generation)> {
        match &self.case.event {
            Event::Finished { done: Done::Observed { expectation, .. }, .. }
            | Event::Ready { expectation, .. }
                if self.case.nature == Nature::Proof =>
            {
                Some((&expectation.instance, expectation.generation))
            }
            _ => None,
        }
    }
}

pub(crate) type Broken = Result<(), String>;

/// A promise about every transition.
pub(crate) type Move = (&'static str, fn(&Taken<'_>) -> Broken);
/// A promise about every state.
pub(crate) type Place = (&'static str, fn(&State) -> Broken);

pub(crate) fn hold(holds: bool, otherwise: &str) -> Broken {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

pub(crate) const MOVES: [Move; 32] = [
    ("a stale answer is refused as stale", a_stale_answer_is_refused),
    ("flawed observations prove nothing", flawed_observations_prove_nothing),
    ("readiness counts only where a process is wanted", readiness_counts_where_wanted),
    ("only what was proven is served", only_what_was_proven_is_served),
    ("nothing is served past its exit", nothing_is_served_past_its_exit),
    ("verified is the end of a proven target", verified_is_the_end_of_a_proven_target),
    ("an automatic revert is never verified", an_automatic_revert_is_never_verified),
    ("update failed means that the pointer is where it was", update_failed_means_untouched),
    ("a fault never leads forward", a_fault_never_leads_forward),
    ("a fault before the cut changes nothing", a_fault_before_the_cut_changes_nothing),
    ("an interruption never leads forward", an_interruption_never_leads_forward),
    ("going back begins again at its first act", going_back_begins_again),
    ("every run that stops being open has ended", every_run_ends),
    ("past the cut orders are refused", past_the_cut_orders_are_refused),
    ("data of a migrated service is never kept by a rollback", keep_is_refused_on_migrated),
    ("older data that a person ordered is laid down", ordered_data_is_laid_down),
    ("the pointer follows Switch and SwitchBack only", the_pointer_follows_its_acts),
    ("given up writes are told", given_up_writes_are_told),
    ("a person gives the writes up by `recover --rollback`, and nobody else", leave_is_given_by_a_person),
    ("what cannot be reverted is served on", what_cannot_be_reverted_is_served_on),
    ("a revert on its way is not begun anew", a_revert_is_not_begun_anew),
    ("a changed tree is not served on", a_changed_tree_is_not_served_on),
    (
        "a process is not started again after the exit that forbids it, and after no other",
        only_a_last_exit_halts,
    ),
    ("a proven process that asks to begin anew is no fault", a_wish_to_begin_anew_is_no_fault),
    ("ok derives from the status", ok_derives_from_the_status),
    ("telling changes nothing", telling_changes_nothing),
    ("nothing stops without the approval that it takes", gate::the_cut_has_its_approval),
    ("an approval is of exactly what is prepared", gate::an_approval_is_of_what_is_prepared),
    ("what waited is looked at again before anything stops", gate::what_waited_is_looked_at_again),
    ("a hold is obeyed or refused", gate::a_hold_is_obeyed),
    ("what may be mended is looked at again, and once", gate::what_may_be_mended_is_looked_at_once),
    ("what failed in its rehearsal is rehearsed again", gate::what_failed_in_its_rehearsal_is_rehearsed),
];

pub(crate) const PLACES: [Place; 16] = [
    ("the front serves only a proven or waived live process", serve_needs_a_live_process),
    ("every state that does not rest has an act", every_restless_state_has_an_act),
    ("every act has a limit", every_act_has_a_limit),
    ("what is needed is never pruned", what_is_needed_is_kept),
    ("maintenance always has a way out", maintenance_has_a_way_out),
    ("the commands of maintenance are the orders that are accepted", commands_are_what_is_accepted),
    ("maintenance is told for as long as it lasts", maintenance_is_told),
    ("a halted service has a way out", a_halted_service_has_a_way_out),
    ("a stopped service has no process", a_stopped_service_has_no_process),
    ("a parked run waits alone", a_parked_run_waits_alone),
    ("a damaged tree is not served", a_damaged_tree_is_not_served),
    ("data is laid down only where it must be", data_is_laid_down_where_it_must),
    ("acknowledged writes are given up with leave only", writes_are_given_up_with_leave_only),
    ("only what goes back by itself is proven as such", what_goes_back_is_proven_as_such),
    ("waiting changes nothing for clients", gate::waiting_changes_nothing_for_clients),
    ("what is awaited is told, and taken by the name that is told", gate::what_is_awaited_is_told),
];

fn what_goes_back_is_proven_as_such(state: &State) -> Broken {
    let by_itself = match &state.phase {
        Phase::CuttingOver(cut) => cut.run.kind == Kind::AutoRevert,
        Phase::RollingBack(_) => true,
        _ => return Ok(()),
    };
    match wants(state).act {
        Some((_, Effect::Prove { .. })) => hold(!by_itself, "an old version must prove more than it can"),
        Some((_, Effect::ProveBack { .. })) => hold(by_itself, "a version that a person wants proves less"),
        _ => Ok(()),
    }
}

fn a_stale_answer_is_refused(taken: &Taken<'_>) -> Broken {
    hold(
        taken.case.nature != Nature::Stale || *taken.result == Err(Refusal::Stale),
        "a stale answer was taken",
    )
}

fn flawed_observations_prove_nothing(taken: &Taken<'_>) -> Broken {
    hold(taken.case.nature != Nature::Flawed || taken.result.is_err(), "a flawed proof was taken")
}

fn readiness_counts_where_wanted(taken: &Taken<'_>) -> Broken {
    let (Event::Ready { expectation, .. }, Some(_)) = (&taken.case.event, taken.after()) else {
        return Ok(());
    };
    match wants(taken.before).process {
        Process::Run(_) => Ok(()),
        Process::Replace(leaving, _) => {
            hold(leaving != expectation.instance, "what shall end counts as ready")
        }
        Process::Stopped | Process::LeaveAlone => Err("a process that nobody wants counts as ready".into()),
    }
}

fn only_what_was_proven_is_served(taken: &Taken<'_>) -> Broken {
    let Some(after) = taken.after() else { return Ok(()) };
    match &after.serving {
        Serving::Unproven => Ok(()),
        Serving::Proven(live) => {
            let proof = taken.proven();
            let now = proof.is_some_and(|(instance, generation)| {
                instance == live && Some(generation) == after.current_generation()
            });
            hold(after.serving == taken.before.serving || now, "serves a process that nothing proves")
        }
        Serving::Waived(live) => {
            let kept = after.serving == taken.before.serving
                || (live.is_none() && matches!(taken.before.serving, Serving::Waived(_)));
            let ready = matches!(taken.before.serving, Serving::Waived(_))
                && taken.proven().map(|(instance, _)| instance) == live.as_ref();
            let accepted = matches!(&taken.before.phase, Phase::CuttingOver(cut)
                if cut.run.kind == Kind::Accept && cut.act == Act::Prove && cut.live == *live);
            hold(kept || ready || (accepted && live.is_some()), "serves a process that nobody waived")
        }
    }
}

fn nothing_is_served_past_its_exit(taken: &Taken<'_>) -> Broken {
    let Some(after) = taken.after() else { return Ok(()) };
    let gone = |gone: &dyn Fn(&Instance) -> bool| {
        let serving = match &after.serving {
            Serving::Proven(live) | Serving::Waived(Some(live)) => gone(live),
            Serving::Unproven | Serving::Waived(None) => false,
        };
        let proving = match &after.phase {
            Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => {
                matches!(cut.act, Act::Prove | Act::Release | Act::Soak)
                    && cut.live.as_ref().is_some_and(gone)
            }
            _ => false,
        };
        serving || proving || after.leaving.as_ref().is_some_and(gone)
    };
    let gone = match &taken.case.event {
        Event::Exited { instance, .. } => gone(&|live| live == instance),
        Event::Recovered { live, .. } => gone(&|named| live.as_ref() != Some(named)),
        Event::Finished { ticket, .. }
            if matches!(ticket.act, Act::Stop | Act::Signal) && touches(taken.before) =>
        {
            gone(&|_| true)
        }
        _ => false,
    };
    hold(!gone, "a process that is gone is still counted on")
}

/// Whether the act under way does what its name says; on the way back of what was never begun it does nothing.
fn touches(state: &State) -> bool {
    match &state.phase {
        Phase::RollingBack(retreat) => retreat.cut.start > Extent::Never,
        _ => true,
    }
}

fn verified_is_the_end_of_a_proven_target(taken: &Taken<'_>) -> Broken {
    let Ok(Transition { state, ended: Some(ended) }) = taken.result else { return Ok(()) };
    if ended.status != Some(Status::RestartVerified) {
        return Ok(());
    }
    let Phase::CuttingOver(cut) = &taken.before.phase else { return Err("not from the cut".into()) };
    let live = cut.live.as_ref().ok_or("no process")?;
    hold(state.serving == Serving::Proven(live.clone()), "the run's own process is not what was proven")?;
    hold(state.current.as_ref() == Some(&cut.target), "the pointer does not name the target")?;
    hold(ended.target.as_ref() == Some(&cut.target) && ended.run == cut.run.id, "told of another target")?;
    let meant = match (&cut.run.kind, &cut.base) {
        (Kind::Accept, Base::Maintenance(maintenance)) => maintenance.target == cut.target,
        (Kind::Accept, _) => false,
        _ => true,
    };
    hold(meant, "the accepted process is not what the update meant to install")?;
    let proof = taken.proven().is_some_and(|(instance, _)| instance == live);
    match cut.act {
        Act::Soak => hold(proof, "committed without a proof"),
        Act::Prove => hold(proof && cut.run.kind == Kind::Accept, "committed before the soak"),
        Act::Release => hold(
            cut.order().last() == Some(&Act::Release)
                && matches!(taken.case.event, Event::Released { .. })
                && taken.before.serving == state.serving,
            "committed at a release that was not its last act",
        ),
        act => Err(format!("committed at {act:?}")),
    }
}

fn an_automatic_revert_is_never_verified(taken: &Taken<'_>) -> Broken {
    let Ok(Transition { ended: Some(ended), .. }) = taken.result else { return Ok(()) };
    hold(
        ended.kind != Kind::AutoRevert || ended.status != Some(Status::RestartVerified),
        "an automatic revert was told as a success",
    )
}

fn update_failed_means_untouched(taken: &Taken<'_>) -> Broken {
    let Ok(Transition { state, ended: Some(ended) }) = taken.result else { return Ok(()) };
    let Some(run) = run(taken.before) else { return Ok(()) };
    hold(
        ended.status != Some(Status::UpdateFailed) || ended.run != run.id || state.current == run.source,
        "told as untouched, but the pointer moved",
    )
}

fn is_forward(before: Act, after: Act, cut: &Cut) -> bool {
    let order = cut.order();
    let at = |act: Act| order.iter().position(|known| *known == act);
    at(after) > at(before)
}

fn a_fault_never_leads_forward(taken: &Taken<'_>) -> Broken {
    let (Phase::CuttingOver(cut), Event::Faulted { .. }, Some(after)) =
        (&taken.before.phase, &taken.case.event, taken.after())
    else {
        return Ok(());
    };
    match &after.phase {
        Phase::RollingBack(_) | Phase::Maintenance(_) => Ok(()),
        Phase::Idle => hold(
            cut.run.kind == Kind::Accept && matches!(after.serving, Serving::Waived(Some(_))),
            "a fault led to rest",
        ),
        Phase::Preparing(_) | Phase::CuttingOver(_) | Phase::Watching(_) => Err("a fault led on".into()),
    }
}

fn a_fault_before_the_cut_changes_nothing(taken: &Taken<'_>) -> Broken {
    let gives_up = match &taken.case.event {
        Event::Faulted { .. } => true,
        Event::Ordered { order, .. } => *order == Order::Cancel,
        _ => false,
    };
    let (Phase::Preparing(preparation), true, Some(after)) = (&taken.before.phase, gives_up, taken.after())
    else {
        return Ok(());
    };
    if preparation.run.kind == Kind::TreeChanged {
        return hold(
            matches!(after.phase, Phase::Maintenance(_)),
            "a tree stays damaged outside maintenance",
        );
    }
    let base = match (&preparation.base, &after.phase) {
        (Base::Idle, Phase::Idle) => true,
        (Base::Watching(was), Phase::Watching(is)) => was == is,
        (Base::Maintenance(was), Phase::Maintenance(is)) => was == is,
        _ => false,
    };
    hold(base, "not back at its base")?;
    let mut rest = after.clone();
    rest.phase = taken.before.phase.clone();
    rest.last = taken.before.last.clone();
    hold(rest == *taken.before, "something besides the phase changed")
}

fn an_interruption_never_leads_forward(taken: &Taken<'_>) -> Broken {
    let (Phase::CuttingOver(cut), Event::Recovered { .. }, Some(after)) =
        (&taken.before.phase, &taken.case.event, taken.after())
    else {
        return Ok(());
    };
    match &after.phase {
        Phase::CuttingOver(now) => {
            hold(!is_forward(cut.act, now.act, cut), "an interruption skipped an act")?;
            hold(!matches!(now.act, Act::Release | Act::Soak), "a verdict was resumed")?;
            hold(now.ticket() != cut.ticket(), "an answer from before the interruption would still count")
        }
        Phase::RollingBack(_) => Ok(()),
        Phase::Maintenance(_) => hold(
            cut.run.kind == Kind::Accept,
            "an interruption is no evidence against the target: it alone must not lead to maintenance",
        ),
        Phase::Idle | Phase::Preparing(_) | Phase::Watching(_) => Err("an interruption ended the run".into()),
    }
}

fn going_back_begins_again(taken: &Taken<'_>) -> Broken {
    let Some(Phase::RollingBack(now)) = taken.after().map(|after| &after.phase) else { return Ok(()) };
    let began = !matches!(taken.before.phase, Phase::RollingBack(_));
    let interrupted = matches!(taken.case.event, Event::Recovered { .. });
    hold(!(began || interrupted) || now.cut.act == Act::Stop, "going back does not begin with Stop")?;
    let served = matches!(taken.after().map(|after| &after.serving), Some(Serving::Unproven));
    hold(!began || served, "something counts as proven while going back begins")
}

fn open(state: &State) -> Vec<&RunId> {
    let mut open: Vec<&RunId> = run(state).map(|run| &run.id).into_iter().collect();
    open.extend(state.parked.as_ref().map(|cut| &cut.run.id));
    open
}

fn every_run_ends(taken: &Taken<'_>) -> Broken {
    let Ok(Transition { state, ended }) = taken.result else { return Ok(()) };
    let after = open(state);
    for run in open(taken.before) {
        let ended = ended.as_ref().is_some_and(|ended| ended.run == *run);
        hold(after.contains(&run) != ended, &format!("run {run} is neither open nor ended, or both"))?;
    }
    Ok(())
}

fn past_the_cut_orders_are_refused(taken: &Taken<'_>) -> Broken {
    let cut = matches!(taken.before.phase, Phase::CuttingOver(_) | Phase::RollingBack(_));
    let order = matches!(taken.case.event, Event::Ordered { .. });
    hold(!(cut && order) || taken.result.is_err(), "an order past the cut was taken")
}

fn keep_is_refused_on_migrated(taken: &Taken<'_>) -> Broken {
    let Event::Ordered { order: Order::Rollback { data: DataWish::Keep, .. }, settings, .. } =
        &taken.case.event
    else {
        return Ok(());
    };
    let begun = matches!(taken.after().map(|after| &after.phase), Some(Phase::Preparing(_)));
    hold(!(settings.class == DataClass::Migrated && begun), "old code would start on migrated data")
}

fn the_pointer_follows_its_acts(taken: &Taken<'_>) -> Broken {
    let Some(after) = taken.after() else { return Ok(()) };
    if after.current == taken.before.current {
        return Ok(());
    }
    let moved = match (&taken.before.phase, &taken.case.event) {
        (Phase::CuttingOver(cut), Event::Finished { .. }) => {
            cut.act == Act::Switch && after.current.as_ref() == Some(&cut.target)
        }
        (Phase::RollingBack(Retreat { cut, .. }), Event::Finished { .. }) => {
            cut.act == Act::SwitchBack && after.current == cut.run.source
        }
        _ => false,
    };
    hold(moved, "the pointer moved without its act")
}

/// No answer but a done one leads on where a person ordered older data.
fn ordered_data_is_laid_down(taken: &Taken<'_>) -> Broken {
    let Event::Finished { done: Done::Skipped { .. }, .. } = taken.case.event else { return Ok(()) };
    let ordered = match &taken.before.phase {
        Phase::CuttingOver(cut) => cut.act == Act::Place && cut.run.kind == Kind::Rollback,
        Phase::RollingBack(retreat) => retreat.cut.act == Act::Restore && retreat.leave == Leave::Given,
        _ => false,
    };
    hold(!ordered || taken.result.is_err(), "older data was ordered, and not laying it down was taken")
}

/// Data that was laid down over released traffic is a loss, and the ending names it.
fn given_up_writes_are_told(taken: &Taken<'_>) -> Broken {
    let Phase::RollingBack(Retreat { cut, .. }) = &taken.before.phase else { return Ok(()) };
    let Ok(Transition { state, ended }) = taken.result else { return Ok(()) };
    if let Some(ended) = ended.as_ref().filter(|ended| ended.run == cut.run.id) {
        return hold(ended.writes == cut.writes, "the ending says something else of the writes");
    }
    let Event::Finished { done: Done::Done { .. }, .. } = &taken.case.event else { return Ok(()) };
    let laid_down = matches!(wants(taken.before).act, Some((_, Effect::Restore { .. })));
    let told = matches!(&state.phase, Phase::RollingBack(now) if now.cut.writes == Writes::GivenUp);
    let released = cut.traffic == Traffic::Released;
    hold(!(laid_down && released) || told, "released writes were given up and are told as kept")
}

fn leave_is_given_by_a_person(taken: &Taken<'_>) -> Broken {
    let given =
        |state: &State| matches!(&state.phase, Phase::RollingBack(Retreat { leave: Leave::Given, .. }));
    let Some(after) = taken.after() else { return Ok(()) };
    let ordered = matches!(taken.case.event, Event::Ordered { order: Order::RecoverRollback, .. });
    hold(!ordered || given(after), "a person ordered the way back and is not obeyed")?;
    hold(ordered || given(taken.before) || !given(after), "nobody gave the writes up")
}

/// Nobody gives up by himself what somebody was told is safe, unless he has leave to.
fn writes_are_given_up_with_leave_only(state: &State) -> Broken {
    let (run, when, exposed) = match (&state.phase, wants(state).act) {
        (Phase::RollingBack(retreat), Some((_, Effect::Restore { when, .. }))) => {
            let placed = retreat.cut.place > Extent::Never;
            (&retreat.cut.run, when, retreat.cut.is_exposed() && !placed)
        }
        (Phase::CuttingOver(cut), Some((_, Effect::Place { when, .. }))) => (&cut.run, when, true),
        _ => return Ok(()),
    };
    let leave = run.settings.policy.restore_after_release == RestoreAfterRelease::Allowed
        || run.kind == Kind::Rollback;
    hold(!exposed || leave || when == LayDown::Never, "acknowledged writes would be given up without leave")
}

fn what_cannot_be_reverted_is_served_on(taken: &Taken<'_>) -> Broken {
    let (Event::Degraded { .. }, Some(after)) = (&taken.case.event, taken.after()) else { return Ok(()) };
    let reverts = matches!(after.phase, Phase::Preparing(_));
    hold(reverts || after.serving == taken.before.serving, "an alarm alone took the service away")
}

fn a_revert_is_not_begun_anew(taken: &Taken<'_>) -> Broken {
    let is_reverting =
        matches!(&taken.before.phase, Phase::Preparing(now) if now.run.kind == Kind::AutoRevert);
    let is_trouble = matches!(taken.case.event, Event::Degraded { .. });
    hold(!is_reverting || !is_trouble || taken.result.is_err(), "trouble ended the revert that answers it")
}

fn a_changed_tree_is_not_served_on(taken: &Taken<'_>) -> Broken {
    let (Event::TreeChanged { generation, .. }, Some(after)) = (&taken.case.event, taken.after()) else {
        return Ok(());
    };
    let current = after.current_generation() == Some(*generation);
    hold(!current || posture(after) != Posture::Serve, "a tree that was changed is served from")
}

fn only_a_last_exit_halts(taken: &Taken<'_>) -> Broken {
    let (Event::Exited { instance, exit, restart_prevent_exit_status, .. }, Some(after)) =
        (&taken.case.event, taken.after())
    else {
        return Ok(());
    };
    let rests = !matches!(taken.before.phase, Phase::CuttingOver(_) | Phase::RollingBack(_));
    let was_asked = taken.before.leaving.as_ref() == Some(instance);
    let is_last = matches!(exit, Exit::Code(code) if restart_prevent_exit_status.contains(code));
    if rests && is_last && !was_asked {
        let starts = matches!(wants(after).process, Process::Run(_) | Process::Replace(..));
        return hold(!starts, "what ended for good is started again");
    }
    hold(
        after.restarts == taken.before.restarts,
        "an ordinary exit changed whether the service is started again",
    )
}

/// The first such end in a run is answered by another start; too many of them are a fault like any other.
fn a_wish_to_begin_anew_is_no_fault(taken: &Taken<'_>) -> Broken {
    let Event::Exited { instance, exit, restart_force_exit_status, .. } = &taken.case.event else {
        return Ok(());
    };
    let (Phase::CuttingOver(cut), Some(after)) = (&taken.before.phase, taken.after()) else { return Ok(()) };
    let was_proven = taken.before.serving == Serving::Proven(instance.clone());
    let counts = cut.live.as_ref() == Some(instance)
        && matches!(cut.act, Act::Prove | Act::Release | Act::Soak)
        && matches!(exit, Exit::Code(code) if restart_force_exit_status.contains(code));
    if !counts || cut.run.kind == Kind::Accept {
        return Ok(());
    }
    let starts =
        matches!(&after.phase, Phase::CuttingOver(next) if next.act == Act::Start && next.live.is_none());
    let counted = matches!(&after.phase, Phase::CuttingOver(next) if next.attempts > cut.attempts);
    if was_proven && cut.attempts < 2 {
        hold(
            starts && counted && after.serving == Serving::Unproven,
            "a process in order that asks for it is not started again",
        )
    } else {
        hold(!starts, "what never proved itself, or asks for nothing else, is given another try")
    }
}

fn ok_derives_from_the_status(taken: &Taken<'_>) -> Broken {
    let Ok(Transition { state, ended: Some(ended) }) = taken.result else { return Ok(()) };
    let Some(last) = state.last.as_ref().filter(|last| *last == ended) else { return Ok(()) };
    let report = report("web", state, None);
    hold(report.status == last.status, "another status is told than the run ended with")?;
    hold(
        report.ok == (last.status == Some(Status::RestartVerified)),
        "ok says something else than the status",
    )
}

fn telling_changes_nothing(taken: &Taken<'_>) -> Broken {
    let is_telling = matches!(
        taken.case.event,
        Event::Measured { .. }
            | Event::Subscribed { .. }
            | Event::Alarmed { .. }
            | Event::Calmed { .. }
            | Event::Told { .. }
    );
    let Ok(Transition { state, ended }) = taken.result else {
        return hold(!is_telling, "what was told is refused");
    };
    hold(!is_telling || (state == taken.before && ended.is_none()), "telling somebody changes the state")
}

/// The run under way, a parked one not included.
fn run(state: &State) -> Option<&Run> {
    match &state.phase {
        Phase::Preparing(preparation) => Some(&preparation.run),
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => Some(&cut.run),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

fn serve_needs_a_live_process(state: &State) -> Broken {
    if posture(state) != Posture::Serve {
        return Ok(());
    }
    let live = match &state.serving {
        Serving::Proven(live) | Serving::Waived(Some(live)) => live,
        Serving::Unproven | Serving::Waived(None) => return Err("serves nothing proven".into()),
    };
    match &state.phase {
        Phase::CuttingOver(cut) => {
            let released = cut.live.as_ref() == Some(live) && cut.traffic == Traffic::Released;
            hold(released && state.serving == Serving::Proven(live.clone()), "serves before the release")
        }
        Phase::RollingBack(_) | Phase::Maintenance(_) => Err("serves in a phase that must not".into()),
        Phase::Idle | Phase::Watching(_) | Phase::Preparing(_) => {
            let shall = state.wish == Wish::Run && state.restarts == Restarts::Allowed;
            hold(shall && state.parked.is_none() && state.current.is_some(), "serves what shall not run")
        }
    }
}

fn every_restless_state_has_an_act(state: &State) -> Broken {
    let act = wants(state).act;
    match &state.phase {
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => hold(act.is_none(), "a resting act"),
        Phase::Preparing(_) | Phase::CuttingOver(_) | Phase::RollingBack(_) => {
            hold(act.is_some(), "no act: the run would stand still for ever")?;
            hold(act.map(|(ticket, _)| ticket) == ticket(state), "the act has another ticket than the state")
        }
    }
}

fn every_act_has_a_limit(state: &State) -> Broken {
    let resting = matches!(state.phase, Phase::Idle | Phase::Maintenance(_));
    hold(resting || patience(state).is_some_and(|limit| !limit.is_zero()), "an act without a limit")
}

fn what_is_needed_is_kept(state: &State) -> Broken {
    let mut used: Vec<&Installed> = state.current.iter().collect();
    used.extend(state.previous.iter().map(|kept| &kept.installed));
    if let Some(cut) = &state.parked {
        used.extend(cut.run.source.iter().chain([&cut.target]));
        used.extend(of_base(&cut.base));
    }
    match &state.phase {
        Phase::Idle | Phase::Watching(_) => {}
        Phase::Preparing(preparation) => {
            used.extend(&preparation.run.source);
            if let Aim::Staged(target) = &preparation.aim {
                used.push(target);
            }
            used.extend(of_base(&preparation.base));
        }
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => {
            used.extend(cut.run.source.iter().chain([&cut.target]));
            used.extend(of_base(&cut.base));
        }
        Phase::Maintenance(maintenance) => used.extend(of_maintenance(maintenance)),
    }
    let needed = state.needed();
    match used.iter().find(|installed| !needed.contains(&installed.generation)) {
        Some(lost) => Err(format!("generation {} would be pruned", lost.generation)),
        None => Ok(()),
    }
}

fn of_base(base: &Base) -> Vec<&Installed> {
    match base {
        Base::Maintenance(maintenance) => of_maintenance(maintenance),
        Base::Idle | Base::Watching(_) => Vec::new(),
    }
}

fn of_maintenance(maintenance: &Maintenance) -> Vec<&Installed> {
    maintenance.run.source.iter().chain([&maintenance.target]).collect()
}

const RECOVER: [(&str, Order); 3] =
    [("--retry", Order::Retry), ("--rollback", Order::RecoverRollback), ("--accept", Order::Accept)];

fn accepts(state: &State, order: &Order, settings: &cutover_core::Settings) -> bool {
    step(state, &super::cast::ordered(super::cast::run_id(50), order.clone(), settings)).is_ok()
}

fn maintenance_has_a_way_out(state: &State) -> Broken {
    let Phase::Maintenance(maintenance) = &state.phase else { return Ok(()) };
    let settings = &maintenance.run.settings;
    hold(RECOVER.iter().any(|(_, order)| accepts(state, order, settings)), "no order leads out")
}

fn commands_are_what_is_accepted(state: &State) -> Broken {
    let Phase::Maintenance(maintenance) = &state.phase else { return Ok(()) };
    let told = report("web", state, None).recovery;
    let mut expected = Vec::new();
    for (flag, order) in &RECOVER {
        if accepts(state, order, &maintenance.run.settings) {
            expected.push(format!("cutover recover web {flag}"));
        }
    }
    // What can be started needs no other; where it cannot be, it is had anew.
    if maintenance.coherent.is_none()
        && let Some(Installed { release, .. }) = &state.current
    {
        let wanted = Wanted::Version(release.version.clone());
        if accepts(state, &Order::Update { wanted, hold: Hold::AsRuled }, &maintenance.run.settings) {
            expected.push(format!("cutover update web --to {}", release.version));
        }
    }
    hold(told == expected, &format!("told {told:?}, accepted {expected:?}"))
}

fn maintenance_is_told(state: &State) -> Broken {
    if posture(state) != Posture::Maintain {
        return Ok(());
    }
    let told = report("web", state, None);
    let is_empty = state.current.is_none();
    hold(is_empty || told.condition != "nothing is installed yet", "what is installed is told as nothing")?;
    let Phase::Preparing(Preparation { base: Base::Maintenance(before), run, .. }) = &state.phase else {
        return Ok(());
    };
    hold(told.standing == "maintenance", "it counts as over while a run is prepared")?;
    let manual = told.condition.contains("manual");
    hold(manual || run.kind == Kind::TreeChanged, "nobody is told that a person is needed")?;
    let given_up =
        step(state, &super::cast::ordered(super::cast::run_id(50), Order::Cancel, &before.run.settings));
    let says = told.recovery == ["cutover cancel web"];
    hold(says == given_up.is_ok(), "how the run is given up is not told, or not taken")
}

fn a_halted_service_has_a_way_out(state: &State) -> Broken {
    let rests = matches!(state.phase, Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_));
    if !rests || state.restarts == Restarts::Allowed {
        return Ok(());
    }
    let order = super::cast::ordered(super::cast::run_id(50), Order::Start, &super::cast::PLAIN.settings());
    let led = step(state, &order).is_ok_and(|led| led.state.restarts == Restarts::Allowed);
    hold(led, "`start` does not lead out")
}

fn a_stopped_service_has_no_process(state: &State) -> Broken {
    let resting = matches!(state.phase, Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_));
    let process = wants(state).process;
    hold(
        !(resting && state.wish == Wish::Stopped) || process == Process::Stopped,
        "a process is wanted although the operator stopped the service",
    )?;
    match process {
        Process::Run(installed) | Process::Replace(_, installed) => {
            hold(state.current == Some(installed), "another generation is wanted than the pointer names")
        }
        Process::Stopped | Process::LeaveAlone => Ok(()),
    }
}

fn a_parked_run_waits_alone(state: &State) -> Broken {
    if state.parked.is_none() {
        return Ok(());
    }
    let alone = match &state.phase {
        Phase::Idle | Phase::Watching(_) => state.wish == Wish::Stopped,
        Phase::Preparing(preparation) => preparation.run.kind == Kind::TreeChanged,
        Phase::CuttingOver(cut) => cut.run.kind == Kind::TreeChanged,
        Phase::Maintenance(maintenance) => maintenance.run.kind == Kind::TreeChanged,
        Phase::RollingBack(_) => false,
    };
    hold(alone, "another run is under way, or the service is meant to run")
}

fn a_damaged_tree_is_not_served(state: &State) -> Broken {
    let damaged = state.tree == Tree::Damaged && !matches!(state.phase, Phase::CuttingOver(_));
    hold(!damaged || posture(state) == Posture::Maintain, "a damaged tree is served or held for")?;
    let starts = matches!(wants(state).process, Process::Run(_) | Process::Replace(..));
    hold(state.tree == Tree::Sealed || !starts, "a process would be started from a damaged tree")
}

fn data_is_laid_down_where_it_must(state: &State) -> Broken {
    let restores = match &state.phase {
        Phase::CuttingOver(cut) => cut.act != Act::Place || matches!(cut.run.data, DataOrder::Restore { .. }),
        _ => true,
    };
    hold(restores, "Place without an order to restore")?;
    let Phase::RollingBack(Retreat { cut, leave, .. }) = &state.phase else { return Ok(()) };
    let restore = matches!(wants(state).act, Some((_, Effect::Restore { when: LayDown::Always, .. })));
    let given = *leave == Leave::Given;
    let class = cut.run.settings.class;
    let may_differ =
        class == DataClass::Migrated || (class == DataClass::Neutral && cut.run.source.is_some());
    let must = given && cut.act == Act::Restore && cut.start > Extent::Never && may_differ;
    hold(restore || !must, "a person gave the writes up, and they would stay")?;
    let may = given || cut.place > Extent::Never || class == DataClass::Migrated;
    hold(!restore || may, "writes of a service whose data the target leaves alone would be given up")
}
