//! How a process does in the eyes of its clients, and for how long it has not been well.

use super::alarm::CUT_OFF;
use cutover_core::{Expectation, FactName, Fault, Observations, Verdict, judge};
use std::time::{Duration, Instant};

/// A front that was replaced so long ago is no word against the one that stands.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

/// How a process does, by one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It is live and ready wherever it was asked.
    Well,
    /// Asked directly it is well, and who asks through its front does not get through: that is no evidence against it.
    CutOff,
    /// In which way.
    Sick(String),
}

impl Health {
    /// By a round, and by the same round at its own address alone where it was asked elsewhere, too.
    pub(super) fn of(
        expectation: &Expectation,
        seen: &Observations,
        directly: impl FnOnce() -> Option<Observations>,
    ) -> Self {
        let facts = judge(expectation, seen);
        if !is_sick(&facts) {
            return Self::Well;
        }
        match directly() {
            Some(directly) if !is_sick(&judge(expectation, &directly)) => Self::CutOff,
            Some(_) | None => Self::Sick(facts.shortfall()),
        }
    }
}

fn is_sick(verdict: &Verdict) -> bool {
    verdict.facts().iter().any(|fact| {
        matches!(fact.name, FactName::Readiness | FactName::Liveness) && !fact.reading.is_in_order()
    })
}

/// What is told of a front through which nobody gets, and what comes of it.
pub(super) fn cut_off(then: &str) -> Fault {
    let detail = format!("asked directly it is well, and nobody gets through its front to it: {then}");
    Fault { code: CUT_OFF.into(), detail }
}

/// For how long a process has not been well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sickness {
    /// Not for too long.
    Short,
    /// For too long in all, and in between it was ready when it was asked directly: no evidence against its version.
    InTurns,
    /// For too long without a break.
    Unbroken,
}

/// For how long a process has been sick and how long cut off, since it was last well. The two may take turns: neither
/// makes the other forgotten.
#[derive(Debug)]
pub(super) struct Ailing {
    limit: Duration,
    looked: Instant,
    sick: Duration,
    /// Since it was last ready when asked directly.
    unbroken: Duration,
    cut_off: Duration,
    /// How long it may be cut off: twice as long after each front that was replaced, so that clients whom no front helps are
    /// not thrown out again and again.
    patience: Duration,
    replaced: Option<Instant>,
}

impl Ailing {
    /// Of a process that was well when it was looked at last, `now`. `limit` is how long it may be sick, or cut off once.
    pub(super) fn begun(now: Instant, limit: Duration) -> Self {
        let none = Duration::ZERO;
        Self {
            limit,
            looked: now,
            sick: none,
            unbroken: none,
            cut_off: none,
            patience: limit,
            replaced: None,
        }
    }

    /// It is well.
    pub(super) fn over(&mut self, now: Instant) {
        let none = Duration::ZERO;
        (self.looked, self.sick, self.unbroken, self.cut_off) = (now, none, none, none);
        if self.replaced.is_some_and(|replaced| now - replaced > FORGOTTEN) {
            self.patience = self.limit;
        }
    }

    /// It was not looked at until `now`: that time is nobody's.
    pub(super) fn goes_on(&mut self, now: Instant) {
        self.looked = now;
    }

    /// It is sick. Answers for how long that was so, and counts anew where it was for too long.
    pub(super) fn is_sick(&mut self, now: Instant) -> Sickness {
        let since = self.since(now);
        (self.sick, self.unbroken) = (self.sick + since, self.unbroken + since);
        let told = match (self.unbroken > self.limit, self.sick > self.limit) {
            (true, _) => Sickness::Unbroken,
            (false, true) => Sickness::InTurns,
            (false, false) => return Sickness::Short,
        };
        self.sick = Duration::ZERO;
        if told == Sickness::Unbroken {
            self.unbroken = Duration::ZERO;
        }
        told
    }

    /// It is cut off. Answers whether that was so for too long, and counts anew then, with more patience.
    pub(super) fn is_cut_off_too_long(&mut self, now: Instant) -> bool {
        let since = self.since(now);
        self.unbroken = Duration::ZERO;
        self.cut_off += since;
        let is_too_long = self.cut_off > self.patience;
        if is_too_long {
            (self.cut_off, self.replaced) = (Duration::ZERO, Some(now));
            self.patience = self.patience.saturating_mul(2).min(FORGOTTEN.max(self.limit));
        }
        is_too_long
    }

    fn since(&mut self, now: Instant) -> Duration {
        now - std::mem::replace(&mut self.looked, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_sick_and_cut_off_in_turns_is_told() {
        let start = Instant::now();
        let mut ailing = Ailing::begun(start, 10 * SECOND);
        let mut now = start;
        for _ in 0..10 {
            now += SECOND;
            assert!(!ailing.is_cut_off_too_long(now));
            now += SECOND;
            assert_eq!(ailing.is_sick(now), Sickness::Short);
        }
        assert!(ailing.is_cut_off_too_long(now + SECOND), "for eleven seconds in all");
        assert_eq!(ailing.is_sick(now + 2 * SECOND), Sickness::InTurns, "which is no evidence");
        assert_eq!(ailing.is_sick(now + 3 * SECOND), Sickness::Short, "it counts anew");
        assert_eq!(
            ailing.is_sick(now + 12 * SECOND),
            Sickness::Unbroken,
            "eleven seconds since it was ready"
        );
        ailing.over(now + 13 * SECOND);
        assert_eq!(ailing.is_sick(now + 22 * SECOND), Sickness::Short);
    }

    #[test]
    fn a_front_that_helps_nobody_is_replaced_ever_more_rarely_until_one_has_stood_for_long() {
        let start = Instant::now();
        let mut ailing = Ailing::begun(start, 10 * SECOND);
        assert!(ailing.is_cut_off_too_long(start + 11 * SECOND));
        ailing.over(start + 12 * SECOND);
        assert!(
            !ailing.is_cut_off_too_long(start + 23 * SECOND),
            "that another helped for a moment is no help"
        );
        assert!(ailing.is_cut_off_too_long(start + 33 * SECOND));
        let later = start + 34 * SECOND + FORGOTTEN;
        ailing.over(later);
        assert!(ailing.is_cut_off_too_long(later + 11 * SECOND));
    }
}
