//! Another daemon from npm, with nothing of its own in this program: Node-RED from one major version to the next and back,
//! as twenty lines of configuration have it. What its user made of it is served before, meanwhile and after.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test real node_red -- --nocapture`

use super::disk::Disk;
use super::figures::Figures;
use super::ground::Ground;
use super::hold;
use super::traffic::Traffic;
use super::world::{CALL, World};
use cutover_core::{FactName, Report, Resolution, Status};
use cutover_testkit::openclaw::{Runtime, fetch};
use cutover_testkit::slow;
use std::path::Path;
use std::time::Instant;
use toml::{Table, Value};

const SERVICE: &str = "node-red";
/// The last of a major version, and the first of the next that stayed.
const VERSIONS: [&str; 2] = ["4.1.15", "5.0.7"];
/// Where the user's flow answers, and what it says.
const PATH: &str = "/flow";
const SAYS: &str = "made by its user";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_node_red_being_updated_over_a_major_version_and_back_with_its_user_s_flows() {
    if !slow::is_asked_for("real", "Node-RED is updated over a major version and back") {
        return;
    }
    let ground = Ground::alone().await;
    let mut world = ground.world_of(SERVICE);
    world.settle(settings(&ground.runtime, &ground.registry.url(), &world.claw()));
    std::fs::write(world.claw().join("flows.json"), flows().to_string()).unwrap();
    let mut figures = Figures::named(SERVICE);
    let begun = Instant::now();
    world.start_daemon(&[]).await;
    let [old, new] = VERSIONS;
    let (report, code) = world.update(old).await;
    figures.run(&format!("{SERVICE} {old} from npm"), &report);
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    serves(&world, old).await;

    let load = Traffic::on_paths(&world, &[PATH, "/", "/settings"], SERVICE).await;
    let disk = Disk::watched(&world);
    let (report, code) = world.update(new).await;
    figures.run(&format!("{SERVICE} {old} -> {new}"), &report);
    figures.disk(&disk.end());
    proven(&report, code, &mut figures);
    serves(&world, new).await;

    let (report, code) = world.reported(&["rollback", SERVICE, "--data", "restore"]).await;
    figures.run(&format!("{SERVICE} {new} -> {old}, a person's way back"), &report);
    proven(&report, code, &mut figures);
    serves(&world, old).await;
    load.nobody_noticed(&world, 2, &mut figures).await;
    figures.took(&format!("{SERVICE}, all of it"), begun.elapsed());
    figures.keep();
    world.end().await;
}

/// It is ready when its user's flow answers, and states its version in its settings.
fn settings(runtime: &Runtime, registry: &str, state: &Path) -> Table {
    let text = r#"
        source = { npm = "node-red" }
        command = ["{node}", "{root}/red.js", "--port", "{port}", "--userDir", "STATE", "-D", "uiHost=127.0.0.1"]
        port = "auto"
        state = [{ path = "STATE", kind = "files" }]
        probe = { live = "/settings", ready = "PATH", page = "/", version = { http = "/settings" } }
    "#;
    let text = text.replace("STATE", state.to_str().unwrap()).replace("PATH", PATH);
    let mut settings: Table = text.parse().unwrap();
    settings["source"].as_table_mut().unwrap().insert("registry".into(), Value::from(registry));
    settings.insert("node".into(), runtime.node().to_str().unwrap().into());
    settings
}

fn flows() -> serde_json::Value {
    serde_json::json!([
        {"id": "tab", "type": "tab", "label": "Flow"},
        {"id": "in", "type": "http in", "z": "tab", "url": PATH, "method": "get", "x": 1, "y": 1, "wires": [["say"]]},
        {"id": "say", "type": "template", "z": "tab", "field": "payload", "fieldType": "msg", "syntax": "plain",
         "template": SAYS, "output": "str", "x": 2, "y": 1, "wires": [["out"]]},
        {"id": "out", "type": "http response", "z": "tab", "x": 3, "y": 1, "wires": []},
    ])
}

fn proven(report: &Report, code: i32, figures: &mut Figures) {
    assert_eq!(
        (code, report.status, report.resolution),
        (0, Some(Status::RestartVerified), Resolution::None),
        "{report:#?}"
    );
    figures.verdict(report);
    hold(report, &[FactName::Identity, FactName::Code, FactName::Port, FactName::Version, FactName::OldGone]);
}

/// On both addresses its own version, and what its user made.
async fn serves(world: &World, version: &str) {
    for address in world.front {
        let told = fetch(address, "/settings", None, CALL).await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(told["version"], version, "{told}");
        let said = fetch(address, PATH, None, CALL).await.unwrap();
        assert_eq!((said.status, &said.body[..]), (200, SAYS.as_bytes()));
    }
}
