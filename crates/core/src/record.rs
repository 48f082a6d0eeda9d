//! The story of one run, folded from its journal entries. It must not know what is told of it.

use crate::{
    Act, Boot, Checked, Cut, Done, Ending, Entry, Event, Exchanges, Exit, Fact, FactName, Fault, Finding,
    Installed, Kind, Level, Order, Phase, Posture, Reading, RunId, State, Wanted, judge, posture,
};
use serde::{Deserialize, Serialize};

/// The kind of what is missing about a process's end.
const EXIT: &str = "exit";

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
    /// How clients fared with what served before.
    #[serde(default)]
    pub baseline: Option<Exchanges>,
    /// Preflight findings.
    pub findings: Vec<Finding>,
    /// How long the front could not serve a proven process (ms).
    pub downtime_ms: Option<u64>,
    /// What its acts copied.
    #[serde(default)]
    pub copied: CopiedBytes,
    /// Its ending.
    pub ending: Option<Ending>,
    /// The run that reverted it.
    pub reverted_by: Option<RunId>,
    /// Since when it waits before its cut, in whatever act it is now; a reboot begins that anew.
    #[serde(default)]
    pub waits_since: Option<Moment>,
    /// Since when (boot-time ms) the front is not serving.
    closed_boot_ms: Option<u64>,
}

/// When something was, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// For people (ms of Unix time).
    pub wall_ms: u64,
    /// For durations, within one boot (ms of the boot-time clock).
    pub boot_ms: u64,
}

impl Moment {
    fn of(entry: &Entry) -> Self {
        Self { wall_ms: entry.wall_ms, boot_ms: entry.boot_ms }
    }
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
    /// Bytes that it copied; not known of one that was interrupted.
    #[serde(default)]
    pub copied: Option<u64>,
}

/// Bytes that the acts of a run copied, as far as they told: a release's, and declared state's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopiedBytes {
    /// While clients were served.
    pub served: u64,
    /// While nobody was.
    pub unserved: u64,
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
            baseline: None,
            findings: Vec::new(),
            downtime_ms: None,
            copied: CopiedBytes::default(),
            ending: None,
            reverted_by: None,
            waits_since: None,
            closed_boot_ms: (posture(before) == Posture::Serve && posture(after) != Posture::Serve)
                .then_some(entry.boot_ms),
        };
        record.enter(entry, after);
        Some(record)
    }

    /// Adds an entry that happened while the run was open (or that ended it).
    pub fn add(&mut self, entry: &Entry, before: &State, after: &State, ended: Option<&Ending>) {
        if let Event::Exited { instance, exit: Exit::Unknown(why), .. } = &entry.event {
            // A missing fact is shown as one.
            let text = format!("how {instance} ended is not known: {why}");
            self.findings.push(Finding::new(Level::Warn, EXIT, text));
        }
        match &entry.event {
            Event::Finished { ticket, done, copied } if ticket.run == self.run => {
                self.count_copied(*copied, before);
                self.close(entry, outcome(done));
                self.learn(done);
            }
            Event::Faulted { ticket, fault, copied } if ticket.run == self.run => {
                self.count_copied(*copied, before);
                self.close(entry, format!("{}: {}", fault.code, fault.detail));
            }
            // A stop that was interrupted is measured again, when nobody is served any more: the first counts.
            Event::Measured { run, exchanges } if *run == self.run => {
                self.baseline.get_or_insert(*exchanges);
            }
            Event::Released { ticket } if ticket.run == self.run => {
                self.count_copied(Some(0), before);
                self.close(entry, "released".into());
            }
            Event::SnapshotStale { .. } => {
                self.count_copied(Some(0), before);
                self.close(entry, "the state moved on: the snapshot is taken again".into());
            }
            Event::Exited { exit, .. } if act_of(before) != act_of(after) => {
                self.count_copied(Some(0), before);
                self.close(entry, format!("the process ended: {exit:?}"));
            }
            Event::Recovered { boot, .. } => {
                self.close(entry, "interrupted".into());
                // On the clock that it is measured by, nothing is known of an earlier boot.
                if *boot == Boot::New && self.waits_since.is_some() {
                    self.waits_since = Some(Moment::of(entry));
                }
            }
            Event::Ordered { order: Order::Approve { .. }, actor, .. } => {
                self.close(entry, format!("approved by {actor}"));
            }
            Event::Ordered { order: Order::Hold, actor, .. } if ticket_of(before) != ticket_of(after) => {
                self.close(entry, format!("held by {actor}"));
            }
            _ => {}
        }
        if let Some(ended) = ended.filter(|ended| ended.run == self.run) {
            self.close(entry, ended.causes.last().map_or_else(|| "ended".into(), |c| c.fault.detail.clone()));
            self.ended = Some(entry.wall_ms);
            self.ending = Some(ended.clone());
        }
        // Before the cut an act that was interrupted goes on under its ticket.
        let goes_on = matches!(entry.event, Event::Recovered { .. }) || ticket_of(before) != ticket_of(after);
        if after.open_run() == Some(&self.run) && goes_on {
            self.close(entry, "begun again".into());
            self.enter(entry, after);
        }
        self.count_downtime(entry, before, after);
    }

    fn enter(&mut self, entry: &Entry, after: &State) {
        let Some((act, direction)) = act_of(after) else { return };
        if act == Act::Await {
            self.waits_since.get_or_insert(Moment::of(entry));
        }
        self.steps.push(StepRecord {
            name: act,
            direction,
            started: entry.wall_ms,
            ended: None,
            took_ms: None,
            outcome: None,
            began_boot_ms: entry.boot_ms,
            copied: None,
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
            Done::Checked(checked) => self.look(checked),
            Done::Observed { expectation, observations } => {
                self.facts = judge(expectation, observations).facts().to_vec();
            }
            Done::Missed { .. }
            | Done::Skipped { .. }
            | Done::Mendable { .. }
            | Done::Started { .. }
            | Done::Done { .. } => {}
        }
    }

    /// What was found, and what its last proof warns of.
    pub(crate) fn all_findings(&self) -> Vec<Finding> {
        self.findings.iter().cloned().chain(self.facts.iter().filter_map(warning)).collect()
    }

    /// What an earlier look found and this one does not is not so any more.
    fn look(&mut self, checked: &Checked) {
        self.findings.retain(|known| known.kind == EXIT);
        self.findings.extend(checked.findings.iter().cloned());
    }

    /// Of the act under way, by what clients met while it was.
    fn count_copied(&mut self, copied: Option<u64>, before: &State) {
        let bytes = copied.unwrap_or_default();
        match posture(before) {
            Posture::Serve => self.copied.served += bytes,
            Posture::Hold | Posture::Maintain => self.copied.unserved += bytes,
        }
        if let Some(step) = self.steps.last_mut().filter(|step| step.ended.is_none()) {
            step.copied = copied;
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

/// What a fact that stands in nobody's way tells a person.
fn warning(fact: &Fact) -> Option<Finding> {
    let text = |words: &str| format!("{words}: {}", fact.observed);
    let told = match (fact.reading, fact.name) {
        (Reading::Warns, FactName::Traffic) => ("traffic", text("clients fare worse than before")),
        (Reading::Warns, FactName::Plugins) => {
            ("plugins", text("the service does not tell all of its plugins"))
        }
        (Reading::Warns, name) => ("fact", text(&format!("{name:?}"))),
        _ => return None,
    };
    Some(Finding::new(Level::Warn, told.0, told.1))
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
        Event::Ordered { order: Order::Update { wanted: Wanted::Version(version), .. }, .. } => {
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
        Done::Checked(checked) => match checked.refusal() {
            Some(Fault { code, detail }) => format!("{code}: {detail}"),
            None => format!("{} findings", checked.findings.len()),
        },
        Done::Missed { why } => why.clone(),
        Done::Skipped { why } => format!("skipped: {why}"),
        Done::Mendable { fault } => format!("{}: {}", fault.code, fault.detail),
        Done::Started { instance } => instance.to_string(),
        Done::Observed { observations, .. } => format!("proven, {} in a row", observations.streak),
        Done::Done { note } => note.clone(),
    }
}
