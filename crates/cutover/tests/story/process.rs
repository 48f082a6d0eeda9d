//! Processes that do not end, do not start, do not stay, and those that shall not run.

use crate::stage::{
    assert_told, eventually, get, is_alive, logs, processes, reported, seized, service_log, serving, signal,
    starts_of, told, update, view, with_policy, world,
};
use cutover::conductor::View;
use cutover::demo::{SERVICE, World};
use cutover::supervisor;
use cutover_core::{Act, FactName, Kind, Reading, Report, Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn good() -> Knobs {
    Knobs::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn r29_an_old_process_that_ignores_term_is_killed_after_its_grace_and_the_report_says_so()
-> anyhow::Result<()> {
    let deaf = Knobs { ignore_term: true, orphan_on_port_ms: Some(60_000), ..good() };
    let service = with_policy("", &[("stop_grace", "\"400ms\"")]);
    let world = world(&service, &[("1.0.0", deaf), ("2.0.0", good())]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let stop = ended.0.steps.iter().find(|step| step.name == Act::Stop).unwrap();
    assert!(stop.outcome.as_ref().unwrap().contains("forced by KILL"), "{stop:?}");
    assert!(stop.took_ms.unwrap() >= 400, "{stop:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r29_a_child_that_outlives_an_exit_and_holds_the_port_is_ended_before_the_next_start()
-> anyhow::Result<()> {
    let leaves = Knobs { orphan_on_port_ms: Some(600_000), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", leaves)]).await?;
    let first = serving(&world, "1.0.0").await?.process.unwrap();
    signal(first.pid, Signal::TERM)?;
    world.until("the next process", |view| view.process.as_ref().is_some_and(|now| *now != first)).await?;
    serving(&world, "1.0.0").await?;
    assert!(service_log(&world).contains("left descendant"), "{}", service_log(&world));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_r85_an_exit_of_78_is_a_verdict_at_once_and_its_cause_is_shown() -> anyhow::Result<()> {
    let refuses = Knobs { crash_at_boot: Some(78), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", refuses)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert!(ended.0.causes[0].fault.detail.contains("Code(78)"), "{:?}", ended.0.causes);
    assert_eq!(starts_of(&world, "2.0.0"), 1, "no second try");
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_a_resting_service_that_exits_78_is_not_started_again_until_a_person_says_so()
-> anyhow::Result<()> {
    let rules = [("watch", "\"10ms\""), ("restart_prevent_exit_status", "[78]")];
    let mut world = world(&with_policy("", &rules), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    world.until("the end of the watch", |view| view.report.phase == "finished").await?;
    // While nobody watches it ends, and its next start is refused.
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    std::fs::write(
        world.config(),
        format!("{config}env = {{ SAMPLE_KNOBS = '{{\"crash_at_boot\": 78}}' }}\n"),
    )?;
    signal(processes(&world, "sample-gateway")[0], Signal::KILL)?;
    world.start_daemon().await?;
    let halted = world
        .until("the halt", |view| {
            view.report.recovery.iter().any(|command| *command == world.typed("start web"))
        })
        .await?;
    assert_eq!(halted.report.serving.posture, "maintain");
    assert!(halted.report.condition.contains("exit code 78"), "{}", halted.report.condition);
    let starts = starts_of(&world, "1.0.0");
    assert!(starts <= 3, "{starts} starts");
    assert_eq!(get(&world, "/").await?.status, 503);
    world.kill_daemon()?;
    std::fs::write(world.config(), config)?;
    world.start_daemon().await?;
    assert!(processes(&world, "sample-gateway").is_empty(), "it stays halted across the daemon");
    let output = world.cutover(&["start"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_version_that_ends_for_good_while_no_daemon_looks_is_reverted_by_the_next()
-> anyhow::Result<()> {
    let ends = Knobs { exit_code: Some(78), ..good() };
    let service = with_policy("", &[("restart_prevent_exit_status", "[78]")]);
    let mut world = world(&service, &[("1.0.0", good()), ("2.0.0", ends)]).await?;
    serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let watched = serving(&world, "2.0.0").await?.process.unwrap();
    world.kill_daemon()?;
    signal(watched.pid, Signal::TERM)?;
    eventually("its end", async || !is_alive(watched.pid)).await?;
    world.start_daemon().await?;
    let reverted = serving(&world, "1.0.0").await?.report;
    assert_eq!(reverted.trigger, Some(Kind::AutoRevert));
    let cause = &reverted.origin.as_ref().unwrap().detail;
    assert!(cause.contains("exit code 78"), "{cause}");
    Ok(())
}

/// Kills the service's process and waits for the next one.
async fn crash(world: &World) -> anyhow::Result<()> {
    let before = world.until("a process", |view| view.process.is_some()).await?.process;
    signal(before.clone().unwrap().pid, Signal::KILL)?;
    world.until("the next process", |view| view.process.is_some() && view.process != before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_a_crash_in_the_soak_rolls_back() -> anyhow::Result<()> {
    let service = with_policy("", &[("soak", "\"2s\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let run = world.update("2.0.0").await?;
    let soaking = world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    signal(soaking.process.unwrap().pid, Signal::KILL)?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution, report.ok),
        (Some(Status::RestartFailed), Resolution::OldVerified, false)
    );
    assert_eq!(report.causes[0].act, Act::Soak, "{:?}", report.causes);
    assert!(report.causes[0].fault.detail.contains("Signal(9)"), "{:?}", report.causes);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_asks_to_be_started_again_in_the_soak_is_proven_again_and_not_taken_back()
-> anyhow::Result<()> {
    let rules = [("soak", "\"2s\""), ("restart_force_exit_status", "[0]")];
    let world = world(&with_policy("", &rules), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let run = world.update("2.0.0").await?;
    let soaking = world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    let first = soaking.process.unwrap();
    // It ends in good order, with 0.
    signal(first.pid, Signal::TERM)?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution, report.ok),
        (Some(Status::RestartVerified), Resolution::None, true),
        "{:?}",
        report.causes
    );
    assert_eq!(starts_of(&world, "2.0.0"), 2);
    assert_ne!(serving(&world, "2.0.0").await?.process.unwrap(), first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_nothing_but_ask_to_be_started_again_is_taken_back() -> anyhow::Result<()> {
    let restless = Knobs { crash_after_ms: Some(3000), exit_code: Some(0), ..good() };
    let rules = [("soak", "\"20s\""), ("restart_force_exit_status", "[0]")];
    let world = world(&with_policy("", &rules), &[("1.0.0", good()), ("2.0.0", restless)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    let causes = &ended.0.causes;
    assert!(causes.iter().any(|cause| cause.fault.code == "exited"), "{causes:?}");
    assert_eq!(starts_of(&world, "2.0.0"), 2, "the first wish is granted");
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_r77_a_crash_loop_in_the_watch_window_reverts_and_the_channel_does_not_bring_it_back()
-> anyhow::Result<()> {
    let rules = with_policy("", &[("crash_limit", "2")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", good())]).await?;
    // Crashes of the old version are none of the new one's.
    serving(&world, "1.0.0").await?;
    crash(&world).await?;
    serving(&world, "1.0.0").await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    crash(&world).await?;
    serving(&world, "2.0.0").await?;
    crash(&world).await?;
    let reverted = reverted(&world).await?;
    assert_eq!(
        (reverted.report.status, reverted.report.resolution, reverted.report.ok),
        (Some(Status::RestartFailed), Resolution::OldVerified, false)
    );
    assert!(reverted.report.origin.is_some(), "what began it is told");
    serving(&world, "1.0.0").await?;
    let run = committed.0.run_id.unwrap();
    let again = world.cutover(&["show", &run.0, "--json"]).await?;
    let again: cutover_core::Report = serde_json::from_slice(&again.stdout)?;
    assert_eq!(again.reverted_by, reverted.report.run_id);

    world.name_latest("2.0.0")?;
    let refused = reported(&world, &["update"]).await?;
    assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert_eq!(refused.0.causes[0].fault.code, "skipped");
    assert!(refused.0.causes[0].fault.detail.contains("--to 2.0.0"), "{:?}", refused.0.causes);
    let named = update(&world, "2.0.0").await?;
    assert_eq!(named.0.status, Some(Status::RestartVerified), "a person may insist");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_a_channel_that_moves_back_is_not_followed_unless_the_version_is_named() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("0.9.0", good()), ("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    world.name_latest("0.9.0")?;
    let refused = reported(&world, &["update"]).await?;
    assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert_eq!(refused.0.causes[0].fault.code, "downgrade");
    let planned = world.cutover(&["plan"]).await?;
    assert_ne!(planned.status.code(), Some(0), "r65: the dry run fails as the run does: {}", told(&planned));
    let named = update(&world, "0.9.0").await?;
    assert_told(&named, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_stopped_service_is_switched_not_started_and_start_proves_it() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(world.cutover(&["stop"]).await?.status.code(), Some(0));
    world.until("the stop", |view| view.process.is_none()).await?;
    let parked = update(&world, "2.0.0").await?;
    assert_eq!(
        (parked.0.status, parked.0.ok, parked.1),
        (Some(Status::RestartScheduled), false, 6),
        "{:#?}",
        parked.0
    );
    assert!(processes(&world, "sample-gateway").is_empty());
    let run = parked.0.run_id.clone().unwrap();
    let other = world.cutover(&["update", "--to", "1.0.0"]).await?;
    assert_eq!(other.status.code(), Some(8), "{}", told(&other));
    assert!(told(&other).contains(&run.0), "{}", told(&other));
    let proven = reported(&world, &["start"]).await?;
    assert_told(&proven, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(proven.0.run_id, Some(run));
    serving(&world, "2.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_that_is_cancelled_goes_back_without_a_start() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    world.cutover(&["stop"]).await?;
    world.until("the stop", |view| view.process.is_none()).await?;
    let parked = update(&world, "2.0.0").await?;
    assert_eq!(parked.0.status, Some(Status::RestartScheduled));
    world.kill_daemon()?;
    world.start_daemon().await?;
    let cancelled = world.cutover(&["cancel"]).await?;
    assert_eq!(cancelled.status.code(), Some(5), "{}", told(&cancelled));
    assert!(
        told(&cancelled).contains("was cancelled after the switch; 1.0.0 is installed again"),
        "{}",
        told(&cancelled)
    );
    let report = world.end_of(&parked.0.run_id.unwrap()).await?;
    assert_eq!(report.status, Some(Status::RestartFailed), "{report:#?}");
    let after = view(&world).await?;
    assert_eq!(after.current.unwrap().release.version, "1.0.0");
    assert_eq!((starts_of(&world, "2.0.0"), processes(&world, "sample-gateway").len()), (0, 0));
    world.cutover(&["start"]).await?;
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_run_prepares_is_obeyed_and_the_run_parks() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    let stopped = world.client().call("service.stop", serde_json::json!({ "service": SERVICE })).await;
    if let Err(refusal) = stopped {
        // Too late: the run was past its cut before the order came.
        assert!(refusal.to_string().contains("past the cut"), "{refusal}");
        assert!(world.end_of(&run).await?.ok);
        return Ok(());
    }
    let parked = world.until("the parking", |view| view.report.phase == "parked").await?;
    assert_eq!(parked.report.recovery, [world.typed("start web")]);
    eventually("its end", async || processes(&world, "sample-gateway").is_empty()).await?;
    assert_eq!(starts_of(&world, "2.0.0"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_r43_a_slow_service_is_neither_killed_nor_given_up_while_it_boots() -> anyhow::Result<()> {
    let slow = Knobs { ready_delay_ms: 1500, ..good() };
    let service = with_policy("", &[("start_deadline", "\"2500ms\"")]);
    let mut world = world(&service, &[("1.0.0", slow)]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    // From now on readiness takes longer than the deadline: at rest that is no reason to end anybody.
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?
        .replace("start_deadline = \"2500ms\"", "start_deadline = \"200ms\"");
    std::fs::write(world.config(), config)?;
    signal(processes(&world, "sample-gateway")[0], Signal::KILL)?;
    world.start_daemon().await?;
    let is_next = |view: &View| view.process.is_some() && view.process != before;
    let born = world.until("the next process", is_next).await?.process;
    let after = serving(&world, "1.0.0").await?;
    assert_eq!(after.process, born, "the same process was waited for");
    assert_eq!(starts_of(&world, "1.0.0"), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_a_flapping_readiness_is_not_proven_and_the_deadline_says_what_was_missing() -> anyhow::Result<()>
{
    let flaps = Knobs { flapping_ms: Some(160), ..good() };
    let service = with_policy("", &[("streak", "6"), ("start_deadline", "\"3s\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", flaps)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(ended.0.causes[0].fault.code, "timeout");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r45_a_rollback_that_fails_is_maintenance_with_both_causes_and_ends_by_itself_when_the_old_version_comes_up()
-> anyhow::Result<()> {
    let late = Knobs { boot_delay_ms: 1000, crash_at_boot: Some(2), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", late)]).await?;
    serving(&world, "1.0.0").await?;
    // The old version's tree is damaged while the target boots: it cannot be started again as it is.
    let run = world.update("2.0.0").await?;
    let chunk =
        std::fs::read_dir(world.generation(1).join("core/page/assets"))?.flatten().next().unwrap().path();
    use std::os::unix::fs::PermissionsExt;
    eventually("the cut", async || {
        view(&world).await.is_ok_and(|view| view.report.phase.starts_with("cutting over"))
    })
    .await?;
    std::fs::set_permissions(&chunk, std::fs::Permissions::from_mode(0o644))?;
    std::fs::write(&chunk, "a foreign hand")?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartFailed), Resolution::Maintenance),
        "{report:#?}"
    );
    assert!(report.causes.len() >= 2, "{:?}", report.causes);
    assert!(
        report.recovery.iter().any(|command| *command == world.typed("recover web --rollback")),
        "{:?}",
        report.recovery
    );
    assert_eq!(get(&world, "/").await?.status, 503);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_ends_the_process_and_starts_the_same_generation_again() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?;
    let output = world.cutover(&["restart"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    world.until("another process", |view| view.process.is_some() && view.process != before.process).await?;
    let after = serving(&world, "1.0.0").await?;
    assert_eq!(after.current, before.current);
    assert!(after.trouble.is_none(), "an ordered restart is no crash: {:?}", after.trouble);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_told_and_started_with_growing_pauses() -> anyhow::Result<()> {
    let service = with_policy("", &[("backoff_first", "\"200ms\"")]);
    let world = world(&service, &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    crash(&world).await?;
    crash(&world).await?;
    let third = world.until("a process", |view| view.process.is_some()).await?.process.unwrap();
    signal(third.pid, Signal::KILL)?;
    let begun = std::time::Instant::now();
    let told = world
        .until("the loop", |view| view.trouble.as_ref().is_some_and(|why| why.contains("crash-looping: 3")))
        .await?;
    assert!(told.trouble.unwrap().contains("Signal(9)"));
    world.until("the next process", |view| view.process.as_ref().is_some_and(|now| *now != third)).await?;
    assert!(
        begun.elapsed() >= Duration::from_millis(800),
        "after the third the pause is four times the first"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_an_exit_code_that_the_settings_do_not_name_is_answered_by_another_start() -> anyhow::Result<()> {
    let ends = Knobs { crash_after_ms: Some(2500), exit_code: Some(78), ..good() };
    let rules = [("soak", "\"10ms\""), ("streak", "1"), ("watch", "\"10ms\"")];
    let world = world(&with_policy("", &rules), &[("1.0.0", ends)]).await?;
    let first = world.until("a process", |view| view.process.is_some()).await?.process;
    let next = world.until("the next", |view| view.process.is_some() && view.process != first).await?;
    assert!(next.report.recovery.is_empty(), "{:?}", next.report.recovery);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_after_the_keepers_death_is_still_noticed() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    for keeper in processes(&world, "keeper") {
        signal(keeper, Signal::KILL)?;
    }
    assert!(is_alive(before.pid));
    assert_eq!(get(&world, "/").await?.status, 200);
    signal(before.pid, Signal::KILL)?;
    world.until("the next process", |view| view.process.as_ref().is_some_and(|now| *now != before)).await?;
    serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_misses_a_module_and_ends_is_blamed_with_what_its_log_says() -> anyhow::Result<()> {
    let broken = Knobs { crash_at_boot: Some(1), crash_names_module: true, ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", broken)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    let told = &ended.0.causes[0].fault.detail;
    assert!(told.contains("Cannot find module"), "{told}\n{}", service_log(&world));
    Ok(())
}

/// A file that is there, in a directory that goes with the first of the two.
fn mark() -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let home = tempfile::tempdir()?;
    let mark = home.path().join("go");
    std::fs::write(&mark, "")?;
    Ok((home, mark))
}

/// The end of a revert that nobody ordered.
async fn reverted(world: &World) -> anyhow::Result<View> {
    let is_over = |view: &View| view.report.trigger == Some(Kind::AutoRevert) && view.report.ended.is_some();
    world.until("the end of a revert", is_over).await
}

/// All runs, of which one is a revert that nobody ordered.
async fn reverted_once(world: &World) -> anyhow::Result<Vec<Report>> {
    let history = world.cutover(&["history", "--json"]).await?;
    let history: Vec<Report> = serde_json::from_slice(&history.stdout)?;
    let reverts = history.iter().filter(|run| run.trigger == Some(Kind::AutoRevert)).count();
    assert_eq!(reverts, 1, "{history:#?}");
    Ok(history)
}

/// A release that binds only while this file is there.
fn bound_by(mark: &Path) -> Knobs {
    Knobs { boot_after: Some(mark.to_owned()), ..good() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_version_that_hangs_at_its_next_start_is_reverted() -> anyhow::Result<()> {
    let (_home, mark) = mark()?;
    let rules = with_policy("", &[("start_deadline", "\"2s\"")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", bound_by(&mark))]).await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    std::fs::remove_file(&mark)?;
    crash(&world).await?;
    let reverted = reverted(&world).await?;
    assert_eq!(reverted.report.resolution, Resolution::OldVerified, "{:#?}", reverted.report);
    assert_eq!(reverted.report.origin.unwrap().code, "not_ready");
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_come_up_again_raises_an_alarm_that_ends_when_it_does() -> anyhow::Result<()>
{
    let (_home, mark) = mark()?;
    let rules = with_policy("", &[("start_deadline", "\"2s\"")]);
    let world = world(&rules, &[("1.0.0", bound_by(&mark))]).await?;
    serving(&world, "1.0.0").await?;
    std::fs::remove_file(&mark)?;
    crash(&world).await?;
    let told = world.until("the alarm", |view| view.alarm.is_some()).await?;
    assert_eq!(told.alarm.unwrap().fault.code, "not_ready");
    assert!(told.trouble.unwrap().contains("does not become ready"));
    std::fs::write(&mark, "")?;
    serving(&world, "1.0.0").await?;
    world.until("its end", |view| view.alarm.is_none() && view.trouble.is_none()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_that_comes_to_nothing_is_not_begun_again_and_again() -> anyhow::Result<()> {
    let mut ends = good();
    ends.crash_after_ms = Some(4000);
    ends.exit_code = Some(78);
    let rules = with_policy("", &[("restart_prevent_exit_status", "[78]"), ("soak", "\"200ms\"")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", ends)]).await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    // What could be gone back to is not what it was.
    let entry = world.generation(1).join("core/bin/gateway");
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o755))?;
    std::fs::write(&entry, "changed")?;
    let failed = reverted(&world).await?;
    assert_eq!(failed.report.status, Some(Status::UpdateFailed), "{:#?}", failed.report);
    // Each of these is a round of the daemon, in which it would begin another.
    for _ in 0..3 {
        world.cutover(&["hold"]).await?;
    }
    let history = reverted_once(&world).await?;
    let kept = history.iter().find(|run| run.run_id == committed.0.run_id).unwrap();
    assert_eq!(kept.reverted_by, None, "nothing was undone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_that_takes_its_time_is_not_begun_anew_by_the_trouble_that_it_answers() -> anyhow::Result<()>
{
    let (_home, mark) = mark()?;
    let service = with_policy("", &[("start_deadline", "\"1s\"")])
        + "\npreflight = { validate = [\"/bin/sleep\", \"5\"] }";
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", bound_by(&mark))]).await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    std::fs::remove_file(&mark)?;
    crash(&world).await?;
    serving(&world, "1.0.0").await?;
    reverted_once(&world).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_its_port_is_no_evidence_against_a_watched_version() -> anyhow::Result<()> {
    let rules = with_policy("", &[("start_deadline", "\"1s\""), ("crash_limit", "99")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    let own = serving(&world, "2.0.0").await?;
    let address = own.address.unwrap();
    // Whoever is quicker has it.
    let stranger = loop {
        let process = world.until("a process", |view| view.process.is_some()).await?.process;
        signal(process.unwrap().pid, Signal::KILL)?;
        let begun = Instant::now();
        let mut seized = std::iter::from_fn(|| {
            (begun.elapsed() < Duration::from_secs(1)).then(|| TcpListener::bind(address).ok())
        });
        if let Some(stranger) = seized.find_map(|tried| tried) {
            break stranger;
        }
    };
    let told = world.until("the alarm", |view| view.alarm.is_some()).await?;
    assert_eq!(told.alarm.unwrap().fault.code, "not_ready");
    assert_eq!(told.report.run_id, committed.0.run_id, "nothing is taken back");
    drop(stranger);
    let now = serving(&world, "2.0.0").await?;
    assert_eq!(now.report.run_id, committed.0.run_id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_beside_it_on_its_port_is_no_evidence_against_a_watched_version() -> anyhow::Result<()> {
    let (_home, mark) = mark()?;
    let rules = with_policy("", &[("start_deadline", "\"5s\"")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", bound_by(&mark))]).await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    let address = serving(&world, "2.0.0").await?.address.unwrap();
    std::fs::remove_file(&mark)?;
    crash(&world).await?;
    // The next one was started on a free port, and is not alone there when it binds.
    let stranger = seized((Ipv6Addr::LOCALHOST, address.port()).into()).await?;
    std::fs::write(&mark, "")?;
    let told = world.until("the alarm", |view| view.alarm.is_some()).await?;
    assert_eq!(told.alarm.unwrap().fault.code, "not_ready");
    assert!(told.trouble.unwrap().contains("port_taken"));
    drop(stranger);
    let now = serving(&world, "2.0.0").await?;
    assert_eq!(now.report.run_id, committed.0.run_id, "nothing is taken back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_whose_log_takes_nothing_more_is_gone_back_to() -> anyhow::Result<()> {
    let (_home, mark) = mark()?;
    let bad = Knobs { crash_at_boot: Some(1), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", bound_by(&mark)), ("2.0.0", bad)]).await?;
    serving(&world, "1.0.0").await?;
    std::fs::remove_file(&mark)?;
    let run = world.update("2.0.0").await?;
    world.until("the old version's proof", |view| view.report.phase == "rolling back: prove").await?;
    lose_output(&world)?;
    std::fs::write(&mark, "")?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.resolution, Resolution::OldVerified, "{report:#?}");
    let tripwires = report.facts.iter().find(|fact| fact.name == FactName::Tripwires).unwrap();
    assert_eq!(tripwires.reading, Reading::NotApplicable, "{tripwires:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_to_a_version_whose_log_takes_nothing_more_comes_to_its_end() -> anyhow::Result<()> {
    let (_home, mark) = mark()?;
    let rules = with_policy("", &[("crash_limit", "1")]);
    let world = world(&rules, &[("1.0.0", bound_by(&mark)), ("2.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    let committed = update(&world, "2.0.0").await?;
    assert_told(&committed, Status::RestartVerified, Resolution::None, 0);
    std::fs::remove_file(&mark)?;
    let process = serving(&world, "2.0.0").await?.process.unwrap();
    signal(process.pid, Signal::KILL)?;
    let is_proving = |view: &View| {
        view.report.trigger == Some(Kind::AutoRevert) && view.report.phase == "cutting over: prove"
    };
    world.until("the revert's proof", is_proving).await?;
    lose_output(&world)?;
    std::fs::write(&mark, "")?;
    let reverted = reverted(&world).await?;
    assert_eq!(reverted.report.resolution, Resolution::OldVerified, "{:#?}", reverted.report);
    Ok(())
}

/// Says of the youngest log what is said of one on a full disk.
fn lose_output(world: &World) -> anyhow::Result<()> {
    let log = logs(world).pop().unwrap();
    std::fs::set_permissions(log, PermissionsExt::from_mode(0o600 | supervisor::OUTPUT_LOST))?;
    Ok(())
}
