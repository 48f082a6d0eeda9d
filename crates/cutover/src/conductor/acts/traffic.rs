//! V9: how clients fare, before the stop and in the soak.

use super::Executor;
use crate::conductor::ledger::wall_ms;
use cutover_core::{Compared, Event, Exchanges, RunId, Seen};

impl Executor {
    /// Puts on record how clients fared with what is about to be stopped. Nothing is known of it where there is no front, or
    /// right after the daemon began.
    pub(super) async fn measure(&self, run: &RunId) {
        let Some(exchanges) = self.front.lately() else { return };
        // It changes no state, so it is never refused; a conductor that is gone wants to know nothing.
        let _ = self.reporter.fact(Event::Measured { run: run.clone(), exchanges }).await;
    }
}

/// Clients' exchanges with one process, as far as they are compared with those before.
pub(super) struct Traffic {
    before: Option<Exchanges>,
    from: Option<Exchanges>,
    /// Exchanges of our own on the public address, which say nothing of clients.
    own: Exchanges,
}

impl Traffic {
    /// Counts from now on.
    pub(super) async fn from_now(executor: &Executor, before: Option<Exchanges>) -> Self {
        Self { before, from: executor.front.counted().await, own: Exchanges::default() }
    }

    /// We asked so much ourselves, and so it went.
    pub(super) fn asked(&mut self, own: Exchanges) {
        self.own.answered += own.answered;
        self.own.bad += own.bad;
        self.own.abnormal += own.abnormal;
    }

    /// What was counted so far.
    pub(super) async fn look(&self, executor: &Executor) -> Seen<Compared> {
        let unknown = |why: &str| Seen::NotApplicable { why: why.to_owned() };
        let Some(before) = self.before else {
            return unknown("nothing was measured of the process before");
        };
        let (Some(from), Some(counted)) = (self.from, executor.front.counted().await) else {
            return unknown("the front did not tell its numbers");
        };
        let Some(all) = counted.since(from) else {
            return unknown("another front counts now");
        };
        let value = Compared { before, now: without(all, self.own) };
        Seen::Yes { value, at_ms: wall_ms(), source: "the front's numbers".into() }
    }
}

/// What is left for clients.
fn without(all: Exchanges, own: Exchanges) -> Exchanges {
    Exchanges {
        answered: all.answered.saturating_sub(own.answered),
        bad: all.bad.saturating_sub(own.bad),
        abnormal: all.abnormal.saturating_sub(own.abnormal),
    }
}
