//! A gateway that has installed a plugin itself is taken over with it, updated with it, and given back with it.

use super::world::{Started, VERSION, World};
use super::{ended, is_given_back, is_taken_over, only};
use cutover_testkit::registry::Registry;
use serde_json::Value;
use std::path::PathBuf;

/// The gateway of a later version, with the plugin's.
const LATER: &str = "2026.5.5";

fn serving() -> World {
    let world = World::serving(Started::Plainly);
    world.install_plugin();
    world
}

/// What the proof has seen of the plugins.
#[track_caller]
fn proven(world: &World) -> Value {
    let view = world.view();
    let facts = view["report"]["facts"].as_array().unwrap_or_else(|| panic!("{view:#}"));
    facts.iter().find(|fact| fact["name"] == "plugins").unwrap_or_else(|| panic!("{view:#}")).clone()
}

/// The plugin of a generation sits in the state.
#[track_caller]
fn is_seated(world: &World, generation: &str) {
    let target = std::fs::read_link(world.plugin()).unwrap();
    let expected = format!("generations/{generation}/core/node_modules/@toy/extra");
    assert!(target.ends_with(&expected), "{}", target.display());
    let fact = proven(world);
    assert_eq!(fact["reading"], "holds", "{fact:#}");
}

/// The plugin lies where it lay, with its own way to the old tree.
#[track_caller]
fn is_as_it_was(world: &World) {
    let plugin = world.plugin();
    assert!(plugin.is_dir() && !plugin.is_symlink());
    assert_eq!(std::fs::read_link(plugin.join("node_modules/openclaw")).unwrap(), world.package());
    let beside: Vec<PathBuf> =
        std::fs::read_dir(plugin.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(beside, [plugin], "nothing of ours is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_it_has_installed_itself_is_one_thing_with_it_from_then_on_and_goes_back_with_it() {
    let registry = Registry::start().await.unwrap();
    let story = move || {
        let world = serving();
        let old = only(&world.gateways());
        let before = world.everything();
        let said = ended(&world, &world.adopt(&[]), 0);
        assert!(world.everything() == before, "something was changed");
        for expected in [
            format!("@toy/extra {VERSION} comes along, and follows the gateway's version"),
            "{ npm = \"@toy/extra\", version = \"{version}\", project = \"{env:OPENCLAW_STATE_DIR}/npm/projects/toy-extra-1\", id = \"toy-extra\" }".to_owned(),
            format!("put {} aside", world.plugin().display()),
        ] {
            assert!(said.contains(&expected), "{expected} is missing:\n{said}");
        }
        let url = format!("source.registry = \"{}\"", registry.url());
        ended(&world, &world.adopt(&["--apply", "--set", &url]), 0);
        is_taken_over(&world, old);
        is_seated(&world, "0001");
        world.publish(&registry, LATER);
        world.publish_plugin(&registry, LATER);
        ended(&world, &world.run(&["update", "openclaw"]), 0);
        is_seated(&world, "0002");
        ended(&world, &world.run(&["rollback", "openclaw", "--to", "1", "--data", "restore"]), 0);
        is_seated(&world, "0001");
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
        is_as_it_was(&world);
    };
    tokio::task::spawn_blocking(story).await.unwrap();
}

#[test]
fn a_take_over_whose_copy_does_not_run_its_plugin_undoes_itself() {
    let world = serving();
    std::fs::write(world.path("claw/deaf"), "").unwrap();
    let said = ended(&world, &world.adopt(&["--apply"]), 3);
    assert!(said.contains("the take-over failed") && said.contains("toy-extra@2026.5.4"), "{said}");
    is_given_back(&world);
    is_as_it_was(&world);
}

/// `cargo test -p cutover --features failpoints --test adopt plugins`
#[cfg(feature = "failpoints")]
#[test]
fn what_was_found_is_what_is_taken_along_or_nothing_is_taken_over() {
    let world = serving();
    let died = world.adopt_dying("predecessor: recorded", &["--apply"]);
    assert_eq!(died.status.code(), None, "{}", super::told(&died));
    let manifest = world.plugin().join("package.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace(VERSION, LATER)).unwrap();
    let said = ended(&world, &world.adopt(&["--apply"]), 3);
    assert!(said.contains(&format!("it was found as {VERSION}, and is version {LATER} since")), "{said}");
    is_given_back(&world);
}

#[test]
fn whoever_names_plugins_has_the_last_word_and_what_stays_is_told_with_why() {
    let world = serving();
    let said = ended(&world, &world.adopt(&["--set", "\"plugins\" = []"]), 0);
    assert!(said.contains("plugins\" = []") && !said.contains("comes along"), "{said}");
    std::fs::write(
        world.path("claw/npm/projects/toy-extra-1/package.json"),
        r#"{"dependencies":{"@toy/extra":"file:x.tgz"}}"#,
    )
    .unwrap();
    for flags in [&[] as &[&str], &["--apply"]] {
        let said = ended(&world, &world.adopt(flags), 0);
        assert!(said.contains("it was installed as file:x.tgz"), "{said}");
    }
    assert!(world.plugin().is_dir() && !world.plugin().is_symlink());
}

/// The same.
#[cfg(feature = "failpoints")]
#[test]
fn whoever_dies_while_a_plugin_takes_its_seat_or_leaves_it_is_gone_on_with() {
    let (world, point) = (serving(), "seat put aside@3");
    let old = only(&world.gateways());
    // The first two are in copies for validators. The next daemon that the command starts does not get there again.
    ended(&world, &world.adopt_dying(point, &["--apply"]), 0);
    assert!(world.daemon_log().contains("crash point seat put aside"), "{}", world.daemon_log());
    is_taken_over(&world, old);
    is_seated(&world, "0001");
    let died = world.adopt_dying("seat vacated", &["--undo"]);
    assert_eq!(died.status.code(), None, "{}", super::told(&died));
    ended(&world, &world.adopt(&["--undo"]), 0);
    is_given_back(&world);
    is_as_it_was(&world);
}
