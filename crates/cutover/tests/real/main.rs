//! The incident's own setting, for real: the OpenClaw gateway from npm is updated under load, and a broken build of it
//! is taken back. Nobody who uses it may notice.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test real -- --nocapture`; the figures are also in
//! `target/real-figures-*.txt`. The other sets are in `docs/testing.md`.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

mod adopted;
mod back;
mod disk;
mod figures;
mod ground;
mod jump;
mod killed;
mod latest;
mod node_red;
mod pressed;
mod repair;
mod traffic;
mod world;

use cutover::conductor::{Plan, View};
use cutover_core::{Act, FactName, Generation, Instance, Reading, Report, Resolution, Status};
use cutover_testkit::openclaw::{
    self, Client, Defect, LATER_NAME, NEW, OLD, PROGRESS_LINES, Page, Runtime, SHARED_NAME, Sweep,
};
use cutover_testkit::registry::Registry;
use cutover_testkit::slow;
use disk::Disk;
use figures::Figures;
use ground::Ground;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};
use traffic::Traffic;
use world::{CALL, TOKEN, World};

/// Versions of builds that a real release could have been, and what the report must say of each.
const BROKEN: [(&str, Defect, &str); 2] = [
    ("2026.5.4-broken.1", Defect::LosesChunk, "; import: "),
    ("2026.5.4-broken.2", Defect::TellsVersion(NEW), "expected 2026.5.4-broken.2, observed 2026.5.4"),
];

#[tokio::test(flavor = "multi_thread")]
async fn r78110_nobody_notices_an_update_of_the_real_gateway_nor_a_broken_build_that_is_taken_back() {
    if !slow::is_asked_for("real", "the real gateway is updated and rolled back") {
        return;
    }
    let ground = Ground::alone().await;
    let registry = &ground.registry;
    registry.publish(&openclaw::progress_lines("1.0.0", SHARED_NAME));
    let mut world = ground.world().with_lines();
    let mut figures = Figures::named("incident");
    let begun = Instant::now();

    first_installation(&mut world, &mut figures).await;
    // From here on the plugin needs the newer gateway: the incident's own skew, unless both are one thing.
    registry.publish(&openclaw::progress_lines("2.0.0", LATER_NAME));
    registry.tag(PROGRESS_LINES, "latest", "2.0.0");
    staging_touches_nobody(&world, &mut figures).await;
    a_moved_pointer_touches_nobody(&world, &mut figures).await;
    updated(&world, &ground.runtime, &mut figures).await;
    taken_back(&mut world, registry, &mut figures).await;
    figures.took("all of it", begun.elapsed());
    figures.keep();
    world.end().await;
}

async fn first_installation(world: &mut World, figures: &mut Figures) {
    world.start_daemon(&[]).await;
    let begun = Instant::now();
    let (report, code) = world.update(OLD).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    for address in world.front {
        assert_eq!(world.hello(address).await.version, OLD);
    }
    figures.took(&format!("{OLD} from npm, served"), begun.elapsed());
    // The first chat makes the gateway compile its plugins, once for each place where they lie, and answer nobody
    // meanwhile. Load would wait for that, and not for an update.
    let direct = own_address(world).await;
    whole(direct, &page(direct).await, "old process, untouched", figures).await;
}

/// A process that was asked everything before has most of its code in memory; a fresh one needs its files.
async fn restarted(world: &World) -> Instance {
    let warm = world.until("a gateway that answers", |view| view.process.is_some()).await.process.unwrap();
    // Somebody has asked it to begin anew and never signalled: a TERM would be taken for that.
    let now = UNIX_EPOCH.elapsed().unwrap().as_millis();
    let asked = format!("{{\"kind\":\"gateway-restart\",\"pid\":{},\"createdAt\":{now}}}", warm.pid);
    std::fs::write(world.claw().join("gateway-restart-intent.json"), asked).unwrap();
    assert!(world.cutover(&["restart", world.name()]).await.status.success());
    let is_fresh = |view: &View| {
        let serving = &view.report.serving;
        serving.posture == "serve" && serving.instance.as_ref().is_some_and(|instance| *instance != warm)
    };
    let fresh = world.until("a fresh process", is_fresh).await.process.unwrap();
    let said: String = world.logs().map(|log| std::fs::read_to_string(log).unwrap()).collect();
    assert!(said.contains("received SIGTERM; shutting down"), "it ended");
    assert!(!said.contains("received SIGTERM; restarting"), "it did not begin anew");
    fresh
}

/// Every call is answered and every file of the page is there.
async fn whole(gateway: SocketAddr, page: &Page, name: &str, figures: &mut Figures) -> Sweep {
    let missing = page.missing(gateway, CALL).await;
    let swept = openclaw::sweep(gateway, TOKEN, CALL).await;
    // The answer to the last call comes before the work that it causes.
    quiet(gateway).await;
    figures.sweep(name, &swept, page.files.len(), missing.len());
    assert_eq!(swept.gone, [""; 0], "{name}");
    assert_eq!((swept.calls(), swept.answered), (60, 60), "{name}: {swept:#?}");
    assert_eq!(missing, Default::default(), "{name}");
    swept
}

/// Waits until a gateway answers promptly, several times in a row: while it compiles it answers nobody.
async fn quiet(gateway: SocketAddr) {
    let begun = Instant::now();
    let mut prompt = 0;
    while prompt < 10 && begun.elapsed() < CALL {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let asked = Instant::now();
        openclaw::fetch(gateway, "/healthz", None, CALL).await.unwrap();
        prompt = if asked.elapsed() < Duration::from_millis(500) { prompt + 1 } else { 0 };
    }
}

async fn page(gateway: SocketAddr) -> Page {
    let page = Page::read(gateway, CALL).await.unwrap();
    assert!(page.files.len() >= 40, "the page has only {:?}", page.files);
    page
}

async fn own_address(world: &World) -> SocketAddr {
    world.view().await.address.unwrap()
}

/// npm installs the next version while the old one works.
async fn staging_touches_nobody(world: &World, figures: &mut Figures) {
    restarted(world).await;
    let direct = own_address(world).await;
    let page = page(direct).await;
    let file = page.files.iter().find(|file| file.starts_with("/assets/")).unwrap();
    let load = Traffic::on_gateway(world, file, "staging").await;
    let begun = Instant::now();
    let mut plan = world.begin(&["plan", world.name(), "--to", NEW, "--json"]);
    world.staging_begins(&mut plan).await;
    assert_eq!(plan.try_wait().unwrap(), None, "nothing was staged during the sweep");
    whole(direct, &page, "old process, while staging", figures).await;
    let said = match plan.try_wait().unwrap() {
        None => "npm still at work after the sweep",
        Some(_) => "npm done before the sweep was",
    };
    let planned = plan.wait_with_output().await.unwrap();
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    let planned: Plan = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!(planned.target.unwrap().generation, Generation(2));
    figures.took(&format!("{NEW} staged ({said})"), begun.elapsed());
    load.nobody_noticed(world, 0, figures).await;
}

/// The state that ends every update in place: the pointer names the new version, the old process runs. With
/// `stop-start` the old process is gone before the pointer moves, so the pointer is moved by hand here, and back.
async fn a_moved_pointer_touches_nobody(world: &World, figures: &mut Figures) {
    let (direct, store) = (own_address(world).await, world.store());
    let page = page(direct).await;
    let load = Traffic::on_gateway(world, &shared_file(world), "pointer").await;
    let before = restarted(world).await;
    store.switch(Generation(2)).unwrap();
    assert_eq!(store.current().unwrap(), Some(Generation(2)));
    whole(direct, &page, "old process, pointer moved", figures).await;
    assert_eq!(world.hello(direct).await.version, OLD);
    store.switch(Generation(1)).unwrap();
    assert_eq!(world.view().await.process, Some(before));
    load.nobody_noticed(world, 1, figures).await;
}

async fn updated(world: &World, runtime: &Runtime, figures: &mut Figures) {
    let load = Traffic::on_gateway(world, &shared_file(world), "update").await;
    let before = world.view().await.process.unwrap();
    let disk = Disk::watched(world);
    let (report, code) = world.update(NEW).await;
    figures.run(&format!("{OLD} -> {NEW}"), &report);
    figures.disk(&disk.end());
    assert_eq!(code, 0, "{report:#?}");
    assert_eq!((report.status, report.resolution), (Some(Status::RestartVerified), Resolution::None));
    assert!(report.ok);
    was_rehearsed(world, &report, &["plugins"], figures);

    let serving = &report.serving;
    let after = serving.instance.clone().unwrap();
    assert_eq!((serving.version.as_deref(), serving.generation), (Some(NEW), Some(Generation(2))));
    assert_ne!(after, before);
    assert!(!Path::new(&format!("/proc/{}", before.pid)).exists(), "the old process is still there");
    let link = |name: &str| std::fs::read_link(format!("/proc/{}/{name}", after.pid)).unwrap();
    assert_eq!(link("cwd"), world.root(2));
    assert_eq!(link("exe"), std::fs::canonicalize(runtime.node()).unwrap());
    let facts = [
        FactName::Identity,
        FactName::Code,
        FactName::Port,
        FactName::Version,
        FactName::Plugins,
        FactName::OldGone,
    ];
    hold(&report, &facts);
    was_asked_as_users_ask(&report);
    figures.verdict(&report);
    let direct = own_address(world).await;
    for address in [world.front[0], world.front[1], direct] {
        assert_eq!(world.hello(address).await.version, NEW);
    }
    load.nobody_noticed(world, 1, figures).await;
    // Without load: the first chat of a fresh installation keeps the gateway from answering anybody for most of a
    // minute on a busy machine, and a minute without readiness would rightly take the new version back.
    whole(direct, &page(world.front[0]).await, "new process", figures).await;
}

/// These facts of the verdict.
fn hold(report: &Report, names: &[FactName]) {
    for name in names {
        let fact = report.facts.iter().find(|fact| fact.name == *name).unwrap();
        assert_eq!(fact.reading, Reading::Holds, "{fact:#?}");
    }
}

/// The page is part of the proof, and the handshake of the clients.
fn was_asked_as_users_ask(report: &Report) {
    hold(report, &[FactName::UserPath]);
    let fact = report.facts.iter().find(|fact| fact.name == FactName::UserPath).unwrap();
    for source in ["GET / at ", "OpenClaw hello at "] {
        assert!(fact.source.contains(source), "{fact:#?}");
    }
}

/// The new version was tried before anything stopped, on a copy, while the old one was used; or nothing can be isolated here.
fn was_rehearsed(world: &World, report: &Report, beside: &[&str], figures: &mut Figures) -> bool {
    let how = rehearsal(report);
    figures.line("  rehearsal", how);
    if was_not_isolated(report, "the real gateway", figures) {
        return false;
    }
    assert!(how.starts_with(&format!("{NEW} started in isolation on a copy of the state")), "{how}");
    let facts = ["version", "readiness", "userpath", "tripwires", "ended on TERM after"];
    for fact in facts.iter().chain(beside) {
        assert!(how.contains(fact), "{fact}: {how}");
    }
    assert_eq!(std::fs::read_dir(world.copies()).unwrap().count(), 0, "a copy is left");
    true
}

fn rehearsal(report: &Report) -> &str {
    let step = report.steps.iter().rfind(|step| step.name == Act::Rehearse).unwrap();
    step.outcome.as_deref().unwrap()
}

/// Whether there was no rehearsal because the kernel grants no sandbox here; what is then not shown is told as skipped.
fn was_not_isolated(report: &Report, what: &str, figures: &mut Figures) -> bool {
    let is_skipped = rehearsal(report).starts_with("skipped: no isolation: ");
    if is_skipped {
        figures.line("skipped", format_args!("the rehearsal of {what}"));
    }
    is_skipped
}

/// A file of the page that both versions have.
fn shared_file(world: &World) -> String {
    traffic::shared_file([&world.root(1), &world.root(2)])
}

async fn taken_back(world: &mut World, registry: &Registry, figures: &mut Figures) {
    for (version, defect, _) in BROKEN {
        registry.publish(&openclaw::broken(&world.root(2), version, defect).unwrap());
    }
    let direct = own_address(world).await;
    let before = Kept::seen(world).await;
    let load = Traffic::on_gateway(world, &shared_file(world), "rollback").await;

    // These builds shall be taken back, not refused.
    let old = another_daemon(world, &[("rehearse", "never")]).await;
    let [(lost, _, cause), (wrong, _, why)] = BROKEN;
    let report = refused(world, lost, cause, figures).await;
    assert_eq!((report.status, report.resolution), (Some(Status::UpdateFailed), Resolution::OldVerified));
    assert!(report.causes[0].fault.detail.contains("ERR_MODULE_NOT_FOUND"), "{report:#?}");
    assert_eq!(world.view().await.process, Some(old), "nothing was stopped for it");
    let report = refused(world, wrong, why, figures).await;
    taken_back_by_itself(world, &report, Generation(2), direct).await;
    before.is_there(world).await;
    load.nobody_noticed(world, 1, figures).await;
}

/// With these rules from now on. The gateway and its front go on meanwhile.
async fn another_daemon(world: &mut World, rules: &[(&str, &str)]) -> Instance {
    let process = living(world).await;
    world.end_daemon().await;
    for (name, value) in rules {
        world.rule(name, value);
    }
    world.start_daemon(&[]).await;
    assert_eq!(living(world).await, process);
    process
}

async fn living(world: &World) -> Instance {
    let view = world.until("a served gateway", |view| view.report.serving.posture == "serve").await;
    view.process.unwrap()
}

/// A build that cannot work is not switched to, or does not prove itself and is taken back; the report says why.
async fn refused(world: &World, version: &str, expected: &str, figures: &mut Figures) -> Report {
    let (report, code) = world.update(version).await;
    assert!(matches!(code, 3 | 4), "{code}: {report:#?}");
    explained(&report, &format!("{NEW} -> {version}"), expected, figures);
    report
}

fn explained(report: &Report, name: &str, expected: &str, figures: &mut Figures) {
    figures.run(name, report);
    let causes: Vec<String> = report
        .causes
        .iter()
        .map(|cause| format!("{:?}: {} {}", cause.act, cause.fault.code, cause.fault.detail))
        .collect();
    figures.line("  causes", causes.join(" | "));
    assert!(causes.iter().any(|cause| cause.contains(expected)), "{causes:#?}");
}

/// The newer version serves again, from this generation.
async fn taken_back_by_itself(world: &World, report: &Report, generation: Generation, direct: SocketAddr) {
    assert_eq!((report.status, report.resolution), (Some(Status::RestartFailed), Resolution::OldVerified));
    assert_eq!(report.serving.version.as_deref(), Some(NEW), "{report:#?}");
    assert_eq!(world.store().current().unwrap(), Some(generation));
    for address in [world.front[0], world.front[1], direct] {
        assert_eq!(world.hello(address).await.version, NEW);
    }
}

/// What an update that fails must leave as it was.
struct Kept {
    sessions: BTreeSet<String>,
    identity: String,
    files: BTreeSet<PathBuf>,
}

impl Kept {
    async fn seen(world: &World) -> Self {
        Self::at(own_address(world).await, &world.claw()).await
    }

    async fn at(gateway: SocketAddr, claw: &Path) -> Self {
        Kept { sessions: sessions(gateway).await, identity: identity(claw), files: files(claw) }
    }

    async fn is_there(&self, world: &World) {
        let page = page(world.front[0]).await;
        assert_eq!(page.missing(world.front[1], CALL).await, Default::default());
        self.is_at(own_address(world).await, &world.claw()).await;
    }

    async fn is_at(&self, gateway: SocketAddr, claw: &Path) {
        let now = Self::at(gateway, claw).await;
        assert_eq!(now.identity, self.identity);
        let lost: Vec<_> = self.files.difference(&now.files).collect();
        let ended: Vec<_> = self.sessions.difference(&now.sessions).collect();
        assert!(lost.is_empty() && ended.is_empty(), "the state lost {lost:?} and the sessions {ended:?}");
    }
}

/// The sessions that the gateway knows.
async fn sessions(gateway: SocketAddr) -> BTreeSet<String> {
    let mut client = Client::connect(gateway, TOKEN, CALL).await.unwrap();
    let answer = client.call("sessions.list", &json!({}), CALL).await.unwrap();
    let openclaw::Answer::Given(list) = answer else { panic!("no sessions: {answer:?}") };
    let keys = list["sessions"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned());
    keys.collect()
}

/// Who the gateway is for its devices.
fn identity(claw: &Path) -> String {
    std::fs::read_to_string(claw.join("identity/device.json")).unwrap()
}

/// The files of the gateway's state, without what only a running process has.
fn files(claw: &Path) -> BTreeSet<PathBuf> {
    let files = walkdir::WalkDir::new(claw).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().to_owned());
    let is_passing = |path: &Path| {
        let name = path.to_string_lossy();
        [".lock", ".tmp", "-shm", "-wal"].iter().any(|end| name.ends_with(end))
    };
    files.filter(|path| !is_passing(path)).collect()
}
