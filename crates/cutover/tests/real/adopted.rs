//! A gateway that somebody runs without us, with a plugin that it has installed itself, is taken over with it and given back
//! with it.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test real adopted -- --nocapture`

use super::figures::Figures;
use super::ground::{Ground, INSTALL};
use super::world::{CALL, TOKEN, World};
use cutover_core::{FactName, Reading, Status};
use cutover_testkit::openclaw::{Client, LATEST, PLUGIN};
use cutover_testkit::slow;
use serde_json::Value;
use std::fs::FileType;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Under load a start takes its time.
const RULES: [&str; 3] =
    ["policy.soak = \"5s\"", "policy.hold = \"300s\"", "policy.start_deadline = \"300s\""];

#[tokio::test(flavor = "multi_thread")]
async fn a_real_gateway_is_taken_over_with_the_plugin_that_it_has_installed_itself_and_given_back_with_it() {
    if !slow::is_asked_for("real", "the real gateway is taken over and given back") {
        return;
    }
    let ground = Ground::alone().await;
    let version = LATEST[0];
    let package = ground.gateway(version).await;
    let world = ground.world_of("openclaw");
    world.bare();
    std::fs::write(world.claw().join("openclaw.json"), r#"{"gateway":{"mode":"local"}}"#).unwrap();
    let stock = |script: &str| world.stock(&ground.runtime, &package.join(script));
    let mut figures = Figures::named("adopted");
    let begun = Instant::now();
    let plugin = format!("{PLUGIN}@{version}");
    done(stock("openclaw.mjs").args(["plugins", "install", &plugin]), "its own installation").await;
    figures.took("its own installation of a plugin", begun.elapsed());
    let address = world.front[0];
    let mut old = stock("dist/index.js");
    old.args(["gateway", "--port", &address.port().to_string(), "--bind", "loopback"]);
    let mut old = old.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    answers(address, version).await;
    let place = installed(&world);
    let before = lies_there(&place);

    let url = format!("source.registry = \"{}\"", ground.registry.url());
    let port = address.port().to_string();
    let mut words = vec!["adopt", "openclaw", "--port", &port, "--apply", "--json"];
    RULES.into_iter().chain([url.as_str()]).for_each(|line| words.extend(["--set", line]));
    let taken = told(&world, &words).await;
    figures
        .line("the take-over's gap", format_args!("{} ms, of it stop {}", taken["gapMs"], taken["stopMs"]));
    timeout(CALL, old.wait()).await.expect("the old process is gone").unwrap();
    let view = world.view().await;
    assert_eq!(view.report.status, Some(Status::RestartVerified), "{view:#?}");
    let fact = view.report.facts.iter().find(|fact| fact.name == FactName::Plugins).unwrap();
    assert_eq!((fact.reading, fact.expected.contains("discord")), (Reading::Holds, true), "{fact:?}");
    assert_eq!(std::fs::read_link(&place).unwrap(), world.root(1).parent().unwrap().join(PLUGIN));
    answers(address, version).await;

    let back = told(&world, &["adopt", "openclaw", "--undo", "--json"]).await;
    figures.line("the old one again after", format_args!("{} ms", back["returnedMs"]));
    assert_eq!(back["seated"], serde_json::json!([]), "{back}");
    answers(address, version).await;
    assert_eq!(lies_there(&place), before, "what its installer laid there is back, and nothing beside it");
    figures.took("a take-over and its undoing, all of it", begun.elapsed());
    figures.keep();
    world.end_without_daemon();
}

async fn done(command: &mut Command, what: &str) {
    let output = timeout(INSTALL, command.output()).await.expect("it does not end").unwrap();
    assert!(output.status.success(), "{what}: {output:?}");
}

/// The result of a command of ours that succeeds.
async fn told(world: &World, words: &[&str]) -> Value {
    let output = world.cutover(words).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until a gateway of a version answers.
async fn answers(address: SocketAddr, version: &str) {
    let begun = Instant::now();
    let hello = loop {
        match Client::connect(address, TOKEN, CALL).await {
            Ok(client) => break client.hello().clone(),
            Err(error) => assert!(begun.elapsed() < CALL, "{error:#}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(hello.version, version);
}

/// Where the gateway's installer has laid its plugin.
fn installed(world: &World) -> PathBuf {
    let projects = std::fs::read_dir(world.claw().join("npm/projects")).unwrap();
    let mut places = projects.map(|entry| entry.unwrap().path().join("node_modules").join(PLUGIN));
    let place = places.next().unwrap();
    assert!(places.next().is_none(), "one project");
    place
}

/// What lies beside the plugin in its scope, and in it; each with what kind it is of and where it leads.
fn lies_there(place: &Path) -> Vec<(PathBuf, FileType, Option<PathBuf>)> {
    let entries = walkdir::WalkDir::new(place.parent().unwrap()).max_depth(3).sort_by_file_name();
    let entries = entries.into_iter().map(|entry| entry.unwrap());
    entries.map(|one| (one.path().to_owned(), one.file_type(), std::fs::read_link(one.path()).ok())).collect()
}
