//! What everybody reads: one object, made of the record of a run and the state after it.

use crate::words::{awaits, condition, next, phase_word, recovery, sentence, standing};
use crate::{
    Aim, Cause, CopiedBytes, Ending, Fact, Fault, Finding, Installed, Instance, Kind, Notification,
    Notifications, Phase, PlanId, Record, Resolution, RunId, Serving, State, Status, StepRecord, Writes,
    posture,
};
use serde::{Deserialize, Serialize};

/// What serves now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serves {
    /// Its version.
    pub version: Option<String>,
    /// The process, if one is proven or waived.
    pub instance: Option<Instance>,
    /// Its generation.
    pub generation: Option<crate::Generation>,
    /// What clients get: `serve`, `hold` or `maintain`.
    pub posture: String,
    /// Whether a person accepted that process: its proof is incomplete.
    #[serde(default)]
    pub waived: bool,
}

/// What a prepared run waits for before anything stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Awaits {
    /// What a person is to approve; none, if only the time is not right yet.
    pub plan: Option<PlanId>,
    /// When it may stop what serves, in words; none: at any time.
    pub windows: Vec<String>,
    /// The exact commands that go on or give up.
    pub commands: Vec<String>,
}

/// The report object, the same on every channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The service's name.
    pub service: String,
    /// The run that this report is about, if there was one.
    pub run_id: Option<RunId>,
    /// What started it.
    pub trigger: Option<Kind>,
    /// Who asked.
    pub actor: Option<String>,
    /// The trouble that began the run, if nobody asked for it.
    pub origin: Option<Fault>,
    /// Where the run stands: the act under way, or `finished`.
    pub phase: String,
    /// Where the service stands.
    pub standing: String,
    /// One of the four words, or none.
    pub status: Option<Status>,
    /// Complete success, derived from `status`.
    pub ok: bool,
    /// How it was resolved.
    pub resolution: Resolution,
    /// One sentence for a person, about the run.
    pub sentence: String,
    /// One sentence for a person, about what clients of the service meet now.
    pub condition: String,
    /// The facts of the last verdict.
    pub facts: Vec<Fact>,
    /// The acts.
    pub steps: Vec<StepRecord>,
    /// Preflight findings.
    pub findings: Vec<Finding>,
    /// What served before.
    pub before: Option<Installed>,
    /// What the run installs.
    pub target: Option<Installed>,
    /// The version that the run wants, as far as it is known.
    pub version: Option<String>,
    /// What serves now.
    pub serving: Serves,
    /// How long no proven process could be reached (ms).
    pub downtime_ms: Option<u64>,
    /// Bytes that its acts copied.
    #[serde(default)]
    pub copied: CopiedBytes,
    /// All faults.
    pub causes: Vec<Cause>,
    /// What became of acknowledged writes.
    pub writes: Writes,
    /// The exact commands that help, if any are needed.
    pub recovery: Vec<String>,
    /// What happens next by itself, or what is waited for.
    pub next: Option<String>,
    /// What the run waits for before anything stops.
    #[serde(default)]
    pub awaits: Option<Awaits>,
    /// When the run began (ms of Unix time).
    pub started: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// The run that reverted this one.
    pub reverted_by: Option<RunId>,
    /// Who was told of this run, and who is still to be.
    #[serde(default)]
    pub notices: Vec<Notification>,
}

impl Report {
    /// Whether the run goes on with a person's word only.
    #[must_use]
    pub fn awaits_a_person(&self) -> bool {
        self.awaits.as_ref().is_some_and(|awaits| awaits.plan.is_some())
    }

    /// The same with `flags` (quoted for a shell; may be empty) in each command, so that it finds the places that they name.
    #[must_use]
    pub fn typed(mut self, flags: &str) -> Self {
        let awaited = self.awaits.iter_mut().flat_map(|awaits| &mut awaits.commands);
        for command in self.recovery.iter_mut().chain(awaited).filter(|_| !flags.is_empty()) {
            *command = command.replacen("cutover ", &format!("cutover {flags} "), 1);
        }
        self
    }

    /// The same with what is told of its run.
    #[must_use]
    pub fn told(mut self, notifications: &Notifications) -> Self {
        let run = self.run_id.as_ref();
        self.notices = run.into_iter().flat_map(|run| notifications.of_run(run)).cloned().collect();
        self
    }
}

/// What everybody reads about `record` (or the service alone) in `state`.
#[must_use]
pub fn report(service: &str, state: &State, record: Option<&Record>) -> Report {
    let status = status(state, record);
    let resolution = resolution(state, record);
    let ending = record.and_then(|record| record.ending.as_ref());
    let open = record.is_some_and(|record| state.open_run() == Some(&record.run));
    let causes = match (&state.phase, ending) {
        (_, Some(ending)) => ending.causes.clone(),
        (Phase::RollingBack(retreat), None) if open => retreat.causes.clone(),
        _ => Vec::new(),
    };
    Report {
        service: service.to_owned(),
        run_id: record.map(|record| record.run.clone()),
        trigger: record.map(|record| record.kind),
        actor: record.map(|record| record.actor.clone()),
        origin: record.and_then(|record| record.origin.clone()),
        standing: standing(state),
        phase: if record.is_some() && !open { "finished".into() } else { phase_word(state) },
        status,
        ok: status.is_some_and(Status::is_verified) || is_already_current(ending),
        resolution,
        sentence: sentence(state, record, status, resolution),
        condition: condition(state),
        facts: record.map(|record| record.facts.clone()).unwrap_or_default(),
        steps: record.map(|record| record.steps.clone()).unwrap_or_default(),
        findings: record.map(Record::all_findings).unwrap_or_default(),
        before: record.and_then(|record| record.before.clone()),
        target: record.and_then(|record| target(state, record)),
        version: record.and_then(|record| wanted_version(state, record)),
        serving: serves(state),
        downtime_ms: record.and_then(|record| record.downtime_ms),
        copied: record.map(|record| record.copied).unwrap_or_default(),
        causes,
        writes: ending.map_or(Writes::Kept, |ending| ending.writes),
        recovery: recovery(service, state),
        next: next(state, open),
        awaits: if open { awaits(service, state) } else { None },
        started: record.map(|record| record.started),
        ended: record.and_then(|record| record.ended),
        reverted_by: record.and_then(|record| record.reverted_by.clone()),
        notices: Vec::new(),
    }
}

/// Nothing was to be done, because the process that serves had already proven to be the release.
pub(crate) fn is_already_current(ending: Option<&Ending>) -> bool {
    ending.is_some_and(|ending| ending.status.is_none() && ending.resolution == Resolution::OldVerified)
}

fn status(state: &State, record: Option<&Record>) -> Option<Status> {
    let Some(record) = record else { return state.last.as_ref().and_then(|last| last.status) };
    if let Some(ending) = &record.ending {
        return ending.status;
    }
    match &state.phase {
        Phase::CuttingOver(cut) if cut.run.id == record.run => {
            (state.current.as_ref() == Some(&cut.target)).then_some(Status::RestartScheduled)
        }
        Phase::RollingBack(retreat) if retreat.cut.run.id == record.run => {
            Some(crate::step::told_of_retreat(retreat))
        }
        _ => state.parked.as_ref().filter(|cut| cut.run.id == record.run).map(|_| Status::RestartScheduled),
    }
}

fn resolution(state: &State, record: Option<&Record>) -> Resolution {
    match record {
        Some(record) => record.ending.as_ref().map_or(Resolution::None, |ending| ending.resolution),
        None => state.last.as_ref().map_or(Resolution::None, |last| last.resolution),
    }
}

pub(crate) fn target(state: &State, record: &Record) -> Option<Installed> {
    match &state.phase {
        Phase::CuttingOver(cut) if cut.run.id == record.run => Some(cut.target.clone()),
        Phase::Preparing(preparation) if preparation.run.id == record.run => match &preparation.aim {
            Aim::Staged(installed) => Some(installed.clone()),
            Aim::Wanted(_) | Aim::Resolved(_) => None,
        },
        _ => {
            record.ending.as_ref().and_then(|ending| ending.target.clone()).or_else(|| record.target.clone())
        }
    }
}

pub(crate) fn wanted_version(state: &State, record: &Record) -> Option<String> {
    let target = target(state, record).map(|target| target.release.version);
    target.or_else(|| record.version.clone())
}

pub(crate) fn serves(state: &State) -> Serves {
    let instance = match &state.serving {
        Serving::Proven(instance) | Serving::Waived(Some(instance)) => Some(instance.clone()),
        Serving::Unproven | Serving::Waived(None) => None,
    };
    // The pointer moves before the process does: what serves is what was proven, so during a cut only a released target.
    let installed = match (&state.phase, &instance) {
        (_, None) => None,
        (Phase::CuttingOver(cut), Some(instance)) if cut.live.as_ref() != Some(instance) => {
            cut.run.source.clone()
        }
        _ => state.current.clone(),
    };
    Serves {
        version: installed.as_ref().map(|installed| installed.release.version.clone()),
        generation: installed.map(|installed| installed.generation),
        instance,
        posture: format!("{:?}", posture(state)).to_lowercase(),
        waived: matches!(state.serving, Serving::Waived(Some(_))),
    }
}
