//! The pair that migrates its data: 2026.9.6 brings the schema from 17 to 18 at its first start, without being asked, and
//! 2026.9.5 then refuses to start. A build of it that does not prove itself is taken back with the data.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test real latest -- --nocapture`

use super::world::{CALL, SERVICE, World};
use super::{ALONE, Defect, INSTALL};
use cutover_core::{Act, Report, Resolution, Status};
use cutover_testkit::openclaw::{self, LATEST, Runtime};
use cutover_testkit::registry::{Package, Registry};
use cutover_testkit::slow;
use std::path::Path;
use std::time::Instant;

/// The schemas that the two versions know.
const SCHEMAS: [i64; 2] = [17, 18];

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_the_real_gateway_is_foretold_and_undone_with_a_build_that_fails() {
    if !slow::is_asked_for("real", "the real gateway migrates its data and is taken back") {
        return;
    }
    let _alone = ALONE.lock().await;
    let cache = openclaw::cache();
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let [old, new] = LATEST;
    let package = runtime.gateway(new, &cache.join("openclaw").join(new), INSTALL).await.unwrap();
    let registry = Registry::start().await.unwrap();
    registry.redirect_unknown_to(&openclaw::registry(CALL).await.unwrap());
    let mut world = World::new(&runtime, &cache, &registry.url()).without_plugins();
    let begun = Instant::now();
    let took = |what: &str| println!("{:>6.1?} {what}", begun.elapsed());

    // The broken build shall be taken back, not refused.
    world.without_rehearsal();
    world.start_daemon(&[]).await;
    let (report, code) = world.update(old).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    took("the old version is installed and proven");
    serves(&world, old, SCHEMAS[0]).await;

    // From here on the registry knows the package itself, and nothing of it that was not published there.
    let broken = format!("{new}-broken.1");
    registry.publish(&Package::from_directory(&package).unwrap());
    registry.publish(&openclaw::broken(&package, &broken, Defect::TellsVersion(new)).unwrap());
    let (report, code) = world.update(&broken).await;
    told(&report);
    took("the broken build was tried");
    assert_eq!(
        (code, report.status, report.resolution),
        (4, Some(Status::RestartFailed), Resolution::OldVerified),
        "{report:#?}"
    );
    foretold(&report);
    let restore = report.steps.iter().find(|step| step.name == Act::Restore).unwrap();
    assert!(restore.outcome.as_ref().unwrap().contains("restored"), "{restore:?}");
    serves(&world, old, SCHEMAS[0]).await;

    let (report, code) = world.update(new).await;
    told(&report);
    took("the new version is proven");
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    foretold(&report);
    serves(&world, new, SCHEMAS[1]).await;
    world.end().await;
}

/// The target said of itself that it migrates.
fn foretold(report: &Report) {
    let said = report.findings.iter().find(|finding| finding.kind == "schema").unwrap();
    assert!(said.text.contains("`migration-required`"), "{said}");
}

fn told(report: &Report) {
    for step in &report.steps {
        let took = step.took_ms.unwrap_or_default();
        println!(
            "  {:?} {:?} {took} ms: {}",
            step.direction,
            step.name,
            step.outcome.as_deref().unwrap_or("-")
        );
    }
    for finding in &report.findings {
        println!("  {finding}");
    }
    println!("  down for {:?} ms", report.downtime_ms);
}

/// On every address, with data that this version understands.
async fn serves(world: &World, version: &str, schema: i64) {
    for address in world.front {
        assert_eq!(world.hello(address).await.version, version, "{SERVICE}");
    }
    assert_eq!(schema_of(&world.claw().join("state/openclaw.sqlite")), schema);
}

/// Read as any other reader of a database that is in use does.
fn schema_of(database: &Path) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
    connection.busy_timeout(CALL).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}
