//! The pair that migrates its data, with a plugin, under load: 2026.9.6 brings the schema from 17 to 18 at its first start,
//! without being asked, and 2026.9.5 then refuses to start. What goes wrong on the way there is taken back with the data and
//! the plugin, or refused before anything stops.
//!
//! `CUTOVER_TEST=real,real-back cargo test -p cutover --test real latest -- --nocapture`

use super::disk::Disk;
use super::figures::Figures;
use super::ground::Ground;
use super::pressed;
use super::traffic::{Traffic, shared_file};
use super::world::{CALL, World};
use super::{Defect, another_daemon, hold, living, was_asked_as_users_ask, was_not_isolated};
use cutover_core::{Act, FactName, Report, Resolution, Status};
use cutover_testkit::openclaw::{self, LATEST, PROGRESS_LINES};
use cutover_testkit::registry::Package;
use cutover_testkit::slow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The schemas that the two versions know.
const SCHEMAS: [i64; 2] = [17, 18];
/// Builds of the newer version.
const REFUSES: &str = "2026.9.6-broken.1";
const DIES: &str = "2026.9.6-broken.2";
/// What both versions have for plugins.
const MODULE: &str = "text-chunking";
const NAME: &str = "chunkItems";
/// The plugin's versions, one beside each of the gateway's.
const PLUGINS: [&str; 2] = ["1.0.0", "2.0.0"];

/// The older version with its plugin, installed and served; the newer one can be had by name.
struct Pair {
    world: World,
    /// Whether the plugin of the gateway's makers is one thing with it, too.
    has_discord: bool,
    ground: Ground,
    packages: [PathBuf; 2],
    figures: Figures,
    begun: Instant,
}

async fn installed(name: &'static str, has_discord: bool) -> Pair {
    let ground = Ground::alone().await;
    let registry = &ground.registry;
    let [old, new] = LATEST;
    let packages = [ground.gateway(old).await, ground.gateway(new).await];
    registry.publish(&openclaw::progress_lines_from(PLUGINS[0], MODULE, NAME));
    let world = ground.world().with_lines();
    let mut world = if has_discord { world.with_discord() } else { world };
    let mut figures = Figures::named(name);
    let begun = Instant::now();
    world.start_daemon(&[]).await;
    let (report, code) = world.update(old).await;
    figures.run(&format!("{old} from npm"), &report);
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    with_plugins(&report, 0, has_discord, &mut figures);
    serves(&world, old, SCHEMAS[0]).await;

    // From here on the registry knows the package itself, and nothing of it that was not published there.
    // After what runs, whose moment is the real registry's: a channel is followed forwards only.
    registry
        .publish(&Package::from_directory(&packages[1]).unwrap().published_at("2030-01-01T00:00:00.000Z"));
    registry.publish(&openclaw::progress_lines_from(PLUGINS[1], MODULE, NAME));
    registry.tag(PROGRESS_LINES, "latest", PLUGINS[1]);
    Pair { world, has_discord, ground, packages, figures, begun }
}

impl Pair {
    async fn load(&self, name: &str) -> Traffic {
        let [old, new] = &self.packages;
        Traffic::on_gateway(&self.world, &shared_file([old, new]), name).await
    }

    async fn end(mut self, what: &str) {
        self.figures.took(&format!("{} -> {what}", LATEST[0]), self.begun.elapsed());
        self.figures.keep();
        self.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_two_press_for_a_migration_of_the_real_gateway_with_its_plugin() {
    if !slow::is_asked_for("real", "the real gateway migrates its data") {
        return;
    }
    let mut pair = installed("latest", true).await;
    let load = pair.load("latest").await;
    pressed::is_offering(&pair.world);
    another_daemon(&mut pair.world, &[("rehearse", "auto")]).await;
    updated(&mut pair).await;
    load.nobody_noticed(&pair.world, 1, &mut pair.figures).await;
    pair.end("pressed by two, all of it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_builds_of_the_real_gateway_that_refuse_or_migrate_and_die() {
    if !slow::is_asked_for("real-back", "the real gateway is taken back with its data") {
        return;
    }
    // No build of the plugin is beside broken ones of the gateway.
    let mut pair = installed("latest-broken", false).await;
    for (version, defect) in [(REFUSES, Defect::EndsWith78), (DIES, Defect::EndsOnListening)] {
        pair.ground.registry.publish(&openclaw::broken(&pair.packages[1], version, defect).unwrap());
    }
    let load = pair.load("latest-broken").await;
    let Pair { world, figures, .. } = &mut pair;
    refused_in_rehearsal(world, figures).await;
    another_daemon(world, &[("rehearse", "never")]).await;
    refuses_its_configuration(world, figures).await;
    migrates_and_dies(world, figures).await;
    let (report, code) = attempted(world, LATEST[1], "which works, after them", figures).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    with_plugins(&report, 1, false, figures);
    serves(world, LATEST[1], SCHEMAS[1]).await;
    load.nobody_noticed(world, 3, figures).await;
    pair.end("builds that are taken back, all of it").await;
}

/// A build that ends with 78 does so in its rehearsal, and nothing is stopped for it.
async fn refused_in_rehearsal(world: &World, figures: &mut Figures) {
    let before = living(world).await;
    let (report, code) = attempted(world, REFUSES, "with a rehearsal", figures).await;
    if was_not_isolated(&report, "a build that ends with 78", figures) {
        return;
    }
    assert_eq!((code, report.status), (3, Some(Status::UpdateFailed)), "{report:#?}");
    let why = &report.causes[0].fault.detail;
    assert!(why.contains("Code(78)") && why.contains(LATEST[0]), "{why}");
    assert_eq!((living(world).await, report.downtime_ms), (before, None), "nothing was stopped for it");
}

/// Without a rehearsal it is seen after the cut. It is not started a second time, and nothing of the data has changed.
async fn refuses_its_configuration(world: &World, figures: &mut Figures) {
    let (report, code) = attempted(world, REFUSES, "without a rehearsal", figures).await;
    taken_back(&report, code, "Code(78)");
    let starts = report.steps.iter().filter(|step| step.name == Act::Start).count();
    assert_eq!(starts, 2, "one of each version: {report:#?}");
    serves(world, LATEST[0], SCHEMAS[0]).await;
}

/// What it did to the data before it died is kept aside; the old version has them as they were.
async fn migrates_and_dies(world: &World, figures: &mut Figures) {
    let (report, code) = attempted(world, DIES, "which migrates and dies", figures).await;
    taken_back(&report, code, "Code(7)");
    foretold(&report);
    let restore = report.steps.iter().find(|step| step.name == Act::Restore).unwrap();
    let told = restore.outcome.as_deref().unwrap();
    let (_, kept) = told.split_once("is kept: ").unwrap_or_else(|| panic!("{told}"));
    assert_eq!(schema_of(&database(Path::new(kept))), SCHEMAS[1], "it has migrated");
    assert!(restore.copied.unwrap() > 0, "{restore:?}");
    serves(world, LATEST[0], SCHEMAS[0]).await;
}

/// The published one, by the gateway's own button.
async fn updated(pair: &mut Pair) {
    let Pair { world, has_discord, ground, figures, .. } = pair;
    let before = living(world).await;
    let disk = Disk::watched(world);
    let report = pressed::by_two(world, ground, LATEST[1]).await;
    told(&report, "pressed by two", disk, figures);
    assert_eq!((report.ok, report.status), (true, Some(Status::RestartVerified)), "{report:#?}");
    assert_eq!(report.actor.as_deref(), Some("button"));
    foretold(&report);
    with_plugins(&report, 1, *has_discord, figures);
    let after = report.serving.instance.clone().unwrap();
    assert_ne!(after, before);
    serves(world, LATEST[1], SCHEMAS[1]).await;
    hold(&report, &[FactName::Identity, FactName::Code, FactName::Port, FactName::OldGone]);
}

async fn attempted(world: &World, version: &str, how: &str, figures: &mut Figures) -> (Report, i32) {
    let disk = Disk::watched(world);
    let (report, code) = world.update(version).await;
    told(&report, &format!("{version}, {how}"), disk, figures);
    (report, code)
}

fn told(report: &Report, what: &str, disk: Disk, figures: &mut Figures) {
    figures.run(&format!("{} -> {what}", LATEST[0]), report);
    figures.disk(&disk.end());
    for cause in &report.causes {
        figures.line("  cause", format_args!("{:?}: {} {}", cause.act, cause.fault.code, cause.fault.detail));
    }
    for finding in &report.findings {
        figures.line("  finding", finding);
    }
}

fn taken_back(report: &Report, code: i32, cause: &str) {
    assert_eq!(
        (code, report.status, report.resolution),
        (4, Some(Status::RestartFailed), Resolution::OldVerified),
        "{report:#?}"
    );
    assert!(report.causes[0].fault.detail.contains(cause), "{:#?}", report.causes);
}

/// What was installed is this one of the pairs of gateway and plugins, and what runs told both.
fn with_plugins(report: &Report, pair: usize, has_discord: bool, figures: &mut Figures) {
    hold(report, &[FactName::Version, FactName::Plugins]);
    was_asked_as_users_ask(report);
    figures.verdict(report);
    let release = &report.target.as_ref().unwrap().release;
    let mut plugins: Vec<String> = release.plugins.iter().map(ToString::to_string).collect();
    plugins.sort();
    let discord = has_discord.then(|| format!("{}@{}", openclaw::PLUGIN, LATEST[pair]));
    let expected: Vec<String> =
        discord.into_iter().chain([format!("{PROGRESS_LINES}@{}", PLUGINS[pair])]).collect();
    assert_eq!((release.version.as_str(), plugins), (LATEST[pair], expected));
    let told = report.facts.iter().find(|fact| fact.name == FactName::Plugins).unwrap();
    assert_eq!(told.expected.contains("discord"), has_discord, "{told:?}");
}

/// The target said of itself that it migrates.
fn foretold(report: &Report) {
    let said = report.findings.iter().find(|finding| finding.kind == "schema").unwrap();
    assert!(said.text.contains("`migration-required`"), "{said}");
}

/// On every address, with data that this version understands.
async fn serves(world: &World, version: &str, schema: i64) {
    for address in world.front {
        assert_eq!(world.hello(address).await.version, version);
    }
    assert_eq!(schema_of(&database(&world.claw())), schema);
}

fn database(state: &Path) -> PathBuf {
    state.join("state/openclaw.sqlite")
}

/// Read as any other reader of a database that is in use does.
fn schema_of(database: &Path) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
    connection.busy_timeout(CALL).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}
