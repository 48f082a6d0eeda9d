//! The summary of a raw log; a pure function of its records.

use super::record::{Outcome, Record, RequestRecord, SocketEvent, SocketRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// "Service restart", RFC 6455's registry.
pub(super) const SERVICE_RESTART: u16 = 1012;

/// What became of a load. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Requests whose fate is known.
    pub sent: u64,
    /// Those that failed, whatever the cause.
    pub failed: u64,
    /// The failed ones by cause.
    pub failed_by: BTreeMap<Outcome, u64>,
    /// Those among the failed that lost their connection: `cut` and `truncated`.
    pub cut: u64,
    /// The slowest successful request, from its scheduled instant.
    pub longest_wait_us: u64,
    /// Median wait of the successful requests; 0 if there is none.
    pub p50_us: u64,
    /// 99th percentile of the same.
    pub p99_us: u64,
    /// The longest time between two successful ends.
    pub longest_silence_us: u64,
    /// How late this machine was in sending, at most: what it could not do itself is not the service's fault.
    pub lag_max_us: u64,
    /// The WebSocket clients.
    pub sockets: SocketReport,
}

/// What became of the WebSocket clients. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// WebSockets opened, first ones and later ones.
    pub opened: u64,
    /// Tries to open that did not succeed.
    pub refused: u64,
    /// Ends by the server, by close code.
    pub closed_by: BTreeMap<u16, u64>,
    /// Ends with code 1012, as a restart should.
    pub closed_restart: u64,
    /// All other ends.
    pub closed_abnormal: u64,
    /// Sendings that were answered in time.
    pub answered: u64,
    /// Sendings that were answered late or wrongly.
    pub failed: u64,
    /// Sendings that were under way when the WebSocket was lost.
    pub unanswered: u64,
    /// The slowest answer.
    pub longest_wait_us: u64,
    /// The longest time that a client was without a WebSocket after it had lost one.
    pub longest_gap_us: u64,
}

impl Report {
    /// Sums up records, all of a log or some of it.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut report = Self::default();
        let mut waits = Vec::new();
        let mut ends = Vec::new();
        for record in records {
            match record {
                Record::Request(request) => report.add_request(request, &mut waits, &mut ends),
                Record::Socket(socket) => report.sockets.add(socket),
            }
        }
        waits.sort_unstable();
        ends.sort_unstable();
        report.longest_wait_us = waits.last().copied().unwrap_or(0);
        report.p50_us = percentile(&waits, 50);
        report.p99_us = percentile(&waits, 99);
        report.longest_silence_us = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        report
    }

    fn add_request(&mut self, request: &RequestRecord, waits: &mut Vec<u64>, ends: &mut Vec<u64>) {
        self.sent += 1;
        self.lag_max_us = self.lag_max_us.max(request.sent_us.saturating_sub(request.scheduled_us));
        if request.outcome == Outcome::Ok {
            waits.push(request.wait_us());
            ends.push(request.done_us);
            return;
        }
        self.failed += 1;
        *self.failed_by.entry(request.outcome).or_default() += 1;
        if matches!(request.outcome, Outcome::Cut | Outcome::Truncated) {
            self.cut += 1;
        }
    }
}

impl SocketReport {
    fn add(&mut self, record: &SocketRecord) {
        match &record.event {
            SocketEvent::Opened { .. } => self.opened += 1,
            SocketEvent::Reopened { gap_us } => {
                self.opened += 1;
                self.longest_gap_us = self.longest_gap_us.max(*gap_us);
            }
            SocketEvent::Refused { .. } => self.refused += 1,
            SocketEvent::Closed { code } => {
                *self.closed_by.entry(*code).or_default() += 1;
                let count = if *code == SERVICE_RESTART {
                    &mut self.closed_restart
                } else {
                    &mut self.closed_abnormal
                };
                *count += 1;
            }
            SocketEvent::Answered { wait_us } => {
                self.answered += 1;
                self.longest_wait_us = self.longest_wait_us.max(*wait_us);
            }
            SocketEvent::AnsweredLate { wait_us } => {
                self.failed += 1;
                self.longest_wait_us = self.longest_wait_us.max(*wait_us);
            }
            SocketEvent::Wrong { .. } => self.failed += 1,
            SocketEvent::Unanswered { .. } => self.unanswered += 1,
        }
    }
}

/// Nearest rank: the smallest value that at least `percent` of all do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us / 1000;
        write!(f, "{} requests, {} failed {:?}, {} cut", self.sent, self.failed, self.failed_by, self.cut)?;
        write!(f, "; wait ms p50 {} p99 {} ", ms(self.p50_us), ms(self.p99_us))?;
        write!(f, "longest {} silence {}", ms(self.longest_wait_us), ms(self.longest_silence_us))?;
        write!(f, " (sent up to {} late)", ms(self.lag_max_us))?;
        let sockets = &self.sockets;
        write!(f, "; WebSockets: {} opened, {} refused, ", sockets.opened, sockets.refused)?;
        write!(f, "closed {:?}, longest gap ms {}, ", sockets.closed_by, ms(sockets.longest_gap_us))?;
        write!(
            f,
            "{} answered, {} failed, {} unanswered",
            sockets.answered, sockets.failed, sockets.unanswered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Connection, Kind};
    use super::*;

    fn request(n: u64, outcome: Outcome, wait_us: u64) -> Record {
        Record::Request(RequestRecord {
            n,
            kind: Kind::Get,
            connection: Connection::Fresh,
            target: ([127, 0, 0, 1], 1).into(),
            scheduled_us: n * 1000,
            sent_us: n * 1000 + 7,
            done_us: n * 1000 + wait_us,
            outcome,
            status: None,
            bytes: 0,
            cause: None,
        })
    }

    fn socket(event: SocketEvent) -> Record {
        Record::Socket(SocketRecord { client: 0, at_us: 0, event })
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 99)), (7, 7, 0));
    }

    #[test]
    fn every_fate_but_ok_is_a_failure_and_only_successes_have_a_wait() {
        let all = [
            Outcome::Connect,
            Outcome::Cut,
            Outcome::Truncated,
            Outcome::Mismatch,
            Outcome::ServerError,
            Outcome::UnexpectedStatus,
            Outcome::Refused,
            Outcome::Slow,
            Outcome::Unanswered,
            Outcome::NotSent,
        ];
        let mut records: Vec<_> = (3..).zip(all).map(|(n, outcome)| request(n, outcome, 9_000_000)).collect();
        records.extend([
            request(0, Outcome::Ok, 100),
            request(1, Outcome::Ok, 300),
            request(2, Outcome::Ok, 200),
        ]);
        let report = Report::of(&records);
        assert_eq!((report.sent, report.failed, report.cut), (13, 10, 2));
        assert!(report.failed_by.len() == 10 && report.failed_by.values().all(|count| *count == 1));
        assert_eq!((report.longest_wait_us, report.p50_us, report.p99_us), (300, 200, 300));
        assert_eq!((report.longest_silence_us, report.lag_max_us), (1200, 7));
    }

    #[test]
    fn only_1012_is_a_restart_and_a_first_opening_is_no_gap() {
        let records = [
            socket(SocketEvent::Opened { wait_us: 5_000_000 }),
            socket(SocketEvent::Answered { wait_us: 5 }),
            socket(SocketEvent::Closed { code: 1012 }),
            socket(SocketEvent::Refused { cause: "refused".into() }),
            socket(SocketEvent::Reopened { gap_us: 90 }),
            socket(SocketEvent::Closed { code: 1006 }),
            socket(SocketEvent::Unanswered { wait_us: 1 }),
            socket(SocketEvent::AnsweredLate { wait_us: 8 }),
        ];
        let sockets = Report::of(&records).sockets;
        assert_eq!((sockets.opened, sockets.refused, sockets.longest_gap_us), (2, 1, 90));
        assert_eq!((sockets.closed_restart, sockets.closed_abnormal), (1, 1));
        assert_eq!(
            (sockets.answered, sockets.failed, sockets.unanswered, sockets.longest_wait_us),
            (1, 1, 1, 8)
        );
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for record in [request(3, Outcome::Slow, 5), socket(SocketEvent::Closed { code: 1012 })] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line}");
        }
    }
}
