//! The scenarios of `cutover demo --scripted`, and the table.

use super::Arguments;
use super::killing;
use super::scenario::{Line, Story, calm, load, reported, restart_of, update};
use super::world::{SERVICE, World};
use crate::cli::{ExitStatus, outlet};
use anyhow::{Context, bail};
use cutover_core::{Fact, FactName, Reading, Report, Resolution, Status};
use cutover_testkit::load::Outcome;
use sample_gateway::Knobs;
use std::path::PathBuf;
use std::time::Duration;

/// Everything quick, so that the script is, and what goes wrong goes wrong after the cut.
const POLICY: &str = r#"policy = { soak = "1s", probe_interval = "50ms", stop_grace = "3s", drain = "3s", start_deadline = "30s", rehearse = "never" }"#;
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
        outlet::result(heading());
    }
    for name in NAMES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let log = arguments.logs.as_ref().map(|directory| directory.join(format!("{name}.jsonl")));
        let stories = match told(name, log).await {
            Ok(stories) => stories,
            Err(error) => {
                outlet::result(format_args!("{name:<28} did not run: {error:#}"));
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
        outlet::result(format_args!("demo: {passed} passed, {failed} failed"));
    }
    Ok(if failed == 0 { ExitStatus::Done } else { ExitStatus::Bug })
}

fn show(arguments: &Arguments, label: &str, story: &Story) {
    if arguments.lines {
        outlet::result(serde_json::to_string(&Line::of(label, story)).expect("a line is plain data"));
        return;
    }
    outlet::result(row(label, story));
    for wrong in &story.wrong {
        outlet::result(format_args!("    WRONG: {wrong}"));
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
        "front-killed" => killing::front_killed(log).await.map(one),
        "keeper-killed" => killing::keeper_killed(log).await.map(one),
        _ => killing::daemon_killed(log).await,
    }
}

pub(super) fn boot() -> Knobs {
    Knobs { boot_delay_ms: BOOT_MS, ..Knobs::default() }
}

/// A world in which 1.0.0 serves and 2.0.0 is published.
pub(super) async fn world(service: &str, first: Knobs, second: Knobs) -> anyhow::Result<World> {
    let mut world = World::new(&format!("{service}\n{POLICY}"))?;
    world.publish("1.0.0", first)?;
    world.publish("2.0.0", second)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

/// Updates to 2.0.0 under load, checks the exit code, and looks around afterwards.
pub(super) async fn updated(
    name: &'static str,
    world: &World,
    code: i32,
    log: Option<PathBuf>,
) -> anyhow::Result<Story> {
    let before = world.until("an answer", |_| true).await?;
    let load = load(world, log)?;
    calm().await;
    let (report, exit) = update(world, "2.0.0").await?;
    calm().await;
    let load = load.stop().await?;
    let view = world.until("an answer", |_| true).await?;
    let run = view.report.run_id.clone().context("the daemon tells of no run")?;
    let mut story = Story::new(name, &run, report, view, load);
    story.expect("no run was begun", (before.report.run_id != Some(run)).into());
    story.expect(&format!("exit code {exit} instead of {code}"), (exit == code).into());
    Ok(story)
}

async fn good(log: Option<PathBuf>) -> anyhow::Result<Story> {
    let world = world("", boot(), boot()).await?;
    let before = world.until("the first version", |view| view.process.is_some()).await?;
    let mut story = updated("good", &world, 0, log).await?;
    story.told(Status::RestartVerified, Resolution::None);
    story.serves("2.0.0");
    story.replaced(&before);
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
    let (recovered, code) = reported(world.type_in(typed, "--json").await?)?;
    story.expect(&format!("`{typed}` ended with {code}: {}", recovered.sentence), (code == 0).into());
    let (status, _) = asked(&world).await?;
    story.expect(&format!("after `{typed}` clients get {status}"), (status == 200).into());
    story.view = world.until("a served version", |view| view.report.serving.version.is_some()).await?;
    let told = story.view.report.run_id.clone();
    story.expect("another run than the recovery's is told of", (recovered.run_id == told).into());
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
    let mut story = Story::new("replaced-tree", &run, report, view, load);
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
        while let Some(Ok(view)) = views.recv().await {
            if view.report.phase.starts_with("cutting over: start")
                || view.report.phase.starts_with("cutting over: prove")
            {
                let _ = overwrite(&entry);
                return;
            }
        }
    })
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
