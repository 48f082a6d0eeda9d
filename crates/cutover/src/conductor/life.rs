//! Which process lives: found out when the daemon begins, followed from then on. Every end becomes a fact exactly once.

use super::acts;
use super::{APPEND_PAUSE, Conductor, Upkeep};
use crate::conductor::inbox::Input;
use crate::conductor::ledger::fresh_run;
use crate::supervisor::Live;
use cutover_core::{
    Act, Boot, Event, Exit, Fault, Instance, Kind, Phase, Process, Restarts, Serving, State,
    asks_for_a_restart, wants,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the keeper may take to write down an exit.
const EXIT_RECORD: Duration = Duration::from_secs(2);
/// Between two tries to watch a process.
const WATCH_PAUSE: Duration = Duration::from_millis(200);

impl Conductor {
    /// Finds out what lives and tells the state; whatever was under way goes on from there.
    pub(super) async fn recover(&mut self) {
        if let Err(fault) = self.executor.reclaim().await {
            acts::warn(&self.executor, "leftovers of a killed daemon stay", &fault);
        }
        let known = known(&self.chronicle.state);
        let mut running = self.running().await;
        // What the state speaks of, else the youngest. Two at once are never left: the others are ended first.
        let at = running.iter().position(|live| known.contains(live.instance())).unwrap_or(0);
        let live = (at < running.len()).then(|| Arc::new(running.remove(at)));
        for surplus in running {
            tracing::warn!(
                service = self.executor.site.settings.name,
                instance = %surplus.instance(),
                "a second process of the service lives: it is ended"
            );
            let policy = self.executor.site.settings.policy.clone();
            if let Err(fault) = self.executor.end_one(&surplus, &policy).await {
                acts::warn(&self.executor, "it stays", &fault);
            }
        }
        // Forgotten by the state once it is told what lives.
        let leaving = self.chronicle.state.leaving.clone();
        let boot_id = self.ledger.boot_id().clone();
        let boot = self.chronicle.boot(&boot_id);
        self.booted = boot;
        let instance = live.as_ref().map(|live| live.instance().clone());
        if let Some(live) = live {
            self.born(live);
        }
        if self.chronicle.state == State::new() {
            return;
        }
        let _ = self.apply(Event::Recovered { boot, boot_id, live: instance.clone() }).await;
        self.sweep_is_due = true;
        for gone in known.into_iter().filter(|known| Some(known) != instance.as_ref()) {
            // How it ended while nobody watched is for the record, and says whether starting again can help.
            let exit = match (boot, self.executor.exit_of(&gone).await) {
                (_, Some(exit)) => exit,
                (Boot::New, None) => Exit::Unknown("the machine went down".into()),
                (Boot::Same, None) => Exit::Unknown("nobody saw how it ended".into()),
            };
            let was_asked = leaving.as_ref() == Some(&gone);
            let event = self.exited(gone, exit);
            let _ = self.apply(if was_asked { unforbidding(event) } else { event }).await;
        }
    }

    /// What runs. As long as that cannot be told nothing is done: a process that was not seen is not one that is gone.
    async fn running(&mut self) -> Vec<Live> {
        loop {
            match self.executor.running().await {
                Ok(running) => {
                    self.trouble = None;
                    return running;
                }
                Err(fault) => {
                    acts::warn(
                        &self.executor,
                        "what runs cannot be told; nothing is done until it can",
                        &fault,
                    );
                    self.trouble = Some(fault.detail);
                    self.publish();
                    tokio::time::sleep(APPEND_PAUSE).await;
                }
            }
        }
    }

    /// A process lives: whoever ends, its keeper's word reaches the inbox.
    pub(super) fn born(&mut self, live: Arc<Live>) {
        if self.live.as_ref().is_some_and(|known| known.instance() == live.instance()) {
            return;
        }
        self.live = Some(Arc::clone(&live));
        self.born = Instant::now();
        let reporter = self.executor.reporter.clone();
        tokio::spawn(async move {
            let exit = end_of(&live).await;
            reporter.send(Input::Ended { instance: live.instance().clone(), exit }).await;
        });
    }

    pub(super) async fn ended(&mut self, instance: Instance, exit: Exit) {
        let was_live = self.live.as_ref().is_some_and(|live| *live.instance() == instance);
        let was_known = known(&self.chronicle.state).contains(&instance);
        if !was_live && !was_known {
            return;
        }
        let asked_for = self.chronicle.state.leaving.as_ref() == Some(&instance)
            || matches!(self.tending, Some((Upkeep::Stop(_), _)))
            || self.is_leaving();
        let live = if was_live { self.live.take() } else { None };
        let told = format!("{exit:?}");
        let force = &self.executor.site.settings.restart_force_exit_status;
        let begins_anew = asks_for_a_restart(&self.chronicle.state, &instance, &exit, force);
        let is_ended = matches!(&self.chronicle.state.phase, Phase::CuttingOver(cut) if cut.act == Act::Stop);
        if begins_anew && !asked_for && !is_ended {
            let service = &self.executor.site.settings.name;
            tracing::info!(service, %instance, exit = told, "it ended to be started again");
        } else {
            self.blame(live.as_deref(), &told).await;
        }
        let event = self.exited(instance, exit);
        let _ = self.apply(if asked_for { unforbidding(event) } else { event }).await;
        let acted_on = matches!(wants(&self.chronicle.state).process, Process::LeaveAlone);
        if !was_live || asked_for || acted_on {
            return;
        }
        let policy = self.executor.site.settings.policy.clone();
        match begins_anew {
            true => self.crashes.add_wish(self.born.elapsed(), told.clone(), &policy),
            false => self.crashes.add(self.born.elapsed(), told.clone(), &policy),
        }
        if self.crashes.recent() >= policy.crash_limit as usize {
            let (count, window) = (self.crashes.recent(), policy.crash_window);
            let detail = format!("{count} exits within {window:?}, the last: {told}");
            let fault = Fault { code: "crash_limit".into(), detail };
            let run = fresh_run();
            // Refused where nothing is watched, or a revert is on its way: a restart with back-off is all there is to do.
            let _ = self.apply(Event::Degraded { run, fault }).await;
        }
    }

    /// A watched version that ended with a code after which nothing is started again is reverted, whoever saw its end: also one
    /// that ended while no daemon looked, or just before one was killed.
    pub(super) async fn heed_halt(&mut self) {
        let Restarts::Halted { code } = self.chronicle.state.restarts else { return };
        // What ends because its address goes back is not what failed.
        if self.is_leaving() {
            return;
        }
        // A revert that came to nothing is not begun again at once, nor on a journal that could not tell its end.
        let pause = self.halt_pause();
        if self.halt_heeded.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        let detail = format!("it ended with exit code {code}, after which it is not started again");
        let event = Event::Degraded { run: fresh_run(), fault: Fault { code: "halted".into(), detail } };
        // Where there is nothing to go back to, nothing would change, again and again.
        let changes = self.chronicle.foresee(&event).is_ok_and(|next| next.state != self.chronicle.state);
        if !changes {
            return;
        }
        self.halt_heeded = Some(Instant::now());
        if self.ledger.has_room() {
            let _ = self.apply(event).await;
        }
    }

    fn halt_pause(&self) -> Duration {
        self.executor.site.settings.policy.backoff_cap
    }

    /// When a halt is to be heeded again.
    pub(super) fn heeds_at(&self) -> Option<Instant> {
        let at = self.halt_heeded? + self.halt_pause();
        let is_halted = matches!(self.chronicle.state.restarts, Restarts::Halted { .. });
        (is_halted && at > Instant::now()).then_some(at)
    }

    fn exited(&self, instance: Instance, exit: Exit) -> Event {
        let settings = &self.executor.site.settings;
        let restart_prevent_exit_status = settings.restart_prevent_exit_status.clone();
        let restart_force_exit_status = settings.restart_force_exit_status.clone();
        Event::Exited { instance, exit, restart_prevent_exit_status, restart_force_exit_status }
    }

    /// A new process that ended while it was being proven left more in its log than an exit code: that is the fault.
    async fn blame(&mut self, live: Option<&Live>, exit: &str) {
        let Phase::CuttingOver(cut) = &self.chronicle.state.phase else { return };
        // An accepted process that has ended is no fault to weigh: its end alone decides.
        let is_proven = matches!(cut.act, Act::Prove | Act::Soak)
            && cut.run.kind != Kind::Accept
            && cut.live.as_ref() == live.map(|live| live.instance());
        let (Some(live), Some((ticket, _)), true) = (live, wants(&self.chronicle.state).act, is_proven)
        else {
            return;
        };
        let said = self.executor.last_words(&live.record.nonce, live.record.generation).await;
        if said.is_empty() {
            return;
        }
        let detail = format!("the new process ended: {exit}{said}");
        let fault = Fault { code: "exited".into(), detail };
        let _ = self.apply(Event::Faulted { ticket, fault, copied: None }).await;
    }
}

/// How a process ended. Only its end counts: a watch that fails says nothing about it.
async fn end_of(live: &Live) -> Exit {
    loop {
        let why = match live.exited(EXIT_RECORD).await {
            Ok(exit) => return acts::exit(exit),
            Err(error) => acts::told(&error),
        };
        if matches!(live.is_alive(), Ok(false)) {
            return Exit::Unknown(why);
        }
        tracing::warn!(instance = %live.instance(), why, "watching it failed; it is tried again");
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// How a process ends that was asked to says nothing about the next one.
fn unforbidding(mut exited: Event) -> Event {
    if let Event::Exited { restart_prevent_exit_status, .. } = &mut exited {
        restart_prevent_exit_status.clear();
    }
    exited
}

/// The processes that a state speaks of.
fn known(state: &State) -> Vec<Instance> {
    let mut known: Vec<Instance> = state.leaving.iter().cloned().collect();
    match &state.serving {
        Serving::Proven(instance) | Serving::Waived(Some(instance)) => known.push(instance.clone()),
        Serving::Unproven | Serving::Waived(None) => {}
    }
    match &state.phase {
        Phase::CuttingOver(cut) => known.extend(cut.live.clone()),
        Phase::RollingBack(retreat) => known.extend(retreat.cut.live.clone()),
        Phase::Idle | Phase::Preparing(_) | Phase::Watching(_) | Phase::Maintenance(_) => {}
    }
    known.sort_by_key(|instance| (instance.start_time, instance.pid));
    known.dedup();
    known
}
