//! What is taken over, proven and taken back is what the old process worked on: its own state and its own configuration.

use super::world::{Manner, Started, World};
use super::{deserted, ended, is_given_back, is_taken_over, only};
use cutover_testkit::registry::Registry;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What the copy says of where its files lie.
fn page(world: &World) -> Value {
    world.get("/readyz").expect("the address answers")
}

#[test]
fn a_home_or_a_profile_of_its_own_leads_to_the_state_that_is_in_use_and_to_no_other() {
    for (by, below) in [("home", "own/.openclaw"), ("profile", "home/.openclaw-work")] {
        let world = World::serving_so(Started::Plainly, |world| {
            for path in [below, "home/.openclaw"] {
                fs::create_dir_all(world.path(path)).unwrap();
                fs::write(world.path(path).join("openclaw.json"), "{}").unwrap();
            }
            let own = Some(world.path("own").display().to_string()).filter(|_| by == "home");
            let words = if by == "profile" { vec!["--profile", "work"] } else { Vec::new() };
            Manner { env: vec![("OPENCLAW_STATE_DIR", None), ("OPENCLAW_HOME", own)], words }
        });
        let (old, state) = (only(&world.gateways()), world.path(below).display().to_string());
        assert_eq!(page(&world)["state"], state, "the gateway has it there");
        let said = ended(&world, &world.adopt(&[]), 0);
        assert!(said.contains(&format!("OPENCLAW_STATE_DIR = \"{state}\"")), "{by}: {said}");
        assert!(
            said.contains("its hello tells the same") && said.contains(&format!("copy of {state}")),
            "{said}"
        );
        ended(&world, &world.adopt(&["--apply"]), 0);
        is_taken_over(&world, old);
        assert_eq!(page(&world)["state"], state, "{by}: and so has the copy");
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
        assert_eq!(page(&world)["state"], state);
    }
}

#[test]
fn a_gateway_that_tells_another_state_than_it_was_started_with_is_refused_before_anything_is_changed() {
    let world = World::serving_so(Started::Plainly, |world| {
        let other = world.path("work").display().to_string();
        Manner { env: vec![("SAYS_STATE", Some(other))], ..Manner::default() }
    });
    let (old, before) = (only(&world.gateways()), world.everything());
    for flags in [&[] as &[&str], &["--apply"]] {
        let said = ended(&world, &world.adopt(flags), 8);
        for word in [
            format!("tells that its state is {}", world.path("work").display()),
            format!("come to {}", world.path("claw").display()),
            "Start it with OPENCLAW_STATE_DIR set".to_owned(),
        ] {
            assert!(said.contains(&word), "{word} is missing: {said}");
        }
        assert!(world.everything() == before, "something was changed");
    }
    assert_eq!(only(&world.gateways()), old);
}

#[test]
fn a_copy_that_works_on_other_state_is_no_take_over_and_it_undoes_itself() {
    let world = World::serving(Started::Plainly);
    fs::write(world.path("claw/lost"), "").unwrap();
    let said = ended(&world, &world.adopt(&["--apply"]), 3);
    let other = format!("the copy tells that its state is {}", world.path("home").display());
    assert!(said.contains(&other) && said.contains("the take-over failed"), "{said}");
    is_given_back(&world);
}

#[test]
fn a_copy_that_cannot_be_asked_where_its_files_lie_is_no_take_over() {
    let by_http = "probe.version = { http = \"/readyz\" }";
    let world = World::serving(Started::Plainly);
    let before = world.everything();
    for flags in [&["--set", by_http] as &[&str], &["--apply", "--set", by_http]] {
        let said = ended(&world, &world.adopt(flags), 8);
        assert!(said.contains("leave it out of --set"), "{said}");
        assert!(world.everything() == before, "something was changed");
    }
    // Neither is one whose file is edited while nobody goes on with it.
    fs::write(world.path("claw/slow"), "").unwrap();
    deserted(&world, "\"ending\"");
    world.kill_daemons();
    let [file, _] = world.written();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("preset = ", &format!("{by_http}\npreset = "))).unwrap();
    let mut daemon = world.serve(None);
    world.until("the return", || world.record().contains("\"returned\""));
    let told = format!("{}{}", world.record(), world.view());
    assert!(told.contains("where the copy's files lie cannot be asked"), "{told}");
    assert_eq!(page(&world)["argv"][2], world.port.to_string(), "the old one has its address");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_gateway_that_does_not_tell_where_its_files_lie_is_taken_over_with_a_note() {
    let world = World::serving_so(Started::Plainly, |_| Manner {
        env: vec![("MUTE", Some("1".into()))],
        ..Manner::default()
    });
    let old = only(&world.gateways());
    let request = world.ask_to_restart(old);
    for flags in [&[] as &[&str], &["--apply"]] {
        assert!(request.exists(), "nothing is changed by a plan");
        let said = ended(&world, &world.adopt(flags), 0);
        assert!(said.contains("note: where its state and its configuration lie is derived"), "{said}");
    }
    is_taken_over(&world, old);
    assert!(!request.exists(), "what asks for a restart is withdrawn, wherever its state is known from");
}

#[test]
fn a_gateway_that_wants_a_word_of_its_environment_s_with_each_question_is_asked_with_it_before_and_after() {
    let world = World::serving_so(Started::Plainly, |_| Manner {
        env: vec![("WORD", Some("open-up".into()))],
        ..Manner::default()
    });
    let old = only(&world.gateways());
    let refused = ended(&world, &world.adopt(&[]), 8);
    assert!(refused.contains("did not show its page"), "{refused}");
    let headers = r#"probe.headers = { X-Word = "{env:WORD}" }"#;
    ended(&world, &world.adopt(&["--apply", "--set", headers]), 0);
    is_taken_over(&world, old);
    ended(&world, &world.adopt(&["--undo"]), 0);
    is_given_back(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_outside_of_the_state_is_taken_over_and_taken_back_with_it() {
    let registry = Registry::start().await.unwrap();
    let story = move || {
        let world = World::serving_so(Started::Plainly, |world| {
            fs::create_dir(world.path("own")).unwrap();
            fs::write(world.path("own/claw.json"), "{}").unwrap();
            let path = Some("../own/claw.json".to_owned());
            Manner { env: vec![("OPENCLAW_CONFIG_PATH", path)], ..Manner::default() }
        });
        let file = world.path("own/claw.json").canonicalize().unwrap();
        let old = only(&world.gateways());
        let said = ended(&world, &world.adopt(&[]), 0);
        for word in [
            format!("{}, outside of its state, and copied and taken back with it", file.display()),
            format!("OPENCLAW_CONFIG_PATH = \"{}\"", file.display()),
            format!("copy of {} and {}", world.path("claw").display(), file.display()),
        ] {
            assert!(said.contains(&word), "{word} is missing: {said}");
        }
        let url = format!("source.registry = \"{}\"", registry.url());
        ended(&world, &world.adopt(&["--apply", "--set", &url]), 0);
        is_taken_over(&world, old);
        assert_eq!(page(&world)["configuration"], file.display().to_string());
        world.publish(&registry, "2026.5.5");
        ended(&world, &world.run(&["update", "openclaw"]), 0);
        fs::write(&file, r#"{"only": "the newer one knows this"}"#).unwrap();
        ended(&world, &world.run(&["rollback", "openclaw", "--to", "1", "--data", "restore"]), 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
    };
    tokio::task::spawn_blocking(story).await.unwrap();
}

#[test]
fn a_configuration_that_nobody_could_lay_back_is_told_by_the_plan_and_in_each_report() {
    let world = World::serving_so(Started::Plainly, |world| {
        // What a restore lays beside it has a longer name still.
        let name = format!("own-{}.json", "x".repeat(200));
        fs::write(world.path(&name), "{}").unwrap();
        let path = Some(world.path(&name).display().to_string());
        Manner { env: vec![("OPENCLAW_CONFIG_PATH", path)], ..Manner::default() }
    });
    let old = only(&world.gateways());
    let said = ended(&world, &world.adopt(&[]), 0);
    for word in [
        "outside of its state, and NOT COVERED: ",
        "has a name of more than",
        "note: its configuration is not covered",
    ] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    assert!(!said.contains("copied and taken back with it") && !said.contains(".json and "), "{said}");
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
    let findings = world.view()["report"]["findings"].to_string();
    assert!(findings.contains("not covered") && findings.contains("has a name of more than"), "{findings}");
}

#[test]
fn where_browser_control_goes_is_said_by_the_plan_and_before_it_is_done() {
    let world = World::serving(Started::Plainly);
    let moved = format!("no longer on {}", world.port + 2);
    for flags in [&[] as &[&str], &["--apply"]] {
        let said = ended(&world, &world.adopt(flags), 0);
        assert!(said.contains("browser control of OpenClaw 5.x") && said.contains(&moved), "{said}");
    }
    let world = World::serving_so(Started::Plainly, |_| {
        let skipped = ("OPENCLAW_SKIP_BROWSER_CONTROL_SERVER", Some("1".to_owned()));
        Manner { env: vec![skipped], ..Manner::default() }
    });
    let said = ended(&world, &world.adopt(&[]), 0);
    assert!(!said.contains("browser control"), "{said}");
}

#[test]
fn a_configuration_that_is_more_than_plain_json_is_not_said_to_lack_a_token() {
    let world = World::serving_so(Started::Plainly, |_| Manner {
        env: vec![("OPENCLAW_GATEWAY_TOKEN", None)],
        ..Manner::default()
    });
    let refused = |text: &str, word: &str| {
        fs::write(world.path("claw/openclaw.json"), text).unwrap();
        let said = ended(&world, &world.adopt(&[]), 8);
        assert!(said.contains(word) && said.contains("OPENCLAW_GATEWAY_TOKEN set"), "{said}");
    };
    refused("{gateway: {auth: {token: 't'}}} // of mine", "could not be read as plain JSON");
    refused(r#"{"$include": "./more.json"}"#, "it includes other files, which are not read here");
    refused("{}", "it names none (gateway.auth.token)");
    fs::remove_file(world.path("claw/openclaw.json")).unwrap();
    let said = ended(&world, &world.adopt(&[]), 8);
    assert!(said.contains("it cannot be read: No such file"), "{said}");
    assert!(!Path::new(&world.path("state/services")).exists());
}

fn with_page(page: &str, says: Option<&str>) -> World {
    let env = vec![("PAGE", Some(page.to_owned())), ("SAYS_OF_PAGE", says.map(str::to_owned))];
    World::serving_so(Started::Plainly, |_| Manner { env, ..Manner::default() })
}

#[test]
fn a_gateway_without_a_page_is_taken_over_and_none_is_asked_of_it() {
    let world = with_page("", None);
    let old = only(&world.gateways());
    let said = ended(&world, &world.adopt(&[]), 0);
    assert!(said.contains("probe.page = \"\"") && said.contains("it serves no page at /"), "{said}");
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
}

#[test]
fn only_a_gateway_s_own_word_that_it_has_no_page_leaves_the_page_out() {
    for says in ["500", "401", "302", "nothing"] {
        let world = with_page("/", Some(says));
        let before = world.everything();
        for flags in [&[] as &[&str], &["--apply"]] {
            let said = ended(&world, &world.adopt(flags), 8);
            for word in ["did not show its page", "look again when it has less to do", "probe.page = \"\""] {
                assert!(said.to_lowercase().contains(word), "{says}: {word} is missing: {said}");
            }
            assert!(world.everything() == before, "{says}: something was changed");
        }
        let said = ended(&world, &world.adopt(&["--set", "probe.page = \"\""]), 0);
        assert!(said.contains("Nothing was changed"), "{says}: {said}");
    }
}

#[test]
fn a_page_elsewhere_is_asked_for_where_a_person_names_it_and_nowhere_else() {
    let world = with_page("/ui/", None);
    let said = ended(&world, &world.adopt(&[]), 0);
    assert!(said.contains("basePath") && said.contains("--set 'probe.page = \"/ui/\"'"), "{said}");
    let said = ended(&world, &world.adopt(&["--set", "probe.page = \"/app/\""]), 8);
    assert!(said.contains("at /app/: answered with status 404"), "{said}");
    let old = only(&world.gateways());
    let said = ended(&world, &world.adopt(&["--apply", "--set", "probe.page = \"/ui/\""]), 0);
    assert!(!said.contains("serves no page"), "{said}");
    is_taken_over(&world, old);
}
