//! The machine as it was explored, drawn: `docs/states.md`. Knows edges and words; must not know the rules behind them.

use super::cast::words;
use cutover_core::{Act, Event, Phase, RunId, State, Strategy, cutting_over, posture, wants};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A phase, and the act under way if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    phase: &'static str,
    act: Option<Act>,
}

impl Spot {
    fn of(state: &State) -> Self {
        let act = match &state.phase {
            Phase::Preparing(preparation) => Some(preparation.act),
            Phase::CuttingOver(cut) => Some(cut.act),
            Phase::RollingBack(retreat) => Some(retreat.cut.act),
            Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
        };
        Self { phase: words::phase(state), act }
    }
}

/// Why one goes from one spot to another, and what was seen of each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drawing {
    edges: BTreeMap<(Spot, Spot), BTreeSet<&'static str>>,
    postures: BTreeMap<&'static str, BTreeSet<String>>,
    processes: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl Drawing {
    pub(crate) fn see(&mut self, state: &State) {
        let phase = words::phase(state);
        let shown = format!("{:?}", posture(state)).to_lowercase();
        self.postures.entry(phase).or_default().insert(shown);
        let process = match wants(state).process {
            cutover_core::Process::Run(_) => "run",
            cutover_core::Process::Replace(..) => "replace",
            cutover_core::Process::Stopped => "stopped",
            cutover_core::Process::LeaveAlone => "as the act says",
        };
        self.processes.entry(phase).or_default().insert(process);
    }

    pub(crate) fn go(&mut self, before: &State, event: &Event, after: &State) {
        let (from, to) = (Spot::of(before), Spot::of(after));
        if from != to {
            self.edges.entry((from, to)).or_default().insert(cause(event));
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (edge, causes) in &other.edges {
            self.edges.entry(*edge).or_default().extend(causes);
        }
        for (phase, postures) in &other.postures {
            self.postures.entry(phase).or_default().extend(postures.iter().cloned());
        }
        for (phase, processes) in &other.processes {
            self.processes.entry(phase).or_default().extend(processes);
        }
    }

    /// Between phases: the causes, each with the acts that it was met in.
    fn between_phases(&self) -> BTreeMap<(&'static str, &'static str), BTreeMap<&'static str, Vec<Act>>> {
        let mut edges: BTreeMap<_, BTreeMap<_, Vec<Act>>> = BTreeMap::new();
        for ((from, to), causes) in self.edges.iter().filter(|((from, to), _)| from.phase != to.phase) {
            for cause in causes {
                let acts = edges.entry((from.phase, to.phase)).or_default().entry(*cause).or_default();
                acts.extend(from.act.filter(|act| !acts.contains(act)));
            }
        }
        edges
    }

    /// The whole document.
    pub(crate) fn document(&self) -> String {
        let mut text = String::from(HEAD);
        text.push_str("```mermaid\nstateDiagram-v2\n    [*] --> Idle\n");
        for ((from, to), causes) in self.between_phases() {
            let words: Vec<&str> = causes.into_keys().collect();
            writeln!(text, "    {from} --> {to}: {}", words.join(", ")).expect("a String takes everything");
        }
        text.push_str("```\n\n## What each phase wants\n\n| phase | process | front |\n|---|---|---|\n");
        for (phase, processes) in &self.processes {
            let processes: Vec<&str> = processes.iter().copied().collect();
            let postures: Vec<&str> = self.postures[phase].iter().map(String::as_str).collect();
            writeln!(text, "| {phase} | {} | {} |", processes.join(", "), postures.join(", "))
                .expect("a String takes everything");
        }
        text.push_str("\n## From phase to phase\n\n| from | to | because | during |\n|---|---|---|---|\n");
        for ((from, to), causes) in self.between_phases() {
            for (cause, acts) in causes {
                let acts: Vec<String> = acts.into_iter().map(words::act).collect();
                writeln!(text, "| {from} | {to} | {cause} | {} |", acts.join(", "))
                    .expect("a String takes everything");
            }
        }
        self.acts(&mut text);
        text
    }

    fn acts(&self, text: &mut String) {
        text.push_str("\n## Within a run\n\nThe acts in order:\n\n");
        let names = |acts: &[Act]| acts.iter().copied().map(words::act).collect::<Vec<_>>().join(" → ");
        writeln!(text, "- preparing: {}", names(&cutover_core::PREPARING))
            .expect("a String takes everything");
        for (name, strategy) in [("stop-start", Strategy::StopStart), ("signal", Strategy::Signal)] {
            let settings = super::cast::Rules { strategy, ..super::cast::PLAIN }.settings();
            let keep = cutting_over(&settings, &cutover_core::DataOrder::Keep);
            writeln!(text, "- cutting over, {name}: {}", names(&keep)).expect("a String takes everything");
            if strategy == Strategy::StopStart {
                let restore = cutover_core::DataOrder::Restore { snapshot: RunId(String::new()) };
                let restore = cutting_over(&settings, &restore);
                writeln!(text, "- cutting over, older data ordered: {}", names(&restore))
                    .expect("a String takes everything");
            }
        }
        writeln!(text, "- rolling back: {}", names(&cutover_core::ROLLING_BACK))
            .expect("a String takes everything");
        text.push_str("\n| phase | from | to | because |\n|---|---|---|---|\n");
        for ((from, to), causes) in &self.edges {
            let (Some(before), Some(after)) = (from.act, to.act) else { continue };
            if from.phase == to.phase {
                let causes: Vec<&str> = causes.iter().copied().collect();
                let (before, after) = (words::act(before), words::act(after));
                writeln!(text, "| {} | {before} | {after} | {} |", from.phase, causes.join(", "))
                    .expect("a String takes everything");
            }
        }
    }
}

const HEAD: &str = "# The machine, drawn

Generated by exploring every reachable state of `cutover_core::step` (`UPDATE=1 cargo test -p cutover-core --test
exhaustive`); a test keeps it true. What may follow what is decided in `crates/core/src/step`; what each state wants of
the world is in `crates/core/src/readings.rs`.

*Parked* is Idle with a run that was switched while the service was kept stopped.

";

fn cause(event: &Event) -> &'static str {
    match event {
        Event::Ordered { order, .. } => match words::order(order) {
            "update" | "update --hold" => "order update",
            "hold" => "order hold",
            "approve" => "order approve",
            "rollback --data keep" | "rollback --data restore" => "order rollback",
            "start" => "order start",
            "stop" => "order stop",
            "restart" => "order restart",
            "cancel" => "order cancel",
            "recover --retry" => "order retry",
            "recover --rollback" => "order recover-rollback",
            _ => "order accept",
        },
        Event::Finished { .. } => "done",
        Event::Faulted { .. } => "fault",
        Event::SnapshotStale { .. } => "snapshot stale",
        Event::Spawned { .. } => "keeper journaled",
        Event::Exited { .. } => "process exited",
        Event::Ready { .. } => "ready",
        Event::Degraded { .. } => "degraded",
        Event::Released { .. } => "released",
        Event::WatchEnded { .. } => "watch ended",
        Event::TreeChanged { .. } => "tree changed",
        Event::FrontLost => "front lost",
        Event::Measured { .. } => "measured",
        Event::Subscribed { .. } | Event::Alarmed { .. } | Event::Calmed { .. } | Event::Told { .. } => {
            "told"
        }
        Event::Recovered { .. } => "interrupted",
    }
}
