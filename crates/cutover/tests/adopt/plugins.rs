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
            format!("@toy/extra {VERSION}: comes along"),
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
    assert!(said.contains("the take-over failed") && said.contains("toy-extra"), "{said}");
    is_given_back(&world);
    is_as_it_was(&world);
}

#[test]
fn whoever_names_plugins_has_the_last_word() {
    let world = serving();
    let said = ended(&world, &world.adopt(&["--set", "plugins = []"]), 0);
    assert!(said.contains("plugins = []") && !said.contains("toy-extra"), "{said}");
}
