//! Proving a live process: rounds of observation, judged each, until enough pass in a row. Always from zero.

use super::traffic::Traffic;
use super::{Executor, Outcome, chain, fault};
use crate::conductor::inbox::Input;
use crate::conductor::ledger::wall_ms;
use crate::config::{PluginPolicy, PluginSettings};
use crate::probe::{self, Address, Before, ProbeSettings, TripwireScanner};
use crate::supervisor::{self, Live};
use cutover_core::{
    Code, Done, Exchanges, Expectation, FactName, Fault, Generation, Installed, Instance, Observations,
    Plugin, Policy, Reading, Release, ReleaseRule, Seen, Settings, Ticket, Verdict, judge,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the keeper may take to write down an exit.
const EXIT_RECORD: Duration = Duration::from_secs(2);

/// Lines of a log that are told with a process's end.
const LAST_WORDS_MAX: usize = 3;

/// What is being proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Proof {
    /// That the process is what it should be: behind a front that holds.
    Prove,
    /// That it stays so, under traffic where it is released.
    Soak,
    /// That a resting service's process may be served (rule 3).
    Ready,
}

/// How much proof is enough.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Enough {
    /// Passing rounds in a row.
    rounds: u32,
    /// How long they must span.
    time: Duration,
    /// Between two rounds.
    pause: Duration,
}

impl Enough {
    /// So many rounds in a row.
    pub(in super::super) fn rounds(rounds: u32, policy: &Policy) -> Self {
        Self { rounds, time: Duration::ZERO, pause: policy.probe_interval }
    }

    /// An unbroken time, however fast this machine looks.
    fn time(time: Duration, policy: &Policy) -> Self {
        Self { rounds: policy.streak, time, pause: soak_pause(time) }
    }
}

/// Asks one process, again and again.
pub(in super::super) struct Prover {
    executor: Executor,
    live: Live,
    pub expectation: Expectation,
    settings: ProbeSettings,
    /// Where it is asked beside its own address.
    elsewhere: Option<Address>,
    /// How clients fare, where they are let through.
    traffic: Option<Traffic>,
    tripwires: Option<TripwireScanner>,
    tripped: usize,
    proof: Proof,
    before: Option<Before>,
}

impl Executor {
    pub(super) async fn prove(
        &self,
        ticket: &Ticket,
        installed: &Installed,
        instance: Option<&Instance>,
        settings: &Settings,
        proof: Proof,
        before: Option<Exchanges>,
    ) -> Outcome {
        let running = self.running().await?;
        let Some(live) = running.into_iter().find(|live| Some(live.instance()) == instance) else {
            return Err(self.gone(installed, instance).await);
        };
        let policy = &settings.policy;
        let released = settings.policy.release == ReleaseRule::AfterProve;
        if proof == Proof::Soak
            && self.site.has_front()
            && released
            && !self.front.serves_within(policy.hold).await
        {
            return Err(fault("front_closed", "the front did not confirm that it serves"));
        }
        let mut prover = Prover::new(self, live, installed, proof).await?;
        if proof == Proof::Soak && self.site.has_front() && released {
            prover.go_public(before).await;
        }
        let (enough, deadline) = match proof {
            Proof::Soak => {
                let soak = self.soak(policy, released);
                (Enough::time(soak, policy), policy.start_deadline + soak)
            }
            Proof::Prove | Proof::Ready => (Enough::rounds(policy.streak, policy), policy.start_deadline),
        };
        let observations = prover.until_proven(&enough, deadline, Some(ticket)).await?;
        Ok(Done::Observed { expectation: prover.expectation, observations })
    }

    /// A soak before the release lasts while clients wait: it leaves them half of their patience.
    pub(super) fn soak(&self, policy: &Policy, released: bool) -> Duration {
        if released || !self.site.has_front() { policy.soak } else { policy.soak.min(policy.hold / 2) }
    }

    /// The process ended before anybody looked at it.
    async fn gone(&self, installed: &Installed, instance: Option<&Instance>) -> Fault {
        let exit = match instance {
            Some(instance) => self.exit_of(instance).await,
            None => None,
        };
        let Some(exit) = exit else {
            return fault("gone", "the process that this run started does not live any more");
        };
        let youngest = self.site.instance_directories().into_iter().next().unwrap_or_default();
        let mark = youngest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = self.last_words(&mark, installed.generation).await;
        fault("exited", format!("the process ended: {exit:?}{said}"))
    }

    /// What the log of an ended process says of missing code, as the end of a sentence; empty if it says nothing.
    pub(in super::super) async fn last_words(&self, mark: &str, generation: Generation) -> String {
        let root = self.site.store.generation_dir(generation);
        let mut scanner = TripwireScanner::whole(self.site.log(mark), &root);
        let looked = tokio::task::spawn_blocking(move || scanner.look(wall_ms())).await;
        let looked = looked.expect("BUG: looking at a log panicked");
        let lines = looked.value().map(Vec::as_slice).unwrap_or_default();
        match &lines[..lines.len().min(LAST_WORDS_MAX)] {
            [] => String::new(),
            lines => format!("; its log says: {}", lines.join(" | ")),
        }
    }
}

/// A long soak is looked at twice a second, a short one more often.
fn soak_pause(soak: Duration) -> Duration {
    (soak / 10).clamp(Duration::from_millis(50), Duration::from_millis(500))
}

impl Prover {
    pub(in super::super) async fn new(
        executor: &Executor,
        live: Live,
        installed: &Installed,
        proof: Proof,
    ) -> Result<Self, Fault> {
        let site = &executor.site;
        let root = site.store.generation_dir(installed.generation);
        let settings = site.probe().map_err(|error| fault("probe", format!("{error:#}")))?;
        let elsewhere = site.lane().map_err(|error| fault("probe", format!("{error:#}")))?;
        let nonce = live.record.nonce.clone();
        Ok(Self {
            expectation: expectation(executor, &live, installed, proof)?,
            settings,
            elsewhere,
            traffic: None,
            tripwires: Some(TripwireScanner::whole(site.log(&nonce), &root)),
            tripped: 0,
            proof,
            before: executor.before(&nonce).await?,
            executor: executor.clone(),
            live,
        })
    }

    /// Looks until it is enough. Fails at contrary evidence, at the process's end, or after `deadline` without progress: then
    /// the missing facts are named.
    pub(in super::super) async fn until_proven(
        &mut self,
        enough: &Enough,
        deadline: Duration,
        ticket: Option<&Ticket>,
    ) -> Result<Observations, Fault> {
        self.expectation.streak = enough.rounds;
        let mut streak = Streak::default();
        loop {
            let mut seen = self.look().await;
            if !self.live.is_alive().map_err(chain("identity"))? {
                return self.ended().await;
            }
            // Each round is judged as if it were the last: what is missing then is missing in itself.
            seen.streak = enough.rounds;
            let verdict = judge(&self.expectation, &seen);
            match &verdict {
                Verdict::Refuted(_) => return Err(refuted(&verdict)),
                Verdict::Verified(_) => {
                    self.expectation.service_instance = seen.service_instance.value().cloned();
                    streak.pass();
                }
                Verdict::Inconclusive(_) => {
                    self.expectation.service_instance = None;
                    streak.miss(missing(&verdict));
                }
            }
            seen.streak = streak.rounds;
            if let Some(ticket) = ticket {
                let (done, total) = (u64::from(streak.rounds), u64::from(enough.rounds));
                self.executor.progress(ticket, shown(&verdict), done.min(total), Some(total));
            }
            if streak.is_enough(enough) {
                return Ok(seen);
            }
            if streak.progressed.elapsed() > deadline {
                return Err(fault(
                    "timeout",
                    format!("not proven, no progress for {deadline:?}: {}", streak.shortfall(&verdict)),
                ));
            }
            tokio::time::sleep(enough.pause).await;
        }
    }

    /// From now on it is asked as clients ask it, and clients are counted.
    async fn go_public(&mut self, before: Option<Exchanges>) {
        // An address that nobody can name is asked by the lane.
        self.elsewhere = self.executor.site.public().or_else(|| self.elsewhere.take());
        self.traffic = Some(Traffic::from_now(&self.executor, before).await);
    }

    /// Lines of the log that tripped so far.
    pub(in super::super) fn tripped(&self) -> usize {
        self.tripped
    }

    /// One round.
    pub(in super::super) async fn look(&mut self) -> Observations {
        let direct = Address::Tcp(self.executor.site.address());
        let answers = probe::observe_service(&self.settings, &direct, &wall_ms).await;
        let mut elsewhere = Vec::new();
        if let Some(address) = &self.elsewhere {
            elsewhere.push(probe::observe_service(&self.settings, address, &wall_ms).await);
        }
        let (live, port, before) = (self.live.clone(), self.executor.site.port, self.before.clone());
        let mut scanner = self.tripwires.take().expect("BUG: a round is looked at one at a time");
        let (facts, tripwires, scanner) = tokio::task::spawn_blocking(move || {
            let facts = probe::observe_process(&live, Some(port), before.as_ref(), &wall_ms);
            let tripwires = scanner.look(wall_ms());
            (facts, tripwires, scanner)
        })
        .await
        .expect("BUG: looking at a process panicked");
        self.tripwires = Some(scanner);
        self.tripped = tripwires.value().map_or(0, Vec::len);
        // Logs hold users' text: later such a line asks for a closer look, which each round is, and refutes nothing by itself.
        let tripwires = match self.proof {
            Proof::Prove => tripwires,
            Proof::Soak | Proof::Ready => Seen::NotApplicable {
                why: format!("refutes only before the traffic is let through; {} lines so far", self.tripped),
            },
        };
        let traffic = match &mut self.traffic {
            Some(traffic) => {
                if matches!(self.elsewhere, Some(Address::Tcp(_))) {
                    traffic.asked(self.settings.questions());
                }
                traffic.look(&self.executor).await
            }
            None => Seen::NotApplicable { why: "clients are not let through to be counted".into() },
        };
        probe::assemble(facts, answers, elsewhere, tripwires, traffic, 1)
    }

    /// The end of a process is a fact of its own; what follows from it is decided elsewhere, and this proof is dropped.
    async fn ended(&self) -> Result<Observations, Fault> {
        let exit = self.live.exited(EXIT_RECORD).await.map_err(chain("exited"))?;
        let instance = self.live.instance().clone();
        self.executor.reporter.send(Input::Ended { instance, exit: super::exit(exit) }).await;
        std::future::pending().await
    }
}

/// What must hold. The code is what the sealed generation holds, not what the process says.
fn expectation(
    executor: &Executor,
    live: &Live,
    installed: &Installed,
    proof: Proof,
) -> Result<Expectation, Fault> {
    let site = &executor.site;
    let root = site.store.root(installed.generation).map_err(chain("store"))?;
    let launch = site
        .launch(installed.generation, live.record.nonce.clone())
        .map_err(|error| fault("launch", format!("{error:#}")))?;
    let entry = supervisor::identify(&site.entry(&root)).map_err(chain("code"))?;
    let exe = std::fs::canonicalize(&launch.program).unwrap_or(launch.program);
    let cwd = std::fs::canonicalize(&launch.cwd).unwrap_or(launch.cwd);
    let mut required =
        BTreeSet::from([FactName::Identity, FactName::Code, FactName::Port, FactName::Version]);
    if site.settings.ready.is_some() {
        required.insert(FactName::Readiness);
    }
    if site.settings.live.is_some() {
        required.insert(FactName::Liveness);
    }
    if site.settings.page.is_some() || site.greets() {
        required.insert(FactName::UserPath);
    }
    let plugins = plugins(&site.settings.plugins, &installed.release);
    if !plugins.is_empty() {
        required.insert(FactName::Plugins);
    }
    if proof == Proof::Prove {
        required.insert(FactName::Tripwires);
    }
    Ok(Expectation {
        generation: installed.generation,
        version: installed.release.version.clone(),
        build: None,
        instance: live.instance().clone(),
        service_instance: None,
        plugins,
        plugins_told: site.plugins_told().0,
        code: Code {
            generation: installed.generation,
            entry,
            exe: exe.to_string_lossy().into_owned(),
            cwd: cwd.to_string_lossy().into_owned(),
        },
        streak: 1,
        required,
    })
}

/// The plugins of a release that must be told by the service, under the names that it has for them.
fn plugins(settings: &[PluginSettings], release: &Release) -> Vec<String> {
    let told = |plugin: &Plugin| {
        let settings = settings.iter().find(|settings| settings.package == plugin.package)?;
        (settings.policy != PluginPolicy::Wanted).then(|| format!("{}@{}", settings.id, plugin.version))
    };
    let mut plugins: Vec<String> = release.plugins.iter().filter_map(told).collect();
    plugins.sort();
    plugins
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

/// The facts that hold, of all: what a person is shown while a process is being proven.
fn shown(verdict: &Verdict) -> String {
    let missing: Vec<String> = verdict
        .facts()
        .iter()
        .filter(|fact| !fact.reading.is_in_order())
        .map(|fact| format!("{:?}", fact.name).to_lowercase())
        .collect();
    if missing.is_empty() { "all facts hold".into() } else { format!("waiting for {}", missing.join(", ")) }
}

fn missing(verdict: &Verdict) -> usize {
    verdict.facts().iter().filter(|fact| !fact.reading.is_in_order()).count()
}

/// A fault named after the first contradicting fact.
fn refuted(verdict: &Verdict) -> Fault {
    let first = verdict.facts().iter().find(|fact| fact.reading == Reading::Contradicts);
    let code = match first.map(|fact| fact.name) {
        Some(FactName::Version | FactName::Build) => "wrong_version",
        Some(FactName::Code) => "wrong_code",
        Some(FactName::Tripwires) => "tripwire",
        Some(FactName::Traffic) => "worse_traffic",
        _ => "wrong_process",
    };
    fault(code, verdict.shortfall())
}
