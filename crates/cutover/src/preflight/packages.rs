//! Package truth: whether a release's tree is what it says it is, and runs on this machine's node.
//!
//! Knows which look comes when. Must not know what any of them looks at.

use super::child::Children;
use super::engines::{self, Asked, Interpreter};
use super::manifest::Manifest;
use super::native::{self, Modules};
use super::platform::Platform;
use super::tree::{Noticed, Tree, package_directory};
use super::{counted, declared, listed, lock};
use cutover_core::{Finding, Level};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Looks whether a sealed tree of packages would work, judged against the running one where there is one. A tree
/// without `package.json` is none of packages and has no findings. Blocks for as long as the children take: their
/// limits are in [`Children`].
#[must_use]
pub fn packages(target: &Tree, running: Option<&Tree>, children: &Children) -> Vec<Finding> {
    look(target, running, children, &Interpreter::of(children))
}

pub(super) fn look(target: &Tree, running: Option<&Tree>, children: &Children, node: &Asked) -> Vec<Finding> {
    let manifest = match Manifest::read(&target.package) {
        Ok(Some(manifest)) => manifest,
        Ok(None) if target.package == target.root => return Vec::new(),
        Ok(None) => {
            let text = format!("{} has no package.json", target.package.display());
            return vec![Finding::new(Level::Block, "files", text)];
        }
        Err(why) => return vec![Finding::new(Level::Block, "files", why)],
    };
    let noticed = target.walk(&children.stop);
    let versions = lock::versions(target);
    let mut findings = declared::look(target, &manifest, running);
    findings.extend(unread(&noticed));
    findings.extend(empty(target, &noticed, &versions, running));
    findings.extend(broken(&noticed, running));
    let platform = match (&children.interpreter, node) {
        (Some(program), Some(node)) => {
            findings.extend(match node {
                Ok(told) => engines::look(target, &manifest, told, program, versions.keys()),
                Err(finding) => vec![finding.clone()],
            });
            let (told, platform) = interpreted(target, noticed.native, running, children, program);
            findings.extend(told);
            platform
        }
        _ => {
            let text = "the service has no interpreter: `engines` and native modules are not looked at";
            findings.push(Finding::new(Level::Note, "engines", text));
            None
        }
    };
    let platform = platform.unwrap_or_else(Platform::own);
    findings.extend(lock::look(target, running, &platform));
    findings
}

/// What the interpreter itself makes of the native modules, and on what it says it runs.
fn interpreted(
    target: &Tree,
    native: Vec<PathBuf>,
    running: Option<&Tree>,
    children: &Children,
    program: &Path,
) -> (Vec<Finding>, Option<Platform>) {
    match native::platform(children, program) {
        Ok(platform) => {
            let modules = Modules::new(target, native, &platform);
            let before = running.map(|tree| Modules::new(tree, tree.native(&children.stop), &platform));
            (native::look(&modules, before.as_ref(), children, program), Some(platform))
        }
        Err(_) if native.is_empty() => (Vec::new(), None),
        Err(why) => {
            let text = format!("no native module was tried: {} said {why}", program.display());
            (vec![Finding::new(Level::Warn, "native", text)], None)
        }
    }
}

fn unread(noticed: &Noticed) -> Option<Finding> {
    if noticed.unread.is_empty() {
        return None;
    }
    let text = format!("the tree cannot be read: {}", listed(&noticed.unread));
    Some(Finding::new(Level::Block, "files", text))
}

/// Files that lost their content. In a dependency of another version an empty file may be what was published.
fn empty(
    target: &Tree,
    noticed: &Noticed,
    versions: &BTreeMap<String, String>,
    running: Option<&Tree>,
) -> Vec<Finding> {
    let before = running.map(lock::versions).unwrap_or_default();
    let own = target.package.strip_prefix(&target.root).unwrap_or(Path::new("")).to_owned();
    let is_same = |path: &Path| {
        let owner = package_directory(path);
        let owner_key = owner.to_string_lossy();
        owner == own || versions.get(&*owner_key) == before.get(&*owner_key)
    };
    let (mut lost, mut changed, mut others) = (Vec::new(), Vec::new(), 0_usize);
    for path in &noticed.empty {
        let name = path.display().to_string();
        match running {
            Some(running) if running.has_content(path) && is_same(path) => lost.push(name),
            Some(running) if running.has_content(path) => changed.push(name),
            _ => others += 1,
        }
    }
    let mut findings = Vec::new();
    let mut told = |level, names: &[String], what: &str| {
        if !names.is_empty() {
            let count = counted(names.len(), "file is", "files are");
            findings.push(Finding::new(level, "empty", format!("{count} empty {what}: {}", listed(names))));
        }
    };
    told(Level::Block, &lost, "and had content in the running version");
    told(Level::Warn, &changed, "and had content in the running version's older or newer package");
    if others > 0 {
        let count = counted(others, "file is", "files are");
        findings.push(Finding::new(
            Level::Note,
            "empty",
            format!("{count} empty, and nothing says it lost anything"),
        ));
    }
    findings
}

fn broken(noticed: &Noticed, running: Option<&Tree>) -> Option<Finding> {
    let is_new = |path: &&PathBuf| running.is_none_or(|running| !running.is_broken(path));
    let links: Vec<String> =
        noticed.broken.iter().filter(is_new).map(|path| path.display().to_string()).collect();
    if links.is_empty() {
        return None;
    }
    let count = counted(links.len(), "link leads", "links lead");
    Some(Finding::new(Level::Warn, "link", format!("{count} nowhere: {}", listed(&links))))
}
