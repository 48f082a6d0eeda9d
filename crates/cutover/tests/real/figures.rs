//! The figures of a run, told as they come and kept in a file. Times are told here and never judged.

use super::world::target;
use cutover_core::Report;
use cutover_testkit::load;
use cutover_testkit::openclaw::Sweep;
use std::io::Write as _;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Figures(String);

impl Figures {
    /// Past the harness's capture, so that a failing run shows how far it came.
    pub(crate) fn line(&mut self, name: &str, told: impl std::fmt::Display) {
        let line = format!("{name:<34} {told}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        self.0.push_str(&line);
    }

    pub(crate) fn took(&mut self, name: &str, time: Duration) {
        self.line(name, format_args!("{:.1} s", time.as_secs_f64()));
    }

    pub(crate) fn sweep(&mut self, name: &str, swept: &Sweep, files: usize, missing: usize) {
        let (calls, answered) = (swept.calls(), swept.answered);
        let (gone, failed) = (swept.gone.len(), swept.failed.len());
        self.line(
            name,
            format_args!(
                "{answered} of {calls} calls answered, {gone} module not found, {failed} failed otherwise; \
                 {missing} of {files} files missing"
            ),
        );
    }

    pub(crate) fn load(&mut self, name: &str, report: &load::Report) {
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        self.line(
            name,
            format_args!(
                "{} requests, {} failed {:?}, {} cut; p50 {:.3} s, longest wait {:.1} s (sent up to {:.1} s late)",
                report.sent,
                report.failed,
                report.failed_by,
                report.cut,
                seconds(report.p50_us),
                seconds(report.longest_wait_us),
                seconds(report.lag_max_us),
            ),
        );
        let sockets = &report.sockets;
        self.line(
            "  over WebSockets",
            format_args!(
                "{} calls answered, {} failed, {} unanswered at a farewell; {} opened, {} refused, closed {:?}; longest answer {:.1} s, \
                 longest gap {:.1} s",
                sockets.answered,
                sockets.failed,
                sockets.unanswered,
                sockets.opened,
                sockets.refused,
                sockets.closed_by,
                seconds(sockets.longest_wait_us),
                seconds(sockets.longest_gap_us),
            ),
        );
    }

    /// Where the time of a run went.
    pub(crate) fn run(&mut self, name: &str, report: &Report) {
        let steps = report.steps.iter().map(|step| {
            let word = format!("{:?}", step.name).to_lowercase();
            let back = if step.direction == cutover_core::Direction::Back { "back " } else { "" };
            format!("{back}{word} {:.1}", step.took_ms.unwrap_or_default() as f64 / 1000.0)
        });
        self.line(name, steps.collect::<Vec<_>>().join(", "));
        self.line(
            "  not serving",
            format_args!("{:.1} s", report.downtime_ms.unwrap_or_default() as f64 / 1000.0),
        );
    }

    pub(crate) fn keep(&self) {
        std::fs::write(target().join("real-figures.txt"), &self.0).unwrap();
    }
}
