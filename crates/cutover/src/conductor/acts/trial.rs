//! A trial of one process: rounds of observation, judged each, until enough pass in a row, one is evidence against it, or
//! nothing has got better for too long.
//!
//! Knows what the core's judgement of a round means for the next. Must not know how a round is observed.

use super::{WRONG_PROCESS, fault};
use cutover_core::{Expectation, Fact, FactName, Fault, Observations, Policy, Reading, Verdict, judge};
use std::time::{Duration, Instant};

/// How much proof is enough.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Enough {
    /// Passing rounds in a row.
    rounds: u32,
    /// How long they must span.
    time: Duration,
    /// Between two rounds.
    pub(super) pause: Duration,
}

impl Enough {
    /// So many rounds in a row.
    pub(in super::super) fn rounds(rounds: u32, policy: &Policy) -> Self {
        Self { rounds, time: Duration::ZERO, pause: policy.probe_interval }
    }

    /// An unbroken time, however fast this machine looks.
    pub(super) fn time(time: Duration, policy: &Policy) -> Self {
        Self { rounds: policy.streak, time, pause: soak_pause(time) }
    }
}

/// A long soak is looked at twice a second, a short one more often.
fn soak_pause(soak: Duration) -> Duration {
    (soak / 10).clamp(Duration::from_millis(50), Duration::from_millis(500))
}

/// Where a trial stands after a round.
#[must_use = "a trial that is over is not gone on with"]
pub(super) enum Standing {
    /// It is asked again.
    Open,
    /// Enough rounds passed in a row.
    Proven,
    /// There is evidence against the process.
    Refuted(Fault),
    /// Nothing got better within the deadline; the missing facts are named.
    Stuck(Fault),
}

/// Rounds so far.
pub(super) struct Trial {
    enough: Enough,
    deadline: Duration,
    streak: Streak,
    verdict: Option<Verdict>,
}

impl Trial {
    /// A trial that begins now. `deadline` is the longest time without progress.
    pub(super) fn begun(enough: Enough, deadline: Duration) -> Self {
        Self { enough, deadline, streak: Streak::default(), verdict: None }
    }

    /// Counts the time without progress from now on.
    pub(super) fn begin_again(&mut self) {
        self.streak = Streak::default();
    }

    /// Takes a round in, counts it into `seen.streak`, and lets later rounds expect what this one was.
    pub(super) fn judge(&mut self, expectation: &mut Expectation, seen: &mut Observations) -> Standing {
        expectation.streak = self.enough.rounds;
        // Each round is judged as if it were the last: what is missing then is missing in itself.
        seen.streak = self.enough.rounds;
        let verdict = self.verdict.insert(judge(expectation, seen));
        match verdict {
            Verdict::Refuted(_) => return Standing::Refuted(refuted(verdict)),
            Verdict::Verified(_) => {
                expectation.service_instance = seen.service_instance.value().cloned();
                self.streak.pass();
            }
            Verdict::Inconclusive(_) => {
                expectation.service_instance = None;
                self.streak.miss(shortcomings(verdict).count());
            }
        }
        seen.streak = self.streak.rounds;
        if self.streak.is_enough(&self.enough) {
            return Standing::Proven;
        }
        if self.streak.progressed.elapsed() > self.deadline {
            let (deadline, shortfall) = (self.deadline, self.streak.shortfall(verdict));
            let why = format!("not proven, no progress for {deadline:?}: {shortfall}");
            return Standing::Stuck(fault("timeout", why));
        }
        Standing::Open
    }

    /// What a person is shown while the trial goes on: what is waited for, and how many rounds of how many have passed.
    pub(super) fn progress(&self) -> (String, u64, u64) {
        let missing: Vec<String> = self.verdict.iter().flat_map(shortcomings).map(word).collect();
        let shown = match missing.is_empty() {
            true => "all facts hold".into(),
            false => format!("waiting for {}", missing.join(", ")),
        };
        let (done, total) = (u64::from(self.streak.rounds), u64::from(self.enough.rounds));
        (shown, done.min(total), total)
    }

    /// Whether the service's own answer is what speaks against it, and nothing of where it runs.
    pub(super) fn is_refuted_by_its_own_answer(&self) -> bool {
        let mut facts = self.verdict.iter().flat_map(Verdict::facts);
        let is_own = |name| matches!(name, FactName::Version | FactName::Build);
        facts.any(|fact| fact.reading == Reading::Contradicts && is_own(fact.name))
    }

    /// The names of the facts that held in the last round, and what it warned of.
    pub(super) fn held(&self) -> Vec<String> {
        let facts = self.verdict.iter().flat_map(Verdict::facts);
        let told = |fact: &Fact| match fact.reading {
            Reading::Holds => Some(word(fact.name)),
            Reading::Warns => Some(format!("{} with a warning: {}", word(fact.name), fact.observed)),
            _ => None,
        };
        facts.filter_map(told).collect()
    }
}

fn word(name: FactName) -> String {
    format!("{name:?}").to_lowercase()
}

fn shortcomings(verdict: &Verdict) -> impl Iterator<Item = FactName> {
    let facts = verdict.facts().iter();
    facts.filter(|fact| !fact.reading.is_in_order()).map(|fact| fact.name)
}

/// A fault named after the first contradicting fact.
fn refuted(verdict: &Verdict) -> Fault {
    let first = verdict.facts().iter().find(|fact| fact.reading == Reading::Contradicts);
    let code = match first.map(|fact| fact.name) {
        Some(FactName::Version | FactName::Build) => "wrong_version",
        Some(FactName::Code) => "wrong_code",
        Some(FactName::Tripwires) => "tripwire",
        Some(FactName::Traffic) => "worse_traffic",
        _ => WRONG_PROCESS,
    };
    fault(code, verdict.shortfall())
}

/// Passing rounds in a row, and when it last went better than ever before.
struct Streak {
    rounds: u32,
    since: Instant,
    best_rounds: u32,
    least_missing: usize,
    progressed: Instant,
}

impl Default for Streak {
    fn default() -> Self {
        let now = Instant::now();
        Self { rounds: 0, since: now, best_rounds: 0, least_missing: usize::MAX, progressed: now }
    }
}

impl Streak {
    fn pass(&mut self) {
        if self.rounds == 0 {
            self.since = Instant::now();
        }
        self.rounds = self.rounds.saturating_add(1);
        self.least_missing = 0;
        // A service that flaps begins again and again; only a longer streak than ever is progress.
        if self.rounds > self.best_rounds {
            (self.best_rounds, self.progressed) = (self.rounds, Instant::now());
        }
    }

    fn miss(&mut self, missing: usize) {
        self.rounds = 0;
        if missing < self.least_missing {
            (self.least_missing, self.progressed) = (missing, Instant::now());
        }
    }

    fn is_enough(&self, enough: &Enough) -> bool {
        self.rounds >= enough.rounds && self.since.elapsed() >= enough.time
    }

    fn shortfall(&self, verdict: &Verdict) -> String {
        match verdict.shortfall() {
            empty if empty.is_empty() => format!("at most {} passing rounds in a row", self.best_rounds),
            missing => missing,
        }
    }
}
