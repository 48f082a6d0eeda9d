//! The daemon dies at each point between two effects, and the story still ends by itself: verified or the old version
//! verified, one start, no client's request lost. Slow, so by default every few points are tried;
//! `CUTOVER_TEST=crash` tries them all.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]
#![allow(dead_code, reason = "the stage is shared, and this story needs little of it")]

#[path = "story/pair.rs"]
mod pair;
#[path = "story/stage.rs"]
mod stage;

use cutover::demo::{Plan, SERVICE, World};
use cutover_core::{Report, Resolution, RunId, Status};
use cutover_testkit::registry::Package;
use sample_gateway::Knobs;
use serde_json::json;
use stage::{
    LIMIT, eventually, executable, get, logs, processes, serving, starts_of, starts_since, unserved,
    with_policy,
};
use std::time::{Duration, Instant};

/// An SQLite database below the world: its copies have crash points of their own.
const STATE: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data/state.db", kind = "sqlite" }]"#;
/// More passes over crash points than any of these runs has.
const PASSES_MAX: usize = 400;

/// How many points are passed over between two that are tried.
fn stride() -> usize {
    let slow = std::env::var("CUTOVER_TEST").unwrap_or_default();
    if slow.split(',').any(|set| set == "crash") { 1 } else { 6 }
}

async fn stopped_world(releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let rules = [("keep", "1"), ("watch", "\"1ms\""), ("soak", "\"100ms\""), ("hold", "\"20s\"")];
    let plan = Plan { service: with_policy(STATE, &rules), ..Plan::new(executable()) };
    let mut world = unserved(plan, releases)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    world.kill_daemon()?;
    Ok(world)
}

/// How an update went whose daemon was to die at a point.
enum Told {
    /// It died, another daemon took over, and this is the end.
    Interrupted(Report),
    /// The run has fewer points.
    Uninterrupted,
}

/// Updates under a daemon that dies at its `pass`-th crash point, and under another one afterwards.
async fn interrupted(world: &mut World, pass: usize, version: &str) -> anyhow::Result<Told> {
    let point = format!("@{pass}");
    let mut run = None;
    if world.start_daemon_with(&[("CUTOVER_CRASH_POINT", &point)]).await.is_ok() {
        run = world.update(version).await.ok();
        let begun = Instant::now();
        while matches!(world.daemon_mut().unwrap().try_wait(), Ok(None)) {
            anyhow::ensure!(
                begun.elapsed() < LIMIT,
                "run {run:?} does not end: {}",
                world.tail_of_daemon_log()
            );
            if let Some(run) = &run
                && ended(world, run).await.is_some()
            {
                return Ok(Told::Uninterrupted);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.start_daemon().await?;
    // The order may have died with the daemon before or after it was durable.
    let run = match run {
        Some(run) => run,
        None => match world.until("an answer", |_| true).await?.report {
            Report { run_id: Some(run), target: Some(target), .. } if target.release.version == version => {
                run
            }
            Report { run_id: Some(run), ended: None, .. } => run,
            _ => world.update(version).await?,
        },
    };
    Ok(Told::Interrupted(world.end_of(&run).await?))
}

async fn ended(world: &World, run: &RunId) -> Option<Report> {
    let answer = world.client().call("update.runs.get", json!({ "runId": run, "service": SERVICE })).await;
    let report: Report = serde_json::from_value(answer.ok()?).ok()?;
    report.ended.is_some().then_some(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn r21_a_daemon_that_dies_anywhere_in_an_update_ends_it_verified_with_one_start() -> anyhow::Result<()>
{
    let mut world = stopped_world(&[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    let load = stage::load(&world, 20)?;
    let (mut tried, mut at) = (0, "1.0.0");
    for pass in (1..PASSES_MAX).step_by(stride()) {
        let to = if at == "1.0.0" { "2.0.0" } else { "1.0.0" };
        let youngest = logs(&world).pop();
        match interrupted(&mut world, pass, to).await? {
            Told::Uninterrupted => break,
            Told::Interrupted(report) => {
                let why = format!("point {pass}: {report:#?}\n{}", world.tail_of_daemon_log());
                assert_eq!(report.status, Some(Status::RestartVerified), "{why}");
                serving(&world, to).await?;
                assert_eq!(starts_since(&world, youngest.as_ref(), to), 1, "{why}");
                assert_eq!(processes(&world, "sample-gateway").len(), 1, "{why}");
            }
        }
        (tried, at) = (tried + 1, to);
        world.kill_daemon()?;
    }
    assert!(tried >= 3, "only {tried} points were tried");
    let load = load.stop().await?;
    assert_eq!(load.failed, 0, "{load}");
    println!("{tried} points");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r21_a_daemon_that_dies_anywhere_in_a_rollback_ends_it_with_the_old_version_verified()
-> anyhow::Result<()> {
    let liar = Knobs { report_version: Some("0.0.0".into()), ..Knobs::default() };
    let mut world = stopped_world(&[("1.0.0", Knobs::default()), ("2.0.0", liar)]).await?;
    let load = stage::load(&world, 20)?;
    let mut tried = 0;
    for pass in (1..PASSES_MAX).step_by(stride()) {
        match interrupted(&mut world, pass, "2.0.0").await? {
            Told::Uninterrupted => break,
            Told::Interrupted(report) => {
                let why = format!("point {pass}: {report:#?}\n{}", world.tail_of_daemon_log());
                assert_eq!(
                    (report.status, report.resolution),
                    (Some(Status::RestartFailed), Resolution::OldVerified),
                    "{why}"
                );
                serving(&world, "1.0.0").await?;
                assert_eq!(processes(&world, "sample-gateway").len(), 1, "{why}");
            }
        }
        tried += 1;
        world.kill_daemon()?;
    }
    assert!(tried >= 3, "only {tried} points were tried");
    let load = load.stop().await?;
    assert_eq!(load.failed, 0, "{load}");
    println!("{tried} points");
    Ok(())
}

/// How often the notice of this run's end was taken.
fn notices(world: &World, run: &RunId) -> usize {
    let text = std::fs::read_to_string(world.path().join("notices")).unwrap_or_default();
    text.matches(&format!("\"id\":\"{run}:ended\"")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_a_daemon_that_dies_between_a_notice_and_its_record_sends_it_again_and_no_third_time()
-> anyhow::Result<()> {
    let notify =
        r#"notify = [{ exec = ["/bin/sh", "-c", "cat >> {world}/notices; echo >> {world}/notices"] }]"#;
    let plan = Plan { service: with_policy(notify, &[]), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default())])?;
    world.start_daemon_with(&[("CUTOVER_CRASH_POINT", "told")]).await?;
    let run = world.update("1.0.0").await?;
    dies(&mut world).await?;
    assert_eq!(notices(&world, &run), 1);
    for _ in 0..2 {
        world.start_daemon().await?;
        let is_settled = |view: &cutover::conductor::View| {
            let notice = view.report.notices.iter().find(|notice| notice.about.run() == Some(&run));
            notice.is_some_and(|notice| notice.deliveries[0].outcome.is_some())
        };
        world.until("the record", is_settled).await?;
        assert_eq!(notices(&world, &run), 2);
        world.kill_daemon()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_after_its_keepers_go_adopts_what_runs() -> anyhow::Result<()> {
    let mut world = stopped_world(&[("1.0.0", Knobs::default())]).await?;
    // At rest: the process is gone, and the daemon dies right after the next was let go.
    stage::signal(processes(&world, "sample-gateway")[0], rustix::process::Signal::KILL)?;
    let _ = world.start_daemon_with(&[("CUTOVER_CRASH_POINT", "start: gone")]).await;
    dies(&mut world).await?;
    eventually("the start", async || starts_of(&world, "1.0.0") == 2).await?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    assert_eq!((starts_of(&world, "1.0.0"), processes(&world, "sample-gateway").len()), (2, 1));
    assert_eq!(get(&world, "/").await?.status, 200);
    Ok(())
}

/// 2.0.0 refuses a configuration with `old`, and mends it by itself.
const MENDS: &str = r#"env = { SAMPLE_STATE = "{world}/data", SAMPLE_CONFIG = "{world}/data/config.json" }
state = [{ path = "{world}/data", kind = "files" }]
preflight = { validate = ["{root}/bin/gateway", "sample-gateway", "check"], repair = { run = [
    "/bin/sh", "-c", "echo {} > {world}/data/config.json",
], files = ["{world}/data/config.json"] } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_while_a_mended_configuration_is_laid_down_lays_it_down_once() -> anyhow::Result<()>
{
    // Before it takes the old one's place, and when it has and nothing was executed yet.
    for point in ["mended written", "start: before go"] {
        let rules = [("rehearse", "\"always\""), ("repair", "\"apply\"")];
        let plan = Plan { service: with_policy(MENDS, &rules), ..Plan::new(executable()) };
        let refuses = Knobs { reject_config_key: Some("old".into()), ..Knobs::default() };
        let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", refuses)])?;
        let config = world.path().join("data/config.json");
        std::fs::write(&config, "{\"old\":1}")?;
        world.start_daemon().await?;
        world.install("1.0.0").await?;
        serving(&world, "1.0.0").await?;
        world.kill_daemon()?;
        world.start_daemon_with(&[("CUTOVER_CRASH_POINT", point)]).await?;
        let run = world.update("2.0.0").await?;
        let first = dies_or_ends(&mut world, &run).await?;
        if let Some(report) = first {
            // Without isolation the update ends before anything is stopped, and there is nothing to interrupt.
            assert_eq!(report.status, Some(Status::UpdateFailed), "{report:#?}");
            println!("skipped: {point}: {:?}", report.causes);
            continue;
        }
        world.start_daemon().await?;
        let report = world.end_of(&run).await?;
        assert_eq!(report.status, Some(Status::RestartVerified), "{point}: {report:#?}");
        assert_eq!(std::fs::read_to_string(&config)?, "{}\n");
        let beside: Vec<_> =
            std::fs::read_dir(world.path().join("data"))?.flatten().map(|entry| entry.file_name()).collect();
        assert!(!beside.iter().any(|name| name.to_string_lossy().contains("mended")), "{beside:?}");
        assert_eq!(starts_of(&world, "2.0.0"), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_while_a_plugin_is_given_its_seat_gives_it_in_the_end() -> anyhow::Result<()> {
    if std::process::Command::new("npm").arg("--version").output().is_err() {
        println!("skipped: seats under crashes: npm is not installed");
        return Ok(());
    }
    for point in ["seat put aside", "seat link made", "seat vacated", "start: before go"] {
        let (mut world, registry) = pair::published_with_a_seat(&with_policy("", &[])).await?;
        registry.publish(&Package::new(pair::SIDE, "1.0.0"));
        let side = world.path().join("data/npm/projects/side");
        let modules = world.path().join("data").join(pair::PROJECT).join("node_modules");
        let link = modules.join(pair::PLUGIN);
        world.start_daemon().await?;
        world.install("1.0.0").await?;
        registry.publish(&pair::extra("1.1.0", "format"));
        registry.tag(pair::PLUGIN, "latest", "1.1.0");
        registry.publish(&pair::app("2.0.0", pair::WITH_VERSION));
        world.kill_daemon()?;
        // As if the service had installed it anew by itself.
        std::fs::remove_file(&link)?;
        std::fs::create_dir(&link)?;
        world.start_daemon_with(&[("CUTOVER_CRASH_POINT", point)]).await?;
        assert!(side.is_dir());
        // One of the plugins is not to be had with it.
        let run = world.update("2.0.0").await?;
        dies(&mut world).await?;
        world.start_daemon().await?;
        let report = world.end_of(&run).await?;
        assert_eq!(report.status, Some(Status::RestartVerified), "{point}: {report:#?}");
        assert!(!side.exists(), "{point}");
        let plugin = world.generation(2).join("core/node_modules").join(pair::PLUGIN);
        assert_eq!(std::fs::read_link(&link)?.canonicalize()?, plugin.canonicalize()?, "{point}");
        let mut beside: Vec<_> =
            std::fs::read_dir(link.parent().unwrap())?.flatten().map(|entry| entry.file_name()).collect();
        beside.sort();
        assert_eq!(beside, [".extra.cutover-aside", "extra"], "{point}");
    }
    Ok(())
}

/// Waits until the daemon has died, or the run has ended before.
async fn dies_or_ends(world: &mut World, run: &RunId) -> anyhow::Result<Option<Report>> {
    let begun = Instant::now();
    while matches!(world.daemon_mut().unwrap().try_wait(), Ok(None)) {
        anyhow::ensure!(begun.elapsed() < LIMIT, "neither: {}", world.tail_of_daemon_log());
        if let Some(report) = ended(world, run).await {
            return Ok(Some(report));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(None)
}

/// Waits until the daemon has died.
async fn dies(world: &mut World) -> anyhow::Result<()> {
    let begun = Instant::now();
    while matches!(world.daemon_mut().unwrap().try_wait(), Ok(None)) {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the daemon does not die: {}", world.tail_of_daemon_log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The target was executed, and nobody knows it as started: its daemon died there, and the next one cannot start it.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_version_that_ran_in_a_start_that_failed_keeps_what_it_wrote() -> anyhow::Result<()> {
    let rules = [("hard_cap", "\"8s\""), ("soak", "\"100ms\""), ("keep", "1"), ("watch", "\"1ms\"")];
    let service = format!("inputs = \"own\"\n{STATE}")
        .replace("/state.db\", kind = \"sqlite\"", "\", kind = \"files\"");
    let plan = Plan { service: with_policy(&service, &rules), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())])?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let port = serving(&world, "1.0.0").await?.address.unwrap();
    world.kill_daemon()?;
    world.start_daemon_with(&[("CUTOVER_CRASH_POINT", "start: gone")]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    eventually("the end of the daemon", async || {
        processes(&world, "sample-gateway").len() == 1
            && world.client().call("status", json!({})).await.is_err()
    })
    .await?;
    for pid in processes(&world, "sample-gateway") {
        stage::signal(pid, rustix::process::Signal::KILL)?;
    }
    eventually("the end of the target", async || processes(&world, "sample-gateway").is_empty()).await?;
    let written = world.path().join("data/written-by-2.0.0");
    std::fs::write(&written, "newer")?;
    let stranger = stage::seized(port).await?;
    world.kill_daemon()?;
    world.start_daemon().await?;
    let ended = world.end_of(&run).await?;
    assert_eq!(ended.resolution, Resolution::Maintenance, "{:?}", ended.causes);
    assert_eq!(ended.causes[0].fault.code, "port_taken", "{:?}", ended.causes);
    drop(stranger);
    let (retried, code) = stage::reported(&world, &["recover", SERVICE, "--retry"]).await?;
    assert_eq!((retried.status, code), (Some(Status::RestartVerified), 0), "{:?}", retried.causes);
    assert_eq!(std::fs::read_to_string(written)?, "newer");
    Ok(())
}
