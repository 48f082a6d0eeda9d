//! Catching a daemon in a phase of a run that may last for a millisecond.
//!
//! Knows the journal and the names of phases. Must not know what is done with the daemon then.

use crate::conductor::Chronicle;
use crate::journal::Reader;
use anyhow::{Context, bail};
use cutover_core::{Act, Direction, Report, RunId, StepRecord};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fmt::{self, Display, Formatter};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the daemon runs between two looks at its journal.
const STEP: Duration = Duration::from_micros(200);
/// How long after a change of the journal it is looked into at each step: a file's time may be so coarse.
const FRESH: Duration = Duration::from_millis(20);
/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// The phases of an update in which its daemon can be caught, in their order.
pub const PHASES: [Phase; 9] = [
    Phase::forward(Act::Stage),
    Phase::forward(Act::Preflight),
    Phase::forward(Act::Stop),
    Phase::forward(Act::Snapshot),
    Phase::forward(Act::Switch),
    Phase::forward(Act::Start),
    Phase::forward(Act::Prove),
    Phase::forward(Act::Release),
    Phase::forward(Act::Soak),
];

/// An act of a run, and which way the run goes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    direction: Direction,
    act: Act,
}

impl Phase {
    /// One on the way to the target.
    #[must_use]
    pub const fn forward(act: Act) -> Self {
        Self { direction: Direction::Forward, act }
    }

    /// One on the way back to the source.
    #[must_use]
    pub const fn back(act: Act) -> Self {
        Self { direction: Direction::Back, act }
    }

    /// That of a step.
    #[must_use]
    pub const fn of(step: &StepRecord) -> Self {
        Self { direction: step.direction, act: step.name }
    }
}

impl Display for Phase {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let back = if self.direction == Direction::Back { "back " } else { "" };
        write!(text, "{back}{}", format!("{:?}", self.act).to_lowercase())
    }
}

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
    /// The phases that it is looked for in, in their order. Others may lie between them.
    pub course: Vec<Phase>,
    /// How long the run may take to come to the one that is wanted.
    pub limit: Duration,
}

impl Hunt {
    /// Stops the daemon where its journal says that the run is in the phase, one of its course, or past it. It is
    /// stopped for each look, so that it cannot go on meanwhile, and looked at only while it writes or if the phase is the
    /// next one, so that it is not slowed down otherwise.
    ///
    /// # Errors
    /// If there is no such phase, the run does not come to it, or the journal or the daemon cannot be got at.
    pub async fn caught_in(self, phase: Phase) -> anyhow::Result<()> {
        let wanted = self.course.iter().position(|one| *one == phase).context("no such phase")?;
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
        bail!("run {} does not come to `{}`", self.run, self.course[wanted])
    }

    fn place(&self, reader: &Reader) -> anyhow::Result<Place> {
        let chronicle = Chronicle::read(reader, &self.service)?;
        let Some(record) = chronicle.record(&self.run) else { return Ok(Place::Before) };
        if record.ended.is_some() {
            return Ok(Place::Ended);
        }
        let passed: Vec<Phase> = record.steps.iter().map(Phase::of).collect();
        Ok(self.course.iter().rposition(|one| passed.contains(one)).map_or(Place::Before, Place::In))
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

/// The phases that the daemon's end interrupted.
#[must_use]
pub fn interrupted(report: &Report) -> Vec<Phase> {
    let open = report.steps.iter().filter(|step| step.outcome.as_deref() == Some("interrupted"));
    open.map(Phase::of).collect()
}
