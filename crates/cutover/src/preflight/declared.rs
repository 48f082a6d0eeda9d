//! Whether what the release's own package declares is there.
//!
//! Knows what a package may declare. Must not know how it was installed.

use super::manifest::Manifest;
use super::{Tree, counted, listed};
use cutover_core::{Finding, Level};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path};
use walkdir::WalkDir;

const KIND: &str = "files";

/// Where a package keeps the list of its own files, below its root: a JSON array of paths.
const INVENTORY: &str = "dist/postinstall-inventory.json";

/// What `require` tries after the name itself, and then `index.*` beside `package.json`.
const ENDINGS: [&str; 7] = ["", ".js", ".json", ".node", "/index.js", "/index.json", "/index.node"];

/// What is missing of what a package declares.
#[derive(Default)]
struct Missing {
    /// What it runs from: its main file, its commands, its own list.
    needed: BTreeSet<String>,
    /// What it only offers to whoever imports it.
    offered: BTreeSet<String>,
}

impl Missing {
    fn of(package: &Path, manifest: &Manifest, inventory: &[String]) -> Self {
        let is_missing = |path: &&String| !package.join(path.trim_start_matches("./")).exists();
        let mut missing = Self::default();
        if let Some(main) = manifest.main()
            && !has_main(package, main)
        {
            missing.needed.insert(main.to_owned());
        }
        missing.needed.extend(manifest.bin().values().filter(is_missing).cloned());
        missing.needed.extend(inventory.iter().filter(is_missing).cloned());
        for (subpath, path) in manifest.exports().into_iter().filter(|(_, path)| is_missing(&path)) {
            let group = if subpath == "." { &mut missing.needed } else { &mut missing.offered };
            group.insert(path);
        }
        missing
    }

    fn knows(&self, path: &String) -> bool {
        self.needed.contains(path) || self.offered.contains(path)
    }
}

/// Finds declared files that are missing, and files that the package's own list does not know.
pub(super) fn look(target: &Tree, manifest: &Manifest, running: Option<&Tree>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let inventory = inventory(&target.package).unwrap_or_else(|why| {
        findings.push(Finding::new(Level::Block, KIND, why));
        None
    });
    let missing = Missing::of(&target.package, manifest, inventory.as_deref().unwrap_or_default());
    let before = running.and_then(missing_before);
    let is_old = |path: &&String| before.as_ref().is_some_and(|before| before.knows(path));
    let (old, mut lost): (BTreeSet<&String>, BTreeSet<&String>) =
        missing.needed.iter().partition(|path| is_old(path));
    // A subpath that was never shipped is a slip that healthy packages make: without a running version to hold it
    // against, nobody can tell it from a loss.
    let mut doubtful = BTreeSet::new();
    for path in missing.offered.iter().filter(|path| !is_old(path)) {
        if before.is_some() {
            lost.insert(path)
        } else {
            doubtful.insert(path)
        };
    }
    let title = manifest.title();
    findings.extend(told(Level::Block, &title, &lost).map(|finding| {
        finding.advised("the release is not whole: stage it again, and if it stays so, the release is broken")
    }));
    findings.extend(told(Level::Warn, &title, &doubtful));
    findings.extend(
        told(Level::Note, &title, &old)
            .map(|finding| finding.advised("the running version declares the same and misses it too")),
    );
    findings.extend(inventory.and_then(|known| undeclared(&target.package, &title, &known)));
    findings
}

fn missing_before(running: &Tree) -> Option<Missing> {
    let manifest = Manifest::read(&running.package).ok().flatten()?;
    let inventory = inventory(&running.package).ok().flatten().unwrap_or_default();
    Some(Missing::of(&running.package, &manifest, &inventory))
}

fn told(level: Level, title: &str, paths: &BTreeSet<&String>) -> Option<Finding> {
    if paths.is_empty() {
        return None;
    }
    let paths: Vec<&String> = paths.iter().copied().collect();
    let count = counted(paths.len(), "file", "files");
    Some(Finding::new(level, KIND, format!("{title} declares {count} that it lacks: {}", listed(&paths))))
}

fn has_main(package: &Path, main: &str) -> bool {
    let main = main.trim_end_matches('/');
    let found = |name: &str| ENDINGS.iter().any(|ending| package.join(format!("{name}{ending}")).is_file());
    found(main) || found("index")
}

/// The package's list of its own files, where it ships one.
fn inventory(package: &Path) -> Result<Option<Vec<String>>, String> {
    let path = package.join(INVENTORY);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the list of files {} cannot be read: {error}", path.display())),
    };
    let listed: Vec<String> = serde_json::from_slice(&text)
        .map_err(|error| format!("{} is not a list of files: {error}", path.display()))?;
    let is_inside =
        |path: &String| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    Ok(Some(listed.into_iter().filter(is_inside).collect()))
}

/// Files in the listed directories that the list does not know: nothing breaks by them, but the tree is not what was
/// packed.
fn undeclared(package: &Path, title: &str, known: &[String]) -> Option<Finding> {
    let is_known: BTreeSet<&str> = known.iter().map(String::as_str).chain([INVENTORY]).collect();
    let directories: BTreeSet<&str> =
        known.iter().filter_map(|path| path.split_once('/')).map(|(top, _)| top).collect();
    let mut extra = Vec::new();
    for top in directories {
        for entry in WalkDir::new(package.join(top)).sort_by_file_name().into_iter().flatten() {
            let relative = entry.path().strip_prefix(package).unwrap_or(entry.path()).to_string_lossy();
            if !entry.file_type().is_dir() && !is_known.contains(&*relative) {
                extra.push(relative.into_owned());
            }
        }
    }
    if extra.is_empty() {
        return None;
    }
    let count = counted(extra.len(), "file", "files");
    let text = format!("{title} has {count} that its own list does not know: {}", listed(&extra));
    Some(Finding::new(Level::Warn, KIND, text))
}
