//! Whether every import in a tree of packages finds what it names, judged against the running tree.
//!
//! Knows how much a missing import weighs. Must not know how imports are found and resolved.

use super::child::Children;
use super::engines::Asked;
use super::{NAMED_MAX, Tree, counted};
use crate::causes::told;
use cutover_core::{Finding, Level};
use cutover_imports::{
    Alias, Builtins, Cache, Checked, Interpreter as Node, Limits, Reach, Root, Scope, Trees, Weight,
    check_unless, regressions,
};
use std::path::{Path, PathBuf};

const KIND: &str = "import";

/// What is read of a release beside its own package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Files that are started, relative to the package, beside those that its `package.json` names.
    pub entries: Vec<PathBuf>,
    /// Directories of plugins, which find the package by its name.
    pub plugins: Vec<PathBuf>,
    /// Where what was read is remembered for the next version; nowhere, if none is named.
    pub cache: Option<PathBuf>,
}

/// Reads every module of the target, and of the running tree, without running any. A missing import that the running
/// version has as well keeps nobody from updating. A tree without `package.json` is none of packages and has no findings.
pub(super) fn look(
    target: &Tree,
    running: Option<&Tree>,
    code: &Code,
    children: &Children,
    node: &Asked,
) -> Vec<Finding> {
    if !target.package.join("package.json").is_file() {
        return Vec::new();
    }
    let Some(program) = &children.interpreter else {
        let text = "the service is not run by node: its imports are not looked at";
        return vec![Finding::new(Level::Note, KIND, text)];
    };
    let mut findings = Vec::new();
    let mut cache = match code.cache.as_deref().map(Cache::load).transpose() {
        Ok(cache) => cache.unwrap_or_default(),
        Err(error) => {
            findings.push(Finding::new(Level::Note, KIND, format!("read anew: {}", told(&error))));
            Cache::default()
        }
    };
    let (node, builtins) = asked(children, program, node);
    let is_given_up = || children.stop.is_asked();
    let trees = |tree: &Tree| Trees {
        roots: roots(tree, code),
        aliases: host(tree).into_iter().collect(),
        interpreter: node,
        builtins: builtins.clone(),
        limits: Limits { threads: threads(), ..Limits::default() },
    };
    let before = running.map(|running| check_unless(&trees(running), &mut cache, &is_given_up)).transpose();
    let before = before.unwrap_or_else(|error| {
        let text = format!("what runs cannot be read, so that nothing is compared: {}", told(&error));
        findings.push(Finding::new(Level::Warn, KIND, text));
        None
    });
    match check_unless(&trees(target), &mut cache, &is_given_up) {
        Ok(now) => findings.extend(judged(&now, before.as_ref())),
        Err(error) => {
            let text = format!("the imports were not looked at: {}", told(&error));
            findings.push(Finding::new(Level::Warn, KIND, text));
        }
    }
    // A look that was given up has used little of the cache, and what is not used is forgotten.
    let cached = code.cache.as_deref().filter(|_| !is_given_up());
    if let Some(Err(error)) = cached.map(|path| cache.save(path)) {
        findings.push(Finding::new(Level::Note, KIND, format!("not remembered: {}", told(&error))));
    }
    findings
}

fn roots(tree: &Tree, code: &Code) -> Vec<Root> {
    let own = Root { directory: tree.package.clone(), entries: code.entries.clone(), scope: Scope::Whole };
    let plugins = code.plugins.iter().map(|directory| Root {
        directory: directory.clone(),
        entries: Vec::new(),
        scope: Scope::Whole,
    });
    std::iter::once(own).chain(plugins).collect()
}

/// The package under its own name, wherever a plugin lies.
fn host(tree: &Tree) -> Option<Alias> {
    let manifest = std::fs::read(tree.package.join("package.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    let package = manifest["name"].as_str()?.to_owned();
    Some(Alias { package, directory: tree.package.clone() })
}

/// What the service's interpreter is and exports. One that does not answer is told about elsewhere.
fn asked(children: &Children, program: &Path, node: &Asked) -> (Node, Builtins) {
    let Some(Ok(interpreter)) = node else { return Default::default() };
    let (major, minor) = interpreter.major_minor();
    let answer = children.run(program, &["-e", Builtins::QUESTION]);
    let builtins = answer.ok().and_then(|ran| Builtins::told(ran.stdout.as_bytes()));
    (Node { major, minor }, builtins.unwrap_or_default())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn judged(now: &Checked, before: Option<&Checked>) -> Vec<Finding> {
    let old = before.map(|before| before.findings.as_slice()).unwrap_or_default();
    let new = regressions(&now.findings, old);
    let (optional, missed): (Vec<_>, Vec<_>) = new.into_iter().partition(|finding| finding.is_optional());
    let mut findings: Vec<Finding> = missed.iter().map(|one| finding(one, before.is_some())).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let more = findings.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        let level = findings[NAMED_MAX].level;
        findings.truncate(NAMED_MAX);
        let text = format!("{} like these", counted(more, "more import is", "more imports are"));
        findings.push(Finding::new(level, KIND, text));
    }
    let known = now.findings.len() - missed.len() - optional.len();
    let optional = counted(optional.len(), "is", "are");
    let mut text = format!(
        "{} modules, {} imports and {} names were looked up; {optional} missing that code can do without",
        now.modules, now.imports, now.names
    );
    if before.is_some() {
        text.push_str(&format!(" and not so in what runs; {known} as there"));
    }
    findings.push(Finding::new(Level::Note, KIND, text));
    findings
}

/// A module that nothing written out leads to may never be loaded. Without a running version to compare with only what
/// keeps the program from starting is certain to matter.
fn finding(missed: &cutover_imports::Finding, is_compared: bool) -> Finding {
    let level = match (missed.weight, missed.reach) {
        (Weight::Hard, Reach::Start) => Level::Block,
        (_, Reach::Start | Reach::Later) if is_compared => Level::Block,
        _ => Level::Warn,
    };
    let place = match missed.line {
        0 => missed.file.display().to_string(),
        line => format!("{}:{line}", missed.file.display()),
    };
    let when = match missed.weight {
        Weight::Hard if missed.reach == Reach::Start => "it would not start",
        _ => "it would fail when that code runs, however healthy it looks",
    };
    Finding::new(level, KIND, format!("{place}: {}", missed.text)).advised(format!(
        "{when}; the release is incomplete or does not fit its plugins: take another version, or tell its makers"
    ))
}
