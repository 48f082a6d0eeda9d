//! Who may restart, and what counts as true.

use crate::stage::{
    assert_told, eventually, get, is_alive, processes, reported, seized, service_log, serving, signal,
    starts_of, told, update, view, with_policy, world,
};
use cutover::demo::SERVICE;
use cutover_core::{FactName, Reading, Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

fn good() -> Knobs {
    Knobs::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_an_ignored_restart_is_told_as_failed_and_the_old_process_goes_on() -> anyhow::Result<()> {
    let deaf = Knobs { ignore_usr1: true, ..good() };
    let service = with_policy("strategy = \"signal\"", &[("stop_grace", "\"500ms\"")]);
    let world = world(&service, &[("1.0.0", deaf), ("2.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(ended.0.causes[0].fault.code, "restart_ignored");
    assert_eq!(serving(&world, "1.0.0").await?.process, before, "the very process that ignored it");
    assert_eq!(starts_of(&world, "2.0.0"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_r03_an_honoured_intent_is_verified_and_a_stray_signal_before_it_is_nothing() -> anyhow::Result<()>
{
    let world =
        world(&with_policy("strategy = \"signal\"", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    signal(before.pid, Signal::USR1)?;
    eventually("the refusal", async || service_log(&world).contains("restart ignored (not authorized)"))
        .await?;
    assert!(is_alive(before.pid));
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let log = service_log(&world);
    let run = ended.0.run_id.unwrap();
    assert!(log.contains(&format!("SIGUSR1 restart authorized by the intent of run {run}")), "{log}");
    assert!(!log.contains("SIGTERM"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_the_old_version_on_every_channel_is_not_verified() -> anyhow::Result<()> {
    let liar = Knobs { report_version: Some("1.0.0".into()), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", liar)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(ended.0.causes[0].fault.code, "wrong_version");
    serving(&world, "1.0.0").await?;
    let answer = get(&world, "/chunk/1").await?;
    assert!(answer.body.contains("build-1.0.0"), "{}", answer.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_verified_is_about_a_new_process_and_every_fact_has_a_time_and_a_source() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let after = serving(&world, "2.0.0").await?;
    assert_ne!(after.process, Some(before.clone()));
    assert!(!is_alive(before.pid));
    for name in [FactName::Identity, FactName::Code, FactName::Port, FactName::Version, FactName::OldGone] {
        let fact = ended.0.facts.iter().find(|fact| fact.name == name).unwrap();
        assert_eq!(fact.reading, Reading::Holds, "{fact:?}");
        assert!(fact.at.is_some() && !fact.source.is_empty(), "{fact:?}");
    }
    let told: serde_json::Value = get(&world, "/version").await?.json();
    assert_eq!(told["pid"].as_u64(), after.process.map(|process| u64::from(process.pid)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_r09_twenty_orders_at_once_are_one_run_and_one_restart() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    let params = json!({ "service": SERVICE, "version": "2.0.0" });
    let calls = (0..14).map(|_| {
        let (client, params) = (world.client(), params.clone());
        async move { client.call("update.run", params).await.map(|answer| answer["runId"].clone()) }
    });
    let typed = (0..6).map(|_| world.cutover(&["update", "--to", "2.0.0", "--detach", "--json"]));
    let (answers, outputs) =
        tokio::join!(futures_util::future::join_all(calls), futures_util::future::join_all(typed));
    let accepted: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let outputs: Vec<_> = outputs.into_iter().collect::<Result<_, _>>()?;
    let detached = outputs.iter().filter(|output| output.status.code() == Some(6)).count();
    assert_eq!(accepted.len() + detached, 1, "one order begins a run");
    let run = view(&world).await?.report.run_id.unwrap();
    let refusals = answers.iter().filter_map(|answer| answer.as_ref().err()).map(ToString::to_string);
    let refused = outputs.iter().filter(|output| output.status.code() == Some(8)).map(told);
    for refusal in refusals.chain(refused) {
        assert!(refusal.contains(&run.0) && refusal.contains("already under way"), "{refusal}");
    }
    assert!(world.end_of(&run).await?.ok);
    let history: serde_json::Value =
        serde_json::from_slice(&world.cutover(&["history", "--json"]).await?.stdout)?;
    assert_eq!(history.as_array().map(Vec::len), Some(2), "the installation and one update");
    assert_eq!(starts_of(&world, "2.0.0"), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_r11_the_running_release_is_already_current_and_another_build_of_it_is_an_update()
-> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    let (report, code) = update(&world, "1.0.0").await?;
    assert_eq!((report.status, report.ok, code), (None, true, 0), "{report:#?}");
    assert_eq!(serving(&world, "1.0.0").await?.process, before, "nothing was restarted");
    assert!(!world.generation(2).exists(), "nothing was fetched");

    std::fs::remove_dir_all(world.releases().join("1.0.0"))?;
    let build = sample_gateway::release::Release {
        build: "another".into(),
        ..sample_gateway::release::Release::new("1.0.0")
    };
    let place = world.releases().join("1.0.0");
    sample_gateway::release::write(&place, &crate::stage::executable(), &build)?;
    let ended = update(&world, "1.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert!(get(&world, "/version").await?.body.contains("another"));
    assert_ne!(serving(&world, "1.0.0").await?.process, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_current_release_that_does_not_run_is_not_already_current() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[("watch", "\"100ms\"")]), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    // From now on it crashes at each start: what is installed is current, and nothing proves that it works.
    let config = std::fs::read_to_string(world.config())?;
    let broken = format!("{config}env = {{ SAMPLE_KNOBS = '{{\"crash_at_boot\": 3}}' }}\n");
    let mut world = world;
    world.kill_daemon()?;
    std::fs::write(world.config(), broken)?;
    let pid = processes(&world, "sample-gateway")[0];
    signal(pid, Signal::KILL)?;
    world.start_daemon().await?;
    world
        .until("the crash loop", |view| {
            view.trouble.as_ref().is_some_and(|why| why.contains("crash-looping"))
        })
        .await?;
    let (report, code) = update(&world, "1.0.0").await?;
    assert!(!report.ok && code != 0, "{report:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_current_release_whose_tree_is_changed_is_not_already_current_where_it_is_kept_stopped()
-> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(world.cutover(&["stop"]).await?.status.code(), Some(0));
    update(&world, "1.0.0").await?;
    assert!(!world.generation(2).exists(), "nothing was fetched");
    let entry = world.generation(1).join("core/bin/gateway");
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o755))?;
    std::fs::write(&entry, "changed")?;
    let (report, _) = update(&world, "1.0.0").await?;
    assert_eq!(report.target.unwrap().generation.to_string(), "0002", "it is had anew");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r46_r80_every_channel_tells_the_same_word_and_the_commands_in_it_are_accepted() -> anyhow::Result<()>
{
    let broken = Knobs { crash_at_boot: Some(9), ..good() };
    let world =
        world(&with_policy("", &[("rollback", "\"never\"")]), &[("1.0.0", good()), ("2.0.0", broken)])
            .await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::Maintenance, 5);
    let view = view(&world).await?;
    assert_eq!(view.report.status, ended.0.status);
    let shown: cutover_core::Report = serde_json::from_slice(
        &world.cutover(&["show", &ended.0.run_id.clone().unwrap().0, "--json"]).await?.stdout,
    )?;
    assert_eq!((shown.status, shown.resolution), (ended.0.status, ended.0.resolution));
    let page = get(&world, "/").await?;
    assert_eq!(page.status, 503);
    assert!(page.head.contains("retry-after"), "{}", page.head);
    assert!(page.body.contains("manual restart required"), "{}", page.body);
    assert!(ended.0.causes[0].fault.detail.contains("Code(9)"), "{:?}", ended.0.causes);
    let typed = world.typed("recover web --rollback");
    assert!(ended.0.recovery.contains(&typed) && page.body.contains(&typed), "{}", page.body);
    let recovered = reported(&world, &["recover", "web", "--rollback"]).await?;
    assert_eq!(recovered.0.resolution, Resolution::OldVerified, "{:#?}", recovered.0);
    serving(&world, "1.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_r31_a_stranger_on_the_port_is_never_verified_and_goes_unharmed() -> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 700, ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", slow)]).await?;
    let port = serving(&world, "1.0.0").await?.address.unwrap();
    let run = world.update("2.0.0").await?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    // The new process has not bound its port yet: somebody else does, and accepts whoever comes.
    let stranger = seized(port).await?;
    world.until("the way back", |view| view.report.phase.starts_with("rolling back")).await?;
    assert_eq!(stranger.local_addr()?, port);
    drop(stranger);
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartFailed), Resolution::OldVerified),
        "{report:#?}"
    );
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r37_a_command_that_waits_less_than_the_run_tells_scheduled_and_the_run_goes_on() -> anyhow::Result<()>
{
    let slow = Knobs { boot_delay_ms: 1500, ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", slow)]).await?;
    let output = world.cutover(&["update", "--to", "2.0.0", "--timeout", "1"]).await?;
    assert_eq!(output.status.code(), Some(6), "{}", told(&output));
    let run = view(&world).await?.report.run_id.unwrap();
    assert!(world.end_of(&run).await?.ok);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_maintenance_another_update_is_proven_and_one_that_fails_leaves_it_as_it_was()
-> anyhow::Result<()> {
    let broken = Knobs { crash_at_boot: Some(4), ..good() };
    let releases = [("1.0.0", good()), ("2.0.0", broken.clone()), ("3.0.0", broken), ("4.0.0", good())];
    let world = world(&with_policy("", &[("rollback", "\"never\"")]), &releases).await?;
    let first = update(&world, "2.0.0").await?;
    assert_told(&first, Status::RestartFailed, Resolution::Maintenance, 5);
    let absent = update(&world, "9.9.9").await?;
    assert_told(&absent, Status::UpdateFailed, Resolution::Maintenance, 3);
    let second = update(&world, "3.0.0").await?;
    assert_eq!(second.0.resolution, Resolution::Maintenance, "{:#?}", second.0);
    assert_eq!(get(&world, "/").await?.status, 503);
    let third = update(&world, "4.0.0").await?;
    assert_told(&third, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "4.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    Ok(())
}
