//! Modules of machine code, compiled here and really loaded.

use crate::world::{APP, LOCK, World, edit, is_quiet, nobody_runs, node, of, only, somebody_runs, write};
use cutover::preflight::{Code, Stop, Tree, packages, release};
use cutover::store::Identity;
use cutover_core::{Finding, Level};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::Duration;

const GOOD: &str = "void *napi_register_module_v1(void *env, void *exports) { return exports; }\n";
const MISSING_SYMBOL: &str = "extern int nobody_has_this; int *a = &nobody_has_this;
    void *napi_register_module_v1(void *env, void *exports) { return exports; }\n";
const CRASHES: &str =
    "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n";
const HANGS: &str =
    "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { for (;;) pause(); }\n";

/// A module as they were before there was a stable interface, for a node that nobody has.
const FOR_ANOTHER_NODE: &str = "
    static void start(void *exports, void *module, void *data) {}
    static struct { int version; unsigned flags; void *handle; const char *file; void *start, *with;
                    const char *name; void *data, *next; } it = { 1, 0, 0, __FILE__, start, 0, \"dep\", 0, 0 };
    extern void node_module_register(void *);
    __attribute__((constructor)) static void told(void) { node_module_register(&it); }\n";

const PLACE: &str = "node_modules/dep/build/Release/dep.node";

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

/// Compiles a module into a tree.
fn compile(world: &World, tree: &Tree, below: &str, code: &str) {
    let source = world.path("module.c");
    fs::write(&source, code).unwrap();
    let module = tree.root.join(below);
    fs::create_dir_all(module.parent().unwrap()).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(&source).status().unwrap();
    assert!(cc.success());
}

#[test]
fn a_module_that_loads_is_told_and_those_for_other_machines_are_not_tried() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, GOOD);
    for other in
        ["prebuilds/win32-x64/dep.node", "prebuilds/darwin-arm64/dep.node", "build/musl_x64/dep.node"]
    {
        write(&target, &format!("node_modules/dep/{other}"), "not of this machine");
    }
    let findings = world.findings(&target, None);
    is_quiet(&findings);
    assert!(only(&findings, "native", Level::Note).text.starts_with("1 native module loads"));
}

#[test]
fn a_module_that_loads_in_the_running_version_only_is_blocked() {
    let world = World::new();
    for code in [None, Some(MISSING_SYMBOL), Some(CRASHES)] {
        let (target, running) = world.pair();
        compile(&world, &running, PLACE, GOOD);
        match code {
            None => write(&target, PLACE, "\u{7f}ELF, and no more of it"),
            Some(code) => compile(&world, &target, PLACE, code),
        }
        let findings = world.findings(&target, Some(&running));
        let block = only(&findings, "native", Level::Block);
        assert!(block.text.contains(PLACE), "{block}");
        let why = match code {
            None => "file",
            Some(MISSING_SYMBOL) => "nobody_has_this",
            Some(_) => "SIGABRT",
        };
        assert!(block.text.contains(why), "{block}");
        fs::remove_dir_all(&target.root).unwrap();
    }
}

#[test]
fn the_same_module_is_found_where_npm_has_placed_its_package_elsewhere() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &running, "node_modules/a/node_modules/dep/build/Release/dep.node", GOOD);
    write(&target, PLACE, "broken");
    only(&world.findings(&target, Some(&running)), "native", Level::Block);
}

#[test]
fn a_module_that_the_same_version_of_its_package_has_is_missed() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &running, PLACE, GOOD);
    let findings = world.findings(&target, Some(&running));
    assert!(only(&findings, "native", Level::Block).text.contains(PLACE));

    edit(&running, LOCK, |lock| lock["packages"]["node_modules/dep"]["version"] = json!("1.0.0"));
    edit(&running, "node_modules/dep/package.json", |it| it["version"] = json!("1.0.0"));
    is_quiet(&world.findings(&target, Some(&running)));

    edit(&target, LOCK, |lock| drop(lock["packages"].as_object_mut().unwrap().remove("node_modules/dep")));
    fs::remove_dir_all(target.root.join("node_modules/dep")).unwrap();
    let findings = world.findings(&target, Some(&running));
    assert!(only(&findings, "native", Level::Warn).text.contains("gone with the whole package"));
}

#[test]
fn a_module_that_fails_without_a_running_one_that_loads_keeps_nobody_from_updating() {
    let world = World::new();
    let (target, running) = world.pair();
    write(&target, PLACE, "broken");
    only(&world.findings(&target, None), "native", Level::Warn);
    only(&world.findings(&target, Some(&running)), "native", Level::Warn);
    write(&running, PLACE, "broken too");
    only(&world.findings(&target, Some(&running)), "native", Level::Note);
}

#[test]
fn a_module_that_hangs_is_ended_at_the_limit_and_that_is_no_verdict() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &target, PLACE, HANGS);
    compile(&world, &running, PLACE, GOOD);
    let mut children = world.children(node());
    children.limit = Duration::from_secs(5);
    let findings = packages(&target, Some(&running), &children);
    let warn = only(&findings, "native", Level::Warn);
    assert!(warn.text.contains("was not tried") && warn.text.contains("no answer within 5s"), "{warn}");
    assert!(nobody_runs(&target.root.to_string_lossy()), "the child is gone");
}

#[test]
fn a_module_that_crashes_fails_and_one_that_is_killed_from_outside_has_no_verdict() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &running, PLACE, GOOD);
    for (signal, level) in [("SIGSEGV", Level::Block), ("SIGKILL", Level::Warn), ("SIGXCPU", Level::Warn)] {
        let dies = format!(
            "#include <signal.h>\n__attribute__((constructor)) static void die(void) {{ raise({signal}); }}\n"
        );
        compile(&world, &target, PLACE, &dies);
        only(&world.findings(&target, Some(&running)), "native", level);
    }
}

#[test]
fn a_look_that_is_given_up_ends_its_child_at_once_and_blocks() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, HANGS);
    let (interest, stop) = Stop::pair().unwrap();
    let mut children = world.children(node());
    (children.limit, children.limit_all, children.stop) = (LONG, LONG, stop);
    let looking = {
        let (target, children) = (target.clone(), children.clone());
        std::thread::spawn(move || release(&target, None, &Code::default(), &children))
    };
    let place = target.root.join(PLACE).to_string_lossy().into_owned();
    assert!(somebody_runs(&place));
    drop(interest);
    let findings = looking.join().unwrap();
    assert!(only(&findings, "preflight", Level::Block).text.contains("given up"), "{findings:#?}");
    assert!(nobody_runs(&place), "the child is gone");
    // What comes later begins nothing.
    let findings = release(&target, None, &Code::default(), &children);
    only(&findings, "preflight", Level::Block);
    assert!(!findings.iter().any(|finding| finding.text.contains("loads")), "{findings:#?}");
}

#[test]
fn a_child_does_not_outlive_whoever_asked_it() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, HANGS);
    let mut check = Command::new(env!("CARGO_BIN_EXE_cutover"))
        .arg("check")
        .arg(&target.package)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let place = target.root.join(PLACE).to_string_lossy().into_owned();
    let began = somebody_runs(&place);
    check.kill().unwrap();
    check.wait().unwrap();
    assert!(began && nobody_runs(&place), "the child is gone with its asker");
}

#[test]
fn what_a_child_may_compute_and_write_is_bounded() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    let tells = "#!/bin/sh\n(head -c 70000000 /dev/zero > big) 2> /dev/null\necho v$(stat -c %s big).$(ulimit -t).$(ulimit -c)\n";
    let manifest = format!("{APP}/package.json");
    edit(&target, &manifest, |it| it["engines"]["node"] = json!("67108864.60.0"));
    let findings = packages(&target, None, &world.children(world.program("tells", tells)));
    assert!(!findings.iter().any(|finding| finding.kind == "engines"), "{findings:#?}");
}

#[test]
fn a_module_for_another_node_blocks_only_where_its_package_has_none_that_fits() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &target, PLACE, FOR_ANOTHER_NODE);
    compile(&world, &running, PLACE, GOOD);
    let findings = world.findings(&target, Some(&running));
    assert!(only(&findings, "native", Level::Block).text.contains("NODE_MODULE_VERSION 1"), "{findings:#?}");

    let variant = "node_modules/dep/prebuilds/dep.node";
    compile(&world, &target, variant, GOOD);
    let findings = world.findings(&target, Some(&running));
    assert_eq!(of(&findings, Level::Block), Vec::<&Finding>::new());
    let warned = of(&findings, Level::Warn);
    assert!(warned[0].advice.as_ref().unwrap().contains(variant), "{warned:#?}");
    is_quiet(&world.findings(&target, None));

    fs::remove_file(target.root.join(variant)).unwrap();
    compile(&world, &target, "node_modules/dep/prebuilds/other.node", GOOD);
    let findings = world.findings(&target, Some(&running));
    assert_eq!(of(&findings, Level::Block).len(), 1, "another module is no variant: {findings:#?}");
}

#[test]
fn a_package_that_has_modules_for_other_nodes_alone_is_blocked_if_what_runs_has_one_that_loads() {
    let world = World::new();
    let (target, running) = world.pair();
    edit(&running, LOCK, |lock| lock["packages"]["node_modules/dep"]["version"] = json!("1.0.0"));
    edit(&running, "node_modules/dep/package.json", |it| it["version"] = json!("1.0.0"));
    write(&target, "node_modules/dep/lib/binding/node-v48-linux/dep.node", "for an old node");
    let before = "node_modules/dep/build/Release/dep.node";
    compile(&world, &running, before, GOOD);
    let findings = world.findings(&target, Some(&running));
    let block = only(&findings, "native", Level::Block);
    assert!(block.text.contains("only some for others") && block.text.contains(before), "{block}");
    // One that does not load there is nothing that is lost.
    fs::write(running.root.join(before), "broken").unwrap();
    is_quiet(&world.findings(&target, Some(&running)));
    // Beside one that loads here it is only another variant.
    compile(&world, &running, before, GOOD);
    compile(&world, &target, "node_modules/dep/lib/binding/dep.node", GOOD);
    is_quiet(&world.findings(&target, Some(&running)));
}

#[test]
fn what_a_build_left_on_its_way_is_not_loaded() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, GOOD);
    write(&target, "node_modules/dep/build/Release/obj.target/dep.node", "an intermediate");
    let findings = world.findings(&target, None);
    is_quiet(&findings);
    assert!(only(&findings, "native", Level::Note).text.starts_with("1 native module loads"));
}

#[test]
fn a_module_that_its_user_may_not_read_has_no_verdict_unless_what_runs_may_be_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a child as somebody else");
        return;
    }
    let world = World::new();
    let (target, running) = world.pair();
    let mut children = world.children(node());
    children.identity = Some(Identity { uid: 4242, gid: 4343, groups: vec![4343] });
    let closed = std::os::unix::fs::PermissionsExt::from_mode;
    for tree in [&target, &running] {
        compile(&world, tree, PLACE, GOOD);
        fs::set_permissions(tree.root.join(PLACE), closed(0o600)).unwrap();
    }
    let findings = packages(&target, Some(&running), &children);
    assert!(
        only(&findings, "native", Level::Warn).text.contains("uid 4242 may not read it"),
        "{findings:#?}"
    );
    fs::set_permissions(running.root.join(PLACE), closed(0o644)).unwrap();
    only(&packages(&target, Some(&running), &children), "native", Level::Block);
}

#[test]
fn time_that_is_over_is_no_verdict() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, GOOD);
    let mut children = world.children(node());
    children.limit_all = Duration::ZERO;
    let findings = packages(&target, None, &children);
    assert!(only(&findings, "native", Level::Warn).text.contains("not tried"));
}

#[test]
fn children_run_as_the_services_user_in_a_home_of_their_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a child as somebody else");
        return;
    }
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    compile(&world, &target, PLACE, GOOD);
    let tells = "#!/bin/sh\n[ \"$HOME\" = \"$TMPDIR\" ] && [ \"$HOME\" = \"$(pwd)\" ] && touch here && \
                 ! env | grep -qvE '^(PATH|HOME|TMPDIR|PWD|OLDPWD|SHLVL|_)=' && echo v$(id -u).$(id -g).7\n";
    let mut children = world.children(world.program("tells", tells));
    children.identity = Some(Identity { uid: 4242, gid: 4343, groups: vec![4343] });
    children.env.insert("SECRET".into(), "told".into());
    let manifest = format!("{APP}/package.json");
    edit(&target, &manifest, |it| it["engines"]["node"] = json!("4242.4343.7"));
    let findings = packages(&target, None, &children);
    let engines: Vec<_> = findings.iter().filter(|finding| finding.kind == "engines").collect();
    assert!(engines.is_empty(), "it says its ids as its version: {engines:#?}");

    edit(&target, &manifest, |it| it["engines"]["node"] = json!("*"));
    children.interpreter = Some(node());
    is_quiet(&packages(&target, None, &children));
    fs::set_permissions(target.root.join(PLACE), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let findings = packages(&target, None, &children);
    assert!(of(&findings, Level::Warn)[0].text.contains("ermission denied"), "{findings:#?}");
}
