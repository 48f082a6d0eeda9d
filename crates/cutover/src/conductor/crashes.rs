//! Unexpected ends of a resting service's process: how many, how fast, and what to wait before the next start. Knows no
//! state and decides nothing.

use cutover_core::Policy;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// From so many ends in a row a person is told.
const LOOP: u32 = 3;

/// The ends that nobody asked for.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    at: VecDeque<Instant>,
    in_a_row: u32,
    last: String,
}

impl Crashes {
    /// Takes one more in. A process that lived for a whole window was no part of a loop.
    pub(super) fn add(&mut self, lived: Duration, told: String, policy: &Policy) {
        self.in_a_row = if lived >= policy.crash_window { 1 } else { self.in_a_row.saturating_add(1) };
        self.count(told, policy);
    }

    /// Takes in the end of a process that was in order and asked to begin anew: part of no loop of crashes. One that does
    /// nothing else is as good as one that crashes, so that it counts for the policy's limit. What crashed before one that
    /// lived for a whole window is over.
    pub(super) fn add_wish(&mut self, lived: Duration, told: String, policy: &Policy) {
        if lived >= policy.crash_window {
            self.in_a_row = 0;
        }
        self.count(told, policy);
    }

    fn count(&mut self, told: String, policy: &Policy) {
        self.last = told;
        let now = Instant::now();
        self.at.push_back(now);
        while self.at.front().is_some_and(|at| now.duration_since(*at) > policy.crash_window) {
            self.at.pop_front();
        }
    }

    /// What ran then is not what runs now.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Failures in a row, for the back-off.
    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Within the policy's window.
    pub(super) fn recent(&self) -> usize {
        self.at.len()
    }

    /// What a person should know.
    pub(super) fn note(&self) -> Option<String> {
        let (count, last) = (self.in_a_row, &self.last);
        (count >= LOOP).then(|| {
            format!(
                "crash-looping: {count} exits in a row, the last: {last}; it is started again with back-off"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_lived_and_asks_for_another_start_is_not_told_of_crashes_from_before_it() {
        let policy = Policy::default();
        let crash = |crashes: &mut Crashes| crashes.add(Duration::ZERO, "Code(1)".into(), &policy);
        let wish = |crashes: &mut Crashes, lived| crashes.add_wish(lived, "Code(0)".into(), &policy);
        let mut crashes = Crashes::default();
        (0..3).for_each(|_| crash(&mut crashes));
        assert!(crashes.note().is_some());
        wish(&mut crashes, policy.crash_window / 2);
        assert_eq!((crashes.in_a_row(), crashes.recent()), (3, 4), "it may be part of the loop");
        wish(&mut crashes, policy.crash_window);
        assert_eq!((crashes.in_a_row(), crashes.note()), (0, None));
        crash(&mut crashes);
        assert_eq!(crashes.in_a_row(), 1);
    }
}
