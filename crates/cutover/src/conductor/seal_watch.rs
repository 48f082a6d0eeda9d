//! When the tree of what is served is looked at, and how closely. Knows the clock alone; must not know trees.

use std::time::{Duration, Instant};

/// A disk that loses bytes changes no time of any file: once a day every byte is read.
pub(super) const WHOLE: Duration = Duration::from_secs(24 * 60 * 60);
/// A tree is looked at by its entries at most so often that looking takes this share of the time.
const SHARE: u32 = 50;
/// After bytes that could not be read.
const UNREAD: Duration = Duration::from_secs(5 * 60);

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
    /// The look that could not tell whether the tree is what was sealed, and why.
    unknown: Option<(Look, String)>,
}

impl SealWatch {
    /// Whoever starts a process has compared its entries; who takes one over has not. Every byte was read so long ago, whoever
    /// did it: a process that starts often is not read all the time, and one that starts daily is read.
    pub(super) fn begun(now: Instant, read_ago: Option<Duration>) -> Self {
        let left = read_ago.map_or(Duration::ZERO, |ago| WHOLE.saturating_sub(ago));
        Self { entries_at: now, bytes_at: now + left, unknown: None }
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

    /// Takes in why a look that ended `now` could not tell; returns what is to be told where that is news. Bytes are not left
    /// unread for a day then, and that the entries are in order says nothing about them.
    pub(super) fn news(&mut self, look: Look, why: Option<String>, now: Instant) -> Option<Option<String>> {
        if why.is_some() && look == Look::Bytes {
            self.bytes_at = now + UNREAD;
        }
        let is_of_another = self.unknown.as_ref().is_some_and(|(known, _)| *known != look);
        let found = why.map(|why| (look, why));
        if found == self.unknown || (found.is_none() && is_of_another) {
            return None;
        }
        self.unknown.clone_from(&found);
        Some(found.map(|(_, why)| why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_looked_at_for_a_fiftieth_of_the_time_and_bytes_once_a_day() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut watch = SealWatch::begun(start, Some(Duration::ZERO));
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

    #[test]
    fn bytes_that_could_not_be_read_are_due_again_soon() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut watch = SealWatch::begun(start, None);
        assert_eq!(watch.due(start), Some(Look::Bytes));
        watch.looked(Look::Bytes, start, start + second, second);
        let why = Some("no".to_owned());
        assert_eq!(watch.news(Look::Bytes, why.clone(), start + second), Some(why));
        assert_eq!(watch.news(Look::Entries, None, start + second), None, "that says nothing about bytes");
        assert_eq!(watch.due(start + UNREAD), Some(Look::Entries));
        assert_eq!(watch.due(start + second + UNREAD), Some(Look::Bytes));
        assert_eq!(watch.news(Look::Bytes, None, start + UNREAD), Some(None));
    }

    #[test]
    fn the_bytes_are_due_a_day_after_they_were_read_whoever_did_it() {
        let (hour, start) = (Duration::from_secs(3600), Instant::now());
        let due_after = |read_ago| {
            let watch = SealWatch::begun(start, read_ago);
            (0..).find(|hours| watch.due(start + *hours * hour) == Some(Look::Bytes)).unwrap()
        };
        assert_eq!(due_after(Some(hour)), 23);
        assert_eq!((due_after(Some(25 * hour)), due_after(None)), (0, 0));
    }
}
