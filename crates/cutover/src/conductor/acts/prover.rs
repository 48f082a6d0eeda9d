//! Asking one live process: rounds of observation, judged each, until enough pass in a row. Always from zero.

use super::traffic::Traffic;
use super::trial::{Standing, Trial};
use super::{Enough, Executor, chain, fault};
use crate::conductor::health::{Health, cut_off};
use crate::conductor::inbox::Input;
use crate::conductor::ledger::wall_ms;
use crate::conductor::site::Site;
use crate::config::{PluginPolicy, PluginSettings};
use crate::probe::{Address, Observer, Sight};
use crate::resolved::real;
use crate::store::snapshot::Seat;
use crate::supervisor::{self, Launch, Live};
use cutover_core::{
    Code, Exchanges, Expectation, FactName, Fault, Installed, Instance, Observations, Release, Seen, Ticket,
    Verdict, judge,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the keeper may take to write down an exit.
const EXIT_RECORD: Duration = Duration::from_secs(2);

/// How long a front may let nobody through to a process that is well before another takes its place, while a proof waits.
const WAY: Duration = Duration::from_secs(5);

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
    /// Whether a front that helps nobody stays: a look changes nothing.
    is_look: bool,
    /// Whether a person has waived what the service itself says.
    is_waived: bool,
    /// Where plugins are looked for that must be told, and where that must lead.
    seats: Vec<(Seat, PathBuf)>,
}

impl Prover {
    pub(in super::super) async fn new(
        executor: &Executor,
        live: Live,
        installed: &Installed,
        proof: Proof,
    ) -> Result<Self, Fault> {
        let site = &executor.site;
        let root = site.store.tree(installed.generation).map_err(chain("store"))?;
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
            is_look: false,
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
        let mut way = Way::open(deadline);
        loop {
            let front = self.executor.front.standing();
            let mut seen = self.look().await;
            if !self.observer.live().is_alive().map_err(chain(super::UNTOLD))? {
                return self.ended().await;
            }
            if way.is_needed(self.health(&seen)) {
                if self.finds_another_way(front).await {
                    trial.begin_again();
                    continue;
                }
                // What changes nothing may be tried again.
                way.is_other = !self.is_look;
            }
            let standing = trial.judge(&mut self.expectation, &mut seen);
            if let Some(ticket) = ticket {
                let (shown, done, total) = trial.progress();
                self.executor.progress(ticket, shown, done, Some(total));
            }
            match standing {
                Standing::Open => tokio::time::sleep(enough.pause).await,
                Standing::Proven => return Ok(seen),
                Standing::Stuck(fault) if way.is_blocked() => return Err(self.stuck(fault).await),
                Standing::Refuted(fault) | Standing::Stuck(fault) => return Err(fault),
            }
        }
    }

    /// From now on it changes nothing: not even a front that helps nobody.
    pub(super) fn only_looks(&mut self) {
        self.is_look = true;
    }

    /// Nothing comes through the front in the end. What is missing is missing all the same, unless it holds directly.
    async fn stuck(&mut self, fault: Fault) -> Fault {
        let seen = self.look_directly().await;
        if !self.holds_directly(&seen) {
            return fault;
        }
        let then =
            if self.is_look { "; the daemon replaces that front by itself, order it again then" } else { "" };
        cut_off(&format!("{}{then}", fault.detail))
    }

    /// Whether everything that is expected holds by a round at its own address, while it is asked elsewhere, too.
    pub(in super::super) fn holds_directly(&self, seen: &Observations) -> bool {
        let seen = Observations { streak: self.expectation.streak, ..seen.clone() };
        self.asks_elsewhere() && matches!(judge(&self.expectation, &seen), Verdict::Verified(_))
    }

    /// Nothing can be proven through the front. Where clients get through it, it is asked as they do; else another front takes
    /// its place, and what the one that stands has in flight or holds is lost; not for a mere look. Answers whether there is
    /// another way now.
    async fn finds_another_way(&mut self, front: Option<u64>) -> bool {
        if self.executor.front.serves()
            && let Some(address) = self.executor.site.public()
            && let Some(seen) = self.look_in_public().await
            && self.health(&seen) == Health::Well
        {
            self.observer.ask_at(address);
            return true;
        }
        !self.is_look && self.executor.cut_off(front).await
    }

    /// How it did in the round that was taken last.
    fn health(&self, seen: &Observations) -> Health {
        let directly = || self.asks_elsewhere().then(|| self.observer.directly(seen.clone()));
        Health::of(&self.expectation, seen, directly)
    }

    /// How it does now, in the eyes of its clients.
    pub(in super::super) async fn health_now(&mut self) -> Health {
        let seen = self.look().await;
        match self.health(&seen) {
            // The way that a proof takes through the front is not that of its clients.
            Health::CutOff => match self.look_in_public().await {
                Some(seen) => self.health(&seen),
                None => Health::CutOff,
            },
            told => told,
        }
    }

    /// From now on it is asked as clients ask it, and clients are counted.
    pub(super) async fn go_public(&mut self, before: Option<Exchanges>) {
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
            (Proof::Return, Seen::Missing { why, .. }) => {
                Some(format!("{why}; that keeps nobody from going back"))
            }
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
    // As the process names them itself.
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
    let [plugins, wanted] = plugins(&site.settings.plugins, &installed.release);
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
        wanted,
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

/// The plugins of a release that the service must tell, and those that it should, under the names that it has for them.
fn plugins(settings: &[PluginSettings], release: &Release) -> [Vec<String>; 2] {
    let mut plugins = [Vec::new(), Vec::new()];
    for plugin in &release.plugins {
        let settings = settings.iter().find(|settings| settings.package == plugin.package);
        let Some(PluginSettings { id, policy, .. }) = settings else { continue };
        let is_wanted = *policy == PluginPolicy::Wanted;
        plugins[usize::from(is_wanted)].push(format!("{id}@{}", plugin.version));
    }
    plugins.iter_mut().for_each(|one| one.sort());
    plugins
}

/// The way through the front, while something is proven through it.
#[derive(Debug)]
struct Way {
    patience: Duration,
    blocked: Option<Instant>,
    /// Whether another was looked for: once a proof.
    is_other: bool,
}

impl Way {
    /// `deadline` is the proof's own.
    fn open(deadline: Duration) -> Self {
        Self { patience: WAY.min(deadline / 4), blocked: None, is_other: false }
    }

    /// Takes a round in. Answers whether another way is to be looked for, once.
    fn is_needed(&mut self, health: Health) -> bool {
        if health != Health::CutOff {
            self.blocked = None;
            return false;
        }
        let blocked = *self.blocked.get_or_insert_with(Instant::now);
        let is_needed = !self.is_other && blocked.elapsed() > self.patience;
        self.is_other |= is_needed;
        is_needed
    }

    fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }
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
