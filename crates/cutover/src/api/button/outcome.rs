//! What a press of the button is answered with, in the shape of OpenClaw's `update.run`. Everything derives from the report.

use super::row::{clipped, last_steps};
use cutover_core::{Report, RunId, StepRecord};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// How the gateway calls what was installed as a package.
const MODE: &str = "npm";
/// What the gateway says where somebody else carries the update out; "skipped" is its word for "taken".
const HANDED_OVER: (&str, &str) = ("skipped", "managed-service-handoff-started");

/// Whether a run may be called a success: its report does, and nothing has taken that back since.
fn is_good(report: &Report) -> bool {
    report.ok && report.ended.is_some() && report.reverted_by.is_none()
}

/// Why it may not, in one word.
pub(super) fn reason(report: &Report) -> Option<String> {
    if is_good(report) {
        return None;
    }
    let cause = report.causes.first().map(|cause| cause.fault.code.clone());
    Some(match cause {
        Some(code) => code,
        None if report.reverted_by.is_some() => "reverted".into(),
        None if report.phase == "parked" => "restart_scheduled".into(),
        None if report.awaits_a_person() => "approval_required".into(),
        None => "not_serving".into(),
    })
}

/// The version that was proven to serve, where a run may be called a success.
pub(super) fn proven(report: &Report) -> Option<&str> {
    report.version.as_deref().filter(|_| is_good(report))
}

fn before(report: &Report) -> Value {
    version(report.before.as_ref().map(|before| before.release.version.as_str()))
}

fn version(version: Option<&str>) -> Value {
    version.map_or(Value::Null, |version| json!({ "version": version }))
}

/// How long a run took (ms).
fn duration(report: &Report) -> u64 {
    let (started, ended) = (report.started.unwrap_or_default(), report.ended.unwrap_or_default());
    ended.saturating_sub(started)
}

fn word(report: &Report) -> &'static str {
    if is_good(report) { "ok" } else { "error" }
}

/// The end of a run, for a client that waited for it.
pub(super) fn outcome(report: &Report, root: &Path) -> Value {
    let told = |one: &StepRecord| {
        let mut told = step(one, root);
        told.extend(log(one));
        told
    };
    let steps: Vec<_> = last_steps(report).iter().map(told).collect();
    json!({
        "ok": is_good(report),
        "result": {
            "status": word(report), "mode": MODE, "root": root, "reason": reason(report),
            "before": before(report), "after": version(proven(report)),
            "steps": steps, "durationMs": duration(report),
        },
        "restart": null,
        "sentinel": { "payload": sentinel(report, root) },
        "status": report.status,
        "runId": report.run_id,
        "message": report.sentence,
    })
}

/// The same for a client that asks later.
pub(super) fn sentinel(report: &Report, root: &Path) -> Value {
    let told = |one: &StepRecord| {
        let mut told = step(one, root);
        told.insert("log", json!(log(one)));
        told
    };
    let steps: Vec<_> = last_steps(report).iter().map(told).collect();
    json!({
        "kind": "update", "status": word(report), "ts": report.ended, "message": report.sentence,
        "stats": {
            "mode": MODE, "root": root, "before": before(report), "after": version(proven(report)),
            "steps": steps, "reason": reason(report), "durationMs": duration(report),
        },
    })
}

/// A run was begun or joined, and its client follows it. Nothing is claimed of it yet.
pub(super) fn accepted(run: &RunId, report: Option<&Report>, root: &Path) -> Value {
    json!({
        "ok": false,
        "result": {
            "status": HANDED_OVER.0, "mode": MODE, "root": root, "reason": HANDED_OVER.1,
            "before": report.map_or(Value::Null, before), "after": null, "steps": [], "durationMs": 0,
        },
        "restart": null,
        "sentinel": null,
        "status": cutover_core::Status::RestartScheduled,
        "runId": run,
    })
}

/// Nothing was begun.
pub(super) fn denied(reason: &str, message: &str, current: Option<String>, root: &Path) -> Value {
    json!({
        "ok": false,
        "result": {
            "status": "error", "mode": MODE, "root": root, "reason": reason,
            "before": version(current.as_deref()), "after": null, "steps": [], "durationMs": 0,
        },
        "restart": null,
        "sentinel": null,
        "status": null,
        "message": clipped(message),
    })
}

fn step(step: &StepRecord, root: &Path) -> BTreeMap<&'static str, Value> {
    let name = super::row::step_name(step);
    BTreeMap::from([
        ("command", json!(format!("cutover: {name}"))),
        ("name", json!(name)),
        ("cwd", json!(root)),
        ("durationMs", json!(step.took_ms)),
    ])
}

/// What a step of the gateway's has of its command's output.
fn log(step: &StepRecord) -> BTreeMap<&'static str, Value> {
    let said = step.outcome.as_deref().map(clipped);
    BTreeMap::from([("stdoutTail", json!(said)), ("stderrTail", Value::Null), ("exitCode", Value::Null)])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run from 1.0.0 to 2.0.0 with a fault if it is not ok.
    pub(in super::super) fn report(
        ended: bool,
        ok: bool,
        status: Value,
        resolution: &str,
        reverted: bool,
    ) -> Report {
        let step = json!({
            "name": "soak", "direction": "forward", "started": 20, "ended": null, "tookMs": null,
            "outcome": null, "beganBootMs": 2,
        });
        let fault = json!({ "act": "prove", "fault": { "code": "crashed", "detail": "the process ended" } });
        let before = json!({
            "generation": 1,
            "release": { "package": "sample", "version": "1.0.0", "digest": "sha512-0" },
        });
        serde_json::from_value(json!({
            "service": "web", "runId": "run", "trigger": "update", "actor": "button", "origin": null,
            "phase": if ended { "finished" } else { "cutting over: soak" }, "standing": "idle",
            "status": status, "ok": ok, "resolution": resolution, "sentence": "A sentence.",
            "condition": "it serves", "facts": [], "steps": [step], "findings": [], "before": before,
            "target": null, "version": "2.0.0",
            "serving": { "version": null, "instance": null, "generation": null, "posture": "hold" },
            "downtimeMs": null, "causes": if ok { json!([]) } else { json!([fault]) }, "writes": "kept",
            "recovery": [], "next": null, "started": 10, "ended": ended.then_some(30),
            "revertedBy": reverted.then_some("another"),
        }))
        .unwrap()
    }

    const WORDS: [Option<&str>; 5] = [
        None,
        Some("package_update_failed"),
        Some("package_updated_restart_scheduled"),
        Some("package_updated_restart_failed"),
        Some("package_updated_restart_verified"),
    ];

    #[test]
    fn r78110_nothing_but_an_ended_run_that_is_ok_and_stays_so_is_told_as_ok() {
        for (ended, ok, reverted) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
            for word in WORDS {
                let run = report(ended, ok, json!(word), "none", reverted);
                let told = outcome(&run, Path::new("/srv"));
                let good = ended && ok && !reverted;
                let (result, sentinel) = (&told["result"], &told["sentinel"]["payload"]);
                assert_eq!(told["ok"], good, "{told}");
                for part in [result, sentinel] {
                    assert_eq!(part["status"], if good { "ok" } else { "error" }, "{told}");
                }
                for part in [result, &sentinel["stats"]] {
                    assert_eq!(part["after"]["version"], json!(good.then_some("2.0.0")), "{told}");
                    assert_eq!(part["reason"].is_null(), good, "{told}");
                }
                assert_eq!(told["status"], json!(word), "the four words stand in the payload's status");
            }
        }
    }

    #[test]
    fn what_was_only_begun_or_denied_claims_nothing() {
        let run = report(false, false, Value::Null, "none", false);
        let begun = accepted(&RunId("run".into()), Some(&run), Path::new("/srv"));
        let refused = denied("maintenance", "Why.", Some("1.0.0".into()), Path::new("/srv"));
        for told in [&begun, &refused] {
            assert_eq!((&told["ok"], &told["result"]["after"]), (&json!(false), &Value::Null));
            assert_ne!(told["result"]["status"], "ok");
            assert_eq!(told["result"]["before"]["version"], "1.0.0");
        }
        assert_eq!((&begun["runId"], &refused["runId"]), (&json!("run"), &Value::Null));
    }

    #[test]
    fn an_answer_fits_into_one_message_however_long_the_run_was() {
        let mut run = report(true, false, json!(WORDS[3]), "none", false);
        run.steps = vec![run.steps[0].clone(); 10_000];
        run.steps.iter_mut().for_each(|step| step.outcome = Some("ü".repeat(10_000)));
        assert!(outcome(&run, Path::new("/srv")).to_string().len() < 512 * 1024);
    }
}
