//! Alarms: lasting trouble of a resting service. What is wrong now is a reading; that it began and that it is over are
//! facts, so that a daemon which begins again raises no alarm twice. It is over when there is
//! evidence that it is: a daemon that began just now knows of no trouble, and that is none.

use super::Conductor;
use cutover_core::{
    Alarm, AlarmId, Event, Fault, Instance, Phase, Posture, Process, Restarts, State, Wish, posture, wants,
};
use std::time::{Duration, Instant};

/// What is known of how a take-over stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Succession {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It is at its end, and nobody starts the old service again.
    Settled,
    Troubled(Fault),
}

impl Succession {
    pub(super) fn trouble(&self) -> Option<&Fault> {
        match self {
            Self::Troubled(fault) => Some(fault),
            Self::Unknown | Self::Settled => None,
        }
    }
}

/// What is known of the readiness of the process that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    Ready,
    /// For longer than it may.
    Unready(Fault),
}

impl Readiness {
    /// In which way it is not ready.
    pub(super) fn trouble(&self) -> Option<&Fault> {
        match self {
            Self::Unready(fault) => Some(fault),
            Self::Unknown | Self::Ready => None,
        }
    }
}

impl Conductor {
    /// Journals that trouble began, or that it is over.
    pub(super) async fn heed_alarms(&mut self) {
        let state = &self.chronicle.state;
        // While an act decides, nothing is learned of what rests: an alarm lasts until it is over for good.
        if state.open_run().is_some() && wants(state).process == Process::LeaveAlone {
            let started = started(state);
            if started.is_some() && started == self.live.as_ref().map(|live| live.instance()) {
                self.from_run = started.cloned();
            }
            return;
        }
        let now = self.alarming(state);
        if let Some(lasting) = self.chronicle.notifications.alarm.as_ref() {
            let gives_way = match &now {
                Some(fault) if fault.code == lasting.fault.code => false,
                Some(fault) if weight(fault) >= weight(&lasting.fault) => true,
                _ => self.is_over(lasting),
            };
            if !gives_way {
                return;
            }
            // A refusal is impossible: these change no state.
            let over = lasting.id.clone();
            let _ = self.apply(Event::Calmed { alarm: over }).await;
        }
        if let Some(fault) = now {
            self.from_run = None;
            let alarm = AlarmId(uuid::Uuid::now_v7().to_string());
            let _ = self.apply(Event::Alarmed { alarm, fault }).await;
        }
    }

    /// Whether there is evidence that it is: nobody wants the service to run, or it is served and is what it was not.
    fn is_over(&self, lasting: &Alarm) -> bool {
        let state = &self.chronicle.state;
        // Whatever runs of ours, or does not, says nothing about the old service.
        if [REVIVED, UNSETTLED].contains(&lasting.fault.code.as_str()) {
            return self.succession == Succession::Settled;
        }
        if state.wish == Wish::Stopped {
            return true;
        }
        let Some(live) = self.live.as_ref().filter(|_| posture(state) == Posture::Serve) else {
            return false;
        };
        // What a run started and proved is not what the alarm was about.
        self.from_run.as_ref() == Some(live.instance())
            || match lasting.fault.code.as_str() {
                LOOPING => self.has_settled(),
                UNREADY | CUT_OFF => self.readiness == Readiness::Ready,
                // It was halted, and is served.
                _ => true,
            }
    }

    fn has_settled(&self) -> bool {
        self.live.is_some() && self.born.elapsed() >= self.window()
    }

    /// When an alarm may be over by nothing but time: the process has lived long enough.
    pub(super) fn calms_at(&self) -> Option<Instant> {
        let lasting = self.chronicle.notifications.alarm.as_ref()?;
        let at = self.born + self.window();
        let is_pending = self.live.is_some() && lasting.fault.code == LOOPING && at > Instant::now();
        is_pending.then_some(at)
    }

    /// What is wrong with the resting service, if anything is.
    fn alarming(&self, state: &State) -> Option<Fault> {
        if state.wish == Wish::Stopped {
            return self.succession.trouble().cloned();
        }
        if let Restarts::Halted { code } = state.restarts {
            let detail = format!("it ended with exit code {code} and is not started again by itself");
            return Some(Fault { code: "halted".into(), detail });
        }
        let looping = self.crashes.note().filter(|_| !self.has_settled());
        looping
            .map(|detail| Fault { code: LOOPING.into(), detail })
            // Of maintenance a person is told otherwise.
            .or_else(|| self.readiness.trouble().filter(|_| posture(state) != Posture::Maintain).cloned())
            .or_else(|| self.succession.trouble().cloned())
    }

    fn window(&self) -> Duration {
        self.executor.site.settings.policy.crash_window
    }
}

/// What is heavier takes the place of what is lighter: of a process that ends again and again, that it is not ready is no
/// news, and of either not what is wrong beside it.
fn weight(fault: &Fault) -> u8 {
    match fault.code.as_str() {
        REVIVED | UNSETTLED => 0,
        UNREADY | CUT_OFF => 1,
        _ => 2,
    }
}

/// The process that the run under way started.
fn started(state: &State) -> Option<&Instance> {
    match &state.phase {
        Phase::CuttingOver(cut) => cut.live.as_ref(),
        Phase::RollingBack(retreat) => retreat.cut.live.as_ref(),
        Phase::Idle | Phase::Preparing(_) | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

/// Three or more ends in a row that nobody asked for.
const LOOPING: &str = "crash_looping";
/// Somebody starts the old service again, after a take-over.
pub(super) const REVIVED: &str = "revived";
/// A take-over cannot be brought to its end.
pub(super) const UNSETTLED: &str = "unsettled";
/// As the upkeep says it.
pub(super) const UNREADY: &str = "not_ready";
/// It is well, and clients do not get through to it.
pub(super) const CUT_OFF: &str = "cut_off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_beside_a_service_hides_nothing_that_is_wrong_with_it() {
        let weight = |code: &str| weight(&Fault { code: code.into(), detail: String::new() });
        for beside in [REVIVED, UNSETTLED] {
            assert!(weight(beside) < weight(UNREADY), "{beside}");
        }
        assert!(weight(UNREADY) < weight(LOOPING) && weight(LOOPING) == weight("halted"));
    }
}
