//! Proving a live process: rounds of observation, judged each, until enough pass in a row. Always from zero.

use super::traffic::Traffic;
use super::trial::{Standing, Trial};
use super::{Enough, Executor, Outcome, chain, fault};
use crate::conductor::inbox::Input;
use crate::conductor::ledger::wall_ms;
use crate::conductor::site::Site;
use crate::config::{PluginPolicy, PluginSettings};
use crate::predecessor::{Record, Step};
use crate::probe::{Address, Observer, Sight, TripwireScanner, places};
use crate::store::snapshot::Seat;
use crate::supervisor::{self, Launch, Live};
use cutover_core::{
    Code, Done, Exchanges, Expectation, FactName, Fault, Generation, Installed, Instance, Observations,
    Plugin, Policy, Release, ReleaseRule, Seen, Settings, Ticket,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// How long the keeper may take to write down an exit.
const EXIT_RECORD: Duration = Duration::from_secs(2);

/// Between two looks at a tree that could not be read.
const TREE_PAUSE: Duration = Duration::from_millis(300);

/// Between two questions where a process's files lie.
const PLACES_PAUSE: Duration = Duration::from_millis(300);

/// Lines of a log that are told with a process's end.
const LAST_WORDS_MAX: usize = 3;

/// What is being proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Proof {
    /// That the process is what it should be: behind a front that holds.
    Prove,
    /// The same of the old version, which has served before: that its log could not take its output stands in nobody's way.
    Return,
    /// That it stays so, under traffic where it is released.
    Soak,
    /// That a resting service's process may be served (rule 3).
    Ready,
}

/// Asks one process, again and again.
pub(in super::super) struct Prover {
    executor: Executor,
    observer: Observer,
    pub expectation: Expectation,
    /// How clients fare, where they are let through.
    traffic: Option<Traffic>,
    tripped: usize,
    proof: Proof,
    /// Whether a person has waived what the service itself says.
    is_waived: bool,
    /// Where plugins are looked for that must be told, and where that must lead.
    seats: Vec<(Seat, PathBuf)>,
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
        if matches!(proof, Proof::Prove | Proof::Return) && !self.reaches_the_lane().await {
            // Behind a front without its lane nothing can be proven, and nobody is served meanwhile.
            self.front.replace();
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
            Proof::Prove | Proof::Return | Proof::Ready => {
                (Enough::rounds(policy.streak, policy), policy.start_deadline)
            }
        };
        let observations = prover.until_proven(&enough, deadline, Some(ticket)).await?;
        if proof == Proof::Soak {
            // The act has as much time as a start may take, beside the soak.
            self.stays_sealed(installed, policy.start_deadline / 2).await?;
        }
        if matches!(proof, Proof::Prove | Proof::Return) {
            self.has_the_place_of_the_predecessor(policy).await?;
        }
        Ok(Done::Observed { expectation: prover.expectation, observations })
    }

    /// Whether somebody listens on the front's lane for proofs; so it is where there is no front.
    async fn reaches_the_lane(&self) -> bool {
        let lane = self.site.layout.probe_lane(&self.site.settings.name);
        !self.site.has_front() || UnixStream::connect(lane).await.is_ok()
    }

    /// What was proven must still be what was sealed. A tree that cannot be compared is looked at again, and is no evidence then.
    async fn stays_sealed(&self, installed: &Installed, limit: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let Err(fault) = self.sealed(installed.generation).await else { return Ok(()) };
            if fault.code == super::TREE_CHANGED {
                self.tree_changed(installed, fault.clone()).await;
                return Err(fault);
            }
            if begun.elapsed() > limit {
                return Err(fault);
            }
            super::warn(self, "whether its tree is as it was sealed", &fault);
            tokio::time::sleep(TREE_PAUSE).await;
        }
    }

    /// Where somebody else served before, they must be gone, and what took their place must be on their files.
    async fn has_the_place_of_the_predecessor(&self, policy: &Policy) -> Result<(), Fault> {
        let Some(record) = self.predecessor_gone().await? else { return Ok(()) };
        if record.is_in_charge() {
            return Err(fault("predecessor", "the old service runs again, by its unit"));
        }
        // Once it is taken, where its files lie is the configuration's to say.
        match record.step() {
            Step::Gone => self.works_on_the_same(&record, policy.start_deadline / 2).await,
            _ => Ok(()),
        }
    }

    /// What takes a predecessor's place must work on its files: the right version on other state is no take-over. One that cannot be
    /// asked is asked again.
    async fn works_on_the_same(&self, record: &Record, limit: Duration) -> Result<(), Fault> {
        if record.terms.told.are_untold() {
            return Ok(());
        }
        let settings = self.site.probe().map_err(|error| fault("probe", format!("{error:#}")))?;
        let begun = Instant::now();
        loop {
            let error = match places(&settings, &Address::Tcp(self.site.address())).await {
                Ok(now) => return record.moved(&now).map_or(Ok(()), |why| Err(fault("predecessor", why))),
                Err(error) => error,
            };
            if begun.elapsed() > limit {
                let why = super::told(&error);
                return Err(fault(
                    "predecessor",
                    format!("where the copy's files lie is not to be had: {why}"),
                ));
            }
            tokio::time::sleep(PLACES_PAUSE).await;
        }
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
        let root = real(&self.site.store.generation_dir(generation));
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

impl Prover {
    pub(in super::super) async fn new(
        executor: &Executor,
        live: Live,
        installed: &Installed,
        proof: Proof,
    ) -> Result<Self, Fault> {
        let site = &executor.site;
        let root = real(&site.store.generation_dir(installed.generation));
        let nonce = live.record.nonce.clone();
        let failed = |error: anyhow::Error| fault("probe", format!("{error:#}"));
        let launch = site
            .launch(installed.generation, nonce.clone())
            .map_err(|error| fault("launch", format!("{error:#}")))?;
        let expectation = expectation(site, &launch, installed, live.instance().clone(), proof)?;
        let sight = Sight {
            settings: site.probe().map_err(failed)?,
            direct: Address::Tcp(site.address()),
            elsewhere: site.lane().map_err(failed)?,
            port: site.port,
            before: executor.before(&nonce).await?,
            log: site.log(&nonce),
            live,
        };
        let observer = Observer::new(sight, &root, wall_ms);
        // One that was proven has loaded what it has.
        let seats = if proof == Proof::Ready { Vec::new() } else { executor.seats_of_proof(installed)? };
        Ok(Self {
            expectation,
            observer,
            traffic: None,
            tripped: 0,
            proof,
            is_waived: false,
            seats,
            executor: executor.clone(),
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
        let mut trial = Trial::begun(*enough, deadline);
        loop {
            let mut seen = self.look().await;
            if !self.observer.live().is_alive().map_err(chain(super::UNTOLD))? {
                return self.ended().await;
            }
            let standing = trial.judge(&mut self.expectation, &mut seen);
            if let Some(ticket) = ticket {
                let (shown, done, total) = trial.progress();
                self.executor.progress(ticket, shown, done, Some(total));
            }
            match standing {
                Standing::Open => tokio::time::sleep(enough.pause).await,
                Standing::Proven => return Ok(seen),
                Standing::Refuted(fault) | Standing::Stuck(fault) => return Err(fault),
            }
        }
    }

    /// From now on it is asked as clients ask it, and clients are counted.
    async fn go_public(&mut self, before: Option<Exchanges>) {
        // An address that nobody can name is asked by the lane.
        if let Some(address) = self.executor.site.public() {
            self.observer.ask_at(address);
        }
        self.traffic = Some(Traffic::from_now(&self.executor, before).await);
    }

    /// Lines of the log that tripped so far.
    pub(in super::super) fn tripped(&self) -> usize {
        self.tripped
    }

    /// From now on it has to be the process that was started, with its code, on its port, and nothing that it says counts.
    pub(in super::super) fn waive(&mut self) {
        self.is_waived = true;
        let kept = [FactName::Identity, FactName::Code, FactName::Port];
        self.expectation.required.retain(|name| kept.contains(name));
    }

    /// Whether it is asked as clients reach it, too.
    pub(in super::super) fn asks_elsewhere(&self) -> bool {
        self.observer.asks_elsewhere()
    }

    /// One round at its own address alone.
    pub(in super::super) async fn look_directly(&mut self) -> Observations {
        let seen = self.observer.look_directly().await;
        self.as_it_counts(seen)
    }

    /// One round at its own address and at that of its clients; `None` where nobody can name that.
    pub(in super::super) async fn look_in_public(&mut self) -> Option<Observations> {
        let seen = self.observer.look_at(self.executor.site.public()?).await;
        Some(self.as_it_counts(seen))
    }

    /// How the last round was at its own address alone.
    pub(in super::super) fn directly(&self, seen: Observations) -> Observations {
        self.observer.directly(seen)
    }

    /// One round.
    pub(in super::super) async fn look(&mut self) -> Observations {
        let mut seen = self.observer.look().await;
        seen.traffic = match &mut self.traffic {
            Some(traffic) => {
                traffic.asked(self.observer.asked_in_public());
                traffic.look(&self.executor).await
            }
            None => Seen::NotApplicable { why: "clients are not let through to be counted".into() },
        };
        // A service that tells ids alone may have the plugin from elsewhere.
        if let Some((seat, _)) =
            self.seats.iter().find(|(seat, plugin)| seat.target().as_ref() != Some(plugin))
        {
            let (why, source) = ("this generation's plugin is not what it leads to", seat.link());
            let (at_ms, source) = (wall_ms(), source.display().to_string());
            seen.plugins = Seen::Missing { why: why.into(), at_ms, source };
        }
        self.as_it_counts(seen)
    }

    /// A round without what says nothing about this process now.
    fn as_it_counts(&mut self, mut seen: Observations) -> Observations {
        self.tripped = seen.tripwires.value().map_or(0, Vec::len);
        // Logs hold users' text: later such a line asks for a closer look, which each round is, and refutes nothing by itself.
        let why = match (self.proof, &seen.tripwires) {
            (Proof::Prove, _) | (Proof::Return, Seen::Yes { .. } | Seen::NotApplicable { .. }) => None,
            (Proof::Return, Seen::Missing { why, .. }) => Some(format!("{why}; it has served before")),
            (Proof::Soak | Proof::Ready, _) => {
                let lines = self.tripped;
                Some(format!("refutes only before the traffic is let through; {lines} lines so far"))
            }
        };
        if let Some(why) = why {
            seen.tripwires = Seen::NotApplicable { why };
        }
        if self.is_waived {
            forget_what_it_says(&mut seen);
        }
        seen
    }

    /// The end of a process is a fact of its own; what follows from it is decided elsewhere, and this proof is dropped.
    async fn ended(&self) -> Result<Observations, Fault> {
        let live = self.observer.live();
        let exit = live.exited(EXIT_RECORD).await.map_err(chain("exited"))?;
        let instance = live.instance().clone();
        self.executor.reporter.send(Input::Ended { instance, exit: super::exit(exit) }).await;
        std::future::pending().await
    }
}

/// As processes name it themselves.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn forget_what_it_says(seen: &mut Observations) {
    fn waived<T>() -> Seen<T> {
        Seen::NotApplicable { why: "a person accepted it without".into() }
    }
    seen.version = waived();
    seen.build = waived();
    seen.service_instance = waived();
    seen.live = waived();
    seen.ready = waived();
    seen.plugins = waived();
    seen.user_path = waived();
}

/// What must hold of the process that a launch led to. The code is what the sealed generation holds, not what the process
/// says.
pub(super) fn expectation(
    site: &Site,
    launch: &Launch,
    installed: &Installed,
    instance: Instance,
    proof: Proof,
) -> Result<Expectation, Fault> {
    let entry = supervisor::identify(&launch.entry).map_err(chain("code"))?;
    let (exe, cwd) = (real(&launch.program), real(&launch.cwd));
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
        instance,
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
