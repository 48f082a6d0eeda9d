//! The one function that says what counts as verified.

use crate::{Code, Compared, Exchanges, Generation, Instance, Observations, Owner, Seen};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Fewer exchanges than this, on either side, say nothing about traffic.
const EXCHANGES_MIN: u64 = 50;
/// So many failures more in a hundred exchanges are worse than before.
const WORSE_PERCENT: u128 = 5;

/// What must hold, all of it about one and the same process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// The generation that must run.
    pub generation: Generation,
    /// The version that the service itself must state.
    pub version: String,
    /// The build id that it must state, where it has one.
    pub build: Option<String>,
    /// The process that the keeper recorded before exec.
    pub instance: Instance,
    /// The service's own instance id as the first passing round saw it; a change breaks the streak.
    pub service_instance: Option<String>,
    /// The plugins that must run, as `id@version`, sorted. Others may run as well.
    pub plugins: Vec<String>,
    /// The plugins of the release whose absence is told and stands in nobody's way, named alike.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// What the service tells of its plugins.
    #[serde(default = "PluginsTold::unsaid")]
    pub plugins_told: PluginsTold,
    /// The code in the sealed generation, and where it runs.
    pub code: Code,
    /// Passing rounds in a row.
    pub streak: u32,
    /// Facts without which there is no proof. A required fact that does not apply is a missing fact.
    pub required: BTreeSet<FactName>,
}

/// What a service tells of its plugins, as far as is known before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginsTold {
    /// Each with its version. An id alone proves nothing then.
    Versions,
    /// Their ids alone: that one runs is proven, and which version of it is not.
    Ids,
}

impl PluginsTold {
    /// By what journals without this were judged: they must replay to what they led to.
    fn unsaid() -> Self {
        Self::Ids
    }
}

/// The facts of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactName {
    /// V1.
    Identity,
    /// V2.
    Code,
    /// V3.
    Port,
    /// V4.
    Version,
    /// V4, build id.
    Build,
    /// V5.
    Instance,
    /// V6, liveness endpoint.
    Liveness,
    /// V6, readiness endpoint.
    Readiness,
    /// V7.
    Plugins,
    /// V8.
    UserPath,
    /// V9.
    Traffic,
    /// V10.
    Tripwires,
    /// V11.
    OldGone,
}

/// One line of the table of facts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// Which.
    pub name: FactName,
    /// What was required, in words.
    pub expected: String,
    /// What was observed, or why nothing was.
    pub observed: String,
    /// How it reads.
    pub reading: Reading,
    /// When it was observed (ms of Unix time); absent where it does not apply.
    pub at: Option<u64>,
    /// Where it was read.
    pub source: String,
}

/// How a fact reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As required.
    Holds,
    /// Not as required; it may still become so (a service that boots).
    NotYet,
    /// Evidence against the process.
    Contradicts,
    /// Not as wanted, and no evidence by itself: a person is told, and it stands in nobody's way.
    Warns,
    /// No evidence.
    Missing,
    /// The service has no such thing, and nothing requires it.
    NotApplicable,
}

impl Reading {
    /// Whether nothing is missing or wrong: it holds, does not apply, or is only told.
    #[must_use]
    pub fn is_in_order(self) -> bool {
        matches!(self, Self::Holds | Self::NotApplicable | Self::Warns)
    }
}

/// The content of "verified". Only [`judge`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    instance: Instance,
    facts: Vec<Fact>,
}

impl Evidence {
    /// The process that was proven.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// All facts.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }
}

/// What a round of observations amounts to.
#[must_use = "a verdict that nobody reads is a skipped check"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything required holds.
    Verified(Evidence),
    /// There is evidence against it.
    Refuted(Vec<Fact>),
    /// Not enough evidence. Never a pass, and not by itself a reason to go back.
    Inconclusive(Vec<Fact>),
}

impl Verdict {
    /// The facts, whatever they amount to.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        match self {
            Self::Verified(evidence) => evidence.facts(),
            Self::Refuted(facts) | Self::Inconclusive(facts) => facts,
        }
    }

    /// What is missing or contradicts, in one line for a person. Empty if everything holds.
    #[must_use]
    pub fn shortfall(&self) -> String {
        let lines: Vec<String> = self
            .facts()
            .iter()
            .filter(|fact| !fact.reading.is_in_order())
            .map(|fact| format!("{:?}: expected {}, observed {}", fact.name, fact.expected, fact.observed))
            .collect();
        lines.join("; ")
    }
}

/// Says what the observations amount to. Pure; a timeout does not exist here, only what was seen.
pub fn judge(expectation: &Expectation, observations: &Observations) -> Verdict {
    let facts = facts(expectation, observations);
    if facts.iter().any(|fact| fact.reading == Reading::Contradicts) {
        return Verdict::Refuted(facts);
    }
    let holds = |fact: &Fact| match fact.reading {
        Reading::Holds | Reading::Warns => true,
        Reading::NotApplicable => !expectation.required.contains(&fact.name),
        Reading::NotYet | Reading::Contradicts | Reading::Missing => false,
    };
    if facts.iter().all(holds) && observations.streak >= expectation.streak {
        return Verdict::Verified(Evidence { instance: expectation.instance.clone(), facts });
    }
    Verdict::Inconclusive(facts)
}

fn facts(expectation: &Expectation, seen: &Observations) -> Vec<Fact> {
    let required = &expectation.required;
    let mut facts = vec![
        fact(FactName::Identity, &seen.identity, required, expectation.instance.to_string(), |instance| {
            (instance.to_string(), exactly(*instance == expectation.instance))
        }),
        fact(FactName::Code, &seen.code, required, describe(&expectation.code), |code| {
            (describe(code), exactly(*code == expectation.code))
        }),
        fact(
            FactName::Port,
            &seen.listeners,
            required,
            "every listener is the instance's".into(),
            |listeners| {
                let own = listeners.iter().all(|l| !matches!(l.owner, Owner::Foreign { .. }));
                let words: Vec<String> =
                    listeners.iter().map(|l| format!("{} {:?}", l.address, l.owner)).collect();
                (words.join(", "), eventually(own && !listeners.is_empty()))
            },
        ),
    ];
    // A version stated by somebody else's listener says nothing about this process.
    let stranger = facts.iter().any(|fact| fact.reading != Reading::Holds && fact.name != FactName::Code);
    let version = |matches: bool| if stranger { eventually(matches) } else { exactly(matches) };
    facts.extend([
        fact(FactName::Version, &seen.version, required, expectation.version.clone(), |observed| {
            (observed.clone(), version(*observed == expectation.version))
        }),
        fact(FactName::Build, &seen.build, required, build_words(expectation), |observed| {
            let matches = expectation.build.as_ref().is_none_or(|build| build == observed);
            (observed.clone(), version(matches))
        }),
        fact(FactName::Instance, &seen.service_instance, required, "one and the same".into(), |observed| {
            let same = expectation.service_instance.as_ref().is_none_or(|first| first == observed);
            (observed.clone(), eventually(same))
        }),
        fact(FactName::Liveness, &seen.live, required, "live".into(), |live| answer(*live)),
        fact(FactName::Readiness, &seen.ready, required, "ready".into(), |ready| answer(*ready)),
        fact(FactName::Plugins, &seen.plugins, required, plugin_words(expectation), |running| {
            plugins(expectation, running)
        }),
        fact(FactName::UserPath, &seen.user_path, required, "works".into(), |works| answer(*works)),
    ]);
    // What only the service can say of itself: a client, who can make exchanges fail, must not be able to say it.
    let says_no = facts.iter().any(|fact| {
        matches!(fact.name, FactName::Liveness | FactName::Readiness | FactName::UserPath)
            && fact.reading == Reading::NotYet
    });
    facts.extend([
        fact(FactName::Traffic, &seen.traffic, required, "no worse than before".into(), |compared| {
            (traffic_words(*compared), traffic(*compared, says_no))
        }),
        fact(FactName::Tripwires, &seen.tripwires, required, "none".into(), |lines| {
            (lines.join(" | "), exactly(lines.is_empty()))
        }),
        fact(FactName::OldGone, &seen.old, required, "no old process".into(), |old| {
            (format!("{:?}", old.alive), eventually(old.alive.is_empty()))
        }),
    ]);
    facts
}

/// Worse traffic is evidence only beside a service that says itself that it is not well.
fn traffic(compared: Compared, says_no: bool) -> Reading {
    let Compared { before, now } = compared;
    if before.answered.min(now.answered) < EXCHANGES_MIN {
        return Reading::NotApplicable;
    }
    let failed = |side: Exchanges| u128::from(side.bad) + u128::from(side.abnormal);
    let (were, are) = (u128::from(before.answered), u128::from(now.answered));
    // The rates, multiplied out: no division, and no count that is too large.
    let of = |failed: u128, all: u128| failed.saturating_mul(all).saturating_mul(100);
    let allowed = WORSE_PERCENT.saturating_mul(were).saturating_mul(are);
    let is_worse = of(failed(now), were) > of(failed(before), are).saturating_add(allowed);
    match (is_worse, says_no) {
        (false, _) => Reading::Holds,
        (true, false) => Reading::Warns,
        (true, true) => Reading::Contradicts,
    }
}

fn traffic_words(compared: Compared) -> String {
    let Compared { before, now } = compared;
    let words = |side: Exchanges| {
        format!("{} exchanges, {} bad, {} broken off", side.answered, side.bad, side.abnormal)
    };
    let few = before.answered.min(now.answered) < EXCHANGES_MIN;
    let why =
        if few { format!("not applicable below {EXCHANGES_MIN} on both sides: ") } else { String::new() };
    format!("{why}{}; before: {}", words(now), words(before))
}

/// Which of the expected plugins run. An id without a version is no evidence where versions are expected, and that none are
/// missing where none are expected says nothing of any.
fn plugins(expectation: &Expectation, running: &[String]) -> (String, Reading) {
    let (count, Expectation { plugins, wanted, .. }) = (running.len(), expectation);
    if plugins.is_empty() && wanted.is_empty() {
        return (format!("{count} that run"), Reading::NotApplicable);
    }
    let is_told = |name: &str| running.iter().any(|one| one == name);
    let runs = |plugin: &str| match expectation.plugins_told {
        PluginsTold::Versions => is_told(plugin),
        PluginsTold::Ids => is_told(plugin) || is_told(plugin_id(plugin)),
    };
    let absent = |of: &'_ [String]| of.iter().filter(|plugin| !runs(plugin)).cloned().collect::<Vec<_>>();
    let (missing, unmet) = (absent(plugins), absent(wanted));
    let bare: Vec<&str> = missing.iter().map(|plugin| plugin_id(plugin)).filter(|id| is_told(id)).collect();
    if !bare.is_empty() {
        let text = format!("{} told without a version, of {count} that run", bare.join(", "));
        return (text, Reading::Missing);
    }
    match (missing.is_empty(), unmet.is_empty()) {
        (true, true) => (format!("all of them, of {count} that run"), Reading::Holds),
        (true, false) => (format!("not {unmet:?}, only wanted, of {count} that run"), Reading::Warns),
        (false, _) => (format!("not {missing:?}, of {count} that run"), Reading::NotYet),
    }
}

/// `discord` of `discord@1.2.3`.
fn plugin_id(plugin: &str) -> &str {
    plugin.rsplit_once('@').map_or(plugin, |(id, _)| id)
}

fn fact<T>(
    name: FactName,
    seen: &Seen<T>,
    required: &BTreeSet<FactName>,
    expected: String,
    read: impl FnOnce(&T) -> (String, Reading),
) -> Fact {
    match seen {
        Seen::Yes { value, at_ms, source } => {
            let (observed, reading) = read(value);
            Fact { name, expected, observed, reading, at: Some(*at_ms), source: source.clone() }
        }
        Seen::Missing { why, at_ms, source } => Fact {
            name,
            expected,
            observed: why.clone(),
            reading: Reading::Missing,
            at: Some(*at_ms),
            source: source.clone(),
        },
        Seen::NotApplicable { why } => {
            let reading = if required.contains(&name) { Reading::Missing } else { Reading::NotApplicable };
            Fact { name, expected, observed: why.clone(), reading, at: None, source: String::new() }
        }
    }
}

/// A mismatch is evidence against the process.
fn exactly(matches: bool) -> Reading {
    if matches { Reading::Holds } else { Reading::Contradicts }
}

/// A mismatch may still turn into a match.
fn eventually(matches: bool) -> Reading {
    if matches { Reading::Holds } else { Reading::NotYet }
}

fn answer(good: bool) -> (String, Reading) {
    (if good { "yes" } else { "no" }.to_owned(), eventually(good))
}

fn describe(code: &Code) -> String {
    format!(
        "generation {} entry {}:{} sha256 {:.12} exe {} cwd {}",
        code.generation, code.entry.device, code.entry.inode, code.entry.sha256, code.exe, code.cwd
    )
}

fn build_words(expectation: &Expectation) -> String {
    expectation.build.clone().unwrap_or_else(|| "any, constant".to_owned())
}

fn plugin_words(expectation: &Expectation) -> String {
    let Expectation { plugins, wanted, .. } = expectation;
    if plugins.is_empty() && wanted.is_empty() {
        return "none in particular".to_owned();
    }
    let words = |plugin: &String| match expectation.plugins_told {
        PluginsTold::Versions => plugin.clone(),
        PluginsTold::Ids => format!("{} (its version is not told)", plugin_id(plugin)),
    };
    let wanted = wanted.iter().map(|plugin| format!("{}, only wanted", words(plugin)));
    plugins.iter().map(words).chain(wanted).collect::<Vec<_>>().join("; ")
}
