//! Work that a service has under way may come to its end before the stop, while clients are served.

use crate::stage::{assert_told, configure, executable, get, serving, signal, unserved, update, with_policy};
use cutover::demo::{Plan, World};
use cutover_core::{Act, Kind, Report, Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;

/// A world whose service is asked at `path` whether it has work under way.
async fn asked_at(path: &str, rules: &[(&str, &str)], releases: [Knobs; 2]) -> anyhow::Result<World> {
    let plan = Plan { service: with_policy("", rules), ..Plan::new(executable()) };
    let [old, new] = releases;
    let mut world = unserved(plan, &[("1.0.0", old), ("2.0.0", new)])?;
    let idle = format!("probe = {{ idle = {{ http = \"{path}\", pointer = \"/idle\" }}, ");
    configure(&world, "probe = { ", &idle)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

fn good() -> Knobs {
    Knobs::default()
}

/// What the drain of a run came to.
fn drained(report: &Report) -> &str {
    let step = report.steps.iter().find(|step| step.name == Act::Drain).unwrap();
    step.outcome.as_deref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_way_comes_to_its_end_before_the_stop_while_clients_are_served() -> anyhow::Result<()> {
    let busy = Knobs { busy_ms: Some(6_000), ..good() };
    let world = asked_at("/idle", &[], [busy, good()]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    let run = world.update("2.0.0").await?;
    let waiting = |view: &cutover::conductor::View| {
        view.progress.as_ref().is_some_and(|progress| progress.doing.contains("waiting for work under way"))
    };
    let view = world.until("the wait", waiting).await?;
    assert_eq!((view.process, view.report.serving.posture.as_str()), (before, "serve"));
    assert_eq!(get(&world, "/").await?.status, 200);
    let report = world.end_of(&run).await?;
    assert_eq!((report.status, report.ok), (Some(Status::RestartVerified), true), "{report:#?}");
    assert!(drained(&report).starts_with("nothing under way after"), "{}", drained(&report));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_does_not_end_is_waited_for_within_its_limit_and_told() -> anyhow::Result<()> {
    let busy = Knobs { busy_ms: Some(600_000), ..good() };
    let world = asked_at("/idle", &[("idle_wait", "\"300ms\"")], [busy, good()]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert!(drained(&ended.0).contains("work is still under way after 300ms"), "{}", drained(&ended.0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_know_the_question_is_not_waited_for() -> anyhow::Result<()> {
    let world = asked_at("/no-such-path", &[], [good(), good()]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let told = drained(&ended.0);
    assert!(told.contains("whether work is under way is not known") && told.contains("404"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_version_is_reverted_without_waiting_for_its_work() -> anyhow::Result<()> {
    let busy = Knobs { busy_ms: Some(600_000), ..good() };
    let rules = [("crash_limit", "1"), ("idle_wait", "\"4min\"")];
    let world = asked_at("/idle", &rules, [good(), busy]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let watched = serving(&world, "2.0.0").await?.process.unwrap();
    signal(watched.pid, Signal::KILL)?;
    let reverted = world
        .until("the revert", |view| {
            view.report.trigger == Some(Kind::AutoRevert) && view.report.ended.is_some()
        })
        .await?;
    assert_eq!(reverted.report.resolution, Resolution::OldVerified);
    assert!(!drained(&reverted.report).contains("under way"), "{}", drained(&reverted.report));
    Ok(())
}
