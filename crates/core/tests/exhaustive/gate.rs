//! What must hold of runs that wait before their cut. Says by its own words who must wait; must not ask the core for it.

use super::cast;
use super::promises::{Broken, Taken, hold};
use cutover_core::{
    Act, Aim, Approval, ApprovalRule, Base, Done, Effect, Event, Hold, Kind, Look, Opening, Order, Phase,
    PlanId, Posture, Preparation, Refusal, Settings, State, posture, report, step, wants,
};

/// Whether a person's word is needed.
fn needs_a_person(preparation: &Preparation) -> bool {
    let in_maintenance = matches!(preparation.base, Base::Maintenance(_));
    let by_rule = preparation.run.settings.policy.clearance.approve == ApprovalRule::Always
        && preparation.run.kind == Kind::Update
        && !in_maintenance;
    by_rule || preparation.gate.hold == Hold::Asked
}

fn waits_for_a_person(preparation: &Preparation) -> bool {
    needs_a_person(preparation) && preparation.gate.approval == Approval::Missing
}

/// Whatever happens, nothing stops without the word that it takes, nor on a look from before what was waited for.
pub(crate) fn the_cut_has_its_approval(taken: &Taken<'_>) -> Broken {
    let (Phase::Preparing(preparation), Some(Phase::CuttingOver(cut))) =
        (&taken.before.phase, taken.after().map(|after| &after.phase))
    else {
        return Ok(());
    };
    hold(!waits_for_a_person(preparation), "cut over without an approval")?;
    hold(preparation.gate.look == Look::Fresh, "cut over on a look from before it waited")?;
    hold(preparation.run.settings == cut.run.settings, "other rules than were approved")?;
    let approved = preparation.gate.approval == Approval::Given;
    hold(!approved || preparation.gate.setup == cut.approved, "other settings than were approved")?;
    hold(preparation.act == Act::Drain, "cut over before it was drained")
}

/// The word counts for what it was given to, and for nothing else.
pub(crate) fn an_approval_is_of_what_is_prepared(taken: &Taken<'_>) -> Broken {
    let Phase::Preparing(before) = &taken.before.phase else { return Ok(()) };
    if let Event::Ordered { order: Order::Approve { plan }, .. } = &taken.case.event {
        let fits =
            before.act == Act::Await && waits_for_a_person(before) && before.plan().as_ref() == Some(plan);
        hold(
            fits == taken.result.is_ok(),
            "an approval is taken that does not fit, or one that fits is not",
        )?;
        let is_another = before.act == Act::Await && waits_for_a_person(before) && !fits;
        let named = matches!(taken.result, Err(Refusal::AnotherPlan { plan }) if Some(plan) == before.plan().as_ref());
        return hold(!is_another || named, "what is prepared instead is not named");
    }
    let Some(Phase::Preparing(after)) = taken.after().map(|after| &after.phase) else { return Ok(()) };
    let given = |preparation: &Preparation| preparation.gate.approval == Approval::Given;
    hold(!given(after) || given(before), "an approval that nobody gave")?;
    hold(!given(after) || before.plan() == after.plan(), "an approval of something else counts")
}

/// Every wait is followed by a look, and a look alone makes it fresh again.
pub(crate) fn what_waited_is_looked_at_again(taken: &Taken<'_>) -> Broken {
    let (Phase::Preparing(before), Some(Phase::Preparing(after))) =
        (&taken.before.phase, taken.after().map(|after| &after.phase))
    else {
        return Ok(());
    };
    if before.run.id != after.run.id {
        return Ok(());
    }
    let looked = matches!(&taken.case.event, Event::Finished { done: Done::Checked(_), .. })
        && before.act == Act::Preflight;
    let is_stale = |preparation: &Preparation| preparation.gate.look == Look::Stale;
    hold(!is_stale(before) || is_stale(after) || looked, "no look, and what is known is fresh again")?;
    let waited = before.act == Act::Await
        && matches!(&taken.case.event, Event::Finished { done: Done::Done { .. }, .. });
    hold(!waited || after.act == Act::Preflight, "it waited, and is not looked at again")?;
    let missed = before.act == Act::Drain
        && matches!(&taken.case.event, Event::Finished { done: Done::Missed { .. }, .. });
    hold(!missed || after.act == Act::Await, "its window closed, and it does not wait for the next")?;
    let has_missed = matches!(&taken.case.event, Event::Finished { done: Done::Missed { .. }, .. });
    hold(!has_missed || after.gate.opening == Opening::Missed, "its window closed, and that is not told")?;
    let was_away = matches!(&taken.case.event, Event::Recovered { .. })
        && (before.needs_approval() || !before.windows().is_empty())
        && matches!(before.act, Act::Rehearse | Act::Await | Act::Drain);
    hold(!was_away || (is_stale(after) && after.act != Act::Drain), "nobody looks again after who was away")
}

/// What the target's own repair may help goes back to the look that tries it, and to no other act. A second time it ends the
/// run.
pub(crate) fn what_may_be_mended_is_looked_at_once(taken: &Taken<'_>) -> Broken {
    let (Phase::Preparing(before), Event::Finished { done: Done::Mendable { fault }, .. }) =
        (&taken.before.phase, &taken.case.event)
    else {
        return Ok(());
    };
    let Some(after) = taken.after() else {
        return hold(before.act != Act::Rehearse, "what may be mended is not heeded");
    };
    hold(before.act == Act::Rehearse, "something is mended that was not rehearsed")?;
    let Phase::Preparing(preparation) = &after.phase else {
        return hold(before.gate.mendable.is_some(), "what may be mended ends the run");
    };
    hold(before.gate.mendable.is_none(), "what may be mended is mended for ever")?;
    hold(preparation.run == before.run, "mended under other rules")?;
    let heeded = matches!(wants(after).act, Some((ticket, Effect::Preflight { mendable: Some(told), .. }))
        if told == *fault && ticket != before.ticket());
    hold(heeded, "no look heeds what may be mended")
}

/// What failed in its rehearsal is not switched to because there is no other rehearsal.
pub(crate) fn what_failed_in_its_rehearsal_is_rehearsed(taken: &Taken<'_>) -> Broken {
    let (Phase::Preparing(before), Event::Finished { done: Done::Skipped { .. }, .. }) =
        (&taken.before.phase, &taken.case.event)
    else {
        return Ok(());
    };
    let failed = before.act == Act::Rehearse && before.gate.mendable.is_some();
    let goes_on = taken.after().is_some_and(|after| {
        matches!(&after.phase, Phase::Preparing(next) if next.run == before.run)
            || matches!(after.phase, Phase::CuttingOver(_))
    });
    hold(!failed || !goes_on, "what failed in its rehearsal is switched to without one")
}

/// A hold is obeyed or refused: what was taken stops before the cut and asks a person.
pub(crate) fn a_hold_is_obeyed(taken: &Taken<'_>) -> Broken {
    let Event::Ordered { order: Order::Hold, .. } = &taken.case.event else { return Ok(()) };
    let Some(after) = taken.after() else { return Ok(()) };
    let Phase::Preparing(preparation) = &after.phase else {
        return Err("a hold of what is not prepared".into());
    };
    hold(
        waits_for_a_person(preparation) && preparation.act != Act::Drain,
        "a hold was taken and does not hold",
    )?;
    let by_itself = matches!(preparation.run.kind, Kind::AutoRevert | Kind::TreeChanged);
    hold(!by_itself, "a run that takes a failing or damaged version away is held")
}

/// While a run is prepared and waits, clients meet what they met before it began.
pub(crate) fn waiting_changes_nothing_for_clients(state: &State) -> Broken {
    let Phase::Preparing(preparation) = &state.phase else { return Ok(()) };
    let mut resting = state.clone();
    resting.phase = match &preparation.base {
        Base::Idle => Phase::Idle,
        Base::Watching(watch) => Phase::Watching(watch.clone()),
        Base::Maintenance(maintenance) => Phase::Maintenance(maintenance.clone()),
    };
    hold(posture(state) == posture(&resting), "clients meet something else because a run is prepared")?;
    hold(
        wants(state).process == wants(&resting).process,
        "another process is wanted because a run is prepared",
    )?;
    let serves = posture(&resting) == Posture::Serve;
    hold(!serves || posture(state) == Posture::Serve, "the old version does not serve on")
}

/// Who waits for a person says so, with the name that is then taken; who does not, does not.
pub(crate) fn what_is_awaited_is_told(state: &State) -> Broken {
    let Phase::Preparing(preparation) = &state.phase else { return Ok(()) };
    let told = told(state, &preparation.run.settings);
    if preparation.act != Act::Await {
        return hold(told.is_none(), "something is to be approved before it is prepared, or after");
    }
    hold(told.is_some() == waits_for_a_person(preparation), "what a person is asked for is not told")?;
    let awaited = matches!(wants(state).act, Some((_, Effect::Await { awaited, .. })) if awaited == preparation.awaited());
    hold(awaited, "the act waits for something else than is told")?;
    let Some(plan) = told else { return Ok(()) };
    let order = cast::ordered(cast::run_id(50), Order::Approve { plan }, &preparation.run.settings);
    hold(step(state, &order).is_ok(), "the plan that is told is not taken")?;
    hold(matches!(preparation.aim, Aim::Staged(_)), "nothing is staged, and something is to be approved")
}

fn told(state: &State, settings: &Settings) -> Option<PlanId> {
    // A record of the run under way: the report is about it alone.
    let entry = cutover_core::Entry {
        seq: 1,
        wall_ms: 1,
        boot_ms: 1,
        event: cast::ordered(cast::run_id(50), Order::Hold, settings),
        recorded: cutover_core::Recorded { step_version: 0, state: String::new() },
    };
    let record = cutover_core::Record::begun(&entry, &State::new(), state)?;
    report("web", state, Some(&record)).awaits?.plan
}
