//! Declared state: nothing of it is lost in silence.

use crate::stage::{
    assert_told, executable, get, post, reported, service_log, serving, told, unserved, update, view,
    with_policy, world,
};
use cutover::demo::{Plan, SERVICE};
use cutover_core::{Resolution, Status, Writes};
use sample_gateway::Knobs;
use std::time::Duration;

/// An SQLite database below the world, which a `migrating` release brings to schema 2.
const STATE: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data/state.db", kind = "sqlite" }]"#;

fn good() -> Knobs {
    Knobs::default()
}

fn migrating() -> Knobs {
    Knobs { migrate_to: Some(2), ..Knobs::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn r49_a_migration_that_fails_its_proof_is_undone_with_the_rollback() -> anyhow::Result<()> {
    let fails = Knobs { never_ready: true, ..migrating() };
    let service = with_policy(STATE, &[("start_deadline", "\"3s\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", fails)]).await?;
    serving(&world, "1.0.0").await?;
    for text in ["one", "two", "three"] {
        assert_eq!(post(&world, "/state", text).await?.status, 200);
    }
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!(
        (&state["schema"], &state["rows"], &state["lastText"]),
        (&1.into(), &3.into(), &"three".into())
    );
    assert_eq!(ended.0.writes, Writes::Kept, "no client had been told that anything newer is safe");
    let restored = ended.0.steps.iter().find(|step| step.name == cutover_core::Act::Restore).unwrap();
    assert!(restored.outcome.as_ref().unwrap().contains("is kept"), "{restored:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r51_a_write_during_the_update_is_held_and_survives() -> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 500, ..migrating() };
    let world = world(&with_policy(STATE, &[]), &[("1.0.0", good()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "before").await?.status, 200);
    let run = world.update("2.0.0").await?;
    world.until("the hold", |view| view.report.serving.posture == "hold").await?;
    let written = post(&world, "/state", "meanwhile").await?;
    assert_eq!(written.status, 200);
    assert!(world.end_of(&run).await?.ok);
    let state = get(&world, "/state").await?.json();
    assert_eq!(
        (&state["schema"], &state["rows"], &state["lastText"]),
        (&2.into(), &2.into(), &"meanwhile".into())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_after_the_release_of_migrated_data_is_maintenance_and_both_ways_out_work()
-> anyhow::Result<()> {
    let rules = [("release", "\"after-prove\""), ("soak", "\"5s\"")];
    let world = world(&with_policy(STATE, &rules), &[("1.0.0", good()), ("2.0.0", migrating())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "old").await?.status, 200);
    let run = world.update("2.0.0").await?;
    world
        .until("the release", |view| {
            view.report.serving.posture == "serve" && view.report.phase.contains("soak")
        })
        .await?;
    assert_eq!(post(&world, "/state", "new").await?.status, 200);
    crate::stage::signal(
        crate::stage::processes(&world, "sample-gateway")[0],
        rustix::process::Signal::KILL,
    )?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartFailed), Resolution::Maintenance),
        "{report:#?}"
    );
    for way in ["--retry", "--rollback", "--accept"] {
        assert!(
            report.recovery.contains(&world.typed(&format!("recover web {way}"))),
            "{:?}",
            report.recovery
        );
    }
    let refused = get(&world, "/state").await?;
    assert_eq!(refused.status, 503);
    // The service stays stopped: old code must not see the new data by itself.
    assert!(crate::stage::processes(&world, "sample-gateway").is_empty());
    let back = reported(&world, &["recover", "web", "--rollback"]).await?;
    assert_eq!(
        (back.0.status, back.0.resolution),
        (Some(Status::RestartFailed), Resolution::OldVerified),
        "{:#?}",
        back.0
    );
    assert_eq!(back.0.writes, Writes::GivenUp, "what is lost is told");
    let shown = told(&world.cutover(&["show", &back.0.run_id.as_ref().unwrap().0]).await?);
    assert!(shown.contains("writes since the snapshot were given up"), "{shown}");
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["rows"], &state["lastText"]), (&1.into(), &1.into(), &"old".into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_rollback_names_its_data_and_the_older_snapshot_comes_back_with_it() -> anyhow::Result<()>
{
    let world = world(&with_policy(STATE, &[]), &[("1.0.0", good()), ("2.0.0", migrating())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "old").await?.status, 200);
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(post(&world, "/state", "new").await?.status, 200);
    let keep = world.cutover(&["rollback", SERVICE, "--data", "keep"]).await?;
    assert_eq!(keep.status.code(), Some(8), "{}", told(&keep));
    let back = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["lastText"]), (&1.into(), &"old".into()));
    assert!(!service_log(&world).contains("state has schema"), "old code never met newer data");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn older_data_is_refused_while_no_state_is_declared_and_laid_down_once_it_is_again()
-> anyhow::Result<()> {
    let mut world = world(&with_policy(STATE, &[]), &[("1.0.0", good()), ("2.0.0", migrating())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "old").await?.status, 200);
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    let config = std::fs::read_to_string(world.config())?;
    let undeclared: Vec<&str> = config.lines().filter(|line| !line.starts_with("state = [")).collect();
    assert!(undeclared.len() < config.lines().count());
    world.kill_daemon()?;
    std::fs::write(world.config(), undeclared.join("\n"))?;
    world.start_daemon().await?;
    serving(&world, "2.0.0").await?;
    let refused = world.cutover(&["rollback", SERVICE, "--data", "restore"]).await?;
    assert_eq!(refused.status.code(), Some(8), "{}", told(&refused));
    assert!(told(&refused).contains("declare `state`"), "{}", told(&refused));
    serving(&world, "2.0.0").await?;
    world.kill_daemon()?;
    std::fs::write(world.config(), config)?;
    world.start_daemon().await?;
    let back = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["lastText"]), (&1.into(), &"old".into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_is_no_longer_declared_is_still_restored_by_the_run_that_copied_it() -> anyhow::Result<()>
{
    let fails = Knobs { never_ready: true, ..migrating() };
    let plan =
        Plan { service: with_policy(STATE, &[("start_deadline", "\"4s\"")]), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", good()), ("2.0.0", fails)])?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "one").await?.status, 200);
    let run = world.update("2.0.0").await?;
    world.until("the start", |view| view.report.phase.contains("prove")).await?;
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    let undeclared: Vec<&str> = config.lines().filter(|line| !line.starts_with("state = [")).collect();
    std::fs::write(world.config(), undeclared.join("\n"))?;
    world.start_daemon().await?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.resolution, Resolution::OldVerified, "{report:#?}");
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["rows"]), (&1.into(), &1.into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_and_generations_go_and_what_a_child_still_runs_from_stays() -> anyhow::Result<()> {
    let leaves = Knobs { spawn_child_ms: Some(600_000), ..good() };
    let rules = [("keep", "1"), ("watch", "\"50ms\"")];
    let releases =
        [("1.0.0", good()), ("2.0.0", leaves), ("3.0.0", good()), ("4.0.0", good()), ("5.0.0", good())];
    let world = world(&with_policy(STATE, &rules), &releases).await?;
    for version in ["2.0.0", "3.0.0", "4.0.0", "5.0.0"] {
        assert_told(&update(&world, version).await?, Status::RestartVerified, Resolution::None, 0);
    }
    crate::stage::eventually("the sweep", async || {
        !world.generation(1).exists() && !world.generation(2).exists() && !world.generation(3).exists()
    })
    .await?;
    assert!(world.generation(4).exists() && world.generation(5).exists());
    let snapshots = world.state().join("services").join(SERVICE).join("snapshots");
    crate::stage::eventually("the snapshots' sweep", async || {
        std::fs::read_dir(&snapshots).is_ok_and(|entries| entries.count() == 1)
    })
    .await?;
    assert_eq!(view(&world).await?.current.unwrap().release.version, "5.0.0");
    tokio::time::timeout(Duration::from_secs(5), serving(&world, "5.0.0")).await??;
    Ok(())
}
