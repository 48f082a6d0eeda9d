//! Orders about the process alone: they tell nothing of the run before, and are done when what they ask for has come about.

use crate::stage::{
    LIMIT, assert_told, executable, get, get_from_afar, is_alive, reported, serving, signal, starts_of, told,
    update, view, with_policy, world,
};
use anyhow::Context as _;
use cutover::conductor::View;
use cutover::demo::SERVICE;
use cutover_core::{Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::process::{Output, Stdio};

fn good() -> Knobs {
    Knobs::default()
}

fn seen(output: &Output) -> View {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_is_done_when_nothing_lives_and_start_when_a_process_serves_that_was_proven()
-> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 400, ..good() };
    let world = world(&with_policy("", &[]), &[("1.0.0", slow)]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    let output = world.cutover(&["stop", "--json"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(seen(&output).process.is_none());
    assert!(!is_alive(before.pid), "it was told to be stopped and lives");

    let output = world.cutover(&["start", "--json"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let started = seen(&output).report.serving;
    assert_eq!(started.posture, "serve");
    assert_ne!(started.instance, Some(before));
    assert_eq!(get(&world, "/").await?.status, 200);

    let output = world.cutover(&["restart", "--json"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let restarted = seen(&output).report.serving;
    assert!(restarted.instance.is_some() && restarted.instance != started.instance, "{restarted:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_begins_no_run_carries_no_verdict_of_the_run_before() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    assert_eq!(serving(&world, "1.0.0").await?.report.status, Some(Status::RestartVerified));
    for method in ["service.restart", "service.stop", "service.start"] {
        let answer = world.client().call(method, json!({ "service": "web" })).await?;
        assert_eq!((&answer["accepted"], &answer["runId"]), (&json!(true), &Value::Null), "{answer}");
        for verdict in ["ok", "status", "report"] {
            assert_eq!(answer[verdict], Value::Null, "{method}: {answer}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_asked_to_end_is_not_taken_for_the_one_that_a_person_starts_meanwhile()
-> anyhow::Result<()> {
    let liar = Knobs { report_version: Some("9.9.9".into()), slow_stop_ms: 1500, ..good() };
    let rules = with_policy("", &[("rollback", "\"never\""), ("stop_grace", "\"5s\"")]);
    let world = world(&rules, &[("1.0.0", good()), ("2.0.0", liar)]).await?;
    assert_told(&update(&world, "2.0.0").await?, Status::RestartFailed, Resolution::Maintenance, 5);
    // It is being ended, and somebody decides before it is gone.
    let ending = view(&world).await?.process;
    assert!(ending.is_some(), "it lives still");
    let accepted = reported(&world, &["recover", SERVICE, "--accept"]).await?;
    assert_told(&accepted, Status::RestartFailed, Resolution::AcceptedUnverified, 5);
    assert_ne!(accepted.0.serving.instance, ending);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_a_stop_is_under_way_serves_another_process_and_counts_no_crash() -> anyhow::Result<()>
{
    let slow = Knobs { slow_stop_ms: 4000, ..good() };
    // The code with which it ends when it is told to.
    let rules = with_policy("", &[("stop_grace", "\"20s\""), ("restart_prevent_exit_status", "[0]")]);
    let world = world(&rules, &[("1.0.0", slow)]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    world.cutover(&["stop", "--detach"]).await?;
    let is_mark = |file: walkdir::DirEntry| file.file_name() == "asked-to-end";
    let asked = async {
        while !walkdir::WalkDir::new(world.path()).into_iter().flatten().any(is_mark) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, asked).await.context("it is not asked to end")?;
    assert!(is_alive(before.pid), "it has ended already");
    let output = world.cutover(&["start"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let after = serving(&world, "1.0.0").await?;
    assert_ne!(after.process, Some(before), "the one that was ending is served");
    assert_eq!(starts_of(&world, "1.0.0"), 2);
    assert!(after.alarm.is_none(), "{:?}", after.alarm);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_does_not_come_up_is_no_success_and_neither_is_one_that_is_not_waited_for()
-> anyhow::Result<()> {
    let rules = [("watch", "\"10ms\""), ("restart_prevent_exit_status", "[78]")];
    let mut world = world(&with_policy("", &rules), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    world.until("the end of the watch", |view| view.report.phase == "finished").await?;
    assert_eq!(world.cutover(&["stop"]).await?.status.code(), Some(0));
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    let crashes = format!("{config}env = {{ SAMPLE_KNOBS = '{{\"crash_at_boot\": 78}}' }}\n");
    std::fs::write(world.config(), crashes)?;
    world.start_daemon().await?;
    let output = world.cutover(&["start"]).await?;
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(told(&output).contains("not serving"), "{}", told(&output));

    world.kill_daemon()?;
    std::fs::write(world.config(), config)?;
    world.start_daemon().await?;
    let output = world.cutover(&["start", "--detach"]).await?;
    assert_eq!(output.status.code(), Some(6), "{}", told(&output));
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_raises_an_alarm_and_is_not_already_current() -> anyhow::Result<()> {
    let service = with_policy("", &[("start_deadline", "\"2s\""), ("stop_grace", "\"200ms\"")]);
    let world = world(&service, &[("1.0.0", good())]).await?;
    let hanging = serving(&world, "1.0.0").await?.process.unwrap();
    let (report, code) = update(&world, "1.0.0").await?;
    assert_eq!((report.status, report.ok, code), (None, true, 0), "in order it is current: {report:#?}");
    signal(hanging.pid, Signal::STOP)?;
    let alarmed = world.until("the alarm", |view| view.trouble.is_some()).await?;
    assert!(alarmed.trouble.as_ref().unwrap().contains("not ready"), "{:?}", alarmed.trouble);
    let ended = update(&world, "1.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert_ne!(ended.0.serving.instance, Some(hanging));
    assert_eq!(view(&world).await?.trouble, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_read_what_failed_and_nothing_of_logs_and_paths() -> anyhow::Result<()> {
    let broken = Knobs { crash_at_boot: Some(1), crash_names_module: true, ..good() };
    let service = with_policy("", &[("rollback", "\"never\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", broken)]).await?;
    let (report, code) = update(&world, "2.0.0").await?;
    assert_eq!((report.resolution, code), (Resolution::Maintenance, 5));
    let cause = &report.causes[0].fault;
    let place = world.path().display().to_string();
    assert!(cause.detail.contains(&place), "the whole story quotes the log: {cause:?}");
    for answer in [get_from_afar(&world, "/").await?, get(&world, "/").await?] {
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains(&cause.code), "{answer:?}");
        // Who sits at this machine is told what to type, wherever its daemon has its configuration.
        let said = answer.body.replace(&world.typed(""), "");
        assert!(!said.contains(&place) && !said.contains("Cannot find"), "{answer:?}");
    }
    let afar = get_from_afar(&world, "/").await?;
    assert!(!afar.body.contains("recover web") && !afar.body.contains(&place), "{afar:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_a_run_is_told_when_the_daemon_does_not_have_the_service_any_more()
-> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 60_000, ..good() };
    let service = with_policy("", &[("start_deadline", "\"90s\"")]);
    let mut world = world(&service, &[("1.0.0", good()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let mut follower = tokio::process::Command::new(executable());
    follower.arg("--config").arg(world.config()).args(["update", "web", "--to", "2.0.0"]).kill_on_drop(true);
    let follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    std::fs::write(world.config(), config.replace("[service.web", "[service.other"))?;
    world.start_daemon().await?;
    let ended =
        tokio::time::timeout(LIMIT, follower.wait_with_output()).await.context("it follows for ever")??;
    assert_eq!(ended.status.code(), Some(6), "the run is not over: {}", told(&ended));
    assert!(told(&ended).contains("no service `web`"), "{}", told(&ended));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_its_services_finds_a_stopped_one_stopped() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(world.cutover(&["stop"]).await?.status.code(), Some(0));
    signal(world.daemon_mut().unwrap().id(), Signal::TERM)?;
    let begun = std::time::Instant::now();
    let ended = loop {
        if let Some(status) = world.daemon_mut().unwrap().try_wait()? {
            break status;
        }
        assert!(begun.elapsed() < LIMIT, "{}", world.tail_of_daemon_log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(ended.code(), Some(0), "{}", world.tail_of_daemon_log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_file_keeps_no_command_from_being_taken_and_a_wrong_name_is_told()
-> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let file = std::fs::read_to_string(world.config())?;
    std::fs::write(world.config(), file + "\n[service.other]\nsorce = 1\n")?;
    for (words, code) in [
        (&["config", "check"][..], 2),
        (&["status"], 0),
        (&["restart"], 0),
        (&["history", "wob"], 2),
        (&["logs", "wob"], 2),
        (&["logs"], 0),
    ] {
        let output = world.cutover(words).await?;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", told(&output));
        if code == 2 && words.contains(&"wob") {
            assert!(told(&output).contains("name one of the services: web"), "{}", told(&output));
        }
    }
    Ok(())
}
