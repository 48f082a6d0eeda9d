//! A configuration that the target refuses and can mend by itself: on a copy, in a rehearsal, then for good. Where the
//! kernel isolates nothing, these stories say so.

use crate::rehearsal::isolates;
use crate::stage::{
    assert_told, configure, executable, reported, serving, signal, told, unserved, update, view, with_policy,
};
use cutover::demo::{Plan, SERVICE, World};
use cutover_core::{Act, Report, Resolution, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::path::PathBuf;

/// 2.0.0 refuses a configuration with `old`, by exit code 78 when it starts and by its own check; its repair makes another of it,
/// and changes more than that.
const MENDS: &str = r#"env = { SAMPLE_STATE = "{world}/data", SAMPLE_CONFIG = "{world}/data/config.json" }
state = [{ path = "{world}/data", kind = "files" }]
preflight = { validate = ["{root}/bin/gateway", "sample-gateway", "check"], repair = { run = ["/bin/sh", "-c", '''
grep -q '"2.0.0"' "$0/release.json" || exit 9
echo trace > {world}/data/trace
cat > {world}/data/config.json <<'END'
{"new":{"token":"a-secret-that-nobody-tells"},"kept":1}
END
''', "{root}"], files = ["{world}/data/config.json"] } }"#;

const OLD: &str = r#"{"old":true,"kept":1}"#;

fn refuses() -> Knobs {
    Knobs { reject_config_key: Some("old".into()), ..Knobs::default() }
}

fn config(world: &World) -> PathBuf {
    world.path().join("data/config.json")
}

/// 1.0.0 serves with the old configuration, as the service of `rules`.
async fn with_old_configuration(rules: &[(&str, &str)]) -> anyhow::Result<World> {
    let plan = with_policy(MENDS, rules);
    let world = unconfigured(&plan).await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

async fn unconfigured(service: &str) -> anyhow::Result<World> {
    let plan = Plan { service: service.to_owned(), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", refuses())])?;
    std::fs::write(config(&world), OLD)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

fn all_findings(report: &Report) -> String {
    report.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_is_offered_with_the_keys_that_it_would_change_and_nothing_is_changed() -> anyhow::Result<()>
{
    if !isolates("a repair that is offered") {
        return Ok(());
    }
    let world = with_old_configuration(&[("rehearse", "\"always\"")]).await?;
    let before = view(&world).await?.process;
    let plan = told(&world.cutover(&["plan", SERVICE, "--to", "2.0.0"]).await?);
    let offer = "2.0.0's own repair would make it acceptable, as a copy has shown: \
                 config.json: removes old, adds new.token";
    assert!(plan.contains(offer), "{plan}");
    assert!(plan.contains("policy.repair = \"apply\""), "{plan}");
    assert!(!plan.contains("a-secret-that-nobody-tells"), "{plan}");
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert!(ended.0.causes[0].fault.detail.contains("old"), "{:?}", ended.0.causes);
    assert!(
        all_findings(&ended.0).contains(offer),
        "the report keeps nothing of it: {:#?}",
        ended.0.findings
    );
    assert_eq!(view(&world).await?.process, before, "nothing was stopped for it");
    assert_eq!(std::fs::read_to_string(config(&world))?, OLD);
    assert!(!world.path().join("data/trace").exists(), "the repair wrote to live state");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_was_rehearsed_is_laid_down_after_the_stop_and_a_rollback_takes_it_back()
-> anyhow::Result<()> {
    if !isolates("a repair that is applied") {
        return Ok(());
    }
    let world = with_old_configuration(&[("rehearse", "\"always\""), ("repair", "\"apply\"")]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let findings = all_findings(&ended.0);
    assert!(findings.contains("is rehearsed, and laid down after the stop"), "{findings}");
    serving(&world, "2.0.0").await?;
    let mended = std::fs::read_to_string(config(&world))?;
    assert!(mended.contains("\"new\"") && !mended.contains("\"old\""), "{mended}");
    assert!(!world.path().join("data/trace").exists(), "more was laid down than the files that count");
    // What a person has of it is the whole way back.
    let back = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(std::fs::read_to_string(config(&world))?, OLD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_mended_configuration_that_fails_after_the_switch_leaves_the_old_one()
-> anyhow::Result<()> {
    if !isolates("a repair that is taken back") {
        return Ok(());
    }
    let rules = [
        ("rehearse", "\"always\""),
        ("repair", "\"apply\""),
        ("soak", "\"3s\""),
        ("restore_after_release", "true"),
    ];
    let world = with_old_configuration(&rules).await?;
    let run = world.update("2.0.0").await?;
    let soaking = world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    assert_ne!(std::fs::read_to_string(config(&world))?, OLD);
    signal(soaking.process.unwrap().pid, Signal::KILL)?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartFailed), Resolution::OldVerified),
        "{:?}",
        report.causes
    );
    assert_eq!(std::fs::read_to_string(config(&world))?, OLD);
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_a_person_edits_after_the_look_ends_the_run_before_anything_is_stopped()
-> anyhow::Result<()> {
    if !isolates("a repair of what was edited since") {
        return Ok(());
    }
    let rules = [("rehearse", "\"always\""), ("repair", "\"apply\""), ("idle_wait", "\"3s\"")];
    let plan = Plan { service: with_policy(MENDS, &rules), ..Plan::new(executable()) };
    let busy = Knobs { busy_ms: Some(600_000), ..Knobs::default() };
    let mut world = unserved(plan, &[("1.0.0", busy), ("2.0.0", refuses())])?;
    configure(&world, "probe = { ", "probe = { idle = { http = \"/idle\", pointer = \"/idle\" }, ")?;
    std::fs::write(config(&world), OLD)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let before = serving(&world, "1.0.0").await?.process;
    let run = world.update("2.0.0").await?;
    let draining = |view: &cutover::conductor::View| {
        view.progress.as_ref().is_some_and(|progress| progress.doing.contains("waiting for work under way"))
    };
    world.until("the wait for work under way", draining).await?;
    let edited = OLD.replace("1}", "2}");
    std::fs::write(config(&world), &edited)?;
    let ended = world.end_of(&run).await?;
    assert_eq!((ended.status, ended.resolution), (Some(Status::UpdateFailed), Resolution::OldVerified));
    let cause = &ended.causes[0];
    assert_eq!((cause.act, cause.fault.code.as_str()), (Act::Drain, "repair"), "{cause:?}");
    assert!(cause.fault.detail.contains("order the update again, and it is mended anew"), "{cause:?}");
    assert_eq!(view(&world).await?.process, before, "nothing was stopped for it");
    assert_eq!(std::fs::read_to_string(config(&world))?, edited);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_repairs_by_the_rule_that_it_was_ordered_under() -> anyhow::Result<()> {
    if !isolates("a repair whose rule is changed meanwhile") {
        return Ok(());
    }
    let mut world = with_old_configuration(&[("rehearse", "\"always\""), ("repair", "\"apply\"")]).await?;
    reported(&world, &["update", SERVICE, "--to", "2.0.0", "--hold"]).await?;
    let waits = |view: &cutover::conductor::View| view.report.awaits_a_person();
    let waiting = world.until("the question", waits).await?;
    let plan = waiting.report.awaits.and_then(|awaits| awaits.plan).unwrap();
    world.kill_daemon()?;
    configure(&world, "repair = \"apply\"", "repair = \"never\"")?;
    world.start_daemon().await?;
    let ended = reported(&world, &["approve", SERVICE, "--plan", &plan.0]).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert!(std::fs::read_to_string(config(&world))?.contains("\"new\""));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_repaired_version_that_has_run_lays_nothing_over_what_it_wrote() -> anyhow::Result<()> {
    if !isolates("a retry of what was repaired") {
        return Ok(());
    }
    let rules = [("rehearse", "\"always\""), ("repair", "\"apply\""), ("soak", "\"5m\"")];
    let service = MENDS.replacen("env = ", "inputs = \"own\"\nenv = ", 1);
    let mut world = unconfigured(&with_policy(&service, &rules)).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    let soaking = world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    let newer = r#"{"new":{"token":"another"},"written":"by 2.0.0"}"#;
    std::fs::write(config(&world), newer)?;
    signal(soaking.process.unwrap().pid, Signal::KILL)?;
    let ended = world.end_of(&run).await?;
    assert_eq!(ended.resolution, Resolution::Maintenance, "{:?}", ended.causes);
    assert_eq!(std::fs::read_to_string(config(&world))?, newer);
    world.kill_daemon()?;
    configure(&world, "soak = \"5m\"", "soak = \"150ms\"")?;
    world.start_daemon().await?;
    let retried = reported(&world, &["recover", SERVICE, "--retry"]).await?;
    assert_told(&retried, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(std::fs::read_to_string(config(&world))?, newer, "what it wrote was laid over");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rehearsal_nothing_is_mended() -> anyhow::Result<()> {
    if !isolates("a repair that is not rehearsed") {
        return Ok(());
    }
    let world = with_old_configuration(&[("repair", "\"apply\"")]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let plan = told(&world.cutover(&["plan", SERVICE, "--to", "2.0.0"]).await?);
    assert!(plan.contains("is applied after a rehearsal only: `policy.rehearse` is \"never\""), "{plan}");
    assert_eq!(std::fs::read_to_string(config(&world))?, OLD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_does_not_help_is_told_with_its_reason() -> anyhow::Result<()> {
    if !isolates("a repair that does not help") {
        return Ok(());
    }
    let helpless =
        MENDS.replace("{\"new\":{\"token\":\"a-secret-that-nobody-tells\"},\"kept\":1}", "{\"old\":2}");
    assert_ne!(helpless, MENDS);
    let world =
        unconfigured(&with_policy(&helpless, &[("repair", "\"apply\""), ("rehearse", "\"always\"")])).await?;
    let plan = told(&world.cutover(&["plan", SERVICE, "--to", "2.0.0"]).await?);
    assert!(plan.contains("does not help: what it makes of it is refused as well (exit code 78)"), "{plan}");
    Ok(())
}

/// The validator accepts whatever is there, and the target says that it leaves the data as they are.
fn unsuspecting() -> String {
    let ask = r#"data = [{ neutral = ["exact"], ask = ["/bin/sh", "-c", "echo '{\"status\":\"exact\"}'"] }], validate = ["/bin/true"]"#;
    MENDS.replace(r#"validate = ["{root}/bin/gateway", "sample-gateway", "check"]"#, ask)
}

const REHEARSED: [(&str, &str); 2] = [("rehearse", "\"always\""), ("restart_prevent_exit_status", "[78]")];

/// 1.0.0 serves, and what 2.0.0 starts with ends it in its rehearsal.
async fn ending_in_rehearsal(service: &str, rules: &[(&str, &str)]) -> anyhow::Result<World> {
    let rules = [&REHEARSED[..], rules].concat();
    let world = unconfigured(&with_policy(service, &rules)).await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

fn count(report: &Report, act: Act) -> usize {
    report.steps.iter().filter(|step| step.name == act).count()
}

/// The same process, with the configuration that it had.
async fn is_untouched(world: &World, before: &cutover::conductor::View) -> anyhow::Result<()> {
    assert_eq!(view(world).await?.process, before.process, "nothing was stopped for it");
    assert_eq!(std::fs::read_to_string(config(world))?, OLD);
    assert!(!world.path().join("data/trace").exists(), "the repair wrote to live state");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_rehearsal_and_was_accepted_is_mended_once_rehearsed_again_and_laid_down()
-> anyhow::Result<()> {
    if !isolates("a repair after the end of a rehearsal") {
        return Ok(());
    }
    let world = ending_in_rehearsal(&unsuspecting(), &[("repair", "\"apply\"")]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let findings = all_findings(&ended.0);
    for part in [
        "warn (configuration): with the configuration as it is, 2.0.0 does not work in isolation",
        "Code(78)",
        "2.0.0's own repair of it is rehearsed, and laid down after the stop (`policy.repair`): \
         config.json: removes old, adds new.token",
    ] {
        assert!(findings.contains(part), "{part}: {findings}");
    }
    assert!(!findings.contains("a-secret-that-nobody-tells"), "{findings}");
    assert_eq!([Act::Preflight, Act::Rehearse].map(|act| count(&ended.0, act)), [2, 2]);
    let mended = std::fs::read_to_string(config(&world))?;
    assert!(mended.contains("\"new\"") && !mended.contains("\"old\""), "{mended}");
    assert!(!world.path().join("data/trace").exists(), "more was laid down than the files that count");
    // Whatever the target said of the data: with what was laid down they are migrated.
    let keep = world.cutover(&["rollback", SERVICE, "--data", "keep"]).await?;
    assert_eq!(keep.status.code(), Some(8), "{}", told(&keep));
    let back = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(std::fs::read_to_string(config(&world))?, OLD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_of_a_rehearsal_a_repair_is_offered_by_its_keys_unless_nothing_is_to_be_mended()
-> anyhow::Result<()> {
    if !isolates("a repair that is offered after the end of a rehearsal") {
        return Ok(());
    }
    let mut world = ending_in_rehearsal(&unsuspecting(), &[("repair", "\"offer\"")]).await?;
    let before = view(&world).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let detail = &ended.0.causes[0].fault.detail;
    for part in ["Code(78)", "1.0.0, which runs, passes there", "removes old, adds new.token", "\"apply\""] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert!(!detail.contains("a-secret-that-nobody-tells"), "{detail}");
    assert_eq!(count(&ended.0, Act::Rehearse), 1);
    is_untouched(&world, &before).await?;
    world.kill_daemon()?;
    configure(&world, "repair = \"offer\"", "repair = \"never\"")?;
    world.start_daemon().await?;
    let before = serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let cause = &ended.0.causes[0];
    assert_eq!((cause.act, count(&ended.0, Act::Preflight)), (Act::Rehearse, 1), "{cause:?}");
    assert!(cause.fault.detail.contains("Code(78)"), "{cause:?}");
    is_untouched(&world, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_does_not_help_against_the_end_of_a_rehearsal_ends_the_run() -> anyhow::Result<()> {
    if !isolates("a repair that does not help against the end of a rehearsal") {
        return Ok(());
    }
    let unable = unsuspecting().replace("grep -q '\"2.0.0\"' \"$0/release.json\" || exit 9", "exit 9");
    assert_ne!(unable, unsuspecting());
    let world = ending_in_rehearsal(&unable, &[("repair", "\"apply\"")]).await?;
    let before = view(&world).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let detail = &ended.0.causes[0].fault.detail;
    for part in ["Code(78)", "own repair (`preflight.repair`) does not help: exit code 9"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert_eq!(count(&ended.0, Act::Rehearse), 1);
    is_untouched(&world, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_after_a_rehearsal_and_ends_the_next_is_not_mended_again() -> anyhow::Result<()> {
    if !isolates("a repair that changes what does not matter") {
        return Ok(());
    }
    let beside = unsuspecting().replace("{\"new\":", "{\"old\":1,\"new\":");
    assert_ne!(beside, unsuspecting());
    let world = ending_in_rehearsal(&beside, &[("repair", "\"apply\"")]).await?;
    let before = view(&world).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let cause = &ended.0.causes[0];
    assert_eq!((cause.act, cause.fault.code.as_str()), (Act::Rehearse, "rehearsal"), "{cause:?}");
    assert!(cause.fault.detail.contains("Code(78)"), "{cause:?}");
    assert_eq!([Act::Preflight, Act::Rehearse].map(|act| count(&ended.0, act)), [2, 2]);
    is_untouched(&world, &before).await
}
