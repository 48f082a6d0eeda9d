//! When the tree of what is served is looked at, and how closely. Knows the clock alone; must not know trees.

use std::time::{Duration, Instant};

/// A disk that loses bytes changes no time of any file: once a day every byte is read.
const WHOLE: Duration = Duration::from_secs(24 * 60 * 60);
/// A tree is looked at by its entries at most so often that looking takes this share of the time.
const SHARE: u32 = 50;

/// How a tree is compared with what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// By size, inode and times of every entry.
    Entries,
    /// By the hash of every byte.
    Bytes,
}

/// The next looks at a tree.
pub(super) struct SealWatch {
    entries_at: Instant,
    bytes_at: Instant,
}

impl SealWatch {
    /// Whoever starts a process has compared its entries; who takes one over has not.
    pub(super) fn begun(now: Instant) -> Self {
        Self { entries_at: now, bytes_at: now + WHOLE }
    }

    /// The look that is due.
    pub(super) fn due(&self, now: Instant) -> Option<Look> {
        match (now >= self.bytes_at, now >= self.entries_at) {
            (true, _) => Some(Look::Bytes),
            (false, true) => Some(Look::Entries),
            (false, false) => None,
        }
    }

    /// Takes in that a look was taken from `begun` to `now`; the next one is no sooner than after `pause`.
    pub(super) fn looked(&mut self, look: Look, begun: Instant, now: Instant, pause: Duration) {
        match look {
            Look::Entries => self.entries_at = now + ((now - begun) * SHARE).max(pause),
            Look::Bytes => {
                self.bytes_at = now + WHOLE;
                self.entries_at = now + pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_looked_at_for_a_fiftieth_of_the_time_and_bytes_once_a_day() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut watch = SealWatch::begun(start);
        assert_eq!(watch.due(start), Some(Look::Entries));
        watch.looked(Look::Entries, start, start + 2 * second, second);
        assert_eq!(watch.due(start + 101 * second), None);
        assert_eq!(watch.due(start + 102 * second), Some(Look::Entries));
        watch.looked(Look::Entries, start, start, second);
        assert_eq!(watch.due(start + second / 2), None, "the pause is kept where a look takes no time");
        let day = start + WHOLE;
        assert_eq!(watch.due(day), Some(Look::Bytes));
        watch.looked(Look::Bytes, day, day + 7 * second, second);
        assert_eq!(watch.due(day + 8 * second), Some(Look::Entries));
        assert_eq!(watch.due(day + WHOLE + 7 * second), Some(Look::Bytes));
    }
}
