//! The long way that an operator who waited has before them: from the incident's version to the last that we know, over all
//! that lies between, the protocol's number and the form of the state included, under load.
//!
//! `CUTOVER_TEST=real-jump cargo test -p cutover --test real jump -- --nocapture`

use super::disk::Disk;
use super::figures::Figures;
use super::ground::Ground;
use super::traffic::Traffic;
use super::world::World;
use super::{hold, was_asked_as_users_ask};
use cutover_core::{FactName, Resolution, Status};
use cutover_testkit::openclaw::{LATEST, NEW};
use cutover_testkit::slow;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_the_real_gateway_being_updated_over_all_versions_between_and_a_person_goes_back() {
    if !slow::is_asked_for("real-jump", "the real gateway is updated from 2026.5 to 2026.9 and taken back") {
        return;
    }
    let ground = Ground::alone().await;
    let mut world = ground.world();
    let mut figures = Figures::named("jump");
    let [_, new] = LATEST;
    world.start_daemon(&[]).await;
    let (report, code) = world.update(NEW).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");

    // No file of the page is in both.
    let load = Traffic::on_gateway(&world, "/favicon.ico", "jump").await;
    let disk = Disk::watched(&world);
    let (report, code) = world.update(new).await;
    figures.run(&format!("{NEW} -> {new}"), &report);
    figures.disk(&disk.end());
    for finding in &report.findings {
        figures.line("  finding", finding);
    }
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    figures.verdict(&report);
    hold(&report, &[FactName::Identity, FactName::Code, FactName::Version, FactName::OldGone]);
    was_asked_as_users_ask(&report);
    serves(&world, new).await;

    let (report, code) = world.reported(&["rollback", world.name(), "--data", "restore"]).await;
    figures.run(&format!("{new} -> {NEW}, a person's way back"), &report);
    assert_eq!(
        (code, report.status, report.resolution),
        (0, Some(Status::RestartVerified), Resolution::None),
        "{report:#?}"
    );
    serves(&world, NEW).await;
    load.nobody_noticed(&world, 2, &mut figures).await;
    figures.keep();
    world.end().await;
}

async fn serves(world: &World, version: &str) {
    for address in world.front {
        assert_eq!(world.hello(address).await.version, version);
    }
}
