//! Words for people.

use crate::conductor::{Telling, View};
use cutover_core::{CopiedBytes, Finding, Level, Outcome, Reading, Report, Status, Writes};
use std::fmt::Write;

/// One line of a service's status.
pub(super) fn status(view: &View) -> String {
    let report = &view.report;
    let serving = match (&report.serving.version, &report.serving.instance) {
        (Some(version), Some(instance)) if report.serving.waived => {
            format!("serving {version} ({instance}), which a person accepted: its proof is incomplete")
        }
        (Some(version), Some(instance)) => format!("serving {version} ({instance})"),
        _ => format!("not serving, {}: {}", report.serving.posture, report.condition),
    };
    let mut text = format!("{}: {serving}; {}", view.service, report.standing);
    if let Some(status) = report.status {
        let _ = write!(text, "; last run {status}");
    }
    text.push_str(&awaits(view));
    if let Some(available) = &view.available {
        let _ = write!(text, "\n  available: {} ({})", available.version, available.channel);
        let more = [&available.published, &available.homepage].into_iter().flatten();
        for told in more {
            let _ = write!(text, ", {told}");
        }
    }
    if let Some(trouble) = &view.trouble {
        let _ = write!(text, "\n  trouble: {trouble}");
    }
    if let Some(alarm) = &view.alarm {
        let _ = write!(text, "\n  alarm: {}: {}", alarm.fault.code, alarm.fault.detail);
    }
    view.tellings.iter().filter_map(telling).for_each(|line| text.push_str(&line));
    // What waits says by itself how it is given up.
    if report.awaits.is_none() {
        commands(&mut text, report);
    }
    text
}

/// What a prepared run waits for, until when, and what to type.
fn awaits(view: &View) -> String {
    let Some(awaits) = &view.report.awaits else { return String::new() };
    let mut text = format!("\n  {}", view.report.sentence);
    let (opens, gives_up) =
        view.waiting.as_ref().map_or((None, None), |waiting| (waiting.opens_at, waiting.gives_up_at));
    if !awaits.windows.is_empty() {
        let _ = write!(text, "\n  it may stop what serves in: {}", awaits.windows.join("; "));
    }
    if let Some(opens) = opens.and_then(moment) {
        let _ = write!(text, "\n  the next begins {opens}");
    }
    if let Some(gives_up) = gives_up.and_then(moment) {
        let _ = write!(text, "\n  given up {gives_up}");
    }
    for command in &awaits.commands {
        let _ = write!(text, "\n  {command}");
    }
    text
}

/// A moment in this machine's time, with its zone.
fn moment(ms: u64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string())
}

/// The end of a run.
pub(super) fn ending(report: &Report) -> String {
    let word = match report.status {
        Some(status) => status.word(),
        None if report.ok => "already current",
        None if report.ended.is_some() => "already installed, not serving",
        None => "no status yet",
    };
    let mut text = format!("{word}\n{}", report.sentence);
    for cause in &report.causes {
        let _ = write!(text, "\n  {:?}: {} — {}", cause.act, cause.fault.code, cause.fault.detail);
    }
    if let Some(version) = &report.serving.version {
        let who = report.serving.instance.as_ref().map(ToString::to_string).unwrap_or_default();
        let _ = write!(
            text,
            "\nserving now: {version} ({who}, generation {})",
            report.serving.generation.map(|g| g.to_string()).unwrap_or_default()
        );
    } else {
        let _ = write!(text, "\nserving now: nothing ({})", report.serving.posture);
    }
    if let Some(awaits) = &report.awaits {
        let _ = write!(text, "\nwhat to type:\n  {}", awaits.commands.join("\n  "));
    }
    if let Some(downtime) = report.downtime_ms {
        let _ = write!(text, "\nheld for {downtime} ms");
    }
    if report.writes == Writes::GivenUp {
        text.push_str(
            "\nwrites since the snapshot were given up; what was replaced is kept beside what was laid down",
        );
    }
    if report.awaits.is_none() {
        commands(&mut text, report);
    }
    text
}

fn commands(text: &mut String, report: &Report) {
    if !report.recovery.is_empty() {
        text.push_str("\nwhat to type:");
        for command in &report.recovery {
            let _ = write!(text, "\n  {command}");
        }
    }
}

/// One run in full.
pub(super) fn run(report: &Report) -> String {
    let mut text = String::new();
    let id = report.run_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let before = report.before.as_ref().map_or("nothing", |before| before.release.version.as_str());
    let target = report.version.as_deref().unwrap_or("?");
    let _ = writeln!(
        text,
        "run {id} of {}: {before} -> {target}, by {}",
        report.service,
        report.actor.as_deref().unwrap_or("?")
    );
    if let Some(fault) = &report.origin {
        let _ = writeln!(text, "begun by {}: {}", fault.code, fault.detail);
    }
    for step in &report.steps {
        let took = step.took_ms.map_or_else(|| "…".to_owned(), |ms| format!("{ms} ms"));
        let back = if step.direction == cutover_core::Direction::Back { "back: " } else { "" };
        let _ = writeln!(
            text,
            "  {back}{:?} {took}  {}",
            step.name,
            step.outcome.as_deref().unwrap_or("under way")
        );
    }
    if let Some(line) = copied(report) {
        let _ = writeln!(text, "{line}");
    }
    if !report.facts.is_empty() {
        let _ = writeln!(text, "facts:");
    }
    for fact in &report.facts {
        let mark = match fact.reading {
            Reading::Holds => "holds",
            Reading::NotYet => "not yet",
            Reading::Contradicts => "CONTRADICTS",
            Reading::Missing => "MISSING",
            Reading::Warns => "WARNS",
            Reading::NotApplicable => "n/a",
        };
        let _ = writeln!(
            text,
            "  {:?}: {mark}; expected {}; observed {}  [{}]",
            fact.name, fact.expected, fact.observed, fact.source
        );
    }
    for finding in &report.findings {
        let _ = writeln!(text, "{finding}");
    }
    for notice in &report.notices {
        for delivery in &notice.deliveries {
            let (word, name) = (notice.about.word(), &delivery.target.name);
            let _ = writeln!(text, "notice {word} to {name}: {}", delivered(delivery.outcome.as_ref()));
        }
    }
    text.push_str(&ending(report));
    text
}

/// What its acts copied. One that was interrupted did not tell.
fn copied(report: &Report) -> Option<String> {
    let CopiedBytes { served, unserved } = report.copied;
    let is_whole = report.steps.iter().all(|step| step.ended.is_none() || step.copied.is_some());
    let least = if is_whole { "" } else { "at least " };
    (served + unserved > 0).then(|| {
        format!("copied: {least}{served} bytes while clients were served, {unserved} bytes while nobody was")
    })
}

fn delivered(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "not delivered yet".into(),
        Some(Outcome::Delivered { tries, answer }) => format!("delivered at try {tries} ({answer})"),
        Some(Outcome::GivenUp { tries, why }) => format!("given up after {tries} tries: {why}"),
    }
}

/// What is to be known of the telling of one target; nothing, if it knows everything.
fn telling(telling: &Telling) -> Option<String> {
    let name = &telling.target.name;
    let under_way = telling.trial.as_ref().map(|trial| {
        let (owed, tries, why) = (telling.owed, trial.tries, &trial.why);
        format!("\n  notices to {name}: {owed} not delivered yet; {tries} tries, the last: {why}")
    });
    let given_up =
        telling.given_up.as_ref().map(|why| format!("\n  ALARM: a notice to {name} was given up: {why}"));
    let waits =
        (telling.owed > 0).then(|| format!("\n  notices to {name}: {} not delivered yet", telling.owed));
    match (given_up, under_way.or(waits)) {
        (None, None) => None,
        (first, second) => Some(first.unwrap_or_default() + &second.unwrap_or_default()),
    }
}

/// One line of the history.
pub(super) fn line(report: &Report) -> String {
    let started =
        report.started.and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    let when = started.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
    let target = report.version.as_deref().unwrap_or("?");
    let word = report.status.map_or("-", Status::word);
    let reverted = if report.reverted_by.is_some() { " (reverted)" } else { "" };
    let id = report.run_id.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{when}  {id}  {}  {target}  {word}{reverted}", report.service)
}

/// The sealed generations, one line each.
pub(super) fn generations(value: &serde_json::Value) -> String {
    let records = value["generations"].as_array().cloned().unwrap_or_default();
    if records.is_empty() {
        return "nothing is installed yet".into();
    }
    let lines = records.iter().map(|record| {
        let number = record["generation"].as_u64().unwrap_or_default();
        let current = if record["generation"] == value["current"] { "  current" } else { "" };
        let version = record["release"]["version"].as_str().unwrap_or("?");
        let (files, bytes) = (&record["files"], &record["bytes"]);
        format!("{number:04}  {version}  {files} files, {bytes} bytes{current}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Findings, what blocks first. `explain` adds what each means and what to do.
pub(super) fn findings(findings: &[Finding], explain: bool) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut lines = Vec::new();
    for finding in &sorted {
        lines.push(finding.to_string());
        lines.extend(finding.advice.as_ref().filter(|_| explain).map(|advice| format!("    {advice}")));
    }
    let count = |level| sorted.iter().filter(|finding| finding.level == level).count();
    let (blocks, warnings) = (count(Level::Block), count(Level::Warn));
    let untold = sorted.iter().any(|finding| finding.advice.is_some()) && !explain;
    let hint = if untold { "; `--explain` says what to do" } else { "" };
    lines.push(format!("{blocks} would keep it from working, {warnings} to look at{hint}"));
    lines.join("\n")
}
