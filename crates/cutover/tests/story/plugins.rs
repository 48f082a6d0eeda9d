//! A plugin is one thing with its package: updated, proven, refused and taken back together with it. In a daemon with a
//! service that node runs, both from a registry.

use crate::pair::{
    APP, BARE, PLUGIN, PROJECT, SIDE, WITH_VERSION, app, extra, published, published_with_a_seat,
};
use crate::preflight::{of, only};
use crate::stage::{assert_told, reported, rewrite, serving, told, update, view, with_policy};
use cutover::demo::{SERVICE, World};
use cutover_core::{FactName, Fault, Level, Reading, Report, Resolution, Status};
use cutover_testkit::registry::{Package, Registry};
use std::path::PathBuf;
use std::process::Command;

/// In its rehearsal a program does not see the world around its state.
const FAILS_AT_HOME: &str = "import { existsSync } from 'node:fs';
if (existsSync(process.env.PLUGIN.replace(/data.*/, 'cutover.toml'))) setTimeout(() => process.exit(1), 100);
";

fn npm_is_there() -> bool {
    let is_there = Command::new("npm").arg("--version").output().is_ok();
    if !is_there {
        println!("skipped: stories of plugins: npm is not installed");
    }
    is_there
}

/// A world with 1.0.0 of the app and of its plugin serving, or nothing where there is no npm.
async fn installed() -> anyhow::Result<Option<(World, Registry)>> {
    if !npm_is_there() {
        return Ok(None);
    }
    let (mut world, registry) = published(&with_policy("", &[])).await?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 1));
    Ok(Some((world, registry)))
}

/// Where the plugin lies in a generation.
fn plugin_in(world: &World, generation: u32) -> PathBuf {
    world.generation(generation).join("core/node_modules").join(PLUGIN)
}

/// Where the live process was told that its plugin lies.
async fn plugin_of_the_process(world: &World) -> anyhow::Result<PathBuf> {
    let pid = view(world).await?.process.unwrap().pid;
    let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
    let mut entries = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let told = entries.find_map(|entry| entry.strip_prefix("PLUGIN=").map(PathBuf::from));
    Ok(told.expect("the service is told where its plugin lies").canonicalize()?)
}

#[track_caller]
fn assert_plugins(report: &Report, expected: &str, reading: Reading) {
    let fact = report.facts.iter().find(|fact| fact.name == FactName::Plugins).unwrap();
    assert_eq!((fact.expected.as_str(), fact.reading), (expected, reading), "{fact:?}");
}

/// The app never tells its second plugin, which is only wanted: that is said, and stands in nobody's way.
#[track_caller]
fn assert_side_is_missed(report: &Report, extra: &str) {
    assert_plugins(report, &format!("extra@{extra}; side@1.0.0, only wanted"), Reading::Warns);
    let said =
        "the service does not tell all of its plugins: not [\"side@1.0.0\"], only wanted, of 1 that run";
    let found = of(report, "plugins");
    assert!(found.iter().any(|one| one.text == said && one.level == Level::Warn), "{found:#?}");
}

#[track_caller]
fn assert_side_is_missed_in_its_rehearsal(report: &Report) {
    let rehearsed = crate::rehearsal::outcome(report);
    let is_told = rehearsed.contains("not [\"side@1.0.0\"], only wanted");
    assert!(is_told || rehearsed.starts_with("skipped: no isolation: "), "{rehearsed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_channel_moved_is_an_update_of_the_same_version_and_is_proven() -> anyhow::Result<()> {
    let Some((world, registry)) = installed().await? else { return Ok(()) };
    let current = update(&world, "1.0.0").await?;
    assert_eq!((current.1, current.0.sentence.as_str()), (0, "1.0.0 is already current."));
    registry.publish(&extra("1.1.0", "format"));
    registry.tag(PLUGIN, "latest", "1.1.0");
    let planned = world.cutover(&["plan", SERVICE, "--to", "1.0.0"]).await?;
    let without =
        "1.0.0 goes without the plugin @toy/none (wanted: latest); the running release does not have it";
    assert!(planned.status.success() && told(&planned).contains(without), "{}", told(&planned));
    let updated = update(&world, "1.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    assert_plugins(&updated.0, "extra@1.1.0", Reading::Holds);
    assert!(only(&updated.0, "plugins", Level::Warn).text.contains(without));
    let target = updated.0.target.unwrap().release;
    let [plugin] = target.plugins.as_slice() else { panic!("{target:?}") };
    assert_eq!(plugin.to_string(), "@toy/extra@1.1.0");
    assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_to_keep_stays_as_it_is_while_its_channel_moves_and_its_package_is_updated()
-> anyhow::Result<()> {
    if !npm_is_there() {
        return Ok(());
    }
    let (mut world, registry) = published(&with_policy("", &[])).await?;
    rewrite(&world, &[("plugins = ", format!("plugins = [{{ npm = \"{PLUGIN}\", policy = \"keep\" }}]"))]);
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    registry.publish(&extra("1.1.0", "format"));
    registry.tag(PLUGIN, "latest", "1.1.0");
    let current = update(&world, "1.0.0").await?;
    assert_eq!((current.1, current.0.sentence.as_str()), (0, "1.0.0 is already current."));
    registry.publish(&app("2.0.0", WITH_VERSION));
    let updated = update(&world, "2.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    assert_plugins(&updated.0, "extra@1.0.0", Reading::Holds);
    assert_eq!(updated.0.target.unwrap().release.plugins[0].version, "1.0.0");
    assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_asks_its_host_for_a_name_that_it_lacks_is_refused_and_the_same_process_serves()
-> anyhow::Result<()> {
    let Some((world, registry)) = installed().await? else { return Ok(()) };
    let before = serving(&world, "1.0.0").await?.process;
    registry.publish(&extra("1.1.0", "formatLine"));
    registry.tag(PLUGIN, "latest", "1.1.0");
    let refused = update(&world, "1.0.0").await?;
    assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
    let Fault { code, detail } = &refused.0.causes[0].fault;
    let missing = "does not provide an export named 'formatLine'";
    assert!(code == "preflight" && detail.contains(missing) && detail.contains(PLUGIN), "{detail}");
    assert_eq!(serving(&world, "1.0.0").await?.process, before);
    assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_version_goes_back_together_with_its_plugin() -> anyhow::Result<()> {
    let Some((world, registry)) = installed().await? else { return Ok(()) };
    let broken = app("2.0.0", WITH_VERSION).file("app.mjs", format!("{APP}\nprocess.exit(1);\n"));
    registry.publish(&broken);
    // This one starts, and does not say which version of its plugin runs.
    registry.publish(&app("3.0.0", BARE));
    registry.publish(&extra("2.0.0", "format"));
    registry.tag(PLUGIN, "latest", "2.0.0");
    for (version, code, said) in [
        ("2.0.0", "exited", "ended: Code(1)"),
        ("3.0.0", "timeout", "extra told without a version, of 1 that run"),
    ] {
        let ended = update(&world, version).await?;
        assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
        let fault = &ended.0.causes[0].fault;
        assert!(fault.code == code && fault.detail.contains(said), "{fault:?}");
        let target = ended.0.target.as_ref().unwrap();
        assert_eq!(target.release.plugins[0].version, "2.0.0", "it was with the newer plugin");
        assert!(plugin_in(&world, target.generation.0).is_dir());
        serving(&world, "1.0.0").await?;
        assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 1));
        assert_plugins(&ended.0, "extra@1.0.0", Reading::Holds);
    }
    let back = update(&world, "1.0.0").await?;
    assert!(back.0.ok && of(&back.0, "plugins").len() == 1, "{:#?}", back.0);
    assert_plugins(&back.0, "extra@2.0.0", Reading::Holds);
    let undone = reported(&world, &["rollback", SERVICE]).await?;
    assert_told(&undone, Status::RestartVerified, Resolution::None, 0);
    only(&undone.0, "plugins", Level::Note);
    assert_eq!(plugin_of_the_process(&world).await?, plugin_in(&world, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_looked_for_in_the_state_sits_there_with_each_version_and_goes_back_with_it()
-> anyhow::Result<()> {
    if !npm_is_there() {
        return Ok(());
    }
    let (mut world, registry) = published_with_a_seat(&with_policy("", &[("rehearse", "\"auto\"")])).await?;
    let link = world.path().join("data").join(PROJECT).join("node_modules").join(PLUGIN);
    let sitting = || std::fs::read_link(&link).unwrap();
    // What its own installer laid there before is nobody's to remove.
    std::fs::create_dir_all(&link)?;
    std::fs::write(link.join("index.mjs"), "export const version = '0.9.0';\n")?;
    let side = world.path().join("data/npm/projects/side");
    registry.publish(&Package::new(SIDE, "1.0.0"));
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    assert_side_is_missed(&view(&world).await?.report, "1.0.0");
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 1).canonicalize()?);
    assert!(link.with_file_name(".extra.cutover-aside").join("index.mjs").is_file());

    registry.publish(&extra("1.1.0", "format"));
    registry.tag(PLUGIN, "latest", "1.1.0");
    let planned = world.cutover(&["plan", SERVICE, "--to", "1.0.0"]).await?;
    assert!(told(&planned).contains("@toy/extra sits at "), "{}", told(&planned));
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 1).canonicalize()?, "a plan moves nobody");
    // Nobody knows which of two the service would take.
    let other = world.path().join("data/npm/projects/other/node_modules").join(PLUGIN);
    std::fs::create_dir_all(&other)?;
    let manifest = format!("{{\"dependencies\": {{\"{PLUGIN}\": \"0.9.0\"}}}}");
    std::fs::write(world.path().join("data/npm/projects/other/package.json"), manifest)?;
    let refused = update(&world, "1.0.0").await?;
    assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
    assert!(refused.0.causes[0].fault.detail.contains("other/node_modules"), "{:?}", refused.0.causes);
    std::fs::remove_dir_all(world.path().join("data/npm/projects/other"))?;
    let updated = update(&world, "1.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    assert_side_is_missed(&updated.0, "1.1.0");
    assert_side_is_missed_in_its_rehearsal(&updated.0);
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 2).canonicalize()?);

    // Its way to its host is in the plugin itself, where some hosts look for it.
    let host = link.join("node_modules/app").canonicalize()?;
    assert_eq!(host, world.generation(2).join("core/node_modules/app").canonicalize()?);

    // Started after the cut, and not only in its rehearsal: it has another directory there.
    let broken = app("2.0.0", WITH_VERSION).file("app.mjs", format!("{APP}\n{FAILS_AT_HOME}"));
    registry.publish(&broken);
    registry.publish(&extra("2.0.0", "format"));
    registry.tag(PLUGIN, "latest", "2.0.0");
    assert!(side.is_dir());
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 2).canonicalize()?);
    assert!(side.join("node_modules").join(SIDE).is_symlink(), "2.0.0 went without it");

    registry.publish(&app("3.0.0", WITH_VERSION));
    let updated = update(&world, "3.0.0").await?;
    assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
    let told: Vec<String> = of(&updated.0, "plugins").iter().map(|one| one.text.clone()).collect();
    assert!(told.iter().any(|one| one.starts_with("nobody sits at ")), "{told:#?}");
    assert_plugins(&updated.0, "extra@2.0.0", Reading::Holds);
    assert!(!side.exists(), "what was made for a plugin goes with it");
    let undone = reported(&world, &["rollback", SERVICE, "--data", "restore"]).await?;
    assert_told(&undone, Status::RestartVerified, Resolution::None, 0);
    assert!(side.join("node_modules").join(SIDE).is_symlink());
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 2).canonicalize()?);
    assert_side_is_missed(&undone.0, "1.1.0");

    // Whatever the service says of itself: what it may have loaded is not what was sealed.
    let late = APP.replace("const answer", "await new Promise((go) => setTimeout(go, 1500));\nconst answer");
    registry.publish(&app("4.0.0", WITH_VERSION).file("app.mjs", late));
    let run = world.update("4.0.0").await?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    std::fs::remove_file(&link)?;
    std::fs::create_dir(&link)?;
    std::fs::write(link.join("index.mjs"), "export const version = '2.0.0';\n")?;
    let ended = world.end_of(&run).await?;
    assert_eq!((ended.status, ended.resolution), (Some(Status::RestartFailed), Resolution::OldVerified));
    let fault = &ended.causes[0].fault;
    assert!(fault.detail.contains("is not what it leads to"), "{fault:?}");
    assert_eq!(sitting().canonicalize()?, plugin_in(&world, 2).canonicalize()?);
    Ok(())
}
