//! Alarms: lasting trouble of a resting service. What is wrong now is a reading; that it began and that it is over are
//! facts, so that a daemon which begins again raises no alarm twice.

use super::Conductor;
use cutover_core::{AlarmId, Event, Fault, Process, Restarts, State, Wish, wants};
use std::time::{Duration, Instant};

impl Conductor {
    /// Journals that trouble began, or that it is over.
    pub(super) async fn heed_alarms(&mut self) {
        let state = &self.chronicle.state;
        // While an act decides, nothing is learned of what rests: an alarm lasts until it is over for good.
        if state.open_run().is_some() && wants(state).process == Process::LeaveAlone {
            return;
        }
        let now = self.alarming(state);
        let lasting = self.chronicle.notifications.alarm.as_ref();
        let is_the_same =
            lasting.map(|alarm| alarm.fault.code.as_str()) == now.as_ref().map(|fault| fault.code.as_str());
        if is_the_same {
            return;
        }
        // A refusal is impossible: these change no state.
        if let Some(over) = lasting.map(|alarm| alarm.id.clone()) {
            let _ = self.apply(Event::Calmed { alarm: over }).await;
        }
        if let Some(fault) = now {
            let alarm = AlarmId(uuid::Uuid::now_v7().to_string());
            let _ = self.apply(Event::Alarmed { alarm, fault }).await;
        }
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
            return None;
        }
        if let Restarts::Halted { code } = state.restarts {
            let detail = format!("it ended with exit code {code} and is not started again by itself");
            return Some(Fault { code: "halted".into(), detail });
        }
        let has_settled = self.live.is_some() && self.born.elapsed() >= self.window();
        let looping = self.crashes.note().filter(|_| !has_settled);
        looping.map(|detail| Fault { code: LOOPING.into(), detail }).or_else(|| self.unready.clone())
    }

    fn window(&self) -> Duration {
        self.executor.site.settings.policy.crash_window
    }
}

const LOOPING: &str = "crash_looping";
