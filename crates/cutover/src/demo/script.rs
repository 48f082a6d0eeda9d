//! The scenarios of `cutover demo --scripted`, and the table.

use super::Arguments;
use super::scenario::{Line, Story, calm, load, reported, restart_of, update};
use super::world::{SERVICE, World};
use crate::cli::ExitStatus;
use anyhow::{Context, bail};
use cutover_core::{Fact, FactName, Reading, Report, Resolution, Status};
use cutover_testkit::load::Outcome;
use sample_gateway::Knobs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Everything quick, so that the script is.
const POLICY: &str = r#"policy = { soak = "1s", probe_interval = "50ms", stop_grace = "3s", drain = "3s", start_deadline = "30s" }"#;
/// How long the sample service takes to boot.
const BOOT_MS: u64 = 400;

/// The names of all scenarios, in order.
const NAMES: [&str; 10] = [
    "good",
    "crash-at-boot",
    "wrong-version",
    "ignored-restart",
    "incident",
    "replaced-tree",
    "rollback-fails",
    "daemon-killed",
    "front-killed",
    "keeper-killed",
];

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    if let Some(unknown) = arguments.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no scenario `{unknown}`; there are: {}", NAMES.join(", "));
    }
    let (mut passed, mut failed) = (0, 0);
    if !arguments.lines {
        println!("{}", heading());
    }
    for name in NAMES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let log = arguments.logs.as_ref().map(|directory| directory.join(format!("{name}.jsonl")));
        let stories = match told(name, log).await {
            Ok(stories) => stories,
            Err(error) => {
                println!("{name:<28} did not run: {error:#}");
                failed += 1;
                continue;
            }
        };
        for (label, story) in stories {
            show(arguments, &label, &story);
            if story.wrong.is_empty() { passed += 1 } else { failed += 1 }
        }
    }
    if !arguments.lines {
        println!("demo: {passed} passed, {failed} failed");
    }
    Ok(if failed == 0 { ExitStatus::Done } else { ExitStatus::Bug })
}

fn show(arguments: &Arguments, label: &str, story: &Story) {
    if arguments.lines {
        println!("{}", serde_json::to_string(&Line::of(label, story)).expect("a line is plain data"));
        return;
    }
    println!("{}", row(label, story));
    for wrong in &story.wrong {
        println!("    WRONG: {wrong}");
    }
}

async fn told(name: &'static str, log: Option<PathBuf>) -> anyhow::Result<Vec<(String, Story)>> {
    let one = |story: Story| vec![(story.name.to_owned(), story)];
    match name {
        "good" => good(log).await.map(one),
        "crash-at-boot" => rolled_back(name, Knobs { crash_at_boot: Some(1), ..boot() }, log).await.map(one),
        "wrong-version" => {
            rolled_back(name, Knobs { report_version: Some("1.0.0".into()), ..boot() }, log).await.map(one)
        }
        "ignored-restart" => ignored_restart(log).await.map(one),
        "incident" => incident(log).await.map(one),
        "replaced-tree" => replaced_tree(log).await.map(one),
        "rollback-fails" => rollback_fails(log).await.map(one),
        "front-killed" => front_killed(log).await.map(one),
        "keeper-killed" => keeper_killed(log).await.map(one),
        _ => daemon_killed(log).await,
    }
}

fn boot() -> Knobs {
    Knobs { boot_delay_ms: BOOT_MS, ..Knobs::default() }
}

/// A world in which 1.0.0 serves and 2.0.0 is published.
async fn world(service: &str, first: Knobs, second: Knobs) -> anyhow::Result<World> {
    let mut world = World::new(&format!("{service}\n{POLICY}"))?;
    world.publish("1.0.0", first)?;
    world.publish("2.0.0", second)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

/// Updates to 2.0.0 under load, checks the exit code, and looks around afterwards.
async fn updated(
    name: &'static str,
    world: &World,
    code: i32,
    log: Option<PathBuf>,
) -> anyhow::Result<Story> {
    let load = load(world, log)?;
    calm().await;
    let (report, exit) = update(world, "2.0.0").await?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let mut story = Story::new(name, report, view, load);
    story.expect(&format!("exit code {exit} instead of {code}"), (exit == code).into());
    Ok(story)
}

async fn good(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let mut story = updated("good", &world, 0, log).await?;
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.nobody_noticed();
    for name in [FactName::Identity, FactName::Code, FactName::Port, FactName::Version, FactName::OldGone] {
        let holds =
            story.report.facts.iter().any(|fact: &Fact| fact.name == name && fact.reading == Reading::Holds);
        story.expect(&format!("the fact {name:?} does not hold"), holds.into());
    }
    world.end().await?;
    Ok(story)
}

/// A target that does not prove itself: the old version is back, proven, and nobody noticed.
async fn rolled_back(name: &'static str, target: Knobs, log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), target).await?;
    let mut story = updated(name, &world, 4, log).await?;
    story.told(Status::RestartFailed, Resolution::OldVerified);
    story.serves("1.0.0");
    story.nobody_noticed();
    let causes = story.report.causes.len();
    story.expect("no cause is told", (causes > 0).into());
    world.end().await?;
    Ok(story)
}

/// The restart is ignored: the old process goes on, proven again, and is told as what it is.
async fn ignored_restart(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let deaf = Knobs { ignore_usr1: true, ..boot() };
    let world = world("strategy = \"signal\"", deaf, boot()).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let mut story = updated("ignored-restart", &world, 4, log).await?;
    story.told(Status::RestartFailed, Resolution::OldVerified);
    story.serves("1.0.0");
    story.nobody_noticed();
    let same = story.view.process == before.process;
    story.expect("it is not the same process", same.into());
    world.end().await?;
    Ok(story)
}

/// The origin: the package is switched, the restart ignored, and nobody may go back by itself. Then a person types what
/// the report says.
async fn incident(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let deaf = Knobs { ignore_usr1: true, ..boot() };
    let never = POLICY.replace("{ ", "{ rollback = \"never\", ");
    let mut world = World::new(&format!("strategy = \"signal\"\n{never}"))?;
    world.publish("1.0.0", deaf)?;
    world.publish("2.0.0", boot())?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let mut story = updated("incident", &world, 5, log).await?;
    story.told(Status::RestartFailed, Resolution::Maintenance);
    let sentence = story.report.sentence.clone();
    story.expect(
        &format!("told: {sentence}"),
        (sentence == "package updated but restart failed; manual restart required").into(),
    );
    let (status, body) = asked(&world).await?;
    story.expect(&format!("clients get {status}"), (status == 503).into());
    let commands = story.view.report.recovery.clone();
    story.expect("no command is told", (!commands.is_empty()).into());
    for command in &commands {
        story.expect(&format!("clients are not told `{command}`"), body.contains(command.as_str()).into());
    }
    let typed = commands.first().context("nothing to type")?;
    let words: Vec<&str> = typed.split_whitespace().skip(1).chain(["--json"]).collect();
    let (recovered, code) = reported(world.cutover(&words).await?)?;
    story.expect(&format!("`{typed}` ended with {code}: {}", recovered.sentence), (code == 0).into());
    let (status, _) = asked(&world).await?;
    story.expect(&format!("after `{typed}` clients get {status}"), (status == 200).into());
    story.view = world.until("a served version", |view| view.report.serving.version.is_some()).await?;
    story.serves("2.0.0");
    world.end().await?;
    Ok(story)
}

/// A foreign hand overwrites files below the running process: noticed, named, 503; then sealed again and proven.
async fn replaced_tree(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let load = load(&world, log)?;
    calm().await;
    let chunks = world.generation(1).join("core/chunks");
    let victim = std::fs::read_dir(&chunks)?.flatten().next().context("the release has no chunks")?.path();
    overwrite(&victim)?;
    let view = world
        .until("the changed tree to be noticed", |view| {
            view.report.trigger == Some(cutover_core::Kind::TreeChanged)
        })
        .await?;
    let run = view.report.run_id.clone().context("no run was begun")?;
    let report = world.end_of(&run).await?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let mut story = Story::new("replaced-tree", report, view, load);
    let refused = story.load.failed_by.get(&Outcome::ServerError).copied().unwrap_or(0);
    story.expect("no request was refused with 503 meanwhile", (refused > 0).into());
    let file = victim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let told = story.report.origin.as_ref().map(|fault| fault.detail.clone()).unwrap_or_default();
    story.expect(&format!("the changed file is not named: {told}"), told.contains(&file).into());
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("1.0.0");
    world.end().await?;
    Ok(story)
}

/// Overwrites a read-only file as root or its owner can.
fn overwrite(path: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    std::fs::write(path, "overwritten by a foreign hand")?;
    Ok(())
}

/// Target and old version are both broken: maintenance, and both causes are told.
async fn rollback_fails(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), Knobs { crash_at_boot: Some(1), ..boot() }).await?;
    let breaking = break_first_version(&world);
    let mut story = updated("rollback-fails", &world, 5, log).await?;
    breaking.abort();
    story.told(Status::RestartFailed, Resolution::Maintenance);
    let causes = story.report.causes.len();
    story.expect(&format!("{causes} causes are told instead of both"), (causes >= 2).into());
    let (status, _) = asked(&world).await?;
    story.expect(&format!("clients get {status}"), (status == 503).into());
    world.end().await?;
    Ok(story)
}

/// Once the old process is gone, a foreign hand changes its tree: it cannot be gone back to.
fn break_first_version(world: &World) -> tokio::task::JoinHandle<()> {
    let (client, entry) = (world.client(), world.generation(1).join("core/release.json"));
    tokio::spawn(async move {
        let Ok(mut views) = client.views(Some(SERVICE)).await else { return };
        while let Some(view) = views.recv().await {
            if view.report.phase.starts_with("cutting over: start")
                || view.report.phase.starts_with("cutting over: prove")
            {
                let _ = overwrite(&entry);
                return;
            }
        }
    })
}

/// The daemon is killed in each state of a run; the run ends by itself.
async fn daemon_killed(log: Option<PathBuf>) -> anyhow::Result<Vec<(String, Story)>> {
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
    let mut stories = Vec::new();
    for phase in PHASES {
        let log = log.as_ref().map(|path| {
            path.with_file_name(format!("daemon-killed-{}.jsonl", phase.replace([':', ' '], "-")))
        });
        stories.push((
            format!("daemon-killed {}", phase.replace("cutting over: ", "").replace("preparing: ", "")),
            killed_in(phase, log).await?,
        ));
    }
    Ok(stories)
}

async fn killed_in(phase: &str, log: Option<PathBuf>) -> anyhow::Result<Story> {
    let slow = Knobs { slow_stop_ms: 300, ..boot() };
    let mut world = world("", slow.clone(), slow).await?;
    let load = load(&world, log)?;
    calm().await;
    let mut views = world.client().views(Some(SERVICE)).await?;
    let run = world.update("2.0.0").await?;
    let order = [phase, "finished"];
    while let Some(view) = views.recv().await {
        if view.report.run_id.as_ref() == Some(&run) && order.contains(&view.report.phase.as_str()) {
            break;
        }
    }
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
    let mut story = Story::new("daemon-killed", report, view, load);
    story.note = format!("went on at `{on}` after {} ms", back.as_millis());
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.nobody_noticed();
    world.end().await?;
    Ok(story)
}

/// The front is killed while requests wait in it. Those are lost with it, as the design says; nobody is refused, and the
/// run ends as if nothing had happened.
async fn front_killed(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let load = load(&world, log)?;
    calm().await;
    let run = world.update("2.0.0").await?;
    world.until("the new process", |view| view.report.phase.starts_with("cutting over: prove")).await?;
    // A second connection would take the front from its daemon: its pid is read from the process table.
    let front = children_named(world.state(), "front")?;
    kill(front)?;
    let report = world.end_of(&run).await?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let mut story = Story::new("front-killed", report, view, load);
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    let refused = story.load.failed_by.get(&Outcome::Connect).copied().unwrap_or(0);
    story.expect(&format!("{refused} connections were refused"), (refused == 0).into());
    world.end().await?;
    Ok(story)
}

/// The keeper of the serving process is killed before an update: only the exit code is lost, and that is said.
async fn keeper_killed(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    kill(children_named(world.state(), "keeper")?)?;
    let mut story = updated("keeper-killed", &world, 0, log).await?;
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.nobody_noticed();
    world.end().await?;
    Ok(story)
}

/// The one process of this program that does `part` for the world below `state`.
fn children_named(state: PathBuf, part: &str) -> anyhow::Result<i32> {
    let state = state.to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let ours = words.get(1).is_some_and(|word| word == part)
            && words.iter().any(|word| word.starts_with(&state));
        if let (true, Ok(pid)) = (ours, entry.file_name().to_string_lossy().parse()) {
            return Ok(pid);
        }
    }
    bail!("there is no {part} to kill")
}

fn kill(pid: i32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}

/// One request as a client on this machine sends it: status and body.
async fn asked(world: &World) -> anyhow::Result<(u16, String)> {
    use http_body_util::{BodyExt, Empty};
    let stream = tokio::net::TcpStream::connect(world.address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/")
        .header("host", world.address.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let response = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request)).await??;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn heading() -> String {
    format!(
        "{:<28} {:<34} {:<14} {:<9} {:>7} {:>7} {:>5} {:>12} {:>12}",
        "scenario", "status", "resolution", "serves", "sent", "failed", "cut", "longest wait", "stop->ready"
    )
}

fn row(label: &str, story: &Story) -> String {
    let report: &Report = &story.report;
    format!(
        "{:<28} {:<34} {:<14} {:<9} {:>7} {:>7} {:>5} {:>9} ms {:>9} ms  {}",
        label,
        report.status.map_or("-", Status::word),
        format!("{:?}", report.resolution),
        story.view.report.serving.version.as_deref().unwrap_or("nothing"),
        story.load.sent,
        story.load.failed,
        story.load.cut,
        story.load.longest_wait_us / 1000,
        restart_of(report).as_millis(),
        story.note,
    )
}
