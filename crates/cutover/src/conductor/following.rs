//! Makes the world follow the state: the front's posture, the act under way, the process at rest. Nothing here decides.

use super::acts::{self, Assignment};
use super::alarm::Readiness;
use super::front_link::Wanted;
use super::upkeep::{self, Asked, Upkeep};
use super::{Conductor, Task};
use cutover_core::{
    Act, Base, Boot, Effect, Phase, Posture, Preparation, Process, Report, RunId, Settings, State, Ticket,
    patience, posture, report, wants,
};
use cutover_front::Notice;
use std::time::{Duration, Instant};

impl Conductor {
    /// Makes the world follow the state. What is no longer wanted has ended before anything else begins.
    pub(super) async fn follow(&mut self) {
        self.settle_if_due().await;
        self.heed_halt().await;
        self.heed_alarms().await;
        let state = self.chronicle.state.clone();
        self.front(&state);
        let wanted = wants(&state);
        if wanted.process == Process::LeaveAlone {
            self.crashes.clear();
        }
        let mut upkeep = self.upkeep(&state);
        let tended = self.tending.as_ref().map(|(now, _)| now) == Some(&upkeep);
        if !tended && let Some((_, task)) = self.tending.take() {
            task.end().await;
            // Up to here it may have asked the process to end.
            upkeep = self.upkeep(&state);
        }
        let acting = self.acting.as_ref().map(|(ticket, _)| ticket);
        if acting != wanted.act.as_ref().map(|(ticket, _)| ticket) {
            self.progress = None;
            if let Some((_, task)) = self.acting.take() {
                task.end().await;
            }
            self.acting = wanted.act.map(|(ticket, effect)| self.begin_act(&state, ticket, effect));
        }
        if !tended {
            (self.upkeep_trouble, self.readiness) = (None, Readiness::Unknown);
            self.stopped = false;
            self.tended += 1;
            let task = upkeep::tend(
                self.executor.clone(),
                upkeep.clone(),
                self.live.clone(),
                self.executor.site.settings.for_run(),
                self.crashes.in_a_row(),
                self.tended,
            );
            self.tending = Some((upkeep, Task(tokio::spawn(task))));
        }
        self.watch(&state);
        self.sweep_if_due();
        self.publish();
    }

    fn upkeep(&self, state: &State) -> Upkeep {
        match self.is_leaving() {
            true => Upkeep::Rest,
            false => Upkeep::of(state, self.live.as_deref(), self.asked()),
        }
    }

    /// What was asked of the process that lives, by whatever wanted it then.
    fn asked(&self) -> Asked {
        match &self.live {
            Some(live) if self.executor.was_asked_to_end(live) => Asked::ToEnd,
            _ => Asked::Nothing,
        }
    }

    fn begin_act(&self, state: &State, ticket: Ticket, effect: Effect) -> (Ticket, Task) {
        tracing::debug!(service = self.executor.site.settings.name, act = ?ticket.act, round = ticket.round, "act");
        let assignment = Assignment {
            ticket: ticket.clone(),
            effect,
            settings: settings_of(state).unwrap_or_else(|| self.executor.site.settings.for_run()),
            limit: self.limit(state, &ticket),
            served: acts::served(state),
            skipped: state.skipped.clone(),
            before: self.chronicle.record(&ticket.run).and_then(|record| record.baseline),
        };
        let executor = self.executor.clone();
        // Past the first act of the cut the reserve is there to be used; before, nothing is begun on what it cannot end.
        let task = match nothing_is_touched(state) && !self.ledger.has_room() {
            true => tokio::spawn(executor.decline(ticket.clone())),
            false => tokio::spawn(executor.perform(assignment)),
        };
        (ticket, Task(task))
    }

    /// How long an act may last. What is waited for is waited for once, however often the run is looked at meanwhile.
    fn limit(&self, state: &State, ticket: &Ticket) -> Duration {
        let limit = patience(state).unwrap_or(self.executor.site.settings.policy.hard_cap);
        match self.chronicle.record(&ticket.run).and_then(|record| record.waits_since) {
            Some(first) if ticket.act == Act::Await => limit.saturating_sub(since(first.boot_ms)),
            _ => limit,
        }
    }

    fn watch(&mut self, state: &State) {
        let (Phase::Watching(watch) | Phase::Preparing(Preparation { base: Base::Watching(watch), .. })) =
            &state.phase
        else {
            self.watch_ends = None;
            return;
        };
        if self.watch_ends.as_ref().is_none_or(|(run, _)| *run != watch.run) {
            let left = watch.settings.policy.watch.saturating_sub(self.watched_for(&watch.run));
            self.watch_ends = Some((watch.run.clone(), Instant::now() + left));
        }
    }

    /// How long a committed run has been watched, on the boot-time clock; nothing is known of an earlier boot.
    fn watched_for(&self, run: &RunId) -> Duration {
        let committed = || {
            let last = self.chronicle.record(run)?.steps.last()?;
            last.began_boot_ms.checked_add(last.took_ms?)
        };
        match (self.booted, committed()) {
            (Boot::Same, Some(then)) => since(then),
            _ => Duration::ZERO,
        }
    }

    fn front(&self, state: &State) {
        let site = &self.executor.site;
        if !site.has_front() {
            return;
        }
        let word = posture(state);
        let upstream = cutover_front::Upstream {
            address: site.address(),
            uid: site.identity.as_ref().map(|identity| identity.uid),
            forwarded: site.settings.forwarded,
        };
        let notice = self.notice(state);
        let patience = cutover_front::Patience { limit: site.settings.policy.hold, notice: notice.clone() };
        let posture = match word {
            Posture::Serve => cutover_front::Posture::Serve { upstream, patience },
            Posture::Hold => cutover_front::Posture::Hold {
                hold: cutover_front::HoldId(hold_id(state)),
                patience,
                upstream: Some(upstream),
            },
            Posture::Maintain => cutover_front::Posture::Maintain { notice, upstream: Some(upstream) },
        };
        self.executor.front.want(Wanted { word, posture });
    }

    fn notice(&self, state: &State) -> Notice {
        let name = &self.executor.site.settings.name;
        let flags = &self.executor.site.layout.flags;
        let report = report(name, state, self.chronicle.latest()).typed(flags);
        // A run that is over explains nothing any more, except where it left the service in maintenance.
        let about_a_run = state.open_run().is_some() || matches!(state.phase, Phase::Maintenance(_));
        let trouble = trouble(&report).filter(|_| about_a_run);
        Notice {
            service: name.clone(),
            sentence: report.condition,
            reason: trouble.or(report.next).unwrap_or_else(|| "ask again in a moment".into()),
            what_serves: report.serving.version,
            commands: report.awaits.map_or(report.recovery, |awaits| awaits.commands),
            retry_after: 5,
            run_id: report.run_id.filter(|_| about_a_run).map(|run| run.0),
        }
    }
}

/// How long ago a moment of the boot-time clock is.
fn since(then_ms: u64) -> Duration {
    Duration::from_millis(cutover_intent::boot_time_ms().saturating_sub(then_ms))
}

/// What went wrong, for everybody: the stable word alone. The whole story quotes logs and paths, and strangers read this.
fn trouble(report: &Report) -> Option<String> {
    let cause = report.causes.last().map(|cause| {
        let act = format!("{:?}", cause.act).to_lowercase();
        format!("It failed at `{act}`: {}.", cause.fault.code)
    });
    cause.or_else(|| report.origin.as_ref().map(|fault| format!("It began with `{}`.", fault.code)))
}

/// A hold keeps its clock as long as its reason lasts.
fn hold_id(state: &State) -> String {
    state.open_run().map_or_else(|| "start".to_owned(), |run| run.0.clone())
}

fn settings_of(state: &State) -> Option<Settings> {
    match &state.phase {
        Phase::Preparing(preparation) => Some(preparation.run.settings.clone()),
        Phase::CuttingOver(cut) => Some(cut.run.settings.clone()),
        Phase::RollingBack(retreat) => Some(retreat.cut.run.settings.clone()),
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

/// Whether a run could end here without the world ever learning of it.
fn nothing_is_touched(state: &State) -> bool {
    match &state.phase {
        Phase::Preparing(_) => true,
        Phase::CuttingOver(cut) => {
            cut.round == 0
                && matches!(cut.act, Act::Stop | Act::Snapshot)
                && cut.order().first() == Some(&cut.act)
        }
        Phase::Idle | Phase::RollingBack(_) | Phase::Watching(_) | Phase::Maintenance(_) => false,
    }
}
