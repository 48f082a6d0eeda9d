//! A key that 2026.9.5 knows and 2026.9.6 refuses: the real doctor takes it out of a copy, the mended file is laid down while
//! nothing runs, and a person's way back brings the file as it was. Where nobody asks the validator, 2026.9.6 takes the key out
//! itself as it starts, and the way back brings the same.
//!
//! `CUTOVER_TEST=real-repair cargo test -p cutover --test real repair -- --nocapture`

use super::figures::Figures;
use super::ground::Ground;
use super::traffic::{Traffic, shared_file};
use super::world::{World, own_configuration};
use cutover_core::{Act, Report, Resolution, Status};
use cutover_testkit::openclaw::LATEST;
use cutover_testkit::slow;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The key, as a JSON pointer.
const REFUSED: &str = "/tools/codeMode/languages";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_next_version_refuses_is_mended_by_its_doctor_and_comes_back_with_the_old_version() {
    if !slow::is_asked_for("real-repair", "the real gateway's configuration is mended") {
        return;
    }
    let ground = Ground::alone().await;
    let mut packages = Vec::new();
    for version in LATEST {
        packages.push(ground.gateway(version).await);
    }
    let mut world = ground.world();
    world.rule("repair", "offer");
    let mut written = own_configuration();
    written["tools"] = json!({"codeMode": {"languages": ["typescript"]}});
    let written = format!("{written:#}\n");
    std::fs::write(configuration(&world), &written).unwrap();
    let mut figures = Figures::named("repair");
    world.start_daemon(&[]).await;
    let [old, _] = LATEST;
    let (report, code) = world.update(old).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    // It writes to its own configuration as it likes: what counts is what lies there before the update.
    let before = std::fs::read(configuration(&world)).unwrap();
    assert!(parsed(&before).pointer(REFUSED).is_some(), "{}", String::from_utf8_lossy(&before));

    let load = Traffic::on_gateway(&world, &shared_file([&packages[0], &packages[1]]), "repair").await;
    offered(&world, &before, &mut figures).await;
    world.end_daemon().await;
    world.rule("repair", "apply");
    world.start_daemon(&[]).await;
    let report = mended(&world, "mended", &mut figures).await;
    assert_eq!([Act::Preflight, Act::Rehearse].map(|act| count(&report, act)), [1, 1]);
    went_back(&world, &before, &mut figures).await;

    world.end_daemon().await;
    // It has proven itself, and is tried again all the same.
    world.rehearse("always");
    world.configure(|service| {
        let preflight: toml::Table = toml::toml! { validate = ["/bin/true"] };
        service.insert("preflight".into(), preflight.into());
    });
    world.start_daemon(&[]).await;
    let before = std::fs::read(configuration(&world)).unwrap();
    assert!(parsed(&before).pointer(REFUSED).is_some(), "{}", String::from_utf8_lossy(&before));
    let report = mended(&world, "its validator is not asked", &mut figures).await;
    assert_eq!([Act::Preflight, Act::Rehearse].map(|act| count(&report, act)), [1, 1]);
    let is_repaired = report.findings.iter().any(|finding| finding.text.contains("own repair"));
    assert!(!is_repaired, "it has done that itself: {:#?}", report.findings);
    went_back(&world, &before, &mut figures).await;
    load.nobody_noticed(&world, 4, &mut figures).await;
    figures.keep();
    world.end().await;
}

/// Nothing is stopped and nothing changed: the key is named, and what a repair would do.
async fn offered(world: &World, before: &[u8], figures: &mut Figures) {
    let (report, code) = world.update(LATEST[1]).await;
    figures.run(&format!("{} -> {}, the repair is offered", LATEST[0], LATEST[1]), &report);
    told(&report, figures);
    assert_eq!(
        (code, report.status, report.downtime_ms),
        (3, Some(Status::UpdateFailed), None),
        "{report:#?}"
    );
    assert!(report.causes[0].fault.detail.contains("tools.codeMode.languages"), "{report:#?}");
    let offer = "removes tools.codeMode.languages";
    assert!(report.findings.iter().any(|finding| finding.text.contains(offer)), "{:#?}", report.findings);
    assert_eq!(std::fs::read(configuration(world)).unwrap(), before);
}

async fn mended(world: &World, how: &str, figures: &mut Figures) -> Report {
    let (report, code) = world.update(LATEST[1]).await;
    figures.run(&format!("{} -> {}, {how}", LATEST[0], LATEST[1]), &report);
    told(&report, figures);
    assert_eq!(
        (code, report.status, report.resolution),
        (0, Some(Status::RestartVerified), Resolution::None),
        "{report:#?}"
    );
    let now = parsed(&std::fs::read(configuration(world)).unwrap());
    assert_eq!(now.pointer(REFUSED), None, "{now:#}");
    assert_eq!(world.hello(world.front[0]).await.version, LATEST[1]);
    report
}

async fn went_back(world: &World, before: &[u8], figures: &mut Figures) {
    let (report, code) = world.reported(&["rollback", "openclaw", "--data", "restore"]).await;
    figures.run(&format!("{} -> {}, a person's way back", LATEST[1], LATEST[0]), &report);
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    assert_eq!(std::fs::read(configuration(world)).unwrap(), before, "the file is another");
}

/// How often an act was gone through to its end.
fn count(report: &Report, act: Act) -> usize {
    report.steps.iter().filter(|step| step.name == act && step.ended.is_some()).count()
}

fn told(report: &Report, figures: &mut Figures) {
    for finding in report.findings.iter().filter(|finding| finding.text.contains("onfiguration")) {
        figures.line("  finding", finding);
    }
}

fn configuration(world: &World) -> PathBuf {
    world.claw().join("openclaw.json")
}

fn parsed(configuration: &[u8]) -> Value {
    serde_json::from_slice(configuration).unwrap()
}
