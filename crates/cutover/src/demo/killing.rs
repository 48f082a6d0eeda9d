//! Scenarios in which a part of cutover itself is killed.

use super::scenario::{Story, calm, load};
use super::script::{boot, updated, world};
use super::world::{SERVICE, World};
use crate::conductor::Chronicle;
use crate::journal::Reader;
use anyhow::{Context, bail};
use cutover_core::{Report, Resolution, RunId, Status, StepRecord, report};
use cutover_testkit::load::Outcome;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use sample_gateway::Knobs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a phase is tried to be met: some last for a millisecond.
const TRIES: u32 = 8;
/// How long the daemon runs between two looks at its journal.
const STEP: Duration = Duration::from_micros(200);
/// How long after a change of the journal it is looked into at each step: a file's time may be so coarse.
const FRESH: Duration = Duration::from_millis(20);
/// How long a run may take to come to any phase.
const LIMIT: Duration = Duration::from_secs(90);
/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// In which phases of a run the daemon is killed.
const PHASES: [&str; 9] = [
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

/// The daemon is killed in each state of a run; the run ends by itself.
pub(super) async fn daemon_killed(log: Option<PathBuf>) -> anyhow::Result<Vec<(String, Story)>> {
    let mut stories = Vec::new();
    for phase in PHASES {
        let log = log.as_ref().map(|path| {
            path.with_file_name(format!("daemon-killed-{}.jsonl", phase.replace([':', ' '], "-")))
        });
        let act = phase.replace("cutting over: ", "").replace("preparing: ", "");
        stories.push((format!("daemon-killed {act}"), killed_in(phase, &act, log.as_deref()).await?));
    }
    Ok(stories)
}

/// The daemon killed in one phase. Whether it was met is read from the report, where the act that the kill interrupted
/// is told; a kill that came too late is repeated in a fresh world. Whatever goes wrong in a repeated one is wrong too.
async fn killed_in(phase: &'static str, act: &str, log: Option<&Path>) -> anyhow::Result<Story> {
    let mut tries = 1;
    loop {
        let mut story = killed_once(phase, log.map(Path::to_owned)).await?;
        let interrupted = interrupted(&story.report);
        let is_met = interrupted == [act];
        if is_met || tries == TRIES || !story.wrong.is_empty() {
            let missed = format!("the kill met {interrupted:?} and not {act}, in {tries} tries");
            story.expect(&missed, is_met.into());
            if tries > 1 {
                story.note += &format!(", met at try {tries}");
            }
            return Ok(story);
        }
        tries += 1;
    }
}

/// The acts that the daemon's end interrupted.
fn interrupted(report: &Report) -> Vec<String> {
    let open = report.steps.iter().filter(|step| step.outcome.as_deref() == Some("interrupted"));
    open.map(act).collect()
}

fn act(step: &StepRecord) -> String {
    format!("{:?}", step.name).to_lowercase()
}

async fn killed_once(phase: &'static str, log: Option<PathBuf>) -> anyhow::Result<Story> {
    let slow = Knobs { slow_stop_ms: 300, ..boot() };
    let mut world = world("", slow.clone(), slow).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let load = load(&world, log)?;
    calm().await;
    let run = world.update("2.0.0").await?;
    catch(&mut world, &run, phase).await?;
    world.kill_daemon()?;
    let killed = Instant::now();
    world.start_daemon().await?;
    let view = world
        .until("the run to go on", |view| view.seq > 0 && view.report.run_id.as_ref() == Some(&run))
        .await?;
    let (back, on) = (killed.elapsed(), view.report.phase);
    let report = world.end_of(&run).await?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let mut story = Story::new("daemon-killed", &run, report, view, load);
    story.note = format!("went on at `{on}` after {} ms", back.as_millis());
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.replaced(&before);
    story.nobody_noticed();
    world.end().await?;
    Ok(story)
}

/// Stops the daemon where its journal says that the run is in the phase, or past it. It is stopped for each look, so
/// that it cannot go on meanwhile, and looked at only while it writes or if the phase is the next one, so that it is not
/// slowed down otherwise.
async fn catch(world: &mut World, run: &RunId, phase: &'static str) -> anyhow::Result<()> {
    let daemon = world.daemon_mut().context("there is no daemon to catch")?.id();
    let daemon = i32::try_from(daemon).ok().and_then(Pid::from_raw).context("no pid")?;
    let wanted = PHASES.iter().position(|name| *name == phase).context("no such phase")?;
    let (journal, run) = (world.state().join("journal.sqlite"), run.clone());
    let stepping = move || -> anyhow::Result<()> {
        let reader = Reader::open(&journal, BUSY)?;
        let log = journal.with_extension("sqlite-wal");
        let index = std::fs::metadata(journal.with_extension("sqlite-shm"))?.ino();
        let begun = Instant::now();
        let (mut seen, mut changed, mut is_next) = (None, begun, false);
        while begun.elapsed() < LIMIT {
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
                    false => Some(place(&reader, &run)),
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
        bail!("run {run} does not come to `{phase}`")
    };
    tokio::task::spawn_blocking(stepping).await?
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

fn place(reader: &Reader, run: &RunId) -> anyhow::Result<Place> {
    let chronicle = Chronicle::read(reader, SERVICE)?;
    let Some(record) = chronicle.record(run) else { return Ok(Place::Before) };
    if record.ended.is_some() {
        return Ok(Place::Ended);
    }
    let phase = report(SERVICE, &chronicle.state, Some(record)).phase;
    if let Some(at) = PHASES.iter().position(|name| *name == phase) {
        return Ok(Place::In(at));
    }
    let passed = |name: &str| record.steps.iter().any(|step| name.ends_with(&act(step)));
    Ok(PHASES.iter().rposition(|name| passed(name)).map_or(Place::Before, Place::In))
}

/// The front is killed while requests wait in it. Those are lost with it, as the design says; nobody is refused, and the
/// run ends as if nothing had happened.
pub(super) async fn front_killed(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let load = load(&world, log)?;
    calm().await;
    let run = world.update("2.0.0").await?;
    world.until("the new process", |view| view.report.phase.starts_with("cutting over: prove")).await?;
    // A second connection would take the front from its daemon: its pid is read from the process table.
    let front = the_one(&world, "front")?;
    kill(front)?;
    let report = world.end_of(&run).await?;
    let successor = the_one(&world, "front")?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let mut story = Story::new("front-killed", &run, report, view, load);
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.replaced(&before);
    story.expect(&format!("the front is still {front}"), (successor != front).into());
    let (failed, cut) = (story.load.failed, story.load.cut);
    story.expect("no request waited in the front that was killed", (cut > 0).into());
    let others = format!("{failed} requests failed, of which {cut} were cut: {:?}", story.load.failed_by);
    story.expect(&others, (failed == cut).into());
    let refused = story.load.failed_by.get(&Outcome::Connect).copied().unwrap_or(0);
    story.expect(&format!("{refused} connections were refused"), (refused == 0).into());
    world.end().await?;
    Ok(story)
}

/// The keeper of the serving process is killed before an update: only the exit code is lost, and that is said.
pub(super) async fn keeper_killed(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let old = before.process.clone().context("the first version runs")?;
    let keeper = the_one(&world, "keeper")?;
    kill(keeper)?;
    let mut story = updated("keeper-killed", &world, 0, log).await?;
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.replaced(&before);
    story.nobody_noticed();
    let successor = the_one(&world, "keeper")?;
    story.expect(&format!("the keeper is still {keeper}"), (successor != keeper).into());
    let told: Vec<String> = story.report.findings.iter().map(ToString::to_string).collect();
    let end = format!("how {old} ended is not known");
    let is_told = told.iter().any(|finding| finding.contains(&end) && finding.contains("keeper"));
    story.expect(&format!("the old process's end, which nobody saw, is told in {told:?}"), is_told.into());
    world.end().await?;
    Ok(story)
}

/// The one process of this program that does `part` for the world.
fn the_one(world: &World, part: &str) -> anyhow::Result<i32> {
    let state = world.state().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // One that has ended meanwhile, and a zombie, have no line.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let ours = words.get(1).is_some_and(|word| word == part)
            && words.iter().any(|word| word.starts_with(&state));
        if let (true, Ok(pid)) = (ours, entry.file_name().to_string_lossy().parse()) {
            found.push(pid);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        several => bail!("there is not one {part} but {several:?}"),
    }
}

fn kill(pid: i32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}
