//! A gateway that somebody runs without us is taken over and given back: one with a plugin that it has installed itself, and
//! one of the incident's generation with what it keeps.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test real adopted -- --nocapture`

use super::figures::Figures;
use super::ground::{Ground, INSTALL};
use super::world::{CALL, TOKEN, World, own_configuration};
use super::{Kept, hold, was_asked_as_users_ask};
use cutover_core::{FactName, Reading, Report, Status};
use cutover_testkit::openclaw::{Answer, Client, LATEST, NEW, PLUGIN};
use cutover_testkit::slow;
use serde_json::{Value, json};
use std::fs::FileType;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// What is started, not by the command.
const SCRIPT: &str = "dist/index.js";
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
    let gateway = Gateway::of(&ground, version).await;
    let world = &gateway.world;
    let mut figures = Figures::named("adopted");
    let begun = Instant::now();
    let plugin = format!("{PLUGIN}@{version}");
    let mut installs = gateway.stock("openclaw.mjs");
    done(installs.args(["plugins", "install", &plugin]), "its own installation").await;
    figures.took("its own installation of a plugin", begun.elapsed());
    let old = gateway.begun();
    answers(gateway.address(), version).await;
    let place = installed(world);
    let before = lies_there(&place);

    let report = gateway.taken_over(old, &mut figures).await;
    let fact = report.facts.iter().find(|fact| fact.name == FactName::Plugins).unwrap();
    assert_eq!((fact.reading, fact.expected.contains("discord")), (Reading::Holds, true), "{fact:?}");
    assert_eq!(std::fs::read_link(&place).unwrap(), world.root(1).parent().unwrap().join(PLUGIN));
    answers(gateway.address(), version).await;

    gateway.given_back(&mut figures).await;
    answers(gateway.address(), version).await;
    assert_eq!(lies_there(&place), before, "what its installer laid there is back, and nothing beside it");
    figures.took("a take-over and its undoing, all of it", begun.elapsed());
    figures.keep();
    gateway.world.end_without_daemon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_gateway_of_the_incident_is_taken_over_with_what_it_keeps_and_given_back_with_it() {
    if !slow::is_asked_for("real", "the incident's own gateway is taken over and given back") {
        return;
    }
    let ground = Ground::alone().await;
    let gateway = Gateway::of(&ground, NEW).await;
    let (address, claw) = (gateway.address(), gateway.world.claw());
    let mut figures = Figures::named("adopted-incident");
    let begun = Instant::now();
    let old = gateway.begun();
    answers(address, NEW).await;
    let mut client = Client::connect(address, TOKEN, CALL).await.unwrap();
    let answer = client.call("sessions.create", &json!({}), CALL).await.unwrap();
    assert!(matches!(answer, Answer::Given(_)), "{answer:?}");
    drop(client);
    let (kept, line) = (Kept::at(address, &claw).await, gateway.line());
    assert_eq!((kept.sessions.len(), line.len()), (1, 1), "{line:?}");

    let report = gateway.taken_over(old, &mut figures).await;
    let facts = [FactName::Identity, FactName::Code, FactName::Port, FactName::Version, FactName::OldGone];
    hold(&report, &facts);
    was_asked_as_users_ask(&report);
    assert_eq!(report.serving.version.as_deref(), Some(NEW));
    answers(address, NEW).await;
    kept.is_at(address, &claw).await;
    assert_eq!(gateway.line(), [""; 0], "nothing is started as the old process was");

    gateway.given_back(&mut figures).await;
    answers(address, NEW).await;
    assert_eq!(gateway.line(), line, "it is started as it was");
    kept.is_at(address, &claw).await;
    figures.took("a take-over and its undoing, all of it", begun.elapsed());
    figures.keep();
    gateway.world.end_without_daemon();
}

/// A gateway that is run by hand, in a world that has no service yet.
struct Gateway<'a> {
    ground: &'a Ground,
    package: PathBuf,
    world: World,
}

impl Gateway<'_> {
    async fn of<'a>(ground: &'a Ground, version: &str) -> Gateway<'a> {
        let package = ground.gateway(version).await;
        let world = ground.world_of("openclaw");
        world.bare();
        std::fs::write(world.claw().join("openclaw.json"), own_configuration().to_string()).unwrap();
        Gateway { ground, package, world }
    }

    fn address(&self) -> SocketAddr {
        self.world.front[0]
    }

    fn stock(&self, script: &str) -> Command {
        self.world.stock(&self.ground.runtime, &self.package.join(script))
    }

    fn begun(&self) -> Child {
        let mut gateway = self.stock(SCRIPT);
        gateway.args(["gateway", "--port", &self.address().port().to_string(), "--bind", "loopback"]);
        gateway.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The command lines of what runs of the package itself, and not of a copy.
    fn line(&self) -> Vec<String> {
        let script = self.package.join(SCRIPT);
        let lines = self.world.processes().into_iter().map(|(_, line)| line);
        lines.filter(|line| line.contains(script.to_str().unwrap())).collect()
    }

    async fn taken_over(&self, mut old: Child, figures: &mut Figures) -> Report {
        let url = format!("source.registry = \"{}\"", self.ground.registry.url());
        let port = self.address().port().to_string();
        let mut words = vec!["adopt", "openclaw", "--port", &port, "--apply", "--json"];
        RULES.into_iter().chain([url.as_str()]).for_each(|line| words.extend(["--set", line]));
        let taken = told(&self.world, &words).await;
        let gap = taken["gapMs"].as_u64().unwrap();
        figures.line("the take-over's gap", format_args!("{gap} ms, of it stop {}", taken["stopMs"]));
        timeout(CALL, old.wait()).await.expect("the old process is gone").unwrap();
        let view = self.world.view().await;
        assert_eq!(view.report.status, Some(Status::RestartVerified), "{view:#?}");
        view.report
    }

    async fn given_back(&self, figures: &mut Figures) {
        let back = told(&self.world, &["adopt", "openclaw", "--undo", "--json"]).await;
        figures.line("the old one again after", format_args!("{} ms", back["returnedMs"]));
        assert_eq!(back["seated"], json!([]), "{back}");
    }
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
