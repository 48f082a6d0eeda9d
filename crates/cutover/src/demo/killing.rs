//! Scenarios in which a part of cutover itself is killed.

use super::hunt::{Hunt, PHASES, Phase, interrupted};
use super::scenario::{Story, calm, load};
use super::script::{boot, updated, world};
use super::world::{SERVICE, World};
use anyhow::{Context, bail};
use cutover_core::{Resolution, Status};
use cutover_testkit::load::Outcome;
use sample_gateway::Knobs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a phase is tried to be met: some last for a millisecond.
const TRIES: u32 = 8;
/// How long a run may take to come to any phase.
const LIMIT: Duration = Duration::from_secs(90);

/// The daemon is killed in each state of a run; the run ends by itself.
pub(super) async fn daemon_killed(log: Option<PathBuf>) -> anyhow::Result<Vec<(String, Story)>> {
    let mut stories = Vec::new();
    for phase in PHASES {
        let log = log.as_ref().map(|path| path.with_file_name(format!("daemon-killed-{phase}.jsonl")));
        stories.push((format!("daemon-killed {phase}"), killed_in(phase, log.as_deref()).await?));
    }
    Ok(stories)
}

/// The daemon killed in one phase. Whether it was met is read from the report, where the act that the kill interrupted
/// is told; a kill that came too late is repeated in a fresh world. Whatever goes wrong in a repeated one is wrong too.
async fn killed_in(phase: Phase, log: Option<&Path>) -> anyhow::Result<Story> {
    let mut tries = 1;
    loop {
        let mut story = killed_once(phase, log.map(Path::to_owned)).await?;
        let interrupted = interrupted(&story.report);
        let is_met = interrupted == [phase];
        if is_met || tries == TRIES || !story.wrong.is_empty() {
            let missed = format!("the kill met {interrupted:?} and not {phase}, in {tries} tries");
            story.expect(&missed, is_met.into());
            if tries > 1 {
                story.note += &format!(", met at try {tries}");
            }
            return Ok(story);
        }
        tries += 1;
    }
}

async fn killed_once(phase: Phase, log: Option<PathBuf>) -> anyhow::Result<Story> {
    let slow = Knobs { slow_stop_ms: 300, ..boot() };
    let mut world = world("", slow.clone(), slow).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let load = load(&world, log)?;
    calm().await;
    let run = world.update("2.0.0").await?;
    let daemon = world.daemon_mut().context("there is no daemon to catch")?.id();
    let journal = world.state().join("journal.sqlite");
    let (service, course) = (SERVICE.into(), PHASES.to_vec());
    let hunt = Hunt { daemon, journal, service, run: run.clone(), course, limit: LIMIT };
    hunt.caught_in(phase).await?;
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
