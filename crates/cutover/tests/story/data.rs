//! What the target says that it does to the data, what follows from it, and what if that was not true.

use crate::stage::{
    assert_told, get, post, processes, reported, serving, signal, told, update, with_policy, world,
};
use cutover::demo::{SERVICE, World};
use cutover_core::{Act, DataClass, Report, Resolution, Status, Writes};
use rustix::process::Signal;
use sample_gateway::Knobs;

/// A release that is asked about the data: 2.x says that it leaves them alone, 3.0.0 says nothing that is known, 4.0.0 that
/// it cannot use them. It sees a whole copy at the live path, and what it writes there would be seen.
const ASKED: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data", kind = "files" }]
preflight = { data = [{ neutral = ["exact"], refused = ["incompatible"], ask = ["/bin/sh", "-c", '''
test "$(head -c 15 {world}/data/state.db)" = "SQLite format 3" && test ! -e {world}/data/state.db-wal || exit 9
echo trace > {world}/data/trace
grep -q '"2\.' "$0/release.json" && echo '{"status":"exact"}' && exit 0
grep -q '"3.0.0"' "$0/release.json" && echo '{"status":"odd"}' && exit 0
echo '{"status":"incompatible"}'; exit 1''', "{root}"] }] }"#;

fn good() -> Knobs {
    Knobs::default()
}

/// A world in which 1.0.0 has one row, and what it serves is not asked for a long soak.
async fn asked(releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let all: Vec<_> = [("1.0.0", good())].into_iter().chain(releases.iter().cloned()).collect();
    let world = world(&with_policy(ASKED, &[("soak", "\"20s\"")]), &all).await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "old").await?.status, 200);
    Ok(world)
}

/// Updates to 2.0.0, writes to it once it is released, and kills it in its soak.
async fn killed_in_the_soak(world: &World) -> anyhow::Result<Report> {
    let run = world.update("2.0.0").await?;
    world
        .until("the release", |view| {
            view.report.serving.posture == "serve" && view.report.phase.contains("soak")
        })
        .await?;
    assert_eq!(post(world, "/state", "new").await?.status, 200);
    signal(processes(world, "sample-gateway")[0], Signal::KILL)?;
    world.end_of(&run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_leaves_the_data_neutral_is_released_at_once_and_goes_back_with_the_writes()
-> anyhow::Result<()> {
    let world = asked(&[("2.0.0", good())]).await?;
    let plan = world.cutover(&["plan", SERVICE, "--to", "2.0.0", "--json"]).await?;
    let plan: cutover::conductor::Plan = serde_json::from_slice(&plan.stdout)?;
    assert_eq!(plan.data, DataClass::Neutral, "{:?}", plan.findings);
    assert!(plan.acts.ends_with(&[Act::Release, Act::Soak]), "{:?}", plan.acts);
    assert!(!world.path().join("data/trace").exists(), "the question wrote to live state");

    let report = killed_in_the_soak(&world).await?;
    assert_eq!(
        (report.status, report.resolution, report.writes),
        (Some(Status::RestartFailed), Resolution::OldVerified, Writes::Kept),
        "{report:#?}"
    );
    let restore = report.steps.iter().find(|step| step.name == Act::Restore).unwrap();
    assert!(restore.outcome.as_ref().unwrap().contains("the writes stay"), "{restore:?}");
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["rows"], &state["lastText"]), (&2.into(), &"new".into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_said_neutral_and_migrated_is_maintenance_and_old_code_never_meets_it()
-> anyhow::Result<()> {
    let world = asked(&[("2.0.0", Knobs { migrate_to: Some(2), ..good() })]).await?;
    let report = killed_in_the_soak(&world).await?;
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartFailed), Resolution::Maintenance),
        "{report:#?}"
    );
    let why = &report.causes.last().unwrap().fault;
    assert!(why.code == "migrated" && why.detail.contains("state.db"), "{why:?}");
    let ways = ["--retry", "--rollback", "--accept"].map(|way| world.typed(&format!("recover web {way}")));
    assert_eq!(report.recovery, ways);
    assert!(processes(&world, "sample-gateway").is_empty());
    let back = reported(&world, &["recover", "web", "--rollback"]).await?;
    assert_told(&back, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(back.0.writes, Writes::GivenUp, "a person gave them up, and it is told");
    serving(&world, "1.0.0").await?;
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["rows"], &state["lastText"]), (&1.into(), &1.into(), &"old".into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_answer_counts_as_migrated_and_data_that_cannot_be_used_stops_nothing()
-> anyhow::Result<()> {
    let world = asked(&[("3.0.0", good()), ("4.0.0", good())]).await?;
    let plan = world.cutover(&["plan", SERVICE, "--to", "3.0.0"]).await?;
    let said = told(&plan);
    assert!(said.contains("data Migrated") && said.contains("exit code 0, and its word is `odd`"), "{said}");
    let before = serving(&world, "1.0.0").await?;
    let ended = update(&world, "4.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let why = &ended.0.causes[0].fault.detail;
    assert!(why.contains("`incompatible`") && why.contains("cannot use it"), "{why}");
    assert_eq!(serving(&world, "1.0.0").await?.process, before.process, "nothing was stopped for it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_was_copied_while_clients_were_served_and_what_while_nobody_was()
-> anyhow::Result<()> {
    let migrates = Knobs { migrate_to: Some(2), report_version: Some("2.0.0".into()), ..good() };
    let world = asked(&[("2.0.0", good()), ("3.0.0", migrates)]).await?;
    let copied = |report: &Report, name: Act| {
        let step = report.steps.iter().find(|step| step.name == name).unwrap();
        step.copied.unwrap_or_else(|| panic!("{step:?}"))
    };
    let updated = update(&world, "2.0.0").await?.0;
    assert!(updated.ok, "{updated:#?}");
    let release = world.state().join("services/web/generations/0002/generation.json");
    let release: serde_json::Value = serde_json::from_slice(&std::fs::read(release)?)?;
    assert_eq!(copied(&updated, Act::Stage), release["bytes"].as_u64().unwrap());
    let before = [Act::Stage, Act::Preflight, Act::Rehearse, Act::Drain].map(|act| copied(&updated, act));
    assert_eq!(updated.copied.served, before.iter().sum::<u64>());
    assert_eq!(updated.copied.unserved, copied(&updated, Act::Snapshot));
    // The copy for the question is one of the whole state; so is the bulk.
    assert!(copied(&updated, Act::Preflight) > 0 && copied(&updated, Act::Drain) > 0, "{updated:#?}");

    // The second time it is there already. What is laid back counts as what clients wait for.
    let failed = update(&world, "3.0.0").await?;
    assert_told(&failed, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(failed.0.copied.unserved, copied(&failed.0, Act::Snapshot) + copied(&failed.0, Act::Restore));
    assert!(copied(&failed.0, Act::Restore) > 0, "{:#?}", failed.0);
    let again = update(&world, "3.0.0").await?.0;
    assert_eq!(copied(&again, Act::Stage), 0, "{again:#?}");
    let run = again.run_id.as_ref().unwrap().to_string();
    let shown = told(&world.cutover(&["show", &run]).await?);
    let line = format!(
        "copied: {} bytes while clients were served, {} bytes while nobody was",
        again.copied.served, again.copied.unserved
    );
    assert!(shown.contains(&line), "{shown}");
    Ok(())
}
