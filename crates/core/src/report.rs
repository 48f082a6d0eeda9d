//! What everybody reads: one object, folded from the entries of a run and the state after them.

use crate::{
    Act, Aim, Cause, Cut, Done, Ending, Entry, Event, Fact, Fault, Installed, Instance, Kind, Order, Phase,
    Posture, Resolution, RunId, Serving, State, Status, Wanted, Writes, judge, posture,
};
use serde::{Deserialize, Serialize};

/// The story of one run, folded from its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// What started it.
    pub kind: Kind,
    /// Who asked.
    pub actor: String,
    /// The trouble that began it, if nobody asked.
    pub origin: Option<Fault>,
    /// What served before.
    pub before: Option<Installed>,
    /// What it installs, as far as settled.
    pub target: Option<Installed>,
    /// The version that was asked for, then the one that was resolved.
    pub version: Option<String>,
    /// When it began (ms of Unix time).
    pub started: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// Its acts.
    pub steps: Vec<StepRecord>,
    /// The last verdict's facts.
    pub facts: Vec<Fact>,
    /// Preflight findings.
    pub findings: Vec<String>,
    /// How long the front could not serve a proven process (ms).
    pub downtime_ms: Option<u64>,
    /// Its ending.
    pub ending: Option<Ending>,
    /// The run that reverted it.
    pub reverted_by: Option<RunId>,
    /// Since when (boot-time ms) the front is not serving.
    closed_boot_ms: Option<u64>,
}

/// One act of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Which.
    pub name: Act,
    /// Which way the run was going.
    pub direction: Direction,
    /// When it began (ms of Unix time).
    pub started: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// How long it took (ms of the boot-time clock).
    pub took_ms: Option<u64>,
    /// How it ended, in words.
    pub outcome: Option<String>,
    /// When it began (ms of the boot-time clock).
    pub began_boot_ms: u64,
}

/// Which way a run was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Towards the target.
    Forward,
    /// Back to the source.
    Back,
}

impl Record {
    /// A record for the run that `entry` began, if it began one: `before` and `after` are the states around it.
    #[must_use]
    pub fn begun(entry: &Entry, before: &State, after: &State) -> Option<Self> {
        let run = after.open_run()?;
        if before.open_run() == Some(run) {
            return None;
        }
        let (kind, source, actor) = (kind(after)?, source(after), actor(&entry.event));
        let mut record = Self {
            run: run.clone(),
            kind,
            actor,
            origin: origin(&entry.event),
            before: source,
            target: None,
            version: asked_for(&entry.event),
            started: entry.wall_ms,
            ended: None,
            steps: Vec::new(),
            facts: Vec::new(),
            findings: Vec::new(),
            downtime_ms: None,
            ending: None,
            reverted_by: None,
            closed_boot_ms: (posture(before) == Posture::Serve && posture(after) != Posture::Serve)
                .then_some(entry.boot_ms),
        };
        record.enter(entry, after);
        Some(record)
    }

    /// Adds an entry that happened while the run was open (or that ended it).
    pub fn add(&mut self, entry: &Entry, before: &State, after: &State, ended: Option<&Ending>) {
        match &entry.event {
            Event::Finished { ticket, done } if ticket.run == self.run => {
                self.close(entry, outcome(done));
                self.learn(done);
            }
            Event::Faulted { ticket, fault } if ticket.run == self.run => {
                self.close(entry, format!("{}: {}", fault.code, fault.detail));
            }
            Event::Released { ticket } if ticket.run == self.run => self.close(entry, "released".into()),
            Event::SnapshotStale { .. } => {
                self.close(entry, "the state moved on: the snapshot is taken again".into())
            }
            Event::Exited { exit, .. } if act_of(before) != act_of(after) => {
                self.close(entry, format!("the process ended: {exit:?}"));
            }
            Event::Recovered { .. } => self.close(entry, "interrupted".into()),
            _ => {}
        }
        if let Some(ended) = ended.filter(|ended| ended.run == self.run) {
            self.close(entry, ended.causes.last().map_or_else(|| "ended".into(), |c| c.fault.detail.clone()));
            self.ended = Some(entry.wall_ms);
            self.ending = Some(ended.clone());
        }
        if after.open_run() == Some(&self.run) && ticket_of(before) != ticket_of(after) {
            self.enter(entry, after);
        }
        self.count_downtime(entry, before, after);
    }

    fn enter(&mut self, entry: &Entry, after: &State) {
        let Some((act, direction)) = act_of(after) else { return };
        self.steps.push(StepRecord {
            name: act,
            direction,
            started: entry.wall_ms,
            ended: None,
            took_ms: None,
            outcome: None,
            began_boot_ms: entry.boot_ms,
        });
    }

    fn close(&mut self, entry: &Entry, outcome: String) {
        if let Some(step) = self.steps.last_mut().filter(|step| step.ended.is_none()) {
            step.ended = Some(entry.wall_ms);
            step.took_ms = entry.boot_ms.checked_sub(step.began_boot_ms);
            step.outcome = Some(outcome);
        }
    }

    fn learn(&mut self, done: &Done) {
        match done {
            Done::Resolved { release } | Done::AlreadyCurrent { release } => {
                self.version = Some(release.version.clone());
            }
            Done::Staged { installed } => self.target = Some(installed.clone()),
            Done::Checked { findings } => self.findings.clone_from(findings),
            Done::Observed { expectation, observations } => {
                self.facts = judge(expectation, observations).facts().to_vec();
            }
            Done::Skipped { .. } | Done::Started { .. } | Done::Done { .. } => {}
        }
    }

    /// Downtime is what clients could notice: from the first moment the front stops serving to the moment it may again.
    fn count_downtime(&mut self, entry: &Entry, before: &State, after: &State) {
        let (was, is) = (posture(before), posture(after));
        if was == Posture::Serve && is != Posture::Serve {
            self.closed_boot_ms = Some(entry.boot_ms);
        }
        if was != Posture::Serve
            && is == Posture::Serve
            && let Some(closed) = self.closed_boot_ms.take()
        {
            let more = entry.boot_ms.saturating_sub(closed);
            self.downtime_ms = Some(self.downtime_ms.unwrap_or(0) + more);
        }
    }
}

fn kind(state: &State) -> Option<Kind> {
    match &state.phase {
        Phase::Preparing(preparation) => Some(preparation.run.kind),
        Phase::CuttingOver(cut) => Some(cut.run.kind),
        Phase::RollingBack(retreat) => Some(retreat.cut.run.kind),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => {
            state.parked.as_ref().map(|cut| cut.run.kind)
        }
    }
}

fn source(state: &State) -> Option<Installed> {
    match &state.phase {
        Phase::Preparing(preparation) => preparation.run.source.clone(),
        Phase::CuttingOver(cut) => cut.run.source.clone(),
        Phase::RollingBack(retreat) => retreat.cut.run.source.clone(),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

/// The version that an order names, where it names one.
fn asked_for(event: &Event) -> Option<String> {
    match event {
        Event::Ordered { order: Order::Update { wanted: Wanted::Version(version) }, .. } => {
            Some(version.clone())
        }
        Event::Ordered { order: Order::Rollback { to, .. }, .. } => Some(to.release.version.clone()),
        _ => None,
    }
}

/// What began a run that nobody asked for.
fn origin(event: &Event) -> Option<Fault> {
    match event {
        Event::TreeChanged { fault, .. } | Event::Degraded { fault, .. } => Some(fault.clone()),
        _ => None,
    }
}

fn actor(event: &Event) -> String {
    match event {
        Event::Ordered { actor, .. } => actor.clone(),
        _ => "cutover".into(),
    }
}

fn act_of(state: &State) -> Option<(Act, Direction)> {
    match &state.phase {
        Phase::Preparing(preparation) => Some((preparation.act, Direction::Forward)),
        Phase::CuttingOver(Cut { act, .. }) => Some((*act, Direction::Forward)),
        Phase::RollingBack(retreat) => Some((retreat.cut.act, Direction::Back)),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

fn ticket_of(state: &State) -> Option<crate::Ticket> {
    crate::wants(state).act.map(|(ticket, _)| ticket)
}

fn outcome(done: &Done) -> String {
    match done {
        Done::Resolved { release } => format!("{} {}", release.package, release.version),
        Done::AlreadyCurrent { release } => format!("already current: {}", release.version),
        Done::Staged { installed } => format!("generation {}", installed.generation),
        Done::Checked { findings } => format!("{} findings", findings.len()),
        Done::Skipped { why } => format!("skipped: {why}"),
        Done::Started { instance } => instance.to_string(),
        Done::Observed { observations, .. } => format!("proven, {} in a row", observations.streak),
        Done::Done { note } => note.clone(),
    }
}

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
    pub findings: Vec<String>,
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
    /// All faults.
    pub causes: Vec<Cause>,
    /// What became of acknowledged writes.
    pub writes: Writes,
    /// The exact commands that help, if any are needed.
    pub recovery: Vec<String>,
    /// What happens next by itself, or what is waited for.
    pub next: Option<String>,
    /// When the run began (ms of Unix time).
    pub started: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// The run that reverted this one.
    pub reverted_by: Option<RunId>,
}

/// The sentence of an update whose restart failed (requirement M10).
pub(crate) const RESTART_FAILED: &str = "package updated but restart failed; manual restart required";

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
        standing: phase_word(state),
        phase: if record.is_some() && !open { "finished".into() } else { phase_word(state) },
        status,
        ok: status.is_some_and(Status::is_verified) || is_already_current(ending),
        resolution,
        sentence: sentence(state, record, status, resolution),
        condition: condition(state),
        facts: record.map(|record| record.facts.clone()).unwrap_or_default(),
        steps: record.map(|record| record.steps.clone()).unwrap_or_default(),
        findings: record.map(|record| record.findings.clone()).unwrap_or_default(),
        before: record.and_then(|record| record.before.clone()),
        target: record.and_then(|record| target(state, record)),
        version: record.and_then(|record| wanted_version(state, record)),
        serving: serves(state),
        downtime_ms: record.and_then(|record| record.downtime_ms),
        causes,
        writes: ending.map_or(Writes::Kept, |ending| ending.writes),
        recovery: recovery(service, state),
        next: next(state, open),
        started: record.map(|record| record.started),
        ended: record.and_then(|record| record.ended),
        reverted_by: record.and_then(|record| record.reverted_by.clone()),
    }
}

/// Nothing was to be done, because the process that serves had already proven to be the release.
fn is_already_current(ending: Option<&Ending>) -> bool {
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

fn target(state: &State, record: &Record) -> Option<Installed> {
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

fn wanted_version(state: &State, record: &Record) -> Option<String> {
    let target = target(state, record).map(|target| target.release.version);
    target.or_else(|| record.version.clone())
}

fn phase_word(state: &State) -> String {
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

fn serves(state: &State) -> Serves {
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
    }
}

fn sentence(
    state: &State,
    record: Option<&Record>,
    status: Option<Status>,
    resolution: Resolution,
) -> String {
    let Some(record) = record else { return format!("{}.", phase_word(state)) };
    let version = wanted_version(state, record).unwrap_or_else(|| "the wanted version".into());
    let before = record.before.as_ref().map_or("nothing", |before| before.release.version.as_str());
    match (status, resolution) {
        (Some(Status::RestartVerified), _) if record.reverted_by.is_some() => {
            format!("{version} was verified and later reverted.")
        }
        (Some(Status::RestartVerified), _) => format!("{version} is live and verified."),
        (Some(Status::RestartScheduled), _) if state.parked.is_some() => {
            format!("{version} is switched; the service is kept stopped and `start` proves it.")
        }
        (Some(Status::RestartScheduled), _) => {
            format!("{version} is switched; its restart is not verified yet.")
        }
        (Some(Status::RestartFailed), Resolution::OldVerified) => {
            format!("Update to {version} failed after the switch; {before} is serving again, verified.")
        }
        (Some(Status::RestartFailed), Resolution::AcceptedUnverified) => {
            format!("{version} was accepted by a person; its proof is incomplete.")
        }
        (Some(Status::RestartFailed), _) => RESTART_FAILED.into(),
        (Some(Status::UpdateFailed), _) if record.before.is_none() => {
            format!("The first installation, of {version}, failed; nothing serves.")
        }
        (Some(Status::UpdateFailed), _) => {
            format!("Update to {version} failed before the switch; {before} was not touched.")
        }
        (None, _) if is_already_current(record.ending.as_ref()) => format!("{version} is already current."),
        (None, _) if record.ending.is_some() => {
            format!(
                "{version} is already installed, but no process of it has proven itself: {}.",
                condition(state)
            )
        }
        (None, _) => format!("{version}: {}.", phase_word(state)),
    }
}

/// What clients meet now, and why. Never about a run that is over, except where it left the service in maintenance.
fn condition(state: &State) -> String {
    let serves = serves(state);
    match (&state.phase, posture(state)) {
        (Phase::Maintenance(_), _) => RESTART_FAILED.into(),
        (_, Posture::Serve) => {
            format!("{} is serving.", serves.version.unwrap_or_else(|| "A version".into()))
        }
        _ if state.tree == crate::Tree::Damaged => {
            "files of the running version were changed by a foreign hand; it is being sealed again".into()
        }
        (Phase::CuttingOver(_), _) => "it is being updated".into(),
        (Phase::RollingBack(_), _) => "an update failed; the version before is being brought back".into(),
        (_, Posture::Hold) => "it is being started".into(),
        _ if state.parked.is_some() => "it is stopped; an update waits for `start`".into(),
        _ if state.wish == crate::Wish::Stopped => "it is stopped by its operator".into(),
        _ if state.restarts == crate::Restarts::Halted => {
            "it ended with exit code 78 (configuration) and is not started again by itself".into()
        }
        _ => "nothing is installed yet".into(),
    }
}

/// The exact commands that help now: the same strings that `cutover` accepts.
fn recovery(service: &str, state: &State) -> Vec<String> {
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
            commands
        }
        Phase::Idle | Phase::Watching(_) if state.parked.is_some() || state.wish == crate::Wish::Stopped => {
            vec![format!("cutover start {service}")]
        }
        Phase::Idle | Phase::Watching(_) if state.restarts == crate::Restarts::Halted => {
            vec![format!("cutover logs {service}"), format!("cutover start {service}")]
        }
        Phase::Idle if state.current.is_none() => vec![format!("cutover update {service}")],
        _ => Vec::new(),
    }
}

fn next(state: &State, open: bool) -> Option<String> {
    match &state.phase {
        Phase::Maintenance(_) => Some("a person decides: see the commands".into()),
        Phase::Idle if state.parked.is_some() => Some("start".into()),
        Phase::CuttingOver(_) | Phase::RollingBack(_) | Phase::Preparing(_) if open => {
            Some("the run ends by itself".into())
        }
        _ => None,
    }
}
