//! Maintenance as the operator meets it: on the service's own address, with commands that can be copied into a shell.

use crate::stage::{
    Answer, LIMIT, assert_told, change_a_file, eventually, executable, get, get_page, serving, signal, told,
    unserved, update, view, with_policy, world,
};
use anyhow::Context;
use cutover::demo::{Plan, World};
use cutover_core::{Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::process::Output;
use tokio::process::Command;

fn good() -> Knobs {
    Knobs::default()
}

/// What the service's own address says to a program, and that its page says the same to a person.
async fn told_at_the_address(world: &World) -> anyhow::Result<Vec<String>> {
    let object: Answer = get(world, "/anything").await?;
    assert_eq!(object.status, 503, "{object:?}");
    assert!(object.head.contains("retry-after: "), "{object:?}");
    let commands: Vec<String> = serde_json::from_value(object.json()["commands"].clone())?;
    let page = get_page(world, "/").await?;
    assert!(page.head.contains("content-type: text/html"), "{page:?}");
    assert!(page.body.contains("manual restart required"), "{page:?}");
    for command in &commands {
        assert!(page.body.contains(&format!("<code>{command}</code>")), "{command}: {}", page.body);
    }
    let report = view(world).await?.report;
    assert_eq!(commands, report.recovery, "the report says the same");
    Ok(commands)
}

/// Copies the command with this word out of what the address says, and gives it to a shell, letter by letter as it stands.
async fn typed(world: &World, way: &str) -> anyhow::Result<Output> {
    let commands = told_at_the_address(world).await?;
    let command = commands.iter().find(|command| command.ends_with(way));
    let command = command.with_context(|| format!("{way} in {commands:?}"))?;
    let bin = world.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin)?;
        std::os::unix::fs::symlink(executable(), bin.join("cutover"))?;
    }
    let shell = Command::new("/bin/sh").args(["-c", command]).env("PATH", &bin).kill_on_drop(true).output();
    Ok(tokio::time::timeout(LIMIT, shell).await.context("the shell does not end")??)
}

#[track_caller]
fn assert_ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", told(output));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_maintenance_page_does_what_it_says_when_it_is_typed() -> anyhow::Result<()> {
    let picky = Knobs { reject_config_key: Some("old".into()), ..good() };
    let broken = Knobs { crash_at_boot: Some(1), ..good() };
    let liar = Knobs { report_version: Some("9.9.9".into()), ..good() };
    let releases = [("1.0.0", good()), ("2.0.0", picky), ("3.0.0", broken), ("4.0.0", liar)];
    let service = with_policy(
        r#"env = { SAMPLE_CONFIG = "{world}/service.json" }"#,
        &[("rollback", "\"never\""), ("start_deadline", "\"3s\"")],
    );
    let mut world = unserved(Plan { service, ..Plan::new(executable()) }, &releases)?;
    std::fs::write(world.path().join("service.json"), "{}")?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;

    std::fs::write(world.path().join("service.json"), r#"{"old": 1}"#)?;
    assert_told(&update(&world, "2.0.0").await?, Status::RestartFailed, Resolution::Maintenance, 5);
    std::fs::write(world.path().join("service.json"), "{}")?;
    assert_ended(&typed(&world, "--retry").await?, 0);
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/version").await?.json()["version"], "2.0.0");

    assert_told(&update(&world, "3.0.0").await?, Status::RestartFailed, Resolution::Maintenance, 5);
    assert_ended(&typed(&world, "--rollback").await?, 4);
    serving(&world, "2.0.0").await?;

    assert_told(&update(&world, "4.0.0").await?, Status::RestartFailed, Resolution::Maintenance, 5);
    assert_ended(&typed(&world, "--accept").await?, 5);
    // The front is told of it after the run has ended.
    let told = async || get(&world, "/version").await.is_ok_and(|answer| answer.status == 200);
    eventually("an answer", told).await?;
    assert_eq!(get(&world, "/version").await?.json()["version"], "9.9.9");
    let accepted = view(&world).await?.report;
    assert_eq!((accepted.ok, accepted.resolution), (false, Resolution::AcceptedUnverified), "never green");

    // What was accepted is this generation, whichever process of it serves.
    let first = accepted.serving.instance.context("an instance")?;
    signal(first.pid, Signal::KILL)?;
    let again = world
        .until("the next process", |view| {
            view.report.serving.instance.as_ref().is_some_and(|now| *now != first)
        })
        .await?;
    assert!(again.report.serving.waived, "{:?}", again.report.serving);
    let told = async || get(&world, "/version").await.is_ok_and(|answer| answer.status == 200);
    eventually("an answer of the next process", told).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_is_told_also_while_a_run_out_of_it_waits_for_a_person() -> anyhow::Result<()> {
    let broken = Knobs { crash_at_boot: Some(1), ..good() };
    let releases = [("1.0.0", good()), ("2.0.0", broken), ("3.0.0", good())];
    let service = with_policy("", &[("rollback", "\"never\"")]);
    let mut world = unserved(Plan { service, ..Plan::new(executable()) }, &releases)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    assert_told(&update(&world, "2.0.0").await?, Status::RestartFailed, Resolution::Maintenance, 5);
    let waits = world.cutover(&["update", "--to", "3.0.0", "--hold", "--detach"]).await?;
    assert_ended(&waits, 6);
    let held = world.until("the wait", |view| view.report.awaits.is_some()).await?;
    assert_eq!(held.report.standing, "maintenance");
    let object: Answer = get(&world, "/anything").await?;
    assert_eq!(object.status, 503, "{object:?}");
    let told = object.json();
    assert!(told.to_string().contains("manual restart required"), "{told}");
    assert_eq!(told["commands"], serde_json::json!(held.report.awaits.unwrap().commands), "{told}");
    assert_eq!(told["commands"][1], world.typed("cancel web"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_whose_tree_is_changed_while_its_update_fails_is_had_anew() -> anyhow::Result<()> {
    let broken = Knobs { boot_delay_ms: 1500, crash_at_boot: Some(1), ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", good()), ("2.0.0", broken)]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    world.until("the new process", |view| view.report.phase == "cutting over: prove").await?;
    change_a_file(&world, 1)?;
    let failed = world.end_of(&run).await?;
    assert_eq!((failed.status, failed.resolution), (Some(Status::RestartFailed), Resolution::Maintenance));
    let anew = &world.typed("update web --to 1.0.0");
    world.until("the way out", |view| view.report.recovery.iter().any(|one| one == anew)).await?;
    assert_ended(&typed(&world, anew).await?, 0);
    let again = serving(&world, "1.0.0").await?;
    assert_eq!(again.report.serving.generation.map(|generation| generation.0), Some(3), "another tree");
    Ok(())
}
