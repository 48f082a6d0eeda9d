//! Modules of machine code, compiled here and really loaded.

use crate::world::{APP, LOCK, World, edit, is_quiet, nobody_runs, node, of, only, write};
use cutover::preflight::{Tree, packages};
use cutover::store::Identity;
use cutover_core::Level;
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

const PLACE: &str = "node_modules/dep/build/Release/dep.node";

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
fn a_module_that_hangs_is_ended_at_the_limit() {
    let world = World::new();
    let (target, running) = world.pair();
    compile(&world, &target, PLACE, HANGS);
    compile(&world, &running, PLACE, GOOD);
    let mut children = world.children(node());
    children.limit = Duration::from_secs(5);
    let findings = packages(&target, Some(&running), &children);
    assert!(only(&findings, "native", Level::Block).text.contains("no answer within 5s"));
    assert!(nobody_runs(&target.root.to_string_lossy()), "the child is gone");
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
