//! A prepared run waits for a person's word or for its hours, and nothing is stopped meanwhile.

use crate::rehearsal::isolates;
use crate::stage::{
    assert_told, change_a_file, configure, eventually, get, load, reported, serving, signal, told, update,
    view, with_policy, world,
};
use anyhow::Context as _;
use cutover::conductor::View;
use cutover::demo::{SERVICE, World};
use cutover_core::{Act, Kind, PlanId, Report, Resolution, Status, StepRecord};
use jiff::{Timestamp, ToSpan};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

/// 1.0.0 serves; from here on the policy has further rules.
async fn under(rules: &str) -> anyhow::Result<World> {
    let releases = ["1.0.0", "2.0.0"].map(|version| (version, Knobs::default()));
    // Some of these carry load, and a soak under it ends with the deadline: it is no matter of theirs.
    let mut world = world(&with_policy("", &[("start_deadline", "\"15s\"")]), &releases).await?;
    serving(&world, "1.0.0").await?;
    world.kill_daemon()?;
    configure(&world, "policy = {", &format!("policy = {{ {rules},"))?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

fn asked(view: &View) -> Option<PlanId> {
    view.report.awaits.as_ref()?.plan.clone()
}

/// What is to be approved, once the run is that far.
async fn prepared(world: &World) -> anyhow::Result<PlanId> {
    let view = world.until("the question", |view| asked(view).is_some()).await?;
    asked(&view).context("it was there")
}

async fn approve(world: &World, plan: &PlanId) -> anyhow::Result<(Report, i32)> {
    reported(world, &["approve", SERVICE, "--plan", &plan.0]).await
}

fn step(report: &Report, act: Act) -> Option<&StepRecord> {
    report.steps.iter().rfind(|step| step.name == act)
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_an_update_waits_for_its_approval_under_load_and_no_request_fails() -> anyhow::Result<()> {
    let world = under("approve = \"always\"").await?;
    let before = view(&world).await?.process;
    let load = load(&world, 60)?;
    let (waiting, code) = update(&world, "2.0.0").await?;
    assert_eq!((waiting.status, waiting.ok, code), (None, false, 6), "{waiting:#?}");
    assert!(waiting.sentence.contains("waits for an approval; 1.0.0 is not touched"), "{}", waiting.sentence);
    let now = view(&world).await?;
    assert_eq!((&now.process, now.report.serving.posture.as_str()), (&before, "serve"));
    assert_eq!(get(&world, "/version").await?.json()["version"], "1.0.0");
    let plan = prepared(&world).await?;
    assert_eq!(waiting.awaits.context("it waits")?.plan.as_ref(), Some(&plan));
    let told = told(&world.cutover(&["status"]).await?);
    for part in
        ["waits for an approval", "given up 2", &world.typed(&format!("approve {SERVICE} --plan {plan}"))]
    {
        assert!(told.contains(part), "{part} is not in {told}");
    }

    let ended = approve(&world, &plan).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let looks = ended.0.steps.iter().filter(|step| step.name == Act::Preflight).count();
    assert_eq!(looks, 2, "what waited is looked at again: {:#?}", ended.0.steps);
    let load = load.stop().await?;
    assert_eq!(load.failed, 0, "{load:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_held_waits_and_what_was_not_looked_at_is_not_approved() -> anyhow::Result<()> {
    let world = under("keep = 2").await?;
    let held = reported(&world, &["update", SERVICE, "--to", "2.0.0", "--hold"]).await?;
    assert_eq!((held.0.status, held.1), (None, 6), "{held:#?}");
    let plan = prepared(&world).await?;
    let output = world.cutover(&["approve", SERVICE]).await?;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains(&world.typed(&format!("approve web --plan {plan}"))), "{}", told(&output));
    let output = world.cutover(&["approve", SERVICE, "--plan", "0123456789abcdef"]).await?;
    assert_eq!(output.status.code(), Some(8), "{}", told(&output));
    assert!(
        told(&output).contains(&format!("not what is prepared now, which is plan {plan}")),
        "{}",
        told(&output)
    );
    let again = world.cutover(&["hold", SERVICE]).await?;
    assert_eq!(again.status.code(), Some(8), "it is held already: {}", told(&again));
    serving(&world, "1.0.0").await?;

    let output = world.cutover(&["cancel", SERVICE]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let ended = view(&world).await?.report;
    assert_eq!((ended.status, ended.resolution), (Some(Status::UpdateFailed), Resolution::OldVerified));
    assert!(ended.awaits.is_none());
    assert!(
        ended.sentence.contains("was cancelled before the switch; 1.0.0 was not touched"),
        "{}",
        ended.sentence
    );
    let late = world.cutover(&["approve", SERVICE, "--plan", &plan.0]).await?;
    assert_eq!(late.status.code(), Some(8), "{}", told(&late));

    // The plan names the run as well: what was approved of one is not approved of the next.
    reported(&world, &["update", SERVICE, "--to", "2.0.0", "--hold"]).await?;
    let next = prepared(&world).await?;
    assert_ne!(next, plan);
    let ended = approve(&world, &next).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_a_daemon_that_is_killed_goes_on_awaiting_exactly_that() -> anyhow::Result<()> {
    let mut world = under("approve = \"always\"").await?;
    update(&world, "2.0.0").await?;
    let (plan, before) = (prepared(&world).await?, view(&world).await?);
    for _ in 0..2 {
        world.kill_daemon()?;
        assert_eq!(get(&world, "/version").await?.json()["version"], "1.0.0", "served without a daemon");
        let offline = told(&world.cutover(&["status"]).await?);
        assert!(offline.contains(&format!("--plan {plan}")), "{offline}");
        world.start_daemon().await?;
        assert_eq!(prepared(&world).await?, plan);
        let after = serving(&world, "1.0.0").await?;
        assert_eq!((&after.process, &after.report.run_id), (&before.process, &before.report.run_id));
        assert_eq!(after.waiting, before.waiting, "it is not waited for longer because of that");
    }
    let ended = approve(&world, &plan).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

/// Further lines of the service from the next daemon on.
async fn declare(world: &mut World, lines: &str) -> anyhow::Result<()> {
    world.kill_daemon()?;
    configure(world, "policy = {", &format!("{lines}\npolicy = {{"))?;
    world.start_daemon().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_of_the_settings_that_were_looked_at_and_others_are_asked_for_anew()
-> anyhow::Result<()> {
    let mut world = under("approve = \"always\"").await?;
    update(&world, "2.0.0").await?;
    let (plan, before) = (prepared(&world).await?, view(&world).await?.process);
    declare(&mut world, "env = { GREETING = \"another\" }").await?;
    let (waiting, code) = approve(&world, &plan).await?;
    assert_eq!((waiting.status, code), (None, 6), "{waiting:#?}");
    assert!(waiting.sentence.contains("what changed: environment."), "{}", waiting.sentence);
    let next = prepared(&world).await?;
    assert_ne!(next, plan);
    assert_eq!(view(&world).await?.process, before, "nothing is stopped for what nobody approved");
    let refused = told(&world.cutover(&["restart", SERVICE]).await?);
    let ways_out = "waits for an approval: `approve` it, or `cancel` ends it";
    assert!(refused.contains(ways_out), "{refused}");
    let plan = told(&world.cutover(&["plan", SERVICE]).await?);
    assert!(plan.contains(ways_out), "{plan}");
    assert_told(&approve(&world, &next).await?, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_as_state_while_a_run_waits_is_copied_before_the_new_version_starts()
-> anyhow::Result<()> {
    let mut world = under("approve = \"always\"").await?;
    update(&world, "2.0.0").await?;
    let plan = prepared(&world).await?;
    let state = format!("state = [{{ path = \"{}/data\", kind = \"files\" }}]", world.path().display());
    declare(&mut world, &state).await?;
    let (waiting, code) = approve(&world, &plan).await?;
    assert_eq!(code, 6, "{waiting:#?}");
    assert!(waiting.sentence.contains("what changed: state, data."), "{}", waiting.sentence);
    let ended = approve(&world, &prepared(&world).await?).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let copied = step(&ended.0, Act::Snapshot).and_then(|step| step.outcome.as_deref());
    assert!(copied.is_some_and(|told| told.contains("files,")), "{copied:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_back_past_the_cut_with_other_settings_starts_nothing_that_was_not_approved()
-> anyhow::Result<()> {
    let mut world = soaking_as_approved().await?;
    let process = view(&world).await?.process.context("it soaks")?;
    world.kill_daemon()?;
    signal(process.pid, Signal::KILL)?;
    configure(&world, "policy = {", "env = { GREETING = \"another\" }\npolicy = {")?;
    turns_round(&mut world, Act::Start, "environment").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_back_past_the_cut_with_a_weaker_proof_calls_nothing_verified_by_it()
-> anyhow::Result<()> {
    let mut world = soaking_as_approved().await?;
    world.kill_daemon()?;
    configure(&world, "ready = \"/readyz\"", "ready = \"/healthz\"")?;
    turns_round(&mut world, Act::Prove, "probe").await
}

/// 2.0.0 was approved and soaks.
async fn soaking_as_approved() -> anyhow::Result<World> {
    let mut world = under("approve = \"always\"").await?;
    world.kill_daemon()?;
    configure(&world, "soak = \"150ms\"", "soak = \"10m\"")?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    update(&world, "2.0.0").await?;
    let plan = prepared(&world).await?;
    world.client().call("update.approve", json!({ "service": SERVICE, "plan": plan })).await?;
    world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    Ok(world)
}

/// The daemon comes back, and its run ends with what served before it: this act did not go on with other settings.
async fn turns_round(world: &mut World, act: Act, differing: &str) -> anyhow::Result<()> {
    world.start_daemon().await?;
    let back = |view: &View| view.report.ended.is_some() && view.report.trigger == Some(Kind::Update);
    let ended = world.until("the way back", back).await?.report;
    assert_eq!((ended.status, ended.resolution), (Some(Status::RestartFailed), Resolution::OldVerified));
    let fault = &ended.causes[0].fault;
    assert_eq!((ended.causes[0].act, fault.code.as_str()), (act, "settings_changed"));
    assert!(fault.detail.contains(&format!("they differ in: {differing}")), "{}", fault.detail);
    serving(world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_and_changed_while_it_waited_is_not_switched_to() -> anyhow::Result<()> {
    let world = under("approve = \"always\"").await?;
    let before = view(&world).await?.process;
    update(&world, "2.0.0").await?;
    let plan = prepared(&world).await?;
    let entry = world.generation(2).join("core/bin/gateway");
    let directory = entry.parent().context("it lies in a directory")?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    std::fs::remove_file(&entry)?;
    std::fs::write(&entry, "a foreign hand")?;
    let ended = approve(&world, &plan).await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert!(step(&ended.0, Act::Stop).is_none(), "{:#?}", ended.0.steps);
    assert_eq!(view(&world).await?.process, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_changed_while_an_update_waits_and_the_approval_comes_too_late() -> anyhow::Result<()>
{
    let world = under("approve = \"always\"").await?;
    let (waiting, _) = update(&world, "2.0.0").await?;
    let plan = prepared(&world).await?;
    change_a_file(&world, 1)?;
    world
        .until("the tree sealed again", |view| {
            view.report.trigger == Some(Kind::TreeChanged)
                && view.report.status == Some(Status::RestartVerified)
        })
        .await?;
    let ended = world.client().call("update.runs.get", json!({ "runId": waiting.run_id })).await?;
    let ended: Report = serde_json::from_value(ended)?;
    assert_eq!((ended.status, ended.awaits), (Some(Status::UpdateFailed), None));
    let output = world.cutover(&["approve", SERVICE, "--plan", &plan.0]).await?;
    assert_eq!(output.status.code(), Some(8), "{}", told(&output));
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_does_not_come_ends_the_run_and_nothing_else() -> anyhow::Result<()> {
    let world = under("approve = \"always\", await_limit = \"1s\"").await?;
    let before = view(&world).await?.process;
    update(&world, "2.0.0").await?;
    let ended = world.until("the end of its patience", |view| view.report.ended.is_some()).await?.report;
    assert_eq!((ended.status, ended.resolution), (Some(Status::UpdateFailed), Resolution::OldVerified));
    assert_eq!((ended.causes[0].act, ended.causes[0].fault.code.as_str()), (Act::Await, "timeout"));
    assert_eq!(view(&world).await?.process, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_kept_waiting_by_no_policy() -> anyhow::Result<()> {
    let world = under("approve = \"always\"").await?;
    update(&world, "2.0.0").await?;
    approve(&world, &prepared(&world).await?).await?;
    let ended = reported(&world, &["rollback", SERVICE]).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "1.0.0").await?;
    Ok(())
}

/// A window of this machine's hours, as the configuration has it.
fn window(from: Timestamp, to: Timestamp) -> String {
    let clock = |at: Timestamp| at.strftime("%H:%M:%S").to_string();
    format!("windows = [{{ from = \"{}\", to = \"{}\", zone = \"UTC\" }}]", clock(from), clock(to))
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_outside_its_window_an_update_waits_and_says_until_when() -> anyhow::Result<()> {
    let now = Timestamp::now();
    let world = under(&window(now + 2.hours(), now + 3.hours())).await?;
    world.client().call("update.run", json!({ "service": SERVICE, "version": "2.0.0" })).await?;
    let waiting = world
        .until("a closed window", |view| view.waiting.as_ref().is_some_and(|w| w.opens_at.is_some()))
        .await?;
    let awaits = waiting.report.awaits.clone().context("it waits")?;
    assert_eq!((awaits.plan, awaits.windows.len()), (None, 1));
    let opens = waiting.waiting.and_then(|waiting| waiting.opens_at).context("it opens")?;
    assert_eq!(opens / 1000, u64::try_from((now + 2.hours()).as_second())?);
    let status = told(&world.cutover(&["status"]).await?);
    for part in ["waits for its window", "UTC", "the next begins", &world.typed("cancel web")] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    assert_eq!(get(&world, "/version").await?.json()["version"], "1.0.0");
    assert_eq!(world.cutover(&["cancel", SERVICE]).await?.status.code(), Some(0));
    let ended = view(&world).await?.report;
    assert!(step(&ended, Act::Stop).is_none(), "{:#?}", ended.steps);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_a_window_that_opens_lets_the_update_go_on_by_itself_and_nothing_stops_before_it()
-> anyhow::Result<()> {
    // So much time that the run is prepared before; where a busy machine needs more, once more with more.
    for seconds in [15, 60, 240] {
        let opens = Timestamp::now() + seconds.seconds();
        let world = under(&window(opens, opens + 2.hours())).await?;
        let ended = update(&world, "2.0.0").await?;
        assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
        let stop = step(&ended.0, Act::Stop).context("it stopped what served")?;
        assert!(stop.started / 1000 >= u64::try_from(opens.as_second())?, "{:#?}", ended.0.steps);
        if ended.0.steps.iter().filter(|step| step.name == Act::Preflight).count() == 2 {
            return Ok(());
        }
    }
    anyhow::bail!("it never came to wait")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_shorter_than_the_look_is_told_with_what_to_do() -> anyhow::Result<()> {
    if !isolates("a window that is too short") {
        return Ok(());
    }
    // So much time that the run is prepared before; where a busy machine needs more, once more with more.
    for seconds in [20, 60, 240] {
        let opens = Timestamp::now() + seconds.seconds();
        let mut world = under(&window(opens, opens + 1.seconds())).await?;
        let slow = "preflight = { validate = [\"/bin/sh\", \"-c\", \"sleep 2\"] }";
        declare(&mut world, &format!("notify = [{{ exec = [\"/bin/true\"] }}]\n{slow}")).await?;
        serving(&world, "1.0.0").await?;
        world.client().call("update.run", json!({ "service": SERVICE, "version": "2.0.0" })).await?;
        let waits = |view: &View| view.report.awaits.is_some() || Timestamp::now() > opens + 60.seconds();
        world.until("the wait", waits).await?;
        if Timestamp::now() >= opens {
            continue;
        }
        let missed = world
            .until("the missed window", |view| view.report.sentence.contains("A window has closed"))
            .await?;
        let looks = missed.report.steps.iter().filter(|step| step.name == Act::Preflight).count();
        assert_eq!((looks, missed.report.ended), (2, None), "{:#?}", missed.report.steps);
        let notices = missed.report.notices.iter();
        assert_eq!(notices.filter(|notice| notice.about.word() == "run.missed").count(), 1);
        assert!(missed.waiting.and_then(|waiting| waiting.opens_at).is_some(), "the next one is named");
        let status = told(&world.cutover(&["status"]).await?);
        assert!(status.contains("widen `windows`, `cancel` this run and order it again"), "{status}");
        let refused = told(&world.cutover(&["restart", SERVICE]).await?);
        assert!(refused.contains("has stopped nothing yet: `cancel` ends it"), "{refused}");
        assert_eq!(get(&world, "/version").await?.json()["version"], "1.0.0");
        return Ok(());
    }
    anyhow::bail!("it never came to wait")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_and_a_hold_on_the_wire_name_what_they_are_about() -> anyhow::Result<()> {
    let world = under("keep = 2").await?;
    let call = async |method: &str, params: Value| world.client().call(method, params).await;
    let refused = call("update.hold", json!({ "service": SERVICE })).await.unwrap_err().to_string();
    assert!(refused.contains("no run is under way"), "{refused}");
    let begun = call("update.run", json!({ "service": SERVICE, "version": "2.0.0", "hold": true })).await?;
    let plan = prepared(&world).await?;
    let moved = json!({ "service": SERVICE, "plan": plan, "expected": { "version": "0.9.0" } });
    let refused = call("update.approve", moved).await.unwrap_err().to_string();
    assert!(refused.contains("the service moved on"), "{refused}");
    let offered = view(&world).await?.orders;
    assert_eq!((&offered["approve"], offered["hold"].as_deref()), (&None, Some("already so")));
    let approved = call("update.approve", json!({ "service": SERVICE, "plan": plan })).await?;
    assert_eq!((&approved["runId"], &approved["ok"]), (&begun["runId"], &json!(false)), "{approved}");
    eventually("2.0.0", async || view(&world).await.is_ok_and(|view| view.report.ok)).await?;
    Ok(())
}
