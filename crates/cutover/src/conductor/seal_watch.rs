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

/// What came of a look at a tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub look: Look,
    pub begun: Instant,
    pub ended: Instant,
    /// For how long nothing is to be looked for then.
    pub pause: Duration,
    /// Why it is not known whether the tree is what was sealed.
    pub unknown: Option<String>,
}

/// The next looks at a tree.
pub(super) struct SealWatch {
    entries_at: Instant,
    bytes_at: Instant,
    /// Why the last look at the entries could not tell whether the tree is what was sealed, and the last at the bytes.
    unknown: [Option<String>; 2],
}

impl SealWatch {
    /// Whoever starts a process has compared its entries; who takes one over has not. Every byte was read so long ago, whoever
    /// did it: a process that starts often is not read all the time, and one that starts daily is read.
    pub(super) fn begun(now: Instant, read_ago: Option<Duration>) -> Self {
        let left = read_ago.map_or(Duration::ZERO, |ago| WHOLE.saturating_sub(ago));
        Self { entries_at: now, bytes_at: now + left, unknown: [None, None] }
    }

    /// The look that is due.
    pub(super) fn due(&self, now: Instant) -> Option<Look> {
        match (now >= self.bytes_at, now >= self.entries_at) {
            (true, _) => Some(Look::Bytes),
            (false, true) => Some(Look::Entries),
            (false, false) => None,
        }
    }

    /// Takes in what came of a look; returns what is to be told of what is not known, where that is news. Bytes that could not
    /// be read are due again soon, and that the entries are in order says nothing about them.
    pub(super) fn looked(&mut self, looked: Looked) -> Option<Option<String>> {
        let Looked { look, begun, ended, pause, unknown } = looked;
        let rest = (ended - begun) * SHARE;
        self.entries_at = match look {
            Look::Entries => ended + rest.max(pause),
            Look::Bytes => ended + pause,
        };
        if look == Look::Bytes {
            self.bytes_at = ended + if unknown.is_some() { rest.max(UNREAD) } else { WHOLE };
        }
        let before = self.worst();
        self.unknown[look as usize] = unknown;
        let now = self.worst();
        (now != before).then_some(now)
    }

    fn worst(&self) -> Option<String> {
        let [entries, bytes] = &self.unknown;
        bytes.clone().or_else(|| entries.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(look: Look, begun: Instant, ended: Instant, unknown: Option<&str>) -> Looked {
        Looked { look, begun, ended, pause: Duration::from_secs(1), unknown: unknown.map(str::to_owned) }
    }

    #[test]
    fn entries_are_looked_at_for_a_fiftieth_of_the_time_and_bytes_once_a_day() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut watch = SealWatch::begun(start, Some(Duration::ZERO));
        assert_eq!(watch.due(start), Some(Look::Entries));
        watch.looked(looked(Look::Entries, start, start + 2 * second, None));
        assert_eq!(watch.due(start + 101 * second), None);
        assert_eq!(watch.due(start + 102 * second), Some(Look::Entries));
        watch.looked(looked(Look::Entries, start, start, None));
        assert_eq!(watch.due(start + second / 2), None, "the pause is kept where a look takes no time");
        let day = start + WHOLE;
        assert_eq!(watch.due(day), Some(Look::Bytes));
        watch.looked(looked(Look::Bytes, day, day + 7 * second, None));
        assert_eq!(watch.due(day + 8 * second), Some(Look::Entries));
        assert_eq!(watch.due(day + WHOLE + 7 * second), Some(Look::Bytes));
    }

    #[test]
    fn bytes_that_could_not_be_read_are_due_again_soon() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut watch = SealWatch::begun(start, None);
        assert_eq!(watch.due(start), Some(Look::Bytes));
        let unread = looked(Look::Bytes, start, start + second, Some("no"));
        assert_eq!(watch.looked(unread), Some(Some("no".to_owned())));
        for unknown in [None, Some("nor this"), None] {
            let entries = looked(Look::Entries, start, start + second, unknown);
            assert_eq!(watch.looked(entries), None, "that says nothing about bytes");
        }
        assert_eq!(watch.due(start + UNREAD), Some(Look::Entries));
        assert_eq!(watch.due(start + second + UNREAD), Some(Look::Bytes));
        let long = looked(Look::Bytes, start, start + UNREAD, Some("no"));
        assert_eq!(watch.looked(long), None);
        assert_eq!(
            watch.due(start + 50 * UNREAD),
            Some(Look::Entries),
            "a tree that takes long is read rarely"
        );
        let read = looked(Look::Bytes, start, start + UNREAD, None);
        assert_eq!(watch.looked(read), Some(None));
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
