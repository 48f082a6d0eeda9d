//! The service's configuration: the target's own validator, asked before anything stops, and what is taken back of it.

use crate::stage::{
    assert_told, executable, get, reported, serving, told, unserved, update, view, with_policy, world,
};
use cutover::demo::{Plan, SERVICE};
use cutover_core::{Level, Resolution, Status};
use sample_gateway::Knobs;

/// A validator that belongs to the release: 2.0.0 refuses a port that is no number, 1.0.0 takes what comes. What it writes
/// to the state would be seen.
const VALIDATES: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data", kind = "files" }]
preflight = { validate = ["/bin/sh", "-c", '''
test -x "$0/bin/gateway" && echo trace > {world}/data/trace || exit 9
grep -q '"2.0.0"' "$0/release.json" || exit 0
grep -q '"port":"abc"' {world}/data/config.json || exit 0
echo '{"valid":false,"issues":[{"path":"gateway.port","message":"expected number, received string"}]}'
exit 1''', "{root}"] }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_the_target_refuses_is_told_with_its_key_and_nothing_stops() -> anyhow::Result<()>
{
    let good = Knobs::default;
    let world = world(&with_policy(VALIDATES, &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let before = serving(&world, "1.0.0").await?;
    let config = world.path().join("data/config.json");
    std::fs::write(&config, r#"{"gateway":{"port":"abc"}}"#)?;

    let expected = "the configuration is refused at `gateway.port`: expected number, received string";
    let plan = world.cutover(&["plan", SERVICE, "--to", "2.0.0", "--explain"]).await?;
    let said = told(&plan);
    assert!(said.contains(expected) && said.contains("preflight.validate"), "{said}");
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert!(ended.0.causes[0].fault.detail.contains(expected), "{:#?}", ended.0.causes);
    assert_eq!(view(&world).await?.process, before.process, "nothing was stopped for it");
    assert!(!world.path().join("data/trace").exists(), "the validator wrote to live state");

    // What a person corrects is accepted, and the real state is untouched by the asking.
    std::fs::write(&config, r#"{"gateway":{"port":8080}}"#)?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/healthz").await?.status, 200);
    assert!(!world.path().join("data/trace").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_running_version_refuses_too_is_a_warning_in_the_plan_and_keeps_nobody() -> anyhow::Result<()>
{
    let service = r#"preflight = { validate = ["/bin/sh", "-c", "echo '- mode: is required'; exit 1"] }"#;
    let good = Knobs::default;
    let world = world(&with_policy(service, &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let plan = world.cutover(&["plan", SERVICE, "--to", "2.0.0", "--json"]).await?;
    let plan: cutover::conductor::Plan = serde_json::from_slice(&plan.stdout)?;
    let finding = plan.findings.iter().find(|finding| finding.kind == "configuration").unwrap();
    assert_eq!(finding.level, Level::Warn, "{finding}");
    assert!(finding.text.contains("`mode`: is required; 1.0.0, which runs, refuses it too"), "{finding}");
    let ended = reported(&world, &["update", SERVICE, "--to", "2.0.0"]).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

/// A gateway whose configuration has a name of its own, which its state holds a link of.
fn a_gateway(name: &str) -> String {
    let service = r#"update_button = "openclaw"
check_every = "0"
env = { SAMPLE_STATE = "{world}/data", OPENCLAW_CONFIG_PATH = "{world}/data/NAME" }
state = [{ path = "{world}/data", kind = "files" }, { path = "{env:OPENCLAW_CONFIG_PATH}", kind = "files" }]"#;
    with_policy(&service.replace("NAME", name), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_a_link_leads_to_is_taken_back_with_the_state() -> anyhow::Result<()> {
    let good = Knobs::default;
    let plan = Plan { service: a_gateway("claw.json"), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", good()), ("2.0.0", good())])?;
    let file = world.path().join("own.json");
    std::fs::write(&file, "old")?;
    std::os::unix::fs::symlink(&file, world.path().join("data/claw.json"))?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    std::fs::write(&file, "new")?;
    let back = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(std::fs::read_to_string(&file)?, "old");
    assert_eq!(std::fs::read_link(world.path().join("data/claw.json"))?, file);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_configuration_that_nobody_could_lay_back_is_refused_before_anything_stops()
-> anyhow::Result<()> {
    let good = Knobs::default;
    let plan = Plan { service: a_gateway("claw.json"), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", good()), ("2.0.0", good())])?;
    let (link, long) = (world.path().join("data/claw.json"), world.path().join("x".repeat(200)));
    std::os::unix::fs::symlink(world.path().join("own.json"), &link)?;
    std::fs::write(world.path().join("own.json"), "{}")?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let before = serving(&world, "1.0.0").await?.process;
    std::fs::write(&long, "{}")?;
    std::fs::remove_file(&link)?;
    std::os::unix::fs::symlink(&long, &link)?;
    world.kill_daemon()?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let fault = &ended.0.causes[0].fault;
    assert!(fault.code == "state" && fault.detail.contains("has a name of more than"), "{fault:?}");
    assert_eq!(view(&world).await?.process, before);
    Ok(())
}
