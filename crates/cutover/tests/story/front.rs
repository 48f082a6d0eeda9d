//! What clients notice: nothing, or at worst a told "not now".

use crate::stage::{
    LIMIT, assert_told, eventually, get, is_alive, load, processes, reported, serving, signal, starts_of,
    update, view, with_policy, world,
};
use cutover::conductor::View;
use cutover::demo::World;
use cutover_core::{Resolution, Status};
use cutover_testkit::openclaw::{Answer, Client};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use sample_gateway::Knobs;
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

fn lazy() -> Knobs {
    Knobs { lazy_open_every_ms: Some(5), ..Knobs::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_r70_updates_under_load_fail_no_request_and_no_process_ever_misses_a_file() -> anyhow::Result<()>
{
    let releases = [("1.0.0", lazy()), ("2.0.0", lazy()), ("3.0.0", lazy())];
    let world = world(&with_policy("", &[]), &releases).await?;
    serving(&world, "1.0.0").await?;
    let load = load(&world, 80)?;
    for version in ["2.0.0", "3.0.0", "1.0.0"] {
        let ended = update(&world, version).await?;
        assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
        let told = get(&world, "/version").await?.json();
        assert_eq!(told["version"], version);
        assert!(told["modulesOpened"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(told["modulesMissing"], 0, "{told}");
    }
    let load = load.stop().await?;
    assert_eq!(load.failed, 0, "{load}");
    assert_eq!((load.sockets.refused, load.sockets.closed_abnormal), (0, 0), "{load}");
    let log = crate::stage::service_log(&world);
    assert!(!log.contains("Cannot find module") && log.contains("ended with code 0"), "r14: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r71_past_the_hold_limit_clients_are_told_and_afterwards_served_by_the_same_front()
-> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 2500, ..Knobs::default() };
    let service = with_policy("", &[("hold", "\"700ms\"")]);
    let world = world(&service, &[("1.0.0", Knobs::default()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let front = processes(&world, "front");
    let run = world.update("2.0.0").await?;
    world.until("the hold", |view| view.report.serving.posture == "hold").await?;
    let begun = Instant::now();
    let refused = get(&world, "/").await?;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("retry-after"), "{refused:?}");
    assert!(refused.body.contains(&run.0), "the run is named: {refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody hangs");
    assert!(world.end_of(&run).await?.ok);
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    assert_eq!(processes(&world, "front"), front, "the same front");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r74_r27_a_daemon_killed_while_clients_are_held_resumes_and_none_of_them_fails() -> anyhow::Result<()>
{
    let slow = Knobs { boot_delay_ms: 700, ..Knobs::default() };
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let load = load(&world, 60)?;
    let run = world.update("2.0.0").await?;
    world.until("the hold", |view| view.report.phase.starts_with("cutting over")).await?;
    world.kill_daemon()?;
    let offline = world.cutover(&["status", "--json"]).await?;
    assert_eq!(offline.status.code(), Some(0), "status works without a daemon");
    world.start_daemon().await?;
    let report = world.end_of(&run).await?;
    assert!(report.ok, "{report:#?}");
    serving(&world, "2.0.0").await?;
    let load = load.stop().await?;
    assert_eq!(load.failed, 0, "{load}");
    assert_eq!(starts_of(&world, "2.0.0"), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r25_killing_the_services_whole_process_group_touches_neither_daemon_nor_front() -> anyhow::Result<()>
{
    let slow = Knobs { boot_delay_ms: 400, spawn_child_ms: Some(600_000), ..Knobs::default() };
    let mut world = world(&with_policy("", &[]), &[("1.0.0", slow.clone()), ("2.0.0", slow)]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    let front = processes(&world, "front");
    let group = std::fs::read_to_string(format!("/proc/{}/stat", before.pid))?;
    let group: i32 = group.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse()?;
    rustix::process::kill_process_group(rustix::process::Pid::from_raw(group).unwrap(), Signal::KILL)?;
    world.until("the next process", |view| view.process.as_ref().is_some_and(|now| *now != before)).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(processes(&world, "front"), front);
    assert!(matches!(world.daemon_mut().unwrap().try_wait(), Ok(None)));
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_killed_in_the_cut_is_replaced_and_the_run_ends_verified() -> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 600, ..Knobs::default() };
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    world.until("the cut", |view| view.report.phase.starts_with("cutting over")).await?;
    let first = processes(&world, "front")[0];
    signal(first, Signal::KILL)?;
    let report = world.end_of(&run).await?;
    assert!(report.ok, "{report:#?}");
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    let fronts = processes(&world, "front");
    assert!(fronts.len() == 1 && fronts[0] != first, "{fronts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_does_not_answer_is_ended_before_another_takes_its_sockets() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let hung = processes(&world, "front")[0];
    signal(hung, Signal::STOP)?;
    // Something new to tell it: the process goes, so the front must hold.
    let output = world.cutover(&["restart"]).await?;
    assert_eq!(output.status.code(), Some(0));
    eventually("its end", async || !is_alive(hung)).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    assert_eq!(processes(&world, "front").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_finds_a_front_which_does_not_answer_ends_it_and_serves_with_another()
-> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let process = view(&world).await?.process;
    let hung = processes(&world, "front")[0];
    world.kill_daemon()?;
    signal(hung, Signal::STOP)?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    assert!(!is_alive(hung));
    assert_eq!(view(&world).await?.process, process, "the service itself went on");
    assert_eq!(get(&world, "/").await?.status, 200);
    assert_eq!(processes(&world, "front").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_front_the_same_proof_holds_and_maintenance_means_stopped_until_accepted()
-> anyhow::Result<()> {
    let liar = Knobs { report_version: Some("9.9.9".into()), ..Knobs::default() };
    let releases = [("1.0.0", Knobs::default()), ("2.0.0", Knobs::default()), ("3.0.0", liar)];
    let service = with_policy("", &[("rollback", "\"never\""), ("start_deadline", "\"3s\"")]);
    let world = crate::stage::direct(&service, &releases).await?;
    serving(&world, "1.0.0").await?;
    assert!(processes(&world, "front").is_empty());
    let good = update(&world, "2.0.0").await?;
    assert_told(&good, Status::RestartVerified, Resolution::None, 0);
    let bad = update(&world, "3.0.0").await?;
    assert_told(&bad, Status::RestartFailed, Resolution::Maintenance, 5);
    eventually("its end", async || processes(&world, "sample-gateway").is_empty()).await?;
    let accepted = reported(&world, &["recover", "web", "--accept"]).await?;
    assert_told(&accepted, Status::RestartFailed, Resolution::AcceptedUnverified, 5);
    assert_eq!(get(&world, "/version").await?.json()["version"], "9.9.9");
    let after = view(&world).await?;
    assert!(!after.report.ok, "never green");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_long_is_answered_by_the_process_that_got_it_before_it_is_stopped()
-> anyhow::Result<()> {
    let world =
        world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    let mut caller = Client::connect(world.address, "", LIMIT).await?;
    let calling = tokio::spawn(async move { caller.call("echo", &json!({"afterMs": 1500}), LIMIT).await });
    let mut other = Client::connect(world.address, "", LIMIT).await?;
    assert!(matches!(other.call("echo", &json!({}), LIMIT).await?, Answer::Given(_)));
    let begun = Instant::now();
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let Answer::Given(answer) = calling.await?? else { panic!("refused") };
    assert_eq!(answer["params"]["afterMs"], 1500);
    assert!(begun.elapsed() >= Duration::from_secs(1), "the call was in flight when the update began");
    assert!(!is_alive(before.pid));
    assert_eq!(view(&world).await?.front.unwrap().cut_total, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_answered_delays_the_stop_to_the_drains_limit_and_is_counted_as_cut()
-> anyhow::Result<()> {
    let service = with_policy("", &[("drain", "\"600ms\"")]);
    let world = world(&service, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let mut caller = Client::connect(world.address, "", LIMIT).await?;
    assert!(matches!(caller.call("echo", &json!({}), LIMIT).await?, Answer::Given(_)));
    let calling = tokio::spawn(async move { caller.call("echo", &json!({"afterMs": 600_000}), LIMIT).await });
    // What comes once the service is to be stopped is kept back, and would not be cut.
    tokio::task::yield_now().await;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert!(calling.await?.is_err(), "nobody answered it");
    // The front's numbers are half a second old at most.
    world.until("the count", |view| view.front.as_ref().is_some_and(|front| front.cut_total == 1)).await?;
    Ok(())
}

/// A world whose second version is watched, and how it was seen then: its trouble would be held against it soon.
async fn watched(start_deadline: &str) -> anyhow::Result<(World, View)> {
    let rules = with_policy("", &[("start_deadline", start_deadline)]);
    let world = world(&rules, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let seen = serving(&world, "2.0.0").await?;
    assert_eq!(seen.report.run_id, ended.0.run_id);
    Ok((world, seen))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_hangs_while_nothing_is_told_to_it_is_replaced_and_no_evidence_against_the_service()
-> anyhow::Result<()> {
    let (world, updated) = watched("\"1s\"").await?;
    let hung = processes(&world, "front")[0];
    signal(hung, Signal::STOP)?;
    eventually("its end", async || !is_alive(hung)).await?;
    let answered = async || get(&world, "/").await.is_ok_and(|answer| answer.status == 200);
    eventually("an answer through another", answered).await?;
    let now = serving(&world, "2.0.0").await?;
    assert_eq!(
        (now.process, now.report.run_id),
        (updated.process, updated.report.run_id),
        "nothing was taken back"
    );
    // That clients did not get through was told, and is over.
    assert!(now.alarm.is_none_or(|alarm| alarm.fault.code == "cut_off"));
    world.until("the alarm's end", |view| view.alarm.is_none()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_through_which_nothing_is_proven_is_replaced_and_no_evidence_against_the_service()
-> anyhow::Result<()> {
    let (world, updated) = watched("\"1s\"").await?;
    let front = processes(&world, "front")[0];
    // It hears its daemon and its clients, and the way that a proof takes through it is gone.
    std::fs::remove_file(world.state().join("run/fronts/web.probe.sock"))?;
    signal(updated.process.as_ref().unwrap().pid, Signal::KILL)?;
    let told = world.until("the alarm", |view| view.alarm.is_some()).await?;
    assert_eq!(told.alarm.unwrap().fault.code, "cut_off");
    let now = serving(&world, "2.0.0").await?;
    assert_ne!(now.process, updated.process);
    assert_eq!(now.report.run_id, updated.report.run_id, "nothing was taken back");
    assert!(!is_alive(front));
    world.until("the alarm's end", |view| view.alarm.is_none()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_whose_proof_finds_no_way_through_the_front_has_it_replaced_and_is_verified()
-> anyhow::Result<()> {
    let world =
        world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    std::fs::remove_file(world.state().join("run/fronts/web.probe.sock"))?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

/// A lane for proofs on which somebody listens and nobody is answered.
fn deaf_lane(world: &World) -> anyhow::Result<UnixListener> {
    let lane = world.state().join("run/fronts/web.probe.sock");
    std::fs::remove_file(&lane)?;
    Ok(UnixListener::bind(lane)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_takes_proofs_in_and_lets_none_through_is_replaced_and_the_update_verified()
-> anyhow::Result<()> {
    let world =
        world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let front = processes(&world, "front")[0];
    let _deaf = deaf_lane(&world)?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert!(!is_alive(front));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_what_serves_waits_for_a_front_that_lets_nobody_through_and_replaces_none()
-> anyhow::Result<()> {
    let (world, updated) = watched("\"60s\"").await?;
    let front = processes(&world, "front")[0];
    // It hears its daemon on, and can take no connection in.
    let pid = Pid::from_raw(front.cast_signed());
    let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Nofile).maximum };
    let usual = prlimit(pid, Resource::Nofile, none)?;
    let run = world.update("2.0.0").await?;
    // Longer than a proof that may replace it waits for it.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(is_alive(front) && view(&world).await?.report.ended.is_none());
    prlimit(pid, Resource::Nofile, usual)?;
    let report = world.end_of(&run).await?;
    assert_eq!((report.status, report.ok), (None, true), "{report:#?}");
    assert!(is_alive(front), "it stands yet");
    assert_eq!(view(&world).await?.process, updated.process);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_clients_get_through_the_front_it_is_proven_as_they_ask_and_the_front_stays()
-> anyhow::Result<()> {
    let (world, _updated) = watched("\"8s\"").await?;
    let front = processes(&world, "front")[0];
    let _deaf = deaf_lane(&world)?;
    // It is asked whether that is current already.
    let ended = update(&world, "2.0.0").await?;
    assert_eq!((ended.0.status, ended.0.ok, ended.1), (None, true, 0), "{:#?}", ended.0);
    assert!(is_alive(front), "whoever is served is not thrown out");
    Ok(())
}
