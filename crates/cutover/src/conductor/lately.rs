//! How clients fared lately, from what the front counts: the last looks at its numbers, as far back as is asked for.

use cutover_core::Exchanges;
use cutover_front::Stats;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A shorter time (that of a quick soak) says too little.
const SPAN_MIN: Duration = Duration::from_secs(5);

/// The last looks, oldest first.
#[derive(Debug)]
pub(super) struct Lately {
    span: Duration,
    looks: VecDeque<(Instant, Exchanges)>,
}

impl Lately {
    /// Looks of at least this span are kept.
    pub(super) fn of(span: Duration) -> Self {
        Self { span: span.max(SPAN_MIN), looks: VecDeque::new() }
    }

    /// Takes another look in. A front that counts anew has nothing to do with what was counted before.
    pub(super) fn look(&mut self, at: Instant, counted: Exchanges) {
        if self.looks.back().is_some_and(|(_, last)| counted.since(*last).is_none()) {
            self.looks.clear();
        }
        self.looks.push_back((at, counted));
        // The oldest but one covers the span already.
        while self.looks.get(1).is_some_and(|(second, _)| at.duration_since(*second) >= self.span) {
            self.looks.pop_front();
        }
    }

    /// What was counted over them; `None` where there are not two.
    pub(super) fn counted(&self) -> Option<Exchanges> {
        let ((_, first), (_, last)) = (self.looks.front()?, self.looks.back()?);
        last.since(*first).filter(|_| self.looks.len() > 1)
    }
}

/// What of the front's numbers is about exchanges with the service.
pub(super) fn exchanges(stats: &Stats) -> Exchanges {
    Exchanges { answered: stats.served_total, bad: stats.bad_total, abnormal: stats.abnormal_total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(answered: u64, bad: u64) -> Exchanges {
        Exchanges { answered, bad, abnormal: 0 }
    }

    #[test]
    fn only_the_span_counts_and_a_new_front_counts_anew() {
        let (mut lately, begun) = (Lately::of(Duration::from_secs(10)), Instant::now());
        let mut look = |second: u64, counts| {
            lately.look(begun + Duration::from_secs(second), counts);
            lately.counted()
        };
        assert_eq!(look(0, counted(100, 50)), None);
        assert_eq!(look(5, counted(110, 50)), Some(counted(10, 0)));
        assert_eq!(look(10, counted(120, 51)), Some(counted(20, 1)));
        assert_eq!(look(15, counted(130, 51)), Some(counted(20, 1)), "the first look is out of the span");
        assert_eq!(look(16, counted(3, 0)), None, "another front");
        assert_eq!(look(17, counted(5, 1)), Some(counted(2, 1)));
    }
}
