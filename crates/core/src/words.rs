//! What is told in words: one sentence about a run, one about what clients meet, and what to type. Every sentence is true
//! of the run that it is about, whatever began that run and whichever way it went.

use crate::readings::{is_doubted, maintenance};
use crate::report::{is_already_current, serves, target, wanted_version};
use crate::{
    Act, Awaited, Awaits, Cause, Direction, Kind, Opening, Phase, Posture, Preparation, Process, Record,
    Resolution, Restarts, State, Status, Tree, Wish, posture, wants,
};
use std::time::Duration;

/// The sentence of an update whose restart failed (requirement M10).
const RESTART_FAILED: &str = "package updated but restart failed; manual restart required";
const RESEAL_FAILED: &str =
    "files of the running version were changed by a foreign hand and it could not be sealed again";

pub(crate) fn sentence(
    state: &State,
    record: Option<&Record>,
    status: Option<Status>,
    resolution: Resolution,
) -> String {
    let Some(record) = record else { return format!("{}.", phase_word(state)) };
    let version = wanted_version(state, record).unwrap_or_else(|| "the wanted version".into());
    match status {
        Some(Status::RestartVerified) if record.reverted_by.is_some() => {
            format!("{version} was verified and later reverted.")
        }
        Some(Status::RestartVerified) if is_live(state, record) => {
            format!("{version} is live and verified.")
        }
        Some(Status::RestartVerified) => format!("{version} was verified."),
        Some(Status::RestartScheduled) if state.parked.is_some() => {
            format!("{version} is switched; the service is kept stopped and `start` proves it.")
        }
        Some(Status::RestartScheduled) => format!("{version} is switched; its restart is not verified yet."),
        Some(Status::RestartFailed) => restart_failed(record, &version, resolution),
        Some(Status::UpdateFailed) => update_failed(record, &version, resolution),
        None if is_already_current(record.ending.as_ref()) => format!("{version} is already current."),
        None if record.ending.is_some() => {
            format!(
                "{version} is already installed, but no process of it has proven itself: {}.",
                condition(state).trim_end_matches('.')
            )
        }
        None => match waiting(state).filter(|_| state.open_run() == Some(&record.run)) {
            Some((preparation, Awaited::Approval)) => {
                let (untouched, moved) = (untouched(record), moved(preparation));
                format!("{version} is prepared and waits for an approval; {untouched}{moved}")
            }
            Some((preparation, Awaited::Window(_))) => {
                let (untouched, missed) = (untouched(record), missed(preparation, record));
                format!("{version} is prepared and waits for its window; {untouched}{missed}")
            }
            Some((_, Awaited::Nothing)) | None => format!("{version}: {}.", phase_word(state)),
        },
    }
}

/// The run that is prepared, and what it waits for.
fn waiting(state: &State) -> Option<(&Preparation, Awaited)> {
    match &state.phase {
        Phase::Preparing(preparation) if preparation.act == Act::Await => {
            Some((preparation, preparation.awaited()))
        }
        _ => None,
    }
}

/// Why the name of what is to be approved is another than before, where it is.
fn moved(preparation: &Preparation) -> String {
    match preparation.gate.moved.join(", ") {
        moved if moved.is_empty() => moved,
        moved => format!(" It is another plan than before, look at it again; what changed: {moved}."),
    }
}

/// That a window was too short, where one was, with what to do about it.
fn missed(preparation: &Preparation, record: &Record) -> String {
    if preparation.gate.opening != Opening::Missed {
        return String::new();
    }
    let last = |act: Act| record.steps.iter().rfind(|step| step.name == act).and_then(|step| step.took_ms);
    let took: u64 = [Act::Preflight, Act::Rehearse, Act::Drain].into_iter().filter_map(last).sum();
    format!(
        " A window has closed before anything could be stopped: what waited is looked at again in it first, which took \
         {:.1?} the last time. Where windows are too short for that, widen `windows`, `cancel` this run and order it again.",
        Duration::from_millis(took)
    )
}

fn untouched(record: &Record) -> String {
    match &record.before {
        Some(before) => format!("{} is not touched meanwhile.", before.release.version),
        None => "nothing is touched meanwhile.".into(),
    }
}

/// What a prepared run waits for, with the commands that go on or give up.
pub(crate) fn awaits(service: &str, state: &State) -> Option<Awaits> {
    let (preparation, awaited) = waiting(state)?;
    let plan = match awaited {
        Awaited::Nothing => return None,
        Awaited::Approval => preparation.plan(),
        Awaited::Window(_) => None,
    };
    let approve = plan.iter().map(|plan| format!("cutover approve {service} --plan {plan}"));
    let commands = approve.chain([format!("cutover cancel {service}")]).collect();
    let windows = preparation.windows().iter().map(ToString::to_string).collect();
    Some(Awaits { plan, windows, commands })
}

/// Whether a proven process of what the run installed serves now.
fn is_live(state: &State, record: &Record) -> bool {
    let (serves, target) = (serves(state), target(state, record));
    serves.instance.is_some() && serves.generation == target.map(|target| target.generation)
}

fn before(record: &Record) -> &str {
    record.before.as_ref().map_or("nothing", |before| before.release.version.as_str())
}

/// What failed, as the subject of a sentence.
fn undertaking(record: &Record, version: &str) -> String {
    match record.kind {
        Kind::Update => format!("Update to {version}"),
        Kind::Rollback => format!("The rollback to {version}"),
        Kind::AutoRevert => format!("The revert to {version}"),
        Kind::TreeChanged => format!("Sealing {version} again"),
        Kind::Accept => format!("Accepting {version}"),
    }
}

fn causes(record: &Record) -> &[Cause] {
    record.ending.as_ref().map_or(&[], |ending| &ending.causes)
}

const CANCELLED: &str = "was cancelled";

fn verb(record: &Record) -> &'static str {
    match causes(record).first() {
        Some(cause) if cause.fault.code == "cancelled" => CANCELLED,
        _ => "failed",
    }
}

/// A person gave the target up: the run never went forward.
fn is_way_back(record: &Record) -> bool {
    record.steps.first().is_some_and(|step| step.direction == Direction::Back)
}

fn restart_failed(record: &Record, version: &str, resolution: Resolution) -> String {
    let (what, before) = (undertaking(record, version), before(record));
    let went_well = causes(record).is_empty();
    match (resolution, record.kind) {
        _ if record.ending.is_none() => {
            format!("{what} failed after the switch; {before} is being brought back.")
        }
        (Resolution::OldVerified, Kind::AutoRevert) if went_well => {
            format!("{before} failed while it was watched; {version} is serving again, verified.")
        }
        (Resolution::OldVerified, Kind::Accept) if went_well => {
            format!("{version} was accepted and is serving again, verified; the update stays failed.")
        }
        (Resolution::OldVerified, _) if is_way_back(record) => {
            format!("{version} was given up; {before} is serving again, verified.")
        }
        (Resolution::OldVerified, _) => {
            format!("{what} {} after the switch; {before} is serving again, verified.", verb(record))
        }
        (Resolution::AcceptedUnverified, _) => {
            format!("{version} was accepted by a person; its proof is incomplete.")
        }
        (Resolution::OldUnverified, _) if verb(record) == CANCELLED => {
            format!("{what} was cancelled after the switch; {before} is installed again and was not started.")
        }
        (_, Kind::TreeChanged) => format!("{RESEAL_FAILED}; manual recovery required"),
        _ => RESTART_FAILED.into(),
    }
}

fn update_failed(record: &Record, version: &str, resolution: Resolution) -> String {
    if record.before.is_none() {
        return format!("The first installation, of {version}, {}; nothing is installed.", verb(record));
    }
    let (what, before) = (undertaking(record, version), before(record));
    let is_touched = record.steps.iter().any(|step| touches(step.name));
    let fate = match resolution {
        Resolution::Maintenance => "the service stays in maintenance".to_owned(),
        _ if !is_touched => format!("{before} was not touched"),
        Resolution::OldVerified => format!("{before} is serving again, verified"),
        _ => format!("{before} stays installed and has not proven itself since"),
    };
    format!("{what} {} before the switch; {fate}.", verb(record))
}

/// Whether an act may have ended or asked the process that served.
fn touches(act: Act) -> bool {
    !crate::PREPARING.contains(&act)
}

/// What clients meet now, and why. Never about a run that is over, except where it left the service in maintenance.
pub(crate) fn condition(state: &State) -> String {
    let serves = serves(state);
    let is_resealing = matches!(&state.phase, Phase::Preparing(one) if one.run.kind == Kind::TreeChanged);
    if let Some(maintenance) = maintenance(state).filter(|_| !is_resealing) {
        return match maintenance.run.kind {
            Kind::TreeChanged => format!("{RESEAL_FAILED}; manual recovery required"),
            _ => RESTART_FAILED.into(),
        };
    }
    match (&state.phase, posture(state)) {
        (_, Posture::Serve) => {
            format!("{} is serving.", serves.version.unwrap_or_else(|| "A version".into()))
        }
        _ if state.tree == Tree::Damaged => {
            "files of the running version were changed by a foreign hand; it is being sealed again".into()
        }
        (Phase::CuttingOver(_), _) => "it is being updated".into(),
        (Phase::RollingBack(_), _) => "an update failed; the version before is being brought back".into(),
        (_, Posture::Hold) => "it is being started".into(),
        _ if state.parked.is_some() => "it is stopped; an update waits for `start`".into(),
        _ if state.wish == Wish::Stopped && serves.instance.is_some() => {
            "it is being stopped by its operator".into()
        }
        _ if state.wish == Wish::Stopped => "it is stopped by its operator".into(),
        _ => match state.restarts {
            Restarts::Halted { code } => format!(
                "it ended with exit code {code}, after which it is not started again by itself \
                 (`restart_prevent_exit_status`)"
            ),
            Restarts::Allowed => "nothing is installed yet".into(),
        },
    }
}

/// Where the service stands. A run that is only prepared ends no maintenance.
pub(crate) fn standing(state: &State) -> String {
    if maintenance(state).is_some() { "maintenance".into() } else { phase_word(state) }
}

pub(crate) fn phase_word(state: &State) -> String {
    let word = |act: Act| format!("{act:?}").to_lowercase();
    match &state.phase {
        Phase::Idle if state.parked.is_some() => "parked".into(),
        Phase::Idle => "idle".into(),
        Phase::Preparing(preparation) => format!("preparing: {}", word(preparation.act)),
        Phase::CuttingOver(cut) => format!("cutting over: {}", word(cut.act)),
        Phase::RollingBack(retreat) => format!("rolling back: {}", word(retreat.cut.act)),
        Phase::Watching(_) => "watching".into(),
        Phase::Maintenance(_) => "maintenance".into(),
    }
}

/// The exact commands that help now: the same strings that `cutover` accepts.
pub(crate) fn recovery(service: &str, state: &State) -> Vec<String> {
    match &state.phase {
        Phase::Maintenance(maintenance) => {
            let in_step =
                maintenance.coherent.is_some() && maintenance.coherent == state.current_generation();
            let source = maintenance.run.source.as_ref().map(|source| source.generation);
            let reseal = maintenance.run.kind == Kind::TreeChanged;
            let retry =
                reseal || in_step || (maintenance.coherent.is_some() && maintenance.coherent == source);
            let mut commands = Vec::new();
            if retry {
                commands.push(format!("cutover recover {service} --retry"));
            }
            if !reseal {
                commands.push(format!("cutover recover {service} --rollback"));
            }
            if in_step {
                commands.push(format!("cutover recover {service} --accept"));
            }
            if let Some(current) = state.current.as_ref().filter(|_| is_doubted(maintenance)) {
                commands.push(format!("cutover update {service} --to {}", current.release.version));
            }
            commands
        }
        Phase::Idle | Phase::Watching(_) if state.parked.is_some() || state.wish == Wish::Stopped => {
            vec![format!("cutover start {service}")]
        }
        Phase::Idle | Phase::Watching(_) if state.restarts != Restarts::Allowed => {
            vec![format!("cutover logs {service}"), format!("cutover start {service}")]
        }
        Phase::Idle if state.current.is_none() => vec![format!("cutover update {service}")],
        Phase::Preparing(preparation)
            if maintenance(state).is_some() && preparation.run.kind != Kind::TreeChanged =>
        {
            vec![format!("cutover cancel {service}")]
        }
        _ => Vec::new(),
    }
}

pub(crate) fn next(state: &State, open: bool) -> Option<String> {
    match &state.phase {
        Phase::Maintenance(_) => Some(match wants(state).process {
            Process::Run(old) => {
                format!("{} is tried again by itself; the commands decide otherwise", old.release.version)
            }
            Process::Replace(..) | Process::Stopped | Process::LeaveAlone => {
                "a person decides: see the commands".into()
            }
        }),
        Phase::Idle if state.parked.is_some() => Some("start".into()),
        Phase::CuttingOver(_) | Phase::RollingBack(_) | Phase::Preparing(_) if open => {
            Some(match waiting(state) {
                Some((_, Awaited::Approval)) => "a person approves it, or cancels it".into(),
                Some((_, Awaited::Window(_))) => "it goes on by itself when its window opens".into(),
                Some((_, Awaited::Nothing)) | None => "the run ends by itself".into(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An update from 1.0 to 2.0 that switched, and this is what became of it.
    fn ended(resolution: Resolution, code: &str) -> String {
        let installed = |generation: u32, version: &str| {
            let release = json!({ "package": "web", "version": version, "digest": "d", "plugins": [] });
            json!({ "generation": generation, "release": release })
        };
        let cause = json!({ "act": "prove", "fault": { "code": code, "detail": "" } });
        let ending = json!({
            "run": "r1", "kind": "update", "target": installed(2, "2.0"), "resolution": resolution,
            "status": "package_updated_restart_failed", "causes": [cause], "writes": "kept",
        });
        let record: Record = serde_json::from_value(json!({
            "run": "r1", "kind": "update", "actor": "test", "before": installed(1, "1.0"), "version": "2.0",
            "started": 1, "steps": [], "facts": [], "findings": [], "ending": ending,
        }))
        .unwrap();
        sentence(&State::new(), Some(&record), Some(Status::RestartFailed), resolution)
    }

    #[test]
    fn m10_a_failed_restart_is_told_as_such_unless_what_served_before_is_proven_to_serve_again() {
        let m10 = "package updated but restart failed; manual restart required";
        for resolution in [Resolution::None, Resolution::OldUnverified, Resolution::Maintenance] {
            assert_eq!(ended(resolution, "crashed"), m10, "{resolution:?}");
        }
        let back = "Update to 2.0 failed after the switch; 1.0 is serving again, verified.";
        assert_eq!(ended(Resolution::OldVerified, "crashed"), back);
        assert!(ended(Resolution::AcceptedUnverified, "crashed").contains("its proof is incomplete"));
        // Nothing failed where a person gave it up.
        let cancelled = ended(Resolution::OldUnverified, "cancelled");
        assert!(cancelled.contains("was cancelled after the switch"), "{cancelled}");
    }
}
