//! The figures of a run, told as they come and kept in a file. Times are told here and never judged.

use super::disk::Used;
use super::world::target;
use cutover::demo::Phase;
use cutover_core::{Act, CopiedBytes, PREPARING, Report, StepRecord};
use cutover_testkit::load;
use cutover_testkit::openclaw::Sweep;
use std::io::Write as _;
use std::time::Duration;

pub(crate) struct Figures {
    name: &'static str,
    text: String,
}

impl Figures {
    /// For a file of this name.
    pub(crate) fn named(name: &'static str) -> Figures {
        Figures { name, text: String::new() }
    }

    /// Past the harness's capture, so that a failing run shows how far it came.
    pub(crate) fn line(&mut self, name: &str, told: impl std::fmt::Display) {
        let line = format!("{name:<34} {told}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        self.text.push_str(&line);
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

    /// Where the time and the bytes of a run went.
    pub(crate) fn run(&mut self, name: &str, report: &Report) {
        let times = |steps: &mut dyn Iterator<Item = &StepRecord>| {
            let told = steps.map(|step| format!("{} {:.1}", Phase::of(step), seconds(step.took_ms)));
            told.collect::<Vec<_>>().join(", ")
        };
        self.line(name, times(&mut report.steps.iter()));
        let outage = times(&mut outage(report));
        self.line("  not serving", format_args!("{:.1} s: {outage}", seconds(report.downtime_ms)));
        let copied = report.steps.iter().filter(|step| step.copied != Some(0)).map(|step| {
            let bytes = step.copied.map_or_else(|| "not known".into(), mib);
            format!("{} {bytes}", Phase::of(step))
        });
        let CopiedBytes { served, unserved } = report.copied;
        self.line(
            "  copied",
            format_args!(
                "{} while clients were served, {} while nobody was: {}",
                mib(served),
                mib(unserved),
                copied.collect::<Vec<_>>().join(", ")
            ),
        );
    }

    /// All facts of the last verdict.
    pub(crate) fn verdict(&mut self, report: &Report) {
        for fact in &report.facts {
            let (reading, observed, source) = (fact.reading, &fact.observed, &fact.source);
            self.line(
                &format!("  {:?}", fact.name).to_lowercase(),
                format_args!("{reading:?}: {observed} ({source})"),
            );
        }
    }

    pub(crate) fn disk(&mut self, used: &Used) {
        let Used { before, peak, after } = *used;
        self.line(
            "  disk",
            format_args!("{} before, {} at most, {} after", mib(before), mib(peak), mib(after)),
        );
    }

    pub(crate) fn keep(&self) {
        let name = format!("real-figures-{}.txt", self.name);
        std::fs::write(target().join(name), &self.text).unwrap();
    }
}

/// The acts during which nobody is served: from the cut until the traffic is let through, and all of the way back.
fn outage(report: &Report) -> impl Iterator<Item = &StepRecord> {
    let mut is_released = false;
    report.steps.iter().filter(move |step| {
        let is_served = PREPARING.contains(&step.name) || (is_released && step.name == Act::Soak);
        is_released |= step.name == Act::Release;
        !is_served
    })
}

fn seconds(ms: Option<u64>) -> f64 {
    ms.unwrap_or_default() as f64 / 1000.0
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}
