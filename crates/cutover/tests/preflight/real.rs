//! The real OpenClaw, both versions of the incident: whole they pass, damaged they do not.
//!
//! `CUTOVER_TEST=real cargo test -p cutover --test preflight real -- --nocapture`

use crate::world::{World, node, of};
use cutover::preflight::{Tree, packages};
use cutover_core::{Finding, Level};
use cutover_testkit::openclaw::{NEW, OLD, Runtime};
use cutover_testkit::slow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const INSTALL: Duration = Duration::from_secs(600);

/// A tree of its own whose files are those of another until one is replaced.
fn linked(from: &Tree, to: &Path) -> Tree {
    let copied = Command::new("cp").args(["-al"]).arg(&from.root).arg(to).status().unwrap();
    assert!(copied.success());
    let package = to.join(from.package.strip_prefix(&from.root).unwrap());
    Tree { root: to.to_owned(), package, plugins: Vec::new() }
}

fn blocks(findings: &[Finding]) -> Vec<&Finding> {
    of(findings, Level::Block)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_trees_pass_and_what_is_damaged_is_named() {
    if !slow::is_asked_for("real", "the real trees are looked at before an update") {
        return;
    }
    let target = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    let cache = std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(target, PathBuf::from);
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let mut trees = Vec::new();
    for version in [OLD, NEW] {
        let root = cache.join("openclaw").join(version);
        let package = runtime.gateway(version, &root, INSTALL).await.unwrap();
        trees.push(Tree { root, package, plugins: Vec::new() });
    }
    let looked = tokio::task::spawn_blocking(move || look(&runtime, &trees[0], &trees[1])).await;
    looked.unwrap();
}

fn look(runtime: &Runtime, old: &Tree, new: &Tree) {
    // Beside the cache, on the same file system: links cost nothing.
    let world = World::new_in(old.root.parent().unwrap());
    let children = world.children(runtime.node());
    for (target, running) in [(new, Some(old)), (old, Some(new)), (new, None), (old, None)] {
        let begun = Instant::now();
        let findings = packages(target, running, &children);
        let against = running.map_or("alone".into(), |tree| format!("against {}", tree.root.display()));
        println!("{} {against}: {:?}", target.root.display(), begun.elapsed());
        findings.iter().for_each(|finding| println!("  {finding}"));
        assert_eq!(blocks(&findings), Vec::<&Finding>::new());
        let loads = findings.iter().find(|finding| finding.text.contains("native modules load"));
        assert_eq!(loads.expect("it has native modules").level, Level::Note);
    }

    let findings = packages(new, Some(old), &world.children(node()));
    let said = Command::new(node()).arg("--version").output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if said.starts_with("v20.") {
        let engines = blocks(&findings);
        assert_eq!(engines.len(), 1, "{findings:#?}");
        let needs =
            format!("openclaw {NEW} needs node >=22.14.0, the service's {} is {said}", node().display());
        assert_eq!(engines[0].text, needs);
    }

    let damaged = linked(new, &world.path("damaged"));
    let lost = "node_modules/openclaw/dist/plugin-sdk/core.js";
    fs::remove_file(damaged.root.join(lost)).unwrap();
    let emptied = "node_modules/openclaw/dist/index.js";
    fs::remove_file(damaged.root.join(emptied)).unwrap();
    fs::write(damaged.root.join(emptied), "").unwrap();
    let module = "node_modules/@lydell/node-pty-linux-x64/prebuilds/linux-x64/pty.node";
    let has_module = damaged.root.join(module).exists();
    if has_module {
        fs::remove_file(damaged.root.join(module)).unwrap();
        fs::write(damaged.root.join(module), "no module").unwrap();
    }
    fs::remove_dir_all(damaged.root.join("node_modules/zod")).unwrap();
    let findings = packages(&damaged, Some(old), &children);
    let found = |kind: &str, name: &str| {
        blocks(&findings).iter().any(|finding| finding.kind == kind && finding.text.contains(name))
    };
    assert!(found("files", "dist/plugin-sdk/core.js"), "{findings:#?}");
    assert!(found("empty", emptied), "{findings:#?}");
    assert!(found("native", module) == has_module, "{findings:#?}");
    assert!(found("lock", "node_modules/zod"), "{findings:#?}");
    assert_eq!(blocks(&findings).len(), if has_module { 4 } else { 3 }, "{findings:#?}");
}
