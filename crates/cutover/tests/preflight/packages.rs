//! Files, lock, engines, content and links.

use crate::world::{APP, LOCK, World, edit, is_quiet, nobody_runs, node, of, only, put, remove, write};
use cutover::preflight::{Tree, packages};
use cutover::store::{Directory, Source, Store, Wanted};
use cutover_core::Level;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

#[test]
fn a_whole_installation_passes_alone_and_against_what_runs() {
    let world = World::new();
    let (target, running) = world.pair();
    is_quiet(&world.findings(&target, None));
    is_quiet(&world.findings(&target, Some(&running)));
}

#[test]
fn the_preflight_changes_nothing() {
    let world = World::new();
    let (target, running) = world.pair();
    let listing = || {
        let walk = walkdir::WalkDir::new(world.path("")).sort_by_file_name().into_iter().map(Result::unwrap);
        let line = |entry: walkdir::DirEntry| {
            let file = entry.metadata().unwrap();
            (entry.path().to_owned(), file.len(), file.is_file().then(|| file.modified().unwrap()))
        };
        walk.map(line).collect::<Vec<_>>()
    };
    let before = listing();
    let _ = world.findings(&target, Some(&running));
    assert_eq!(listing(), before);
}

#[test]
fn a_tree_that_is_none_of_packages_has_no_package_findings() {
    let world = World::new();
    let root = world.path("plain");
    let tree = Tree { package: root.clone(), root, plugins: Vec::new() };
    write(&tree, "bin/server", "");
    assert_eq!(world.findings(&tree, None), []);
}

#[tokio::test]
async fn a_sealed_generation_is_found_in_its_store_and_looked_at() {
    let world = World::new();
    let root = world.path("releases/1.0.0");
    let release = Tree { package: root.clone(), root, plugins: Vec::new() };
    put(&release, "package.json", &json!({ "name": "own", "version": "1.0.0", "bin": "own.mjs" }));
    write(&release, "own.mjs", "0;\n");
    let store = Store::open(&world.path("store"));
    let source = Source::Directory(Directory { dir: world.path("releases") });
    let wanted = store.resolve(&source, &Wanted::Version("1.0.0".into())).await.unwrap();
    let generation = store.stage(&source, &wanted, |_| ()).await.unwrap();
    let sealed = Tree::sealed(&store, generation).unwrap();
    assert_eq!(sealed.root, store.root(generation).unwrap());
    assert_eq!(sealed.package, sealed.root);
    is_quiet(&world.findings(&sealed, None));
}

#[test]
fn a_release_without_its_own_description_is_blocked() {
    let world = World::new();
    let (target, running) = world.pair();
    remove(&target, &format!("{APP}/package.json"));
    only(&world.findings(&target, Some(&running)), "files", Level::Block);
    write(&target, &format!("{APP}/package.json"), "{ \"name\": ");
    only(&world.findings(&target, Some(&running)), "files", Level::Block);
}

#[test]
fn r63_missing_declared_files_are_refused_and_undeclared_ones_are_a_warning() {
    let world = World::new();
    for lost in ["app.mjs", "dist/index.js", "dist/chunk.js"] {
        let (target, running) = world.pair();
        remove(&target, &format!("{APP}/{lost}"));
        for running in [None, Some(&running)] {
            let findings = world.findings(&target, running);
            let told = only(&findings, "files", Level::Block);
            assert!(told.text.contains(lost) && told.text.contains("@toy/app 2.0.0"), "{told}");
        }
    }
    let (target, running) = world.pair();
    write(&target, &format!("{APP}/dist/stray.js"), "0;\n");
    let findings = world.findings(&target, Some(&running));
    assert!(only(&findings, "files", Level::Warn).text.contains("dist/stray.js"));
}

#[test]
fn an_offered_file_that_was_never_shipped_keeps_nobody_from_updating() {
    let world = World::new();
    let (target, running) = world.pair();
    for tree in [&target, &running] {
        put(
            tree,
            &format!("{APP}/dist/postinstall-inventory.json"),
            &json!(["dist/index.js", "dist/chunk.js"]),
        );
        remove(tree, &format!("{APP}/dist/sdk.js"));
    }
    let findings = world.findings(&target, Some(&running));
    assert_eq!(of(&findings, Level::Block), Vec::<&cutover_core::Finding>::new());
    only(&world.findings(&target, None), "files", Level::Warn);
    write(&running, &format!("{APP}/dist/sdk.js"), "0;\n");
    let findings = world.findings(&target, Some(&running));
    assert!(of(&findings, Level::Block)[0].text.contains("dist/sdk.js"));
}

#[test]
fn a_main_file_is_found_as_node_finds_it() {
    let world = World::new();
    for (main, file) in
        [("lib", "lib/index.js"), ("./a", "a.js"), ("gone.js", "index.js"), ("b/", "b/index.json")]
    {
        let root = world.path("own");
        let tree = Tree { package: root.clone(), root, plugins: Vec::new() };
        put(&tree, "package.json", &json!({ "name": "own", "version": "1.0.0", "main": main }));
        write(&tree, file, "{}");
        is_quiet(&world.findings(&tree, None));
        remove(&tree, file);
        only(&world.findings(&tree, None), "files", Level::Block);
    }
}

#[test]
fn a_package_that_is_not_installed_as_locked_is_blocked() {
    let world = World::new();
    let (target, running) = world.pair();
    edit(&target, "node_modules/dep/package.json", |it| it["version"] = json!("2.0.1"));
    let findings = world.findings(&target, Some(&running));
    let text = &only(&findings, "lock", Level::Block).text;
    assert!(text.contains("node_modules/dep is dep 2.0.1 and was locked as dep 2.0.0"), "{text}");
    fs::remove_dir_all(target.root.join("node_modules/dep")).unwrap();
    let findings = world.findings(&target, Some(&running));
    assert!(only(&findings, "lock", Level::Block).text.contains("node_modules/dep is missing"));
    fs::remove_dir_all(running.root.join("node_modules/dep")).unwrap();
    only(&world.findings(&target, Some(&running)), "lock", Level::Note);
}

#[test]
fn what_npm_wrote_down_loosely_is_read_loosely() {
    let world = World::new();
    let (target, running) = world.pair();
    edit(&target, "node_modules/dep/package.json", |it| it["version"] = json!("v2.0.0"));
    edit(&target, LOCK, |lock| lock["packages"]["node_modules/other-os"]["os"] = json!("win32"));
    is_quiet(&world.findings(&target, Some(&running)));
    edit(&target, LOCK, |lock| lock["packages"]["node_modules/other-os"]["os"] = json!("linux"));
    assert!(
        only(&world.findings(&target, Some(&running)), "lock", Level::Block)
            .text
            .contains("other-os is missing")
    );
    write(&target, LOCK, "{");
    only(&world.findings(&target, Some(&running)), "lock", Level::Block);
}

#[test]
fn a_package_that_nobody_vouches_for_is_a_warning() {
    let world = World::new();
    let (target, running) = world.pair();
    let forget = |tree: &Tree| {
        edit(tree, LOCK, |lock| {
            drop(lock["packages"]["node_modules/dep"].as_object_mut().unwrap().remove("integrity"))
        });
    };
    forget(&target);
    assert!(
        only(&world.findings(&target, Some(&running)), "lock", Level::Warn).text.contains("node_modules/dep")
    );
    forget(&running);
    only(&world.findings(&target, Some(&running)), "lock", Level::Note);
}

#[test]
fn r61_a_node_that_is_too_old_is_refused_and_both_are_named() {
    let world = World::new();
    let (target, running) = world.pair();
    let old = world.program("node-old", "#!/bin/sh\necho v16.20.2\n");
    let findings = packages(&target, Some(&running), &world.children(&old));
    let text = format!("@toy/app 2.0.0 needs node >=18, the service's {} is v16.20.2", old.display());
    assert_eq!(only(&findings, "engines", Level::Block).text, text);

    edit(&target, &format!("{APP}/package.json"), |it| it["engines"]["node"] = json!(">=99 || ^98.1"));
    let said = std::process::Command::new(node()).arg("--version").output().unwrap().stdout;
    let findings = world.findings(&target, Some(&running));
    let text = &only(&findings, "engines", Level::Block).text;
    assert!(text.contains(">=99") && text.contains(String::from_utf8_lossy(&said).trim()), "{text}");
}

#[test]
fn dependencies_that_ask_for_another_node_are_one_note() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    edit(&target, "node_modules/dep/package.json", |it| it["engines"] = json!({ "node": ">=99" }));
    assert!(only(&world.findings(&target, None), "engines", Level::Note).text.contains("dep 2.0.0 (>=99)"));
}

#[test]
fn an_interpreter_that_says_nothing_is_never_taken_for_a_good_one() {
    let world = World::new();
    let target = world.installed("0002", "2.0.0");
    let mute = world.program("mute", "#!/bin/sh\nexit 3\n");
    let findings = packages(&target, None, &world.children(mute));
    assert!(only(&findings, "engines", Level::Warn).text.contains("exit status: 3"));
    let findings = packages(&target, None, &world.children(world.path("no-such-node")));
    only(&findings, "engines", Level::Block);

    // A length that no other sleep on this machine has.
    let length = format!("600.{}", std::process::id());
    let hangs = format!("#!/bin/sh\nsleep {length} & sleep {length}\n");
    let mut children = world.children(world.program("hangs", &hangs));
    children.limit = Duration::from_millis(200);
    let begun = Instant::now();
    let findings = packages(&target, None, &children);
    assert!(only(&findings, "engines", Level::Warn).text.contains("no answer within 200ms"));
    assert!(begun.elapsed() < Duration::from_secs(60), "a child that hangs is not waited for");
    assert!(nobody_runs(&length), "nor left behind");
}

#[test]
fn a_file_that_lost_its_content_is_blocked_and_one_that_never_had_any_is_not() {
    let world = World::new();
    let (target, running) = world.pair();
    write(&target, &format!("{APP}/dist/chunk.js"), "");
    write(&target, "node_modules/dep/lib/index.js", "");
    let findings = world.findings(&target, Some(&running));
    let block = of(&findings, Level::Block);
    assert_eq!(block.len(), 1, "{findings:#?}");
    assert!(
        block[0].kind == "empty"
            && block[0].text.contains("dist/chunk.js")
            && block[0].text.contains("dep/lib")
    );
    assert!(!block[0].text.contains("types.js"));
}

#[test]
fn a_dependency_of_another_version_may_have_published_an_empty_file() {
    let world = World::new();
    let (target, running) = world.pair();
    write(&target, "node_modules/dep/lib/index.js", "");
    edit(&target, "node_modules/dep/package.json", |it| it["version"] = json!("3.0.0"));
    edit(&target, LOCK, |lock| lock["packages"]["node_modules/dep"]["version"] = json!("3.0.0"));
    let findings = world.findings(&target, Some(&running));
    assert_eq!(of(&findings, Level::Block), Vec::<&cutover_core::Finding>::new());
    assert!(of(&findings, Level::Warn)[0].text.contains("dep/lib/index.js"));
}

#[test]
fn a_new_link_that_leads_nowhere_is_a_warning() {
    let world = World::new();
    let (target, running) = world.pair();
    symlink("../nowhere", target.root.join("node_modules/dep/link")).unwrap();
    symlink("link", target.root.join("node_modules/dep/loop")).unwrap();
    let findings = world.findings(&target, Some(&running));
    let text = &only(&findings, "link", Level::Warn).text;
    assert!(text.contains("node_modules/dep/link") && text.contains("node_modules/dep/loop"), "{text}");
    for name in ["link", "loop"] {
        symlink("nowhere", running.root.join("node_modules/dep").join(name)).unwrap();
    }
    is_quiet(&world.findings(&target, Some(&running)));
}
