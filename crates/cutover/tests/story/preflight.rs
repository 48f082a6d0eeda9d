//! What is found before anything stops, in a daemon with a service that node runs.

use crate::stage::{
    assert_told, eventually, executable, is_alive, node, reported, rewrite, serving, signal, told, unserved,
    update, with_policy, world,
};
use cutover::demo::{Plan, SERVICE, World, free_address};
use cutover_core::{Finding, Level, Report, Resolution, Status};
use cutover_testkit::registry::{Package, Registry};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Answers everything with its version and its start. What it says of its version in 1.0.0 may be written into a file.
const APP: &str = "import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { version } from './chunk.mjs';
const [bootId, lie] = [randomUUID(), process.argv[3]];
const told = () => version === '1.0.0' && existsSync(lie) ? readFileSync(lie, 'utf8') : version;
export const later = () => import('./later.mjs');
console.log('starting', version);
const answer = () => JSON.stringify({ version: told(), bootId, pid: process.pid });
createServer((_, response) => response.end(answer())).listen(Number(process.argv[2]), '127.0.0.1');
";

/// A module that never ends loading.
const HANGS: &str =
    "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { for (;;) pause(); }\n";

fn files(version: &str) -> [(&'static str, String); 5] {
    let manifest = json!({ "name": "app", "version": version, "type": "module", "bin": "app.mjs" });
    [
        ("package.json", manifest.to_string()),
        ("app.mjs", APP.to_owned()),
        ("chunk.mjs", format!("export const version = '{version}';\n")),
        ("later.mjs", "export const more = 1;\n".to_owned()),
        ("notes.txt", "something\n".to_owned()),
    ]
}

/// Publishes a whole release of the app.
fn publish(world: &World, version: &str) -> PathBuf {
    let release = world.releases().join(version);
    std::fs::create_dir(&release).unwrap();
    for (name, text) in files(version) {
        std::fs::write(release.join(name), text).unwrap();
    }
    release
}

/// Compiles a module into a release.
fn compile(module: &Path, code: &str) {
    let source = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
    std::fs::write(source.path(), code).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(module).arg(source.path()).status();
    assert!(cc.unwrap().success());
}

fn command(entry: &str) -> String {
    format!("command = [\"{}\", \"{entry}\", \"{{port}}\", \"{{env:LIE}}\"]", node().display())
}

/// A world whose service is the app, run by node, with these versions published and no daemon yet.
fn published(weights: &str, versions: &[&str]) -> World {
    let plan =
        Plan { service: with_policy("env = { LIE = \"{world}/lie\" }", &[]), ..Plan::new(executable()) };
    let world = unserved(plan, &[]).unwrap();
    rewrite(&world, &[("command = ", command("{root}/app.mjs"))]);
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}\n{weights}\n")).unwrap();
    for version in versions {
        publish(&world, version);
    }
    world
}

/// The same, with 1.0.0 installed and serving.
async fn app(weights: &str, versions: &[&str]) -> anyhow::Result<World> {
    let mut world = published(weights, versions);
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

pub(crate) fn of<'a>(report: &'a Report, kind: &str) -> Vec<&'a Finding> {
    report.findings.iter().filter(|finding| finding.kind == kind).collect()
}

#[track_caller]
pub(crate) fn only<'a>(report: &'a Report, kind: &str, level: Level) -> &'a Finding {
    let found = of(report, kind);
    let [one] = found[..] else { panic!("not one of kind {kind}: {:#?}", report.findings) };
    assert_eq!(one.level, level, "{one}");
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_module_that_it_imports_is_refused_and_the_same_process_serves()
-> anyhow::Result<()> {
    let world = app("", &["1.0.0", "2.0.0", "3.0.0"]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    std::fs::remove_file(world.releases().join("2.0.0/chunk.mjs"))?;
    std::fs::remove_file(world.releases().join("3.0.0/later.mjs"))?;
    for (version, missing) in [("2.0.0", "chunk.mjs"), ("3.0.0", "later.mjs")] {
        let planned = world.cutover(&["plan", SERVICE, "--to", version]).await?;
        assert_eq!(planned.status.code(), Some(3), "{}", told(&planned));
        assert!(told(&planned).contains(missing), "{}", told(&planned));
        let refused = update(&world, version).await?;
        assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
        let fault = &refused.0.causes[0].fault;
        assert!(fault.code == "preflight" && fault.detail.contains(missing), "{fault:?}");
        assert_eq!(serving(&world, "1.0.0").await?.process, before);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_import_that_the_service_weighs_as_a_warning_lets_it_pass_and_is_told() -> anyhow::Result<()>
{
    let world = app("[service.web.preflight]\nimport = \"warn\"", &["1.0.0", "2.0.0"]).await?;
    std::fs::remove_file(world.releases().join("2.0.0/later.mjs"))?;
    let updated = update(&world, "2.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    let missing: Vec<_> =
        of(&updated.0, "import").into_iter().filter(|one| one.level == Level::Warn).collect();
    assert!(missing.len() == 1 && missing[0].text.contains("later.mjs"), "{:#?}", updated.0.findings);
    Ok(())
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_to_be_looked_at_keeps_nobody_from_updating() -> anyhow::Result<()> {
    let world = app("", &["1.0.0", "2.0.0"]).await?;
    let release = world.releases().join("2.0.0");
    std::fs::write(release.join("notes.txt"), "")?;
    std::os::unix::fs::symlink("nowhere", release.join("link"))?;
    // A leftover of our own store that nobody of ours keeps.
    let leftover = world.generation(1).join("core/app.mjs");
    let rival = Command::new(node()).arg(&leftover).arg("0").arg("/nowhere").stdout(Stdio::null()).spawn()?;
    let rival = Running(rival);
    let pid = rival.0.id();
    let executed = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.len() > 20);
    eventually("the rival", async || executed()).await?;
    let updated = update(&world, "2.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    let report = &updated.0;
    assert!(only(report, "empty", Level::Warn).text.contains("notes.txt"));
    assert!(only(report, "link", Level::Warn).text.contains("link"));
    assert!(only(report, "supervisor", Level::Warn).text.contains(&format!("pid {pid} ")));
    assert!(only(report, "version", Level::Note).text.contains("tells its version, 1.0.0"));
    assert!(only(report, "space", Level::Note).text.contains(" free"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_version_that_tells_another_is_named_and_may_be_replaced() -> anyhow::Result<()> {
    let world = app("", &["1.0.0", "2.0.0"]).await?;
    serving(&world, "1.0.0").await?;
    std::fs::write(world.path().join("lie"), "0.9.0")?;
    let updated = update(&world, "2.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    assert!(
        only(&updated.0, "version", Level::Warn).text.contains("tells version 0.9.0, 1.0.0 is installed")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_held_against_nothing() -> anyhow::Result<()> {
    let mut world = published("", &["1.0.0", "2.0.0"]);
    // The first version has always lacked it; nothing was there to tell that it matters.
    std::fs::remove_file(world.releases().join("1.0.0/later.mjs"))?;
    world.start_daemon().await?;
    let first = world.install("1.0.0").await?;
    let missing =
        of(&first, "import").into_iter().any(|one| one.level == Level::Warn && one.text.contains("later"));
    assert!(missing, "{:#?}", first.findings);
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    let back = reported(&world, &["rollback", SERVICE]).await?;
    assert_told(&back, Status::RestartVerified, Resolution::None, 0);
    assert!(of(&back.0, "import").is_empty() && !of(&back.0, "space").is_empty(), "{:#?}", back.0.findings);
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_ours_that_is_born_meanwhile_is_no_stranger() -> anyhow::Result<()> {
    let world = app("", &["1.0.0", "2.0.0"]).await?;
    for _ in 0..3 {
        let process = serving(&world, "1.0.0").await?.process.unwrap();
        signal(process.pid, Signal::KILL)?;
        let planned = world.cutover(&["plan", SERVICE, "--to", "2.0.0", "--json"]).await?;
        let plan: serde_json::Value = serde_json::from_slice(&planned.stdout)?;
        let findings: Vec<Finding> = serde_json::from_value(plan["findings"].clone())?;
        let strangers: Vec<_> = findings
            .iter()
            .filter(|finding| ["port", "supervisor"].contains(&finding.kind.as_str()))
            .collect();
        assert!(!findings.is_empty() && strangers.is_empty(), "{strangers:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_node_does_not_run_is_not_judged_by_node_s_rules() -> anyhow::Result<()> {
    let world =
        world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    let release = world.releases().join("2.0.0");
    let manifest =
        json!({ "name": "sample", "version": "2.0.0", "main": "gone.js", "engines": { "node": "<1" } });
    std::fs::write(release.join("package.json"), manifest.to_string())?;
    std::fs::write(release.join("index.mjs"), "import './gone.mjs';\n")?;
    let updated = update(&world, "2.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    assert!(only(&updated.0, "import", Level::Note).text.contains("not run by node"));
    assert!(only(&updated.0, "files", Level::Warn).text.contains("gone.js"));
    only(&updated.0, "engines", Level::Note);
    Ok(())
}

/// A release whose native module never ends loading, and what a child of a preflight that loads it has on its line.
fn hanging(world: &World, version: &str) -> String {
    let module = publish(world, version).join("hang.node");
    compile(&module, HANGS);
    world.state().join("services").to_string_lossy().into_owned()
}

/// The children that load a module below a directory.
fn children(below: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(below) && line.contains("hang.node") && is_alive(*pid)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_preflight_ends_its_children_at_once_and_the_next_run_does_not_wait() -> anyhow::Result<()>
{
    let world = app("", &["1.0.0", "3.0.0"]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    let below = hanging(&world, "2.0.0");
    let run = world.update("2.0.0").await?;
    eventually("the module's child", async || !children(&below).is_empty()).await?;
    let begun = Instant::now();
    world.client().call("update.cancel", json!({ "service": SERVICE })).await?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.causes[0].fault.code.as_str()),
        (Some(Status::UpdateFailed), "cancelled")
    );
    eventually("the child's end", async || children(&below).is_empty()).await?;
    assert_told(&update(&world, "3.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    // Half of what the child would have had.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_ne!(serving(&world, "3.0.0").await?.process, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_s_child_does_not_outlive_a_daemon_however_that_ends() -> anyhow::Result<()> {
    for word in [Signal::KILL, Signal::TERM] {
        let mut world = app("", &["1.0.0"]).await?;
        let service = serving(&world, "1.0.0").await?.process.unwrap();
        let below = hanging(&world, "2.0.0");
        world.update("2.0.0").await?;
        eventually("the module's child", async || !children(&below).is_empty()).await?;
        let begun = Instant::now();
        let daemon = world.daemon_mut().unwrap();
        signal(daemon.id(), word)?;
        daemon.wait()?;
        eventually("the child's end", async || children(&below).is_empty()).await?;
        // Half of what the child would have had.
        assert!(begun.elapsed() < Duration::from_secs(10), "{word:?}: {:?}", begun.elapsed());
        assert_eq!(
            is_alive(service.pid),
            word == Signal::KILL,
            "a killed daemon leaves it, a told one stops it"
        );
    }
    Ok(())
}

/// A package that no other story installs: a process of it elsewhere on this machine would be a rival.
const TENANT: &str = "tenant";

#[tokio::test(flavor = "multi_thread")]
async fn two_services_of_one_package_under_one_daemon_are_no_rivals() -> anyhow::Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        println!("skipped: two_services_of_one_package: npm is not installed");
        return Ok(());
    }
    let registry = Registry::start().await?;
    for version in ["1.0.0", "2.0.0"] {
        let bare = Package::new(TENANT, version).field("type", json!("module"));
        let files = files(version).into_iter().filter(|(name, _)| *name != "package.json");
        registry.publish(&files.fold(bare, |package, (name, text)| package.file(name, text)));
    }
    registry.tag(TENANT, "latest", "2.0.0");
    let mut world = published("", &[]);
    let source = format!("source = {{ npm = \"{TENANT}\", registry = \"{}\" }}", registry.url());
    rewrite(&world, &[("source = ", source)]);
    let config = std::fs::read_to_string(world.config())?;
    let other = free_address()?;
    let second =
        config.split_once("[service.web]").unwrap().1.replace(&world.address.to_string(), &other.to_string());
    std::fs::write(world.config(), format!("{config}\n[service.other]{second}"))?;
    world.start_daemon().await?;
    let installed = reported(&world, &["update", "other", "--to", "1.0.0"]).await?;
    assert_told(&installed, Status::RestartVerified, Resolution::None, 0);
    for version in ["1.0.0", "2.0.0"] {
        let updated = update(&world, version).await?;
        assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
        assert!(of(&updated.0, "supervisor").is_empty(), "{:#?}", updated.0.findings);
        assert!(!of(&updated.0, "import").is_empty(), "it was looked at: {:#?}", updated.0.findings);
    }
    Ok(())
}
