//! Runs as OpenClaw 2026.9 keeps them in its own ledger, and as its pages read them.

use super::{invalid, outcome};
use crate::conductor::View;
use cutover_core::{Act, Cause, Direction, FactName, Reading, Report, Resolution, RunId, Status, StepRecord};
use serde_json::{Value, json};

/// Steps of one run that are told at most: the last ones (OpenClaw's schema has 128).
const STEPS_MAX: usize = 64;
/// The phases of an update before its end, in the gateway's words and order.
const PHASES: [&str; 6] = ["requested", "staging", "validating", "activating", "restarting", "verifying"];
/// Characters of a text that are told at most (OpenClaw's schema has 1024).
const TEXT_MAX: usize = 500;
/// Runs of one answer where the caller names no limit, and at most (OpenClaw's schema has 100).
const RUNS: (u64, u64) = (20, 100);
/// Bytes of one list at most; a message may have twice as many.
const LIST_MAX: usize = 256 * 1024;

/// `update.runs.list`, newest first.
pub(super) fn list(view: &View, params: &Value) -> Result<Value, Value> {
    let limit = match &params["limit"] {
        Value::Null => RUNS.0,
        given => match given.as_u64().filter(|limit| (1..=RUNS.1).contains(limit)) {
            Some(limit) => limit,
            None => return Err(invalid("invalid update.runs.list params: limit is a number from 1 to 100")),
        },
    };
    let runs = view.runs();
    let rows = runs.iter().take(usize::try_from(limit).unwrap_or_default()).map(|report| row(report, view));
    Ok(json!({ "runs": fitting(rows) }))
}

/// As many of the first rows as fit into one message.
fn fitting(rows: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut size = 0;
    rows.take_while(|row| {
        size += row.to_string().len();
        size <= LIST_MAX
    })
    .collect()
}

/// `update.runs.get`.
pub(super) fn get(view: &View, params: &Value) -> Result<Value, Value> {
    let Some(run) = params["runId"].as_str() else {
        return Err(invalid("invalid update.runs.get params: name the run as runId"));
    };
    let report = view.run(&RunId(run.to_owned()));
    Ok(json!({ "run": report.map(|report| row(&report, view)) }))
}

/// One run.
pub(super) fn row(report: &Report, view: &View) -> Value {
    let is_latest = view.report.run_id == report.run_id;
    let ended = report.ended.is_some();
    let before = report.before.as_ref().map(|before| before.release.version.as_str());
    let acts = last_steps(report).iter().map(|step| self::step(step, &report.causes));
    json!({
        "runId": report.run_id,
        "createdAtMs": report.started.unwrap_or_default(),
        "updatedAtMs": updated(report),
        "trigger": trigger(report),
        "phase": phase(report),
        "status": status(report),
        "reason": reason(report),
        "origin": origin(report, is_latest),
        "target": named(&[("kind", Some("package")), ("version", report.version.as_deref())]),
        "before": named(&[("version", before)]),
        "after": named(&[("version", outcome::proven(report))]),
        "steps": phases(report).into_iter().chain(acts).collect::<Vec<_>>(),
        "verification": if is_latest { verification(report) } else { json!({}) },
        "repair": [],
        "confirmedAtMs": null,
        "finishedAtMs": report.ended,
        "downtimeMs": report.downtime_ms.filter(|_| ended),
    })
}

/// An object of those values that there are: an absent key says that nothing is known, a `null` would be refused.
fn named(values: &[(&str, Option<&str>)]) -> Value {
    values.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!((*value)?)))).collect()
}

/// What began it, in the gateway's words.
fn trigger(report: &Report) -> &'static str {
    match report.actor.as_deref() {
        Some(super::ACTOR) => "control-ui",
        Some(actor) if actor.starts_with("local") => "cli",
        _ => "api",
    }
}

/// Where it stands, in the gateway's words.
pub(super) fn phase(report: &Report) -> &'static str {
    if report.ended.is_some() {
        return "finished";
    }
    report.steps.last().map_or(PHASES[0], |step| phase_of(step.name))
}

/// What an act belongs to, in the gateway's words.
fn phase_of(act: Act) -> &'static str {
    match act {
        Act::Resolve => "requested",
        Act::Stage => "staging",
        Act::Preflight | Act::Rehearse | Act::Await | Act::Drain => "validating",
        Act::Stop
        | Act::Snapshot
        | Act::Place
        | Act::Switch
        | Act::Signal
        | Act::Restore
        | Act::SwitchBack => "activating",
        Act::Start => "restarting",
        Act::Prove | Act::Release | Act::Soak => "verifying",
    }
}

/// The phases that the run came to, as steps: the gateway's pages draw a phase by the step of its name, and one without a step
/// as skipped.
fn phases(report: &Report) -> Vec<Value> {
    let told = |phase: &&str| {
        let steps = report.steps.iter().filter(|step| step.direction == Direction::Forward);
        let steps: Vec<&StepRecord> = steps.filter(|step| phase_of(step.name) == *phase).collect();
        let (first, last) = (steps.first()?, steps.last()?);
        let went_back = report.steps.iter().any(|step| step.direction == Direction::Back);
        let broke = report.causes.first().is_some_and(|cause| phase_of(cause.act) == *phase);
        let status = match last.ended {
            _ if broke => "failed",
            Some(_) => "completed",
            None if went_back || report.ended.is_some() => "skipped",
            None => "in_progress",
        };
        let mut told = json!({ "step": phase, "status": status, "startedAtMs": first.started });
        if let Some(ended) = last.ended {
            told["endedAtMs"] = json!(ended);
        }
        Some(told)
    };
    PHASES.iter().filter_map(told).collect()
}

/// How it went, in the gateway's words. Only what was proven has succeeded.
pub(super) fn status(report: &Report) -> &'static str {
    match report.status {
        _ if report.ended.is_none() => "running",
        Some(Status::RestartVerified) if report.reverted_by.is_none() => "succeeded",
        Some(Status::RestartVerified) => "rolled-back",
        Some(Status::RestartFailed) if report.resolution == Resolution::OldVerified => "rolled-back",
        None if report.ok => "skipped",
        _ => "failed",
    }
}

fn reason(report: &Report) -> Option<String> {
    match report.ended {
        None => None,
        Some(_) if report.ok && report.status.is_none() => Some("already-current".into()),
        Some(_) => outcome::reason(report),
    }
}

/// What a person should do, as far as it still holds.
fn origin(report: &Report, is_latest: bool) -> Value {
    let advice = match report.recovery.as_slice() {
        commands if is_latest && !commands.is_empty() => Some(whole(commands)),
        _ => None,
    };
    named(&[("nextAction", advice.as_deref())])
}

/// Commands, as many as there is room for: a part of one is no help.
fn whole(commands: &[String]) -> String {
    let mut text = String::from("On the gateway's machine: ");
    for (at, command) in commands.iter().enumerate() {
        let more = if at == 0 { command.clone() } else { format!(" or {command}") };
        if text.chars().count() + more.chars().count() > TEXT_MAX {
            text.push_str(if at == 0 {
                "what cutover's `status` tells"
            } else {
                "; cutover's `status` tells more"
            });
            break;
        }
        text.push_str(&more);
    }
    text
}

/// The last moment that anything of it was written down (ms of Unix time).
pub(super) fn updated(report: &Report) -> u64 {
    let steps = report.steps.iter().flat_map(|step| [Some(step.started), step.ended]);
    steps.chain([report.started, report.ended]).flatten().max().unwrap_or_default()
}

/// What serves now, which only the latest run can be asked about.
fn verification(report: &Report) -> Value {
    let serving = &report.serving;
    let mut facts = json!({ "serviceRunning": serving.instance.is_some() });
    if let Some(instance) = &serving.instance {
        facts["pid"] = json!(instance.pid);
    }
    if let Some(version) = &serving.version {
        facts["runningVersion"] = json!(version);
    }
    if report.ended.is_some() && report.version.is_some() && serving.version.is_some() {
        facts["versionMatch"] = json!(serving.version == report.version);
    }
    // What its proof asked for and found, and no more. Channels are looked at by nobody, and stay untold; so do plugins where
    // none are one thing with the package: such a fact does not apply, and does not hold.
    if status(report) == "succeeded" {
        let holds = |name: FactName| {
            report.facts.iter().any(|fact| fact.name == name && fact.reading == Reading::Holds)
        };
        if holds(FactName::Plugins) {
            facts["pluginErrors"] = json!([]);
        }
        if holds(FactName::Readiness) {
            facts["readyz"] = json!(true);
        }
    }
    facts
}

fn step(step: &StepRecord, causes: &[Cause]) -> Value {
    let outcome = step.outcome.as_deref().unwrap_or_default();
    let broke = |cause: &Cause| {
        cause.act == step.name
            && (outcome.contains(&cause.fault.detail) || outcome.starts_with("the process ended"))
    };
    let status = match step.ended {
        None => "in_progress",
        Some(_) if causes.iter().any(broke) => "failed",
        Some(_) if outcome.starts_with("skipped") => "skipped",
        Some(_) => "completed",
    };
    let mut told = json!({ "step": step_name(step), "status": status, "startedAtMs": step.started });
    if let Some(ended) = step.ended {
        told["endedAtMs"] = json!(ended);
    }
    if step.outcome.is_some() {
        told["detail"] = json!(clipped(outcome));
    }
    told
}

/// The name of an act, and which way.
pub(super) fn step_name(step: &StepRecord) -> String {
    let back = if step.direction == Direction::Back { "back: " } else { "" };
    format!("{back}{}", format!("{:?}", step.name).to_lowercase())
}

/// As many of the last steps as are told.
pub(super) fn last_steps(report: &Report) -> &[StepRecord] {
    &report.steps[report.steps.len().saturating_sub(STEPS_MAX)..]
}

/// As much of a text as is told.
pub(super) fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::report;
    use super::*;

    #[test]
    fn a_row_has_succeeded_only_where_its_target_is_proven_and_stays() {
        let told = |ended: bool, ok: bool, status: Value, resolution: &str, reverted: bool| {
            let run = report(ended, ok, status, resolution, reverted);
            (phase(&run), self::status(&run))
        };
        let (verified, failed) = ("package_updated_restart_verified", "package_updated_restart_failed");
        assert_eq!(told(true, true, json!(verified), "none", false), ("finished", "succeeded"));
        assert_eq!(told(true, true, json!(verified), "none", true), ("finished", "rolled-back"));
        assert_eq!(told(true, false, json!(failed), "old_verified", false), ("finished", "rolled-back"));
        assert_eq!(told(true, false, json!(failed), "maintenance", false), ("finished", "failed"));
        assert_eq!(
            told(true, false, json!("package_update_failed"), "old_verified", false),
            ("finished", "failed")
        );
        assert_eq!(told(true, true, Value::Null, "old_verified", false), ("finished", "skipped"));
        assert_eq!(told(true, false, Value::Null, "none", false), ("finished", "failed"));
        let scheduled = json!("package_updated_restart_scheduled");
        assert_eq!(told(false, false, scheduled, "none", false), ("verifying", "running"));
    }

    #[test]
    fn of_a_proof_a_row_tells_what_held_and_only_of_a_success() {
        let fact = |name: &str, reading: &str| json!({ "name": name, "reading": reading, "expected": "x", "observed": "x", "at": 1, "source": "s" });
        let told = |reading: &str, reverted: bool| {
            let mut run = report(true, true, json!("package_updated_restart_verified"), "none", reverted);
            let facts = json!([fact("plugins", reading), fact("readiness", "holds")]);
            run.facts = serde_json::from_value(facts).unwrap();
            let told = verification(&run);
            (told["pluginErrors"].clone(), told["readyz"].clone(), told["channelsReady"].clone())
        };
        assert_eq!(told("holds", false), (json!([]), json!(true), Value::Null));
        assert_eq!(told("not_yet", false), (Value::Null, json!(true), Value::Null));
        assert_eq!(told("not_applicable", false), (Value::Null, json!(true), Value::Null));
        assert_eq!(told("holds", true), (Value::Null, Value::Null, Value::Null));
    }

    #[test]
    fn a_phase_is_told_as_a_step_of_its_name_and_the_one_that_failed_as_failed() {
        let mut run = report(true, false, json!("package_updated_restart_failed"), "old_verified", false);
        let step = |act: &str, direction: &str, ended: Option<u64>| -> StepRecord {
            serde_json::from_value(json!({
                "name": act, "direction": direction, "started": 1, "ended": ended, "tookMs": null, "outcome": null,
                "beganBootMs": 1,
            }))
            .unwrap()
        };
        let forward = ["resolve", "stage", "preflight", "stop", "switch", "start", "prove"];
        run.steps = forward.iter().map(|act| step(act, "forward", Some(2))).collect();
        let told = |run: &Report| -> Vec<String> {
            let told = phases(run);
            told.iter()
                .map(|phase| format!("{} {}", phase["step"], phase["status"]).replace('"', ""))
                .collect()
        };
        let whole = [
            "requested completed",
            "staging completed",
            "validating completed",
            "activating completed",
            "restarting completed",
            "verifying failed",
        ];
        assert_eq!(told(&run), whole);
        // What is done on the way back is no second try of a phase.
        run.steps.extend(["stop", "restore", "start"].map(|act| step(act, "back", Some(3))));
        assert_eq!(told(&run), whole);
        run.causes.clear();
        run.ended = None;
        run.steps = vec![step("resolve", "forward", Some(2)), step("stage", "forward", None)];
        assert_eq!(told(&run), ["requested completed", "staging in_progress"]);
    }

    #[test]
    fn a_list_is_cut_before_it_is_too_long_for_one_message() {
        let rows = fitting((0..1000).map(|n| json!({ "n": n, "text": "x".repeat(4096) })));
        assert!(rows.len() > 50 && json!(rows).to_string().len() < 2 * LIST_MAX);
        assert_eq!(fitting((0..3).map(|n| json!(n))).len(), 3);
    }

    #[test]
    fn a_text_is_clipped_between_two_characters() {
        assert_eq!(clipped("short"), "short");
        let long = |length: usize| format!("cutover --config /{} recover", "c".repeat(length));
        assert!(whole(&[long(100), long(100)]).ends_with(&format!("{} or {}", long(100), long(100))));
        assert!(whole(&[long(300), long(300)]).ends_with("recover; cutover's `status` tells more"));
        assert!(whole(&[long(TEXT_MAX)]).ends_with("machine: what cutover's `status` tells"));
        assert_eq!(clipped(&"ü".repeat(TEXT_MAX + 1)).chars().count(), TEXT_MAX + 1);
    }
}
