//! Whether every package that npm says it installed is there, and vouched for.
//!
//! Knows npm's hidden lockfile. Must not know the registry.

use super::manifest::Manifest;
use super::platform::Platform;
use super::{Tree, counted, listed};
use crate::store::{Locked, Lockfile};
use cutover_core::{Finding, Level};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

const KIND: &str = "lock";

/// What a tree has of what its lockfile names.
#[derive(Default)]
struct Held {
    /// Packages that are not there as locked, and how.
    wrong: BTreeMap<String, String>,
    /// Packages without an integrity.
    unvouched: Vec<String>,
}

/// The version of every installed package that the lockfile names, by its path below the root; empty without one.
pub(super) fn versions(tree: &Tree) -> BTreeMap<String, String> {
    let Ok(Some(lock)) = read(&tree.root) else { return BTreeMap::new() };
    lock.packages.into_iter().filter_map(|(path, locked)| Some((path, locked.version?))).collect()
}

/// Holds the installed packages against the lockfile.
pub(super) fn look(target: &Tree, running: Option<&Tree>, platform: &Platform) -> Vec<Finding> {
    let lock = match read(&target.root) {
        Ok(Some(lock)) => lock,
        Ok(None) if !target.root.join("node_modules").is_dir() => return Vec::new(),
        Ok(None) => {
            let text = "node_modules has no lockfile of npm: its packages cannot be held against one";
            return vec![Finding::new(Level::Note, KIND, text)];
        }
        Err(why) => return vec![Finding::new(Level::Block, KIND, why)],
    };
    let held = Held::of(&target.root, &lock, platform);
    let before = running.and_then(|tree| {
        let lock = read(&tree.root).ok().flatten()?;
        Some(Held::of(&tree.root, &lock, platform))
    });
    let is_old = |path: &String, how: &String| {
        before.as_ref().is_some_and(|before| before.wrong.get(path) == Some(how))
    };
    let (old, wrong): (Vec<_>, Vec<_>) = held.wrong.iter().partition(|(path, how)| is_old(path, how));
    let lines = |of: &[(&String, &String)]| {
        let lines: Vec<String> = of.iter().map(|(path, how)| format!("{path} {how}")).collect();
        listed(&lines)
    };
    let mut findings = Vec::new();
    if !wrong.is_empty() {
        let count = counted(wrong.len(), "package is", "packages are");
        let text = format!("{count} not installed as locked: {}", lines(&wrong));
        findings.push(
            Finding::new(Level::Block, KIND, text)
                .advised("the installation is not whole: stage the release again"),
        );
    }
    if !old.is_empty() {
        let count = counted(old.len(), "package is", "packages are");
        let text = format!("{count} not installed as locked, as in the running version: {}", lines(&old));
        findings.push(Finding::new(Level::Note, KIND, text));
    }
    findings.extend(unvouched(&held, before.as_ref()));
    findings
}

fn unvouched(held: &Held, before: Option<&Held>) -> Option<Finding> {
    if held.unvouched.is_empty() {
        return None;
    }
    let is_new = |path: &String| before.is_none_or(|before| !before.unvouched.contains(path));
    let level = if held.unvouched.iter().any(is_new) { Level::Warn } else { Level::Note };
    let count = counted(held.unvouched.len(), "package has", "packages have");
    let text = format!("{count} no integrity, nobody vouches for the bytes: {}", listed(&held.unvouched));
    Some(Finding::new(level, KIND, text))
}

impl Held {
    fn of(root: &Path, lock: &Lockfile, platform: &Platform) -> Self {
        let mut held = Self::default();
        for (path, locked) in
            lock.packages.iter().filter(|(path, locked)| !path.is_empty() && !locked.extraneous)
        {
            if let Some(how) = wrong(locked, &root.join(path), path, platform) {
                held.wrong.insert(path.clone(), how);
            }
            if !locked.is_vouched_for() {
                held.unvouched.push(path.clone());
            }
        }
        held
    }
}

/// How what lies at `directory` differs from what is locked.
fn wrong(locked: &Locked, directory: &Path, path: &str, platform: &Platform) -> Option<String> {
    if locked.link {
        return (!directory.exists()).then(|| "is a link that leads nowhere".to_owned());
    }
    let found = match Manifest::read(directory) {
        Ok(Some(found)) => found,
        Ok(None) if may_be_absent(locked, platform) => return None,
        Ok(None) => return Some("is missing".to_owned()),
        Err(why) => return Some(format!("is damaged: {why}")),
    };
    let below = path.rsplit("node_modules/").next().unwrap_or(path);
    let name = locked.name.as_deref().unwrap_or(below);
    let is_version = match (found.version(), locked.version.as_deref()) {
        (Some(found), Some(wanted)) => found == wanted || clean(found) == clean(wanted),
        (found, wanted) => found == wanted,
    };
    let is_name = found.name() == Some(name);
    if is_name && is_version {
        return None;
    }
    let version = locked.version.as_deref().unwrap_or("of no version");
    Some(format!("is {} and was locked as {name} {version}", found.title()))
}

fn may_be_absent(locked: &Locked, platform: &Platform) -> bool {
    let fits = platform.is_allowed(&words(&locked.os), &words(&locked.cpu), &words(&locked.libc));
    locked.optional || locked.dev || locked.dev_optional || !fits
}

/// A version as npm writes it down: `v1.2.3` is `1.2.3`.
fn clean(version: &str) -> &str {
    version.trim().trim_start_matches(['v', '='])
}

/// npm copies these lists as it finds them: one word may stand alone.
fn words(list: &Value) -> Vec<String> {
    let words = match list {
        Value::Array(words) => words.as_slice(),
        alone => std::slice::from_ref(alone),
    };
    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn read(root: &Path) -> Result<Option<Lockfile>, String> {
    let path = root.join("node_modules/.package-lock.json");
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{} is not a lockfile: {error}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}
