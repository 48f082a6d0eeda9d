//! Two generations as npm leaves them, and what a test asks of them.

use cutover::preflight::{Children, Stop, Tree, packages};
use cutover_core::{Finding, Level};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The release's own package.
pub(crate) const APP: &str = "node_modules/@toy/app";

pub(crate) struct World {
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        World::new_in(&std::env::temp_dir())
    }

    pub(crate) fn new_in(parent: &Path) -> World {
        let directory = tempfile::Builder::new().prefix("cutover-preflight-").tempdir_in(parent).unwrap();
        // So that another user may pass.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let world = World { directory };
        fs::create_dir(world.path("scratch")).unwrap();
        fs::set_permissions(world.path("scratch"), fs::Permissions::from_mode(0o711)).unwrap();
        world
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(below)
    }

    /// A whole installation of `@toy/app` in a version, with one dependency.
    pub(crate) fn installed(&self, name: &str, version: &str) -> Tree {
        let root = self.path(name);
        let tree = Tree { package: root.join(APP), root };
        put(
            &tree,
            &format!("{APP}/package.json"),
            &json!({
                "name": "@toy/app", "version": version, "engines": { "node": ">=18" }, "bin": "app.mjs",
                "exports": {
                    ".": { "types": "./dist/never.d.ts", "default": "./dist/index.js" },
                    "./sdk": "./dist/sdk.js", "./lib/*": "./lib/*.js",
                },
            }),
        );
        let list = json!(["dist/index.js", "dist/sdk.js", "dist/chunk.js"]);
        put(&tree, &format!("{APP}/dist/postinstall-inventory.json"), &list);
        for file in ["app.mjs", "dist/index.js", "dist/sdk.js", "dist/chunk.js"] {
            write(&tree, &format!("{APP}/{file}"), "0;\n");
        }
        let dependency = json!({ "name": "dep", "version": "2.0.0", "main": "lib" });
        put(&tree, "node_modules/dep/package.json", &dependency);
        write(&tree, "node_modules/dep/lib/index.js", "0;\n");
        write(&tree, "node_modules/dep/types.js", "");
        let lock = json!({ "packages": {
            APP: { "version": version, "integrity": "sha512-a" },
            "node_modules/dep": { "version": "2.0.0", "integrity": "sha512-b" },
            "node_modules/other-os": { "version": "1.0.0", "integrity": "sha512-c", "os": ["win32"] },
            "node_modules/maybe": { "version": "1.0.0", "integrity": "sha512-d", "optional": true },
        }});
        put(&tree, LOCK, &lock);
        tree
    }

    /// Two versions of it: the target, and what runs.
    pub(crate) fn pair(&self) -> (Tree, Tree) {
        (self.installed("0002", "2.0.0"), self.installed("0001", "1.0.0"))
    }

    pub(crate) fn children(&self, interpreter: impl Into<PathBuf>) -> Children {
        Children {
            executable: env!("CARGO_BIN_EXE_cutover").into(),
            interpreter: Some(interpreter.into()),
            identity: None,
            scratch: self.path("scratch"),
            env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
            limit: Duration::from_secs(60),
            limit_all: Duration::from_secs(120),
            stop: Stop::never(),
        }
    }

    pub(crate) fn findings(&self, target: &Tree, running: Option<&Tree>) -> Vec<Finding> {
        packages(target, running, &self.children(node()))
    }

    /// A program in the world, for the file system to execute.
    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub(crate) const LOCK: &str = "node_modules/.package-lock.json";

/// The machine's node.
pub(crate) fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("node")).find(|node| node.is_file());
    found.expect("these tests need a node in PATH").canonicalize().unwrap()
}

pub(crate) fn write(tree: &Tree, below: &str, text: &str) {
    let path = tree.root.join(below);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn put(tree: &Tree, below: &str, value: &Value) {
    write(tree, below, &value.to_string());
}

/// Changes a JSON file of a tree.
pub(crate) fn edit(tree: &Tree, below: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(tree.root.join(below)).unwrap()).unwrap();
    change(&mut value);
    put(tree, below, &value);
}

pub(crate) fn remove(tree: &Tree, below: &str) {
    fs::remove_file(tree.root.join(below)).unwrap();
}

/// Findings of one level.
pub(crate) fn of(findings: &[Finding], level: Level) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.level == level).collect()
}

/// The only finding of a kind, which must have this level.
pub(crate) fn only<'a>(findings: &'a [Finding], kind: &str, level: Level) -> &'a Finding {
    let found: Vec<_> = findings.iter().filter(|finding| finding.kind == kind).collect();
    let [one] = found[..] else { panic!("not one of kind {kind}: {findings:#?}") };
    assert_eq!(one.level, level, "{one:#?}");
    one
}

/// No block and no warning.
pub(crate) fn is_quiet(findings: &[Finding]) {
    assert!(findings.iter().all(|finding| finding.level == Level::Note), "{findings:#?}");
}

/// Waits until no process has a text in its command line: a signal that was sent is not yet an end.
pub(crate) fn nobody_runs(text: &str) -> bool {
    let begun = Instant::now();
    while runs(text) {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Waits until a process has a text in its command line.
pub(crate) fn somebody_runs(text: &str) -> bool {
    let begun = Instant::now();
    while !runs(text) {
        if begun.elapsed() > Duration::from_secs(30) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn runs(text: &str) -> bool {
    let mut entries = fs::read_dir("/proc").unwrap().flatten();
    entries.any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}
