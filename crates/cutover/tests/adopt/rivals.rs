//! Somebody starts the old service again after its end, and what else goes wrong once a take-over's run is over: what serves is
//! not given up, it is told what to type, and what is told works as it stands.

#[cfg(feature = "failpoints")]
use super::is_taken_over;
use super::process::{alive, kill};
use super::world::{Started, World};
use super::{deserted, ended, is_given_back, is_given_back_by_the_daemon, only, told};
use serde_json::Value;

/// What stands between backticks, in order.
fn commands(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

#[track_caller]
fn command(text: &str, word: &str) -> String {
    let found = commands(text).into_iter().find(|command| command.contains(word));
    found.unwrap_or_else(|| panic!("no command with {word}: {text}"))
}

/// What is told of whoever starts the old service again: by the alarm, and by the status.
fn rivalry(world: &World) -> Option<String> {
    let view = world.view();
    let is_told = view["alarm"]["fault"]["code"] == "revived";
    view["trouble"].as_str().filter(|_| is_told).map(ToOwned::to_owned)
}

fn told_rivalry(world: &World) -> String {
    world.until("that it is told", || rivalry(world).is_some_and(|told| told.contains("started the old")));
    rivalry(world).unwrap_or_default()
}

fn fronts(world: &World) -> Vec<u32> {
    world.processes(|line| line.contains(" front "))
}

fn copies(world: &World) -> Vec<u32> {
    world
        .processes(|line| line.contains("/generations/0001/core/node_modules/openclaw/dist/index.js gateway"))
}

fn is_served_by_the_copy(page: &Value, world: &World) -> bool {
    page["argv"][2].as_str() != Some(world.port.to_string().as_str())
}

fn loops(world: &World) -> Vec<u32> {
    world.processes(|line| line.contains("while :"))
}

/// A rule that lets what was told be over soon.
const SOON: [&str; 2] = ["--set", "policy.crash_window = \"2s\""];

#[test]
fn somebody_who_starts_the_old_service_again_later_is_told_with_what_to_type_and_what_serves_goes_on() {
    let world = World::serving(Started::InALoopLater);
    ended(&world, &world.adopt(&["--apply", SOON[0], SOON[1]]), 0);
    let (front, copy) = (only(&fronts(&world)), only(&copies(&world)));
    std::fs::write(world.again(), "").unwrap();
    let said = told_rivalry(&world);
    assert!(said.contains("sh (pid ") && said.contains("`kill "), "{said}");
    let served = || is_served_by_the_copy(&world.get("/readyz").expect("the address answers"), &world);
    assert!(served());
    // The next daemon leaves what serves where it is, and says the same.
    world.kill_daemons();
    let mut daemon = world.serve(None);
    told_rivalry(&world);
    assert!(served() && alive(copy), "{}", world.daemon_log());
    assert_eq!(only(&fronts(&world)), front);
    let again = told(&world.adopt(&["--apply"]));
    assert!(again.contains("was taken over already"), "{again}");
    // Taken out of where it was started, it is over by itself.
    loops(&world).into_iter().for_each(kill);
    world.until("that it is over", || world.view()["alarm"].is_null());
    assert!(served() && alive(copy) && world.record().contains("\"revived\""));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn the_address_goes_back_to_whoever_starts_the_old_service_again_by_the_command_that_is_told() {
    let world = World::serving(Started::InALoopLater);
    ended(&world, &world.adopt(&["--apply"]), 0);
    std::fs::write(world.again(), "").unwrap();
    let undo = command(&told_rivalry(&world), "--undo");
    ended(&world, &world.typed(&undo), 0);
    let old = is_given_back(&world);
    let parent = std::fs::read_to_string(format!("/proc/{old}/stat")).unwrap();
    let parent = parent.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(
        parent,
        only(&loops(&world)).to_string(),
        "it is the loop's, and nothing is started beside it"
    );
}

/// Leaves a take-over whose copy is proven, before that is on record.
#[cfg(feature = "failpoints")]
fn proven_and_not_settled(world: &World) {
    std::fs::write(world.path("claw/slow"), "").unwrap();
    deserted(world, "\"gone\"");
    world.kill_daemons();
    let mut dying = world.serve(Some("predecessor: settled"));
    assert_eq!(dying.wait().unwrap().code(), None, "{}\n{}", world.record(), world.daemon_log());
    assert!(!world.record().contains("\"taken\""));
}

#[cfg(feature = "failpoints")]
#[test]
fn a_daemon_that_begins_gives_nothing_up_that_serves_because_somebody_had_started_the_old_service_again() {
    use std::io::Write;
    let world = World::serving(Started::Plainly);
    let old = only(&world.gateways());
    proven_and_not_settled(&world);
    let (front, copy) = (only(&fronts(&world)), only(&copies(&world)));
    let record = world.service().join("predecessor.jsonl");
    let mut record = std::fs::OpenOptions::new().append(true).open(record).unwrap();
    writeln!(record, r#"{{"at":"2026-01-01T00:00:00Z","step":"revived","by":"sh (pid 1)"}}"#).unwrap();
    let mut daemon = world.serve(None);
    world.until("the settlement", || world.record().contains("\"taken\""));
    assert_eq!((only(&fronts(&world)), only(&copies(&world))), (front, copy), "{}", world.daemon_log());
    is_taken_over(&world, old);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[cfg(feature = "failpoints")]
#[test]
fn an_address_that_somebody_was_quicker_to_have_is_waited_for_and_taken_as_soon_as_they_are_ended_as_told() {
    let world = World::serving(Started::InALoopLater);
    let old = only(&world.gateways());
    proven_and_not_settled(&world);
    fronts(&world).into_iter().for_each(kill);
    std::fs::write(world.again(), "").unwrap();
    let served = || world.get("/readyz").is_some_and(|page| is_served_by_the_copy(&page, &world));
    world.until("the old service", || world.get("/readyz").is_some() && !served());
    let mut daemon = world.serve(None);
    let said = told_rivalry(&world);
    assert!(said.contains("it has the address"), "{said}");
    let refused = world.run(&["restart", "openclaw"]);
    let why = told(&refused);
    assert!(!refused.status.success() && why.contains("--undo`") && why.contains("`kill "), "{why}");
    assert!(!why.contains("is given back"), "nothing is: {why}");
    let applied = told(&world.adopt(&["--apply"]));
    assert!(applied.contains("it has the address"), "{applied}");
    std::fs::remove_file(world.again()).unwrap();
    ended(&world, &world.typed(&command(&said, "kill ")), 0);
    world.until("the settlement", || world.record().contains("\"taken\""));
    is_taken_over(&world, old);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_machine_that_comes_up_with_the_old_service_long_after_says_so_and_serves_ours_as_soon_as_it_is_ended() {
    let world = World::serving(Started::InALoopLater);
    ended(&world, &world.adopt(&["--apply"]), 0);
    world.until("the settlement", || world.record().contains("\"taken\""));
    // All of ours goes down at once, and the other one is quicker.
    world.kill_daemons();
    world.processes(|line| line.contains("cutover keeper")).into_iter().for_each(kill);
    copies(&world).into_iter().chain(fronts(&world)).for_each(kill);
    std::fs::write(world.again(), "").unwrap();
    let served = || world.get("/readyz").is_some_and(|page| is_served_by_the_copy(&page, &world));
    world.until("the old service", || world.get("/readyz").is_some() && !served());
    let mut daemon = world.serve(None);
    let said = told_rivalry(&world);
    assert!(copies(&world).is_empty(), "two of them run on one state");
    std::fs::remove_file(world.again()).unwrap();
    ended(&world, &world.typed(&command(&said, "kill ")), 0);
    world.until("ours at the address", served);
    only(&copies(&world));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn an_address_goes_back_also_where_no_front_can_be_put_up() {
    let world = World::serving(Started::Plainly);
    std::fs::write(world.path("claw/broken"), "").unwrap();
    std::fs::write(world.path("claw/slow"), "").unwrap();
    // Without its command, which would end the daemon and do it itself.
    deserted(&world, "\"gone\"");
    world.until("the front", || !fronts(&world).is_empty());
    // Where its socket lies nothing can be made any more.
    let sockets = world.path("state/run/fronts");
    std::fs::remove_dir_all(&sockets).unwrap();
    std::fs::write(&sockets, "").unwrap();
    fronts(&world).into_iter().for_each(kill);
    is_given_back_by_the_daemon(&world);
}

#[test]
fn a_return_that_does_not_come_about_is_no_success_and_is_gone_on_with_by_the_same_command() {
    let world = World::serving(Started::Plainly);
    ended(&world, &world.adopt(&["--apply"]), 0);
    let script = world.package().join("dist/index.js");
    let away = world.path("away.js");
    std::fs::rename(&script, &away).unwrap();
    let said = ended(&world, &world.adopt(&["--undo"]), 5);
    assert!(said.contains("does not answer as"), "{said}");
    std::fs::rename(&away, &script).unwrap();
    ended(&world, &world.adopt(&["--undo"]), 0);
    assert!(copies(&world).is_empty(), "nothing of ours is left");
}

/// Of its version, and ready: only whose process it is tells that it is not the old service.
#[test]
fn an_answer_of_somebody_else_on_the_old_address_is_no_return() {
    let world = World::serving(Started::Plainly);
    ended(&world, &world.adopt(&["--apply"]), 0);
    let package = world.package();
    let other = world.path("other");
    std::fs::create_dir_all(other.join("dist")).unwrap();
    for file in ["package.json", "dist/index.js"] {
        std::fs::copy(package.join(file), other.join(file)).unwrap();
    }
    let (script, away) = (package.join("dist/index.js"), world.path("away.js"));
    std::fs::rename(&script, &away).unwrap();
    world.start_another_in_a_loop(&other.join("dist/index.js"));
    let said = ended(&world, &world.adopt(&["--undo"]), 5);
    let stranger = only(&world.gateways());
    assert!(
        said.contains(&format!("(pid {stranger}) listens on 127.0.0.1:{} in its place", world.port)),
        "{said}"
    );
    assert!(!world.record().contains("\"returned\""), "{}", world.record());
    loops(&world).into_iter().for_each(kill);
    kill(stranger);
    std::fs::rename(&away, &script).unwrap();
    ended(&world, &world.adopt(&["--undo"]), 0);
    is_given_back(&world);
}

#[test]
fn a_return_that_a_daemon_goes_on_with_is_told_and_refuses_orders_with_what_to_do() {
    let world = World::serving(Started::Plainly);
    ended(&world, &world.adopt(&["--apply"]), 0);
    let script = world.package().join("dist/index.js");
    let away = world.path("away.js");
    std::fs::rename(&script, &away).unwrap();
    let mut undoing = world.begin_to_adopt(&["--undo"]);
    world.until("the return", || world.record().contains("\"returning\""));
    undoing.kill().unwrap();
    undoing.wait().unwrap();
    let mut daemon = world.serve(None);
    let trouble = || world.view()["trouble"].as_str().map(ToOwned::to_owned).unwrap_or_default();
    world.until("its trouble", || trouble().contains("the last time: "));
    let said = trouble();
    assert!(said.contains("openclaw is being given back") && said.contains("does not answer as"), "{said}");
    let refused = world.run(&["restart", "openclaw"]);
    let why = told(&refused);
    assert!(!refused.status.success() && why.contains("being given back"), "{why}");
    assert!(command(&why, "--undo").contains("--state"), "{why}");
    assert!(copies(&world).is_empty(), "nothing of ours is started meanwhile");
    std::fs::rename(&away, &script).unwrap();
    is_given_back_by_the_daemon(&world);
    world.until("the word", || trouble().contains("was given back"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn what_is_told_to_be_typed_works_as_it_stands() {
    let world = World::serving(Started::Plainly);
    let planned = ended(&world, &world.adopt(&["--name", "claw2", "--set", "policy.drain = \"1s\""]), 0);
    let applied = ended(&world, &world.typed(&command(&planned, "--apply")), 0);
    assert!(command(&applied, " serve").contains("--config"), "{applied}");
    let page = world.get("/readyz").expect("the address answers");
    assert!(is_served_by_the_copy(&page, &world));
    let again = told(&world.typed(&command(&planned, "--apply")));
    assert_eq!(command(&again, "--undo"), command(&applied, "--undo"));
    let undone = ended(&world, &world.typed(&command(&applied, "--undo")), 0);
    assert!(undone.contains("claw2: openclaw"), "{undone}");
    assert!(!is_served_by_the_copy(&world.get("/readyz").expect("the address answers"), &world));
}
