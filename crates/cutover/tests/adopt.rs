//! A gateway that runs without cutover is taken over, and given back: the real command line, a fake package that speaks what
//! the preset asks, and a fake service manager.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

#[path = "adopt/places.rs"]
mod places;
#[path = "adopt/plugins.rs"]
mod plugins;
#[path = "adopt/process.rs"]
mod process;
#[path = "adopt/rivals.rs"]
mod rivals;
#[path = "adopt/world.rs"]
mod world;

use cutover_testkit::registry::Registry;
use process::{alive, kill};
use serde_json::Value;
use std::process::Output;
use world::{OTHER, Started, UNIT, VERSION, World};

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts that a command ended with a code, with all that was said if it did not.
#[track_caller]
fn ended(world: &World, output: &Output, code: i32) -> String {
    let said = told(output);
    assert_eq!(output.status.code(), Some(code), "{said}\n{}\n{}", world.record(), world.daemon_log());
    said
}

#[track_caller]
fn only(pids: &[u32]) -> u32 {
    assert_eq!(pids.len(), 1, "{pids:?}");
    pids[0]
}

/// The copy serves on the old address, and nothing of the old tree runs.
#[track_caller]
fn is_taken_over(world: &World, old: u32) {
    is_taken_over_by(world, old, "0001");
}

/// The same, by the copy of this number.
#[track_caller]
fn is_taken_over_by(world: &World, old: u32, generation: &str) {
    assert!(!alive(old), "the old process is gone");
    let new = only(&world.gateways());
    let line = std::fs::read_to_string(format!("/proc/{new}/cmdline")).unwrap();
    let copy = format!("/generations/{generation}/core/node_modules/openclaw/dist/index.js");
    assert!(line.contains(&copy), "{line}");
    let page = world.get("/readyz").expect("the address answers");
    assert_eq!(page["kept"], "by-the-operator", "its environment came along");
    assert_ne!(page["argv"][2], world.port.to_string(), "the front has the old address");
    // Without a daemon `status` answers from the journal, `generations` does not.
    world.until("the daemon's answer", || world.run(&["generations", "openclaw"]).status.success());
    let status: Value = serde_json::from_slice(&world.run(&["status", "openclaw", "--json"]).stdout).unwrap();
    let view = &status[0];
    assert_eq!(view["report"]["status"], "package_updated_restart_verified", "{view:#}");
    assert_eq!(view["report"]["serving"]["version"], VERSION);
    only(&world.daemons());
    assert!(world.written().iter().all(|path| path.exists()));
}

/// The old service serves, as it was started before, and nothing of ours is left.
#[track_caller]
fn is_given_back(world: &World) -> u32 {
    let old = only(&world.gateways());
    let line = std::fs::read_to_string(format!("/proc/{old}/cmdline")).unwrap();
    assert!(line.contains(&world.package().display().to_string()), "{line}");
    let page = world.get("/readyz").expect("the address answers");
    assert_eq!(page["argv"][2], world.port.to_string());
    assert_eq!(page["kept"], "by-the-operator");
    assert!(world.daemons().is_empty() && world.written().iter().all(|path| !path.exists()));
    assert!(world.processes(|line| line.contains(" front ") || line.contains(" keeper ")).is_empty());
    old
}

#[test]
fn a_plan_names_what_runs_and_where_it_was_read_and_changes_nothing() {
    for started in [Started::Plainly, Started::ByAUnit] {
        let world = World::serving(started);
        let old = only(&world.gateways());
        let before = world.everything();
        let said = ended(&world, &world.adopt(&[]), 0);
        assert!(world.everything() == before, "something was changed");
        assert_eq!(only(&world.gateways()), old);
        assert!(world.called().is_empty());
        for word in [
            format!("pid {old}"),
            format!("openclaw {VERSION} in {}", world.package().canonicalize().unwrap().display()),
            format!("(/proc/{old}/exe)"),
            "preset = \"openclaw\"".to_owned(),
            format!("listen = [\"127.0.0.1:{}\"]", world.port),
            "KEPT".to_owned(),
            "Nothing was changed".to_owned(),
            format!("{VERSION}, ready"),
        ] {
            assert!(said.contains(&word), "{word} is missing:\n{said}");
        }
        assert!(
            !said.contains("only-for-this-test") && !said.contains("by-the-operator"),
            "a secret is told: {said}"
        );
        let unit = format!("`systemctl --user stop {UNIT}`");
        assert_eq!(said.contains(&unit), started == Started::ByAUnit, "{said}");
        assert_eq!(said.contains(&format!("TERM to pid {old}")), started == Started::Plainly, "{said}");
    }
}

#[test]
fn a_plain_process_is_taken_over_and_given_back_with_its_own_command_line_directory_and_environment() {
    let world = World::serving(Started::Plainly);
    let old = only(&world.gateways());
    let tree = world.everything();
    let said = ended(&world, &world.adopt(&["--apply"]), 0);
    assert!(said.contains("The gap was "), "{said}");
    is_taken_over(&world, old);
    let again = world.adopt(&["--apply"]);
    assert!(told(&again).contains("was taken over already"), "{}", told(&again));
    let now = world.everything();
    for (path, content) in tree.iter().filter(|(path, _)| path.starts_with(world.path("app"))) {
        assert_eq!(now.get(path), Some(content), "the old tree stays as it was");
    }
    let said = ended(&world, &world.adopt(&["--undo"]), 0);
    assert!(said.contains("verified after"), "{said}");
    is_given_back(&world);
    assert_eq!(world.get("/readyz").unwrap()["cwd"], world.path("work").display().to_string());
    let again = world.adopt(&["--undo"]);
    assert!(told(&again).contains("given back already"), "{}", told(&again));
}

#[test]
fn a_unit_is_stopped_and_disabled_once_the_copy_is_proven_and_enabled_and_started_again_and_its_file_is_never_touched()
 {
    let world = World::serving(Started::ByAUnit);
    let old = only(&world.gateways());
    let file = std::fs::read(world.units().join(UNIT)).unwrap();
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
    assert!(!world.unit_is_enabled());
    assert_eq!(world.called(), [format!("stop {UNIT}"), format!("disable {UNIT}")]);
    ended(&world, &world.adopt(&["--undo"]), 0);
    is_given_back(&world);
    assert!(world.unit_is_enabled());
    assert_eq!(world.called()[2..], [format!("enable {UNIT}"), format!("start {UNIT}")]);
    assert_eq!(std::fs::read(world.units().join(UNIT)).unwrap(), file);
}

#[test]
fn a_system_unit_takes_root_and_is_stopped_and_disabled_and_brought_back_like_a_user_s() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a_system_unit_takes_root: starting one takes root");
        return;
    }
    let world = World::serving(Started::ByASystemUnit);
    let old = only(&world.gateways());
    let refused = world.adopt_as_another(&["--apply"]);
    let said = told(&refused);
    assert!(said.contains(&format!("kept by the system unit {UNIT}")) && said.contains("as root"), "{said}");
    let said = ended(&world, &world.adopt(&[]), 0);
    for line in
        [format!("`systemctl stop {UNIT}`"), format!("`systemctl disable {UNIT}`: it starts no more at boot")]
    {
        assert!(said.contains(&line), "{line} is missing: {said}");
    }
    assert!(said.contains("user = \"nobody\""), "{said}");
    assert_eq!((only(&world.gateways()), world.called_of_the_system().len()), (old, 0));
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
    assert_eq!(world.account(only(&world.gateways())), OTHER);
    assert_eq!(world.called_of_the_system(), [format!("stop {UNIT}"), format!("disable {UNIT}")]);
    ended(&world, &world.adopt(&["--undo"]), 0);
    assert_eq!(world.account(is_given_back(&world)), OTHER);
    assert_eq!(world.called_of_the_system()[2..], [format!("enable {UNIT}"), format!("start {UNIT}")]);
    assert!(world.called().is_empty());
}

#[test]
fn what_a_known_program_starts_again_is_refused_with_what_to_type() {
    let world = World::serving(Started::ByRunit);
    let before = world.everything();
    let said = ended(&world, &world.adopt(&["--apply"]), 8);
    assert!(said.contains("started again by runit (pid ") && said.contains("/down && sv down "), "{said}");
    assert!(world.everything() == before, "something was changed");
    only(&world.gateways());
}

#[test]
fn a_process_of_another_account_stays_that_accounts_before_and_after() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a_process_of_another_account: starting one takes root");
        return;
    }
    let world = World::serving(Started::AsAnother);
    let old = only(&world.gateways());
    assert_eq!(world.account(old), OTHER);
    let said = ended(&world, &world.adopt(&[]), 0);
    assert!(said.contains("user = \"nobody\""), "{said}");
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
    assert_eq!(world.account(only(&world.gateways())), OTHER);
    ended(&world, &world.adopt(&["--undo"]), 0);
    assert_eq!(world.account(is_given_back(&world)), OTHER);
}

#[test]
fn what_a_wrapper_keeps_for_a_unit_is_taken_over_and_given_back_with_it() {
    let world = World::serving(Started::ByAWrapper);
    let old = only(&world.gateways());
    ended(&world, &world.adopt(&["--apply"]), 0);
    is_taken_over(&world, old);
    ended(&world, &world.adopt(&["--undo"]), 0);
    is_given_back(&world);
    assert!(world.unit_is_enabled());
}

#[test]
fn a_process_under_a_title_is_taken_over_and_brought_back_by_the_command_line_that_is_named() {
    let world = World::serving(Started::UnderATitle);
    let said = told(&world.adopt(&[]));
    assert!(said.contains("it says `openclaw-gateway`") && said.contains("after `--`"), "{said}");
    // By more words than it was started with: its title is followed by as many empty ones.
    let line = [world.line(), vec!["--verbose".to_owned(); 5]].concat();
    let named = |flag: &'static str| -> Vec<&str> {
        std::iter::once(flag).chain(["--"]).chain(line.iter().map(String::as_str)).collect()
    };
    ended(&world, &world.adopt(&named("--apply")), 0);
    let page = world.get("/readyz").expect("the address answers");
    assert_ne!(page["argv"][2], world.port.to_string(), "the front has the old address");
    ended(&world, &world.adopt(&["--undo"]), 0);
    let page = world.get("/readyz").expect("the address answers");
    assert_eq!(page["argv"][2], world.port.to_string());
    assert_eq!(page["cwd"], world.path("work").display().to_string());
}

#[test]
fn a_take_over_whose_copy_does_not_come_up_undoes_itself() {
    for started in [Started::Plainly, Started::ByAUnit] {
        let world = World::serving(started);
        std::fs::write(world.path("claw/broken"), "").unwrap();
        let said = ended(&world, &world.adopt(&["--apply"]), 3);
        assert!(said.contains("the take-over failed") && said.contains("answers on"), "{said}");
        is_given_back(&world);
        assert_eq!(world.unit_is_enabled(), started == Started::ByAUnit);
        // What was wrong is mended, and the same name is free.
        std::fs::remove_file(world.path("claw/broken")).unwrap();
        let old = only(&world.gateways());
        ended(&world, &world.adopt(&["--apply"]), 0);
        // The copy of the first one is not taken for this one's.
        is_taken_over_by(&world, old, "0002");
    }
}

#[test]
fn a_take_over_that_is_killed_at_any_step_is_gone_on_with() {
    for (step, with_the_daemon) in [
        ("\"found\"", false),
        ("\"imported\"", false),
        ("\"ending\"", true),
        ("\"gone\"", true),
        ("\"gone\"", false),
    ] {
        let world = World::serving(Started::Plainly);
        std::fs::write(world.path("claw/slow"), "").unwrap();
        let old = only(&world.gateways());
        let mut first = world.begin_to_adopt(&["--apply"]);
        world.until(step, || world.record().contains(step));
        if with_the_daemon {
            world.kill_daemons();
        }
        first.kill().unwrap();
        first.wait().unwrap();
        // One that the command had started again before it was ended itself.
        if with_the_daemon {
            world.kill_daemons();
        }
        let looked = world.adopt(&[]);
        assert!(told(&looked).contains("goes on with it"), "{step}: {}", told(&looked));
        ended(&world, &world.adopt(&["--apply"]), 0);
        is_taken_over(&world, old);
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
    }
}

/// The old service serves, by whoever started it before, and the daemon has nothing of it any more.
#[track_caller]
fn is_given_back_by_the_daemon(world: &World) -> u32 {
    world.until("the return", || world.record().contains("\"returned\""));
    let old = only(&world.gateways());
    let page = world.get("/readyz").expect("the address answers");
    assert_eq!(page["argv"][2], world.port.to_string());
    assert!(world.written().iter().all(|path| !path.exists()));
    assert!(world.processes(|line| line.contains(" front ") || line.contains(" keeper ")).is_empty());
    old
}

/// Begins a take-over, and kills the command as soon as a step is on record.
fn deserted(world: &World, step: &str) {
    let mut command = world.begin_to_adopt(&["--apply"]);
    world.until(step, || world.record().contains(step));
    command.kill().unwrap();
    command.wait().unwrap();
}

#[test]
fn a_take_over_whose_command_is_killed_is_settled_by_the_daemon_without_another_word() {
    for broken in [false, true] {
        let world = World::serving(Started::ByAUnit);
        if broken {
            std::fs::write(world.path("claw/broken"), "").unwrap();
        }
        let old = only(&world.gateways());
        deserted(&world, "\"ending\"");
        if broken {
            is_given_back_by_the_daemon(&world);
            assert!(world.unit_is_enabled());
            assert_eq!(world.called().iter().filter(|call| call.starts_with("start ")).count(), 1);
        } else {
            world.until("the settlement", || world.record().contains("\"taken\""));
            is_taken_over(&world, old);
            assert!(!world.unit_is_enabled());
        }
    }
}

#[test]
fn a_daemon_that_comes_later_settles_what_a_killed_one_left() {
    for broken in [false, true] {
        for step in ["\"ending\"", "\"gone\""] {
            let world = World::serving(Started::Plainly);
            std::fs::write(world.path(if broken { "claw/broken" } else { "claw/slow" }), "").unwrap();
            let old = only(&world.gateways());
            deserted(&world, step);
            world.kill_daemons();
            let mut daemon = world.serve(None);
            if broken {
                is_given_back_by_the_daemon(&world);
            } else {
                world.until("the settlement", || world.record().contains("\"taken\""));
                is_taken_over(&world, old);
            }
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

/// A machine cannot go down in a test: everything of ours is killed at once, and the unit is started as at a login.
#[test]
fn a_machine_that_goes_down_in_the_gap_and_comes_up_with_the_old_unit_needs_a_daemon_and_no_command() {
    let world = World::serving(Started::ByAUnit);
    std::fs::write(world.path("claw/slow"), "").unwrap();
    deserted(&world, "\"gone\"");
    world.kill_daemons();
    for _ in 0..3 {
        world.processes(|line| !line.contains("systemctl")).into_iter().for_each(kill);
    }
    world.manager("start");
    world.until("the old unit", || world.get("/readyz").is_some());
    let old = only(&world.gateways());
    let request = world.ask_to_restart(old);
    let mut daemon = world.serve(None);
    world.until("the settlement", || world.record().contains("\"taken\""));
    is_taken_over(&world, old);
    assert!(!world.unit_is_enabled() && !request.exists(), "it was ended, and not restarted");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_service_that_somebody_starts_again_is_left_to_them_by_name() {
    let world = World::serving(Started::InALoop);
    let said = ended(&world, &world.adopt(&["--apply"]), 3);
    assert!(said.contains("started it again") || said.contains("started the old service again"), "{said}");
    assert!(said.contains("sh (pid "), "{said}");
    assert!(world.record().contains("\"revived\""), "{}", world.record());
    let old = only(&world.gateways());
    let page = world.get("/readyz").expect("the address answers");
    assert_eq!(page["argv"][2], world.port.to_string());
    let parent = std::fs::read_to_string(format!("/proc/{old}/stat")).unwrap();
    let parent = parent.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let line = std::fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    assert!(line.contains("while :"), "it is still the loop's: {line}");
    assert!(world.daemons().is_empty() && world.written().iter().all(|path| !path.exists()));
}

/// A daemon that dies at each point of its settlement, and one after it.
#[cfg(feature = "failpoints")]
#[test]
fn a_daemon_that_dies_at_any_point_of_a_settlement_leaves_it_to_the_next_and_starts_nothing_twice() {
    let (taking, returning) = (
        ["predecessor: settled", "predecessor: recorded"],
        [
            "predecessor: recorded",
            "predecessor: started again",
            "succession: files removed",
            "predecessor: recorded@2",
        ],
    );
    for started in [Started::Plainly, Started::ByAUnit] {
        let cases =
            taking.map(|point| (false, point)).into_iter().chain(returning.map(|point| (true, point)));
        for (broken, point) in cases {
            let world = World::serving(started);
            if broken {
                std::fs::write(world.path("claw/broken"), "").unwrap();
            }
            let old = only(&world.gateways());
            std::fs::write(world.path("claw/slow"), "").unwrap();
            deserted(&world, "\"gone\"");
            world.kill_daemons();
            let dying = std::cell::RefCell::new(world.serve(Some(point)));
            world.until(point, || dying.borrow_mut().try_wait().unwrap().is_some());
            let status = dying.borrow_mut().wait().unwrap();
            assert_eq!(status.code(), None, "{point}: {}\n{}", world.record(), world.daemon_log());
            let mut daemon = world.serve(None);
            if broken {
                world.until("the return", || {
                    world.record().contains("\"returned\"")
                        || world.written().iter().all(|path| !path.exists())
                });
                world.until("the old one", || world.get("/readyz").is_some());
                let old = only(&world.gateways());
                let line = std::fs::read_to_string(format!("/proc/{old}/cmdline")).unwrap();
                assert!(line.contains(&world.package().display().to_string()), "{point}: {line}");
            } else {
                world.until("the settlement", || world.record().contains("\"taken\""));
                is_taken_over(&world, old);
            }
            assert_eq!(world.unit_is_enabled(), broken && started == Started::ByAUnit, "{point}");
            assert_eq!(
                world.starts("old"),
                if broken { 2 } else { 1 },
                "{started:?}, {point}: {}",
                world.record()
            );
            assert!(broken || world.starts("copy") == 1, "{started:?}, {point}: {}", world.record());
            let _ = daemon.kill();
            daemon.wait().unwrap();
        }
    }
}

#[test]
fn a_return_that_is_killed_is_gone_on_with() {
    for started in [Started::Plainly, Started::ByAUnit] {
        let world = World::serving(started);
        ended(&world, &world.adopt(&["--apply"]), 0);
        let mut first = world.begin_to_adopt(&["--undo"]);
        world.until("the return", || world.record().contains("\"returning\""));
        first.kill().unwrap();
        first.wait().unwrap();
        let looked = world.adopt(&["--apply"]);
        assert!(told(&looked).contains("--undo` goes on with it"), "{}", told(&looked));
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
        assert_eq!(world.unit_is_enabled(), started == Started::ByAUnit);
    }
}

/// `cargo test -p cutover --features failpoints --test adopt`. The record is passed at its first line and, gone on with, at
/// its last.
#[cfg(feature = "failpoints")]
#[test]
fn a_command_that_dies_at_any_of_its_points_is_gone_on_with_both_ways() {
    let (taking, returning) = (
        ["adopt: file written", "adopt: file written@2", "predecessor: recorded", "predecessor: recorded@2"],
        [
            "predecessor: recorded",
            "adopt: daemon ended",
            "predecessor: started again",
            "predecessor: recorded",
        ],
    );
    for started in [Started::Plainly, Started::ByAUnit] {
        let world = World::serving(started);
        for point in taking {
            let died = world.adopt_dying(point, &["--apply"]);
            assert_eq!(died.status.code(), None, "{point}: {}", told(&died));
            assert!(world.get("/readyz").is_some(), "{point}: somebody serves");
            let gone_on = world.adopt(&["--apply"]);
            ended(&world, &gone_on, 0);
            only(&world.gateways());
            for point in returning {
                let died = world.adopt_dying(point, &["--undo"]);
                assert_eq!(died.status.code(), None, "{point}: {}", told(&died));
            }
            let back = world.adopt(&["--undo"]);
            assert!(told(&back).contains("given back already"), "{}", told(&back));
            is_given_back(&world);
            world.forget();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_is_updated_as_everything_else_and_is_given_back_in_its_own_version_only() {
    let registry = Registry::start().await.unwrap();
    let story = move || {
        let world = World::serving(Started::Plainly);
        let url = format!("source.registry = \"{}\"", registry.url());
        ended(&world, &world.adopt(&["--apply", "--set", &url]), 0);
        world.publish(&registry, "2026.5.5");
        ended(&world, &world.run(&["update", "openclaw"]), 0);
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", only(&world.gateways()))).unwrap();
        assert!(line.contains("/generations/0002/"), "{line}");
        let refused = world.adopt(&["--undo"]);
        let said = told(&refused);
        assert!(said.contains("is at 2026.5.5 now") && said.contains("--to 0001"), "{said}");
        only(&world.gateways());
        ended(&world, &world.run(&["rollback", "openclaw", "--to", "1", "--data", "restore"]), 0);
        ended(&world, &world.adopt(&["--undo"]), 0);
        is_given_back(&world);
        // Of a service that has been proven here the journal knows too much for another take-over.
        let again = world.adopt(&["--apply"]);
        assert!(told(&again).contains("choose another --name"), "{}", told(&again));
    };
    tokio::task::spawn_blocking(story).await.unwrap();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let world = World::serving(Started::Plainly);
    let before = world.everything();
    let refused = |flags: &[&str], word: &str| {
        let said = ended(&world, &world.adopt(flags), 8);
        assert!(said.contains(word), "{word} is missing: {said}");
        assert!(world.everything() == before, "something was changed");
    };
    refused(&["--apply", "--listen", "0.0.0.0:18789"], "loopback");
    refused(&["--undo"], "never taken over");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let own = world.run(&["adopt", "openclaw", "--port", &port, "--apply"]);
    // This test is what listens there, and its command would be ended with it.
    assert!(ended(&world, &own, 8).contains("inside of what it would end"), "{}", told(&own));
    drop(other);
    let nobody = world.run(&["adopt", "openclaw", "--port", &port]);
    assert!(ended(&world, &nobody, 8).contains("nobody listens"), "{}", told(&nobody));
    // The tree was replaced below the process: what it runs is not what would be copied.
    let manifest = world.package().join("package.json");
    std::fs::write(&manifest, r#"{"name":"openclaw","version":"2026.9.6"}"#).unwrap();
    let replaced = world.everything();
    let said = ended(&world, &world.adopt(&["--apply"]), 8);
    assert!(said.contains("it says that it is 2026.5.4") && said.contains("restart it"), "{said}");
    assert!(world.everything() == replaced);
}
