//! Catching a daemon in a phase of a run that may last for a millisecond.
//!
//! Knows the journal and the names of phases. Must not know what is done with the daemon then.

use crate::conductor::Chronicle;
use crate::journal::Reader;
use anyhow::{Context, bail};
use cutover_core::{Report, RunId, StepRecord, report};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the daemon runs between two looks at its journal.
const STEP: Duration = Duration::from_micros(200);
/// How long after a change of the journal it is looked into at each step: a file's time may be so coarse.
const FRESH: Duration = Duration::from_millis(20);
/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// The phases of a run in which its daemon can be caught, in their order.
pub const PHASES: [&str; 9] = [
    "preparing: stage",
    "preparing: preflight",
    "cutting over: stop",
    "cutting over: snapshot",
    "cutting over: switch",
    "cutting over: start",
    "cutting over: prove",
    "cutting over: release",
    "cutting over: soak",
];

/// Who is to be caught, and where it is seen what it does.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The daemon's process, a child of the caller's, so that its id is nobody else's.
    pub daemon: u32,
    /// Its journal.
    pub journal: PathBuf,
    /// The service.
    pub service: String,
    /// The run of the service's.
    pub run: RunId,
    /// How long the run may take to come to the phase.
    pub limit: Duration,
}

impl Hunt {
    /// Stops the daemon where its journal says that the run is in the phase, one of [`PHASES`], or past it. It is stopped
    /// for each look, so that it cannot go on meanwhile, and looked at only while it writes or if the phase is the next
    /// one, so that it is not slowed down otherwise.
    ///
    /// # Errors
    /// If there is no such phase, the run does not come to it, or the journal or the daemon cannot be got at.
    pub async fn caught_in(self, phase: &str) -> anyhow::Result<()> {
        let wanted = PHASES.iter().position(|name| *name == phase).context("no such phase")?;
        tokio::task::spawn_blocking(move || self.stepping_to(wanted)).await?
    }

    fn stepping_to(&self, wanted: usize) -> anyhow::Result<()> {
        let daemon = i32::try_from(self.daemon).ok().and_then(Pid::from_raw).context("no pid")?;
        let reader = Reader::open(&self.journal, BUSY)?;
        let log = self.journal.with_extension("sqlite-wal");
        let index = std::fs::metadata(self.journal.with_extension("sqlite-shm"))?.ino();
        let begun = Instant::now();
        let (mut seen, mut changed, mut is_next) = (None, begun, false);
        while begun.elapsed() < self.limit {
            let now = std::fs::metadata(&log).and_then(|log| Ok((log.len(), log.modified()?))).ok();
            if now != seen {
                (seen, changed) = (now, Instant::now());
            }
            if is_next || changed.elapsed() < FRESH {
                kill_process(daemon, Signal::STOP)?;
                let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
                waitid(WaitId::Pid(daemon), stopped | WaitIdOptions::EXITED)?;
                // Stopped within a write, it keeps everybody from reading until it goes on.
                let place = match is_writing(daemon, index)? {
                    true => None,
                    false => Some(self.place(&reader)),
                };
                match &place {
                    Some(Ok(Place::Ended)) => return Ok(()),
                    Some(Ok(Place::In(at))) if *at >= wanted => return Ok(()),
                    Some(Ok(Place::In(at))) => is_next = at + 1 == wanted,
                    _ => {}
                }
                kill_process(daemon, Signal::CONT)?;
                place.transpose()?;
            }
            std::thread::sleep(STEP);
        }
        bail!("run {} does not come to `{}`", self.run, PHASES[wanted])
    }

    fn place(&self, reader: &Reader) -> anyhow::Result<Place> {
        let chronicle = Chronicle::read(reader, &self.service)?;
        let Some(record) = chronicle.record(&self.run) else { return Ok(Place::Before) };
        if record.ended.is_some() {
            return Ok(Place::Ended);
        }
        let phase = report(&self.service, &chronicle.state, Some(record)).phase;
        if let Some(at) = PHASES.iter().position(|name| *name == phase) {
            return Ok(Place::In(at));
        }
        let passed = |name: &str| record.steps.iter().any(|step| name.ends_with(&act(step)));
        Ok(PHASES.iter().rposition(|name| passed(name)).map_or(Place::Before, Place::In))
    }
}

/// Does a process hold the shared index of a write-ahead log, known by its inode, for itself alone?
fn is_writing(process: Pid, index: u64) -> anyhow::Result<bool> {
    let locks = std::fs::read_to_string("/proc/locks").context("reading /proc/locks")?;
    let (process, index) = (process.as_raw_nonzero().to_string(), format!(":{index}"));
    // `2: POSIX  ADVISORY  WRITE 24496 fe:00:10690706 120 120`
    Ok(locks.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, "WRITE", pid, file, ..] if pid == process && file.ends_with(&index))
    }))
}

/// Where a run is.
enum Place {
    /// In none of the phases yet.
    Before,
    /// In the one of this number, or between it and the next.
    In(usize),
    Ended,
}

/// The acts that the daemon's end interrupted, as their phases call them.
#[must_use]
pub fn interrupted(report: &Report) -> Vec<String> {
    let open = report.steps.iter().filter(|step| step.outcome.as_deref() == Some("interrupted"));
    open.map(act).collect()
}

fn act(step: &StepRecord) -> String {
    format!("{:?}", step.name).to_lowercase()
}
