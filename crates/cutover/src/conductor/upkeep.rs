//! The process of a resting service: started with capped back-off, proven once before it is served, watched after.

use super::acts::{
    self, EXEC_FAILED, Enough, Executor, PORT_TAKEN, Proof, Prover, Starting, TREE_CHANGED, UNTOLD,
    WRONG_PROCESS, fault,
};
use super::alarm::{CUT_OFF, UNREADY};
use super::health::{Ailing, Health, Sickness, cut_off};
use super::inbox::Input;
use super::ledger::fresh_run;
use super::seal_watch::{Look, Looked, SealWatch, WHOLE};
use crate::supervisor::{self, Live};
use cutover_core::{
    Event, Fault, Installed, Instance, Listener, Owner, Policy, Process, Serving, Settings, State, wants,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Between two looks at a served process.
const LOOK: Duration = Duration::from_secs(1);
/// A tree whose bytes were read so lately is not read again because its program did not come to run.
const LATELY: Duration = Duration::from_secs(5 * 60);
/// How long another front may take to stand.
const FRONT: Duration = Duration::from_secs(20);
/// After a changed tree was told: what follows from it is decided elsewhere.
const TOLD: Duration = Duration::from_secs(60);

/// What a resting service's process needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    /// Nothing: an act decides, or all is as wanted.
    Rest,
    /// It is to be started.
    Start(Installed),
    /// It is to prove itself once.
    Ready(Installed, Instance, Demand),
    /// All processes are to be ended, this one and any that is not known of.
    Stop(Option<Instance>),
    /// It is served: its tree, readiness and log are watched.
    Vigil(Installed, Instance),
}

/// How much a process must prove before it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Everything.
    Whole,
    /// What it can: a person has accepted this generation with an incomplete proof.
    Waived,
}

/// What keeps a process from being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// What it is: another version would do better.
    Version,
    /// The machine, a stranger on its port, the front: any version would fare so.
    Other,
}

impl Blame {
    fn of(fault: &Fault) -> Self {
        match fault.code.as_str() {
            UNREADY => Self::Version,
            _ => Self::Other,
        }
    }
}

/// What was asked of the process that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing that is known of.
    Nothing,
    /// To end, which it will: that it lives still says nothing.
    ToEnd,
}

impl Upkeep {
    /// What the state wants for the process that lives.
    pub(super) fn of(state: &State, live: Option<&Live>, asked: Asked) -> Self {
        let instance = live.map(|live| live.instance().clone());
        let running = |installed: Installed| match live {
            None => Self::Start(installed),
            Some(live) if live.record.generation != installed.generation => Self::Stop(instance.clone()),
            Some(live) => match &state.serving {
                Serving::Proven(instance) | Serving::Waived(Some(instance))
                    if instance == live.instance() =>
                {
                    Self::Vigil(installed, instance.clone())
                }
                _ if asked == Asked::ToEnd => Self::Stop(instance.clone()),
                Serving::Waived(_) => Self::Ready(installed, live.instance().clone(), Demand::Waived),
                _ => Self::Ready(installed, live.instance().clone(), Demand::Whole),
            },
        };
        match wants(state).process {
            Process::LeaveAlone => Self::Rest,
            Process::Stopped => Self::Stop(instance),
            Process::Replace(leaving, _) if live.is_some_and(|live| *live.instance() == leaving) => {
                Self::Stop(instance)
            }
            Process::Replace(_, installed) | Process::Run(installed) => running(installed),
        }
    }
}

/// Does it, and reports. Ends when there is nothing left to do; a failure is tried again after a back-off.
pub(super) async fn tend(
    executor: Executor,
    upkeep: Upkeep,
    live: Option<Arc<Live>>,
    settings: Settings,
    failures: u32,
    number: u64,
) {
    let policy = settings.policy.clone();
    let (mut failures, mut begun) = (failures, None);
    loop {
        let done = match &upkeep {
            Upkeep::Rest => return,
            Upkeep::Start(installed) => {
                tokio::time::sleep(supervisor::backoff(failures, policy.backoff_first, policy.backoff_cap))
                    .await;
                begun.get_or_insert_with(Instant::now);
                executor.resume(installed, &policy).await
            }
            Upkeep::Ready(installed, _, demand) => {
                begun.get_or_insert_with(Instant::now);
                executor.ready(installed, live.as_deref(), &policy, *demand).await
            }
            Upkeep::Stop(_) => executor.end(&settings).await,
            Upkeep::Vigil(installed, _) => executor.vigil(installed, live.as_deref(), &settings).await,
        };
        match done {
            Ok(()) => {
                executor.reporter.send(Input::Trouble(None)).await;
                if matches!(upkeep, Upkeep::Stop(_)) {
                    executor.reporter.send(Input::Stopped(number)).await;
                }
                return;
            }
            Err(fault) => {
                failures = failures.saturating_add(1);
                acts::warn(&executor, "upkeep", &fault);
                let told = format!("{}: {}", fault.code, fault.detail);
                executor.reporter.send(Input::Trouble(Some(told.clone()))).await;
                // Nothing came of it for as long as a start may take: what is not served is as bad as what is not ready.
                let is_to_serve = matches!(upkeep, Upkeep::Start(_) | Upkeep::Ready(..));
                let is_late = begun.is_some_and(|begun| begun.elapsed() > policy.start_deadline);
                if is_to_serve && is_late && fault.code != TREE_CHANGED {
                    let blame = Blame::of(&fault);
                    let told = if fault.code == CUT_OFF { fault } else { acts::fault(UNREADY, told) };
                    executor.unready(told, blame).await;
                    begun = None;
                }
                tokio::time::sleep(supervisor::backoff(failures, policy.backoff_first, policy.backoff_cap))
                    .await;
            }
        }
    }
}

/// A look at a tree under way. A whole tree takes seconds, or minutes on a busy disk: what is served is watched meanwhile.
type Looking = AbortOnDropHandle<Looked>;

/// Waits as long as `pause` in any case, while the look goes on; tells one that came to its end, which is none any more then.
async fn pause_beside(pause: Duration, looking: &mut Option<Looking>) -> Option<Looked> {
    let mut over = std::pin::pin!(tokio::time::sleep(pause));
    let Some(under_way) = looking else {
        over.await;
        return None;
    };
    let looked = tokio::select! {
        looked = under_way => looked.expect("BUG: a look at a tree panicked"),
        () = &mut over => return None,
    };
    *looking = None;
    over.await;
    Some(looked)
}

/// What is to be told of a process that did not prove itself: nothing against it, if it does when asked directly.
async fn unproven(prover: &mut Prover, why: Fault) -> Fault {
    if [UNTOLD, WRONG_PROCESS, CUT_OFF].contains(&why.code.as_str()) {
        return why;
    }
    let seen = prover.look_directly().await;
    if prover.holds_directly(&seen) {
        return cut_off(&why.detail);
    }
    // A stranger on its port is no evidence against it either.
    let is_foreign = |listener: &Listener| matches!(listener.owner, Owner::Foreign { .. });
    if seen.listeners.value().is_some_and(|listeners| listeners.iter().any(is_foreign)) {
        return fault(PORT_TAKEN, why.detail);
    }
    fault(UNREADY, format!("{}: {}", why.code, why.detail))
}

impl Executor {
    /// Starts it, unless it lives already and nobody had told.
    async fn resume(&self, installed: &Installed, policy: &Policy) -> Result<(), Fault> {
        self.closed(policy.hold).await?;
        if self.already(installed, policy).await?.is_some() {
            return Ok(());
        }
        if let Err(fault) = self.spawn(&Starting { installed, policy, mended: Vec::new() }).await {
            let fault = self.by_its_bytes(installed, fault).await;
            if fault.code == TREE_CHANGED {
                self.tree_changed(installed, fault.clone()).await;
            }
            return Err(fault);
        }
        Ok(())
    }

    /// Why a program did not come to run: bytes that a disk has lost change no time of any file.
    async fn by_its_bytes(&self, installed: &Installed, fault: Fault) -> Fault {
        if fault.code != EXEC_FAILED {
            return fault;
        }
        match self.read_whole(installed.generation, LATELY).await {
            Err(changed) if changed.code == TREE_CHANGED => changed,
            Err(_) | Ok(()) => fault,
        }
    }

    async fn end(&self, settings: &Settings) -> Result<(), Fault> {
        self.closed(settings.policy.hold).await?;
        if self.running().await?.is_empty() {
            return self.stop_all(&settings.policy).await.map(drop);
        }
        let (_, ended) = self.parting(settings.policy.drain, self.stop_all(&settings.policy)).await;
        ended.map(drop)
    }

    async fn ready(
        &self,
        installed: &Installed,
        live: Option<&Live>,
        policy: &Policy,
        demand: Demand,
    ) -> Result<(), Fault> {
        let Some(live) = live else { return Ok(()) };
        let mut prover = Prover::new(self, live.clone(), installed, Proof::Ready).await?;
        let (enough, deadline) = (Enough::rounds(1, policy), policy.start_deadline);
        let observations = match (prover.until_proven(&enough, deadline, None).await, demand) {
            (Err(fault), Demand::Waived) => {
                acts::warn(self, "accepted by a person, and served with an incomplete proof", &fault);
                prover.waive();
                prover.until_proven(&enough, deadline, None).await?
            }
            (Err(fault), Demand::Whole) => return Err(unproven(&mut prover, fault).await),
            (Ok(proven), _) => proven,
        };
        let expectation = prover.expectation;
        self.reporter
            .fact(Event::Ready { expectation, observations })
            .await
            .map_err(|refusal| fault("refused", refusal))
    }

    /// Watches a served process for what its clients would notice, and its tree for foreign hands. One that is not ready
    /// is given up after as long as its start may take: there are services that answer nobody while they load code.
    async fn vigil(
        &self,
        installed: &Installed,
        live: Option<&Live>,
        settings: &Settings,
    ) -> Result<(), Fault> {
        let Some(live) = live else { return Ok(()) };
        let mut prover = Prover::new(self, live.clone(), installed, Proof::Ready).await?;
        let begun = Instant::now();
        let mut ailing = Ailing::begun(begun, settings.policy.start_deadline);
        let mut seal = SealWatch::begun(begun, self.read_whole_ago(installed.generation));
        let mut looking = None;
        // That it is ready is news too: an alarm may last from before.
        let (mut old_lines, mut is_ready_told) = (None, false);
        loop {
            if looking.is_none() {
                looking = seal.due(Instant::now()).map(|look| self.begin_look(installed, look));
            }
            let front = self.front.standing();
            let health = prover.health_now().await;
            // What stood in the log before is no news.
            let lines = prover.tripped();
            let tripped = lines > *old_lines.get_or_insert(lines);
            let now = Instant::now();
            match health {
                Health::Well => {
                    ailing.over(now);
                    old_lines = Some(lines);
                    if !std::mem::replace(&mut is_ready_told, true) {
                        self.reporter.send(Input::Unready(None)).await;
                    }
                }
                Health::CutOff => {
                    old_lines = Some(lines);
                    if ailing.is_cut_off_too_long(now) {
                        is_ready_told = false;
                        self.cut_off(front).await;
                        ailing.goes_on(Instant::now());
                    }
                }
                Health::Sick(shortfall) => {
                    let blame = match ailing.is_sick(now) {
                        Sickness::Unbroken => Some(Blame::Version),
                        _ if tripped => Some(Blame::Version),
                        Sickness::InTurns => Some(Blame::Other),
                        Sickness::Short => None,
                    };
                    if let Some(blame) = blame {
                        (old_lines, is_ready_told) = (Some(lines), false);
                        self.unready(fault(UNREADY, shortfall), blame).await;
                    }
                }
            }
            let pause = LOOK.max(settings.policy.probe_interval);
            if let Some(looked) = pause_beside(pause, &mut looking).await
                && let Some(trouble) = seal.looked(looked)
            {
                self.reporter.send(Input::Trouble(trouble)).await;
            }
        }
    }

    fn begin_look(&self, installed: &Installed, look: Look) -> Looking {
        let (executor, installed) = (self.clone(), installed.clone());
        let looking = async move {
            let begun = Instant::now();
            let (pause, unknown) = executor.look_at_tree(&installed, look).await;
            Looked { look, begun, ended: Instant::now(), pause, unknown }
        };
        AbortOnDropHandle::new(tokio::spawn(looking))
    }

    /// Tells a tree that is not what was sealed; returns for how long nothing is to be looked for then, and why it is not
    /// known whether it is.
    async fn look_at_tree(&self, installed: &Installed, look: Look) -> (Duration, Option<String>) {
        let looked = match look {
            Look::Entries => self.sealed(installed.generation).await,
            // It may have been read since this was found to be due.
            Look::Bytes => self.read_whole(installed.generation, WHOLE).await,
        };
        match looked {
            Err(fault) if fault.code == TREE_CHANGED => {
                self.tree_changed(installed, fault).await;
                (TOLD, None)
            }
            Err(fault) => {
                acts::warn(self, "tree", &fault);
                (LOOK, Some(format!("{}: {}", fault.code, fault.detail)))
            }
            Ok(()) => (LOOK, None),
        }
    }

    /// Tells a front through which nobody gets to a service that is well, by its number, and has another take its place.
    /// Answers whether one stands.
    pub(super) async fn cut_off(&self, front: Option<u64>) -> bool {
        self.reporter.send(Input::Unready(Some(cut_off("another front takes its place")))).await;
        self.front.replace(front, FRONT).await
    }

    /// Tells that it is not ready for longer than it may: a person, and whoever watches its version if that is to blame.
    async fn unready(&self, fault: Fault, blame: Blame) {
        self.reporter.send(Input::Unready(Some(fault.clone()))).await;
        if blame == Blame::Other {
            return;
        }
        let run = fresh_run();
        if let Err(refusal) = self.reporter.fact(Event::Degraded { run, fault }).await {
            tracing::warn!(service = self.site.settings.name, %refusal, "degraded: alarm only");
        }
    }

    /// Reports a tree that is not what was sealed.
    pub(super) async fn tree_changed(&self, installed: &Installed, fault: Fault) {
        let run = fresh_run();
        let settings = self.site.settings.for_run();
        let event = Event::TreeChanged { run, generation: installed.generation, fault, settings };
        if let Err(refusal) = self.reporter.fact(event).await {
            tracing::debug!(%refusal, "a changed tree");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_takes_long_keeps_nobody_from_watching_and_is_told_when_it_is_done() {
        let (finish, finished) = tokio::sync::oneshot::channel();
        let now = Instant::now();
        let looked = move || Looked { look: Look::Bytes, begun: now, ended: now, pause: TOLD, unknown: None };
        let look = async { finished.await.unwrap() };
        let mut looking = Some(AbortOnDropHandle::new(tokio::spawn(look)));
        let pause = Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(pause_beside(pause, &mut looking).await, None, "the next round is taken all the same");
        }
        finish.send(looked()).unwrap();
        let told = loop {
            if let Some(told) = pause_beside(pause, &mut looking).await {
                break told;
            }
        };
        assert_eq!(told, looked());
        assert!(looking.is_none());
        assert_eq!(pause_beside(pause, &mut looking).await, None);
    }
}
