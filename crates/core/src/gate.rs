//! What stands between a prepared run and its cut: a person's word, and a window of time. It must not know what time it is.

use crate::{
    Act, Aim, Base, Checked, DataClass, DataOrder, Fault, Finding, Kind, Level, Preparation, Settings, Setup,
    Strategy, replay,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Whether an update waits for a person's word before anything stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRule {
    /// It does not.
    #[default]
    Never,
    /// Each does.
    Always,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// All, from Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];
}

/// Hours in which a service may be stopped for an update: open while the wall clock of its zone stands in them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days on which it begins, in order.
    pub days: Vec<Day>,
    /// From this second of the day on.
    pub from: u32,
    /// Up to this one, not included; no later than `from` means: of the next day.
    pub to: u32,
    /// The zone of its clock, as the IANA database names it.
    pub zone: String,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |second: u32| {
            let minutes = format!("{:02}:{:02}", second / 3600, second / 60 % 60);
            if second.is_multiple_of(60) { minutes } else { format!("{minutes}:{:02}", second % 60) }
        };
        if self.days.len() < Day::ALL.len() {
            let days: Vec<String> = self.days.iter().map(|day| format!("{day:?}")).collect();
            write!(f, "{} ", days.join(", "))?;
        }
        write!(f, "{}-{} {}", clock(self.from), clock(self.to), self.zone)
    }
}

/// What a policy wants of an update before anything stops.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clearance {
    /// A person's word.
    pub approve: ApprovalRule,
    /// One of these is open; empty: at any time.
    pub windows: Vec<Window>,
    /// How long both are waited for.
    pub limit: Duration,
}

impl Default for Clearance {
    fn default() -> Self {
        Self { approve: ApprovalRule::Never, windows: Vec::new(), limit: Duration::from_secs(14 * 86_400) }
    }
}

impl Hash for Clearance {
    /// What is not said leaves no mark: a state that was written down before there was such a rule is still that state.
    fn hash<H: Hasher>(&self, state: &mut H) {
        if *self != Self::default() {
            (self.approve, &self.windows, self.limit).hash(state);
        }
    }
}

/// Whether a person wants this run to wait for his word, whatever the policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Nobody does: the policy says whether it waits.
    #[default]
    AsRuled,
    /// Somebody does.
    Asked,
}

/// A person's word on what is prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Not given, or given to something else.
    #[default]
    Missing,
    /// Given to exactly what is prepared.
    Given,
}

/// How old the last look at what is prepared is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Nothing was waited for since.
    #[default]
    Fresh,
    /// The ground may have moved: it is looked at again before anything stops.
    Stale,
}

/// How a run fared with its windows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// None opened for it yet.
    #[default]
    Unseen,
    /// One opened, and what waited is looked at again in it.
    Seen,
    /// One opened, and closed before anything could be stopped.
    Missed,
}

/// How far a run is with what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gate {
    /// Re-entries of acts before the cut; part of the ticket.
    pub round: u8,
    /// Whether somebody holds it.
    pub hold: Hold,
    /// Whether it is approved.
    pub approval: Approval,
    /// Whether the last look still counts.
    pub look: Look,
    /// The rules as they were ordered, before the target was asked what it does to the data.
    pub ordered: Option<Settings>,
    /// The kinds of what the last look warned of, sorted, one for each warning; of what is approved, the ones that are.
    pub warned: Vec<String>,
    /// What the settings said at the last look that decides what is started.
    pub setup: Setup,
    /// How it fared with its windows.
    pub opening: Opening,
    /// How its rehearsal failed, where the target's own repair may help: the looks from then on heed it.
    pub mendable: Option<Fault>,
    /// What of the plan is another than what was approved or asked for before, in words for a person.
    pub moved: Vec<String>,
}

impl Hash for Gate {
    /// A run that never had to wait leaves no mark, as in journals from before there was a gate; nor does what was noted
    /// at a look, which decides nothing by itself.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let waited = (self.round, self.hold, self.approval, self.look);
        if waited != <(u8, Hold, Approval, Look)>::default() {
            waited.hash(state);
        }
        if let Some(mendable) = &self.mendable {
            mendable.hash(state);
        }
    }
}

/// Names exactly what a person approves: this run's target, source, data, rules and warnings, and what the settings say that
/// decides what is started. Another look that finds the same keeps the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanId(pub String);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run waits for before anything stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Awaited {
    /// Nothing.
    Nothing,
    /// A person's word.
    Approval,
    /// One of these to be open.
    Window(Vec<Window>),
}

impl Preparation {
    /// Whether the policy's clearance binds this run. Who goes back, seals again or leaves maintenance is not kept waiting:
    /// what serves then is worse than any hour.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.run.kind == Kind::Update && !matches!(self.base, Base::Maintenance(_))
    }

    /// Whether it takes a person's word.
    #[must_use]
    pub fn needs_approval(&self) -> bool {
        let by_rule = self.run.settings.policy.clearance.approve == ApprovalRule::Always;
        self.gate.hold == Hold::Asked || (by_rule && self.is_bound())
    }

    /// The windows in which it may stop what serves; none: at any time.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        if self.is_bound() { &self.run.settings.policy.clearance.windows } else { &[] }
    }

    /// What it waits for now, or would if it were that far.
    #[must_use]
    pub fn awaited(&self) -> Awaited {
        match (self.gate.approval, self.windows()) {
            (Approval::Missing, _) if self.needs_approval() => Awaited::Approval,
            (_, []) => Awaited::Nothing,
            (_, windows) => Awaited::Window(windows.to_vec()),
        }
    }

    /// What an approval is given to; `None` before it is known.
    #[must_use]
    pub fn plan(&self) -> Option<PlanId> {
        let Aim::Staged(target) = &self.aim else { return None };
        let (run, gate) = (&self.run, &self.gate);
        let what =
            (&run.id, run.kind, &run.source, target, &run.data, &run.settings, &gate.warned, &gate.setup);
        Some(PlanId(replay::fnv(&what)))
    }

    /// The same after a look at it. An approval of something else is none.
    pub(crate) fn looked(&self, seen: &Checked) -> Self {
        let mut next = self.clone();
        let mut ordered = self.gate.ordered.clone().unwrap_or_else(|| self.run.settings.clone());
        self.heed_declared(seen, &mut ordered);
        next.run.settings = ordered.told(seen.class);
        next.gate.ordered = Some(ordered);
        let warned = warned(&seen.findings);
        // Who approved it with more to worry about has approved this as well.
        let is_covered = self.gate.approval == Approval::Given && is_part(&warned, &self.gate.warned);
        next.gate.warned = if is_covered { self.gate.warned.clone() } else { warned.clone() };
        next.gate.setup = seen.setup.clone();
        next.gate.look = Look::Fresh;
        if next.plan() != self.plan() {
            next.gate.approval = Approval::Missing;
            next.gate.warned = warned;
            next.gate.moved = if self.was_shown() { self.moved(&next) } else { Vec::new() };
        }
        next
    }

    /// Why what was looked at is not switched to, if it is not.
    pub(crate) fn refusal(&self, seen: &Checked) -> Option<Fault> {
        seen.refusal().or_else(|| self.uncopied(seen))
    }

    /// Who is signalled is at no moment stopped to be copied.
    fn uncopied(&self, seen: &Checked) -> Option<Fault> {
        let [before, now] = [&self.run.settings, &self.looked(seen).run.settings];
        let is_new = before.class == DataClass::None && now.class != DataClass::None;
        (is_new && now.strategy == Strategy::Signal).then(|| Fault {
            code: "settings_changed".into(),
            detail: "state is declared by now, and a service that is only signalled, as this run was ordered, is never \
                     stopped to be copied: order it again"
                .into(),
        })
    }

    /// Data that is declared while the run waits is not left without a copy, and what is none any more needs none. The way
    /// back of what fails stays as it was watched.
    fn heed_declared(&self, seen: &Checked, ordered: &mut Settings) {
        let is_ordered = matches!(self.run.kind, Kind::Update | Kind::Rollback);
        let Some(now) = seen.declared.filter(|_| is_ordered) else { return };
        let is_new = ordered.class == DataClass::None && now.class != DataClass::None;
        let is_gone = now.class == DataClass::None && self.run.data == DataOrder::Keep;
        if is_new || is_gone {
            (ordered.class, ordered.policy.release) = (now.class, now.release);
        }
    }

    /// Whether there was a plan that another could differ from: one look was before this one, and was not the one whose rehearsal
    /// led to it. Each showing is followed by a round, so that is the first.
    fn was_shown(&self) -> bool {
        let is_mended_at_once = self.gate.mendable.is_some() && self.gate.round == 1;
        self.gate.ordered.is_some() && !is_mended_at_once
    }

    /// In what a later look at the same run differs.
    fn moved(&self, next: &Self) -> Vec<String> {
        let mut moved = self.gate.setup.differing(&next.gate.setup);
        if self.gate.warned != next.gate.warned {
            moved.push("warnings".into());
        }
        if self.run.settings != next.run.settings {
            moved.push("data".into());
        }
        moved
    }

    /// Back before what is already done, or to the same act with another answer to come.
    pub(crate) fn again(mut self, act: Act) -> Self {
        self.act = act;
        self.gate.round = self.gate.round.wrapping_add(1);
        self
    }
}

/// What a look warns of. Texts hold figures of the moment and count by their kind; what is to be changed counts word by word.
fn warned(findings: &[Finding]) -> Vec<String> {
    let told = |finding: &Finding| match &finding.changes {
        None => finding.kind.clone(),
        Some(changes) => format!("{}: {changes}", finding.kind),
    };
    let mut warned: Vec<String> =
        findings.iter().filter(|finding| finding.level == Level::Warn).map(told).collect();
    warned.sort_unstable();
    warned
}

/// Whether all of `some` is in `all`, each as often at least. Both are sorted.
fn is_part(some: &[String], all: &[String]) -> bool {
    let mut left = all.iter();
    some.iter().all(|wanted| left.any(|known| known == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_warnings_are_part_of_more_and_no_others_are() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = words(&["import", "import", "port"]);
        for part in [&["import"][..], &["import", "port"], &["import", "import", "port"], &[]] {
            assert!(is_part(&words(part), &all), "{part:?}");
        }
        for other in [&["lock"][..], &["import", "import", "import"], &["import", "port", "port"]] {
            assert!(!is_part(&words(other), &all), "{other:?}");
        }
    }

    #[test]
    fn a_window_is_told_as_it_is_written() {
        let window = |days: &[Day], to| Window {
            days: days.to_vec(),
            from: 22 * 3600,
            to,
            zone: "Europe/Berlin".into(),
        };
        assert_eq!(window(&Day::ALL, 4 * 3600).to_string(), "22:00-04:00 Europe/Berlin");
        let weekend = window(&[Day::Sat, Day::Sun], 23 * 3600 + 61);
        assert_eq!(weekend.to_string(), "Sat, Sun 22:00-23:01:01 Europe/Berlin");
    }

    #[test]
    fn what_never_waited_is_read_and_hashes_as_it_did_before_there_was_a_gate() {
        struct Counter(usize);
        impl Hasher for Counter {
            fn finish(&self) -> u64 {
                self.0 as u64
            }
            fn write(&mut self, bytes: &[u8]) {
                self.0 += bytes.len();
            }
        }
        let bytes = |value: &dyn Fn(&mut Counter)| {
            let mut counter = Counter(0);
            value(&mut counter);
            counter.0
        };
        let looked = Gate { warned: vec!["import".into()], ..Gate::default() };
        assert_eq!(bytes(&|counter| looked.hash(counter)), 0);
        assert!(bytes(&|counter| Gate { round: 1, ..Gate::default() }.hash(counter)) > 0);
        assert_eq!(bytes(&|counter| Clearance::default().hash(counter)), 0);
        let asked = Clearance { approve: ApprovalRule::Always, ..Clearance::default() };
        assert!(bytes(&|counter| asked.hash(counter)) > 0);
        assert_eq!(serde_json::from_str::<Gate>("{}").unwrap(), Gate::default());
    }
}
