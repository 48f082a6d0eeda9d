//! Whether every import in a tree of packages finds what it names, judged against the running tree.
//!
//! Knows how much a missing import weighs. Must not know how imports are found and resolved.

use super::child::Children;
use super::engines::Asked;
use super::{NAMED_MAX, Tree, counted};
use crate::causes::told;
use cutover_core::{Finding, Level};
use cutover_imports::{
    Alias, Builtins, Cache, Checked, Interpreter as Node, Kind, Limits, Reach, Root, Scope, Trees, Weight,
    check_unless, regressions,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

const KIND: &str = "import";

/// What is read of a release beside its own package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Files that are started, relative to the package, beside those that its `package.json` names.
    pub entries: Vec<PathBuf>,
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
    let trees = |tree: &Tree| {
        let host = host(tree);
        Trees {
            roots: roots(tree, code, host.as_ref()),
            aliases: host.into_iter().collect(),
            interpreter: node,
            builtins: builtins.clone(),
            limits: Limits { threads: threads(), ..Limits::default() },
        }
    };
    let before = running.map(|running| check_unless(&trees(running), &mut cache, &is_given_up)).transpose();
    let before = before.unwrap_or_else(|error| {
        let text = format!("what runs cannot be read, so that nothing is compared: {}", told(&error));
        findings.push(Finding::new(Level::Warn, KIND, text));
        None
    });
    let trees = trees(target);
    match check_unless(&trees, &mut cache, &is_given_up) {
        Ok(now) => findings.extend(judged(&now, before.as_ref(), &trees.aliases)),
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

fn roots(tree: &Tree, code: &Code, host: Option<&Alias>) -> Vec<Root> {
    let own = Root { directory: tree.package.clone(), entries: code.entries.clone(), scope: Scope::Whole };
    let plugins = tree.plugins.iter().map(|directory| Root {
        directory: directory.clone(),
        entries: host.map(|host| loaded_by(&host.package, directory)).unwrap_or_default(),
        scope: Scope::Whole,
    });
    std::iter::once(own).chain(plugins).collect()
}

/// The package under its own name, wherever a plugin lies.
fn host(tree: &Tree) -> Option<Alias> {
    let package = manifest(&tree.package)?["name"].as_str()?.to_owned();
    Some(Alias { package, directory: tree.package.clone() })
}

/// What a plugin's manifest names for its host: it says so in an object under the host's name. Of alternatives only
/// what is there counts, since a published plugin names its sources as well; what that object holds deeper may be for
/// another program.
fn loaded_by(host: &str, plugin: &Path) -> Vec<PathBuf> {
    let manifest = manifest(plugin).unwrap_or_default();
    let named = manifest[host].as_object().into_iter().flat_map(|named| named.values());
    let paths = named.flat_map(|value| match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect::<Vec<_>>(),
    });
    let is_code = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("js" | "mjs" | "cjs")) && plugin.join(path).is_file()
    };
    let mut entries: Vec<PathBuf> = paths
        .filter_map(|path| path.strip_prefix("./"))
        .map(PathBuf::from)
        .filter(|it| is_code(it))
        .collect();
    entries.sort();
    entries.dedup();
    entries
}

fn manifest(package: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(package.join("package.json")).ok()?).ok()
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

fn judged(now: &Checked, before: Option<&Checked>, hosts: &[Alias]) -> Vec<Finding> {
    let old = before.map(|before| before.findings.as_slice()).unwrap_or_default();
    let new = regressions(&now.findings, old);
    let (optional, missed): (Vec<_>, Vec<_>) = new.into_iter().partition(|finding| finding.is_optional());
    let mut findings: Vec<Finding> = missed.iter().map(|one| finding(one, hosts, before.is_some())).collect();
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

/// Whether a plugin names what its host does not export. A host loads its plugins' files by names that it computes, so
/// that it does not count how the file is reached, and a path that the plugin may be able to do without is not such a
/// name.
fn lacks(host: &Alias, missed: &cutover_imports::Finding) -> bool {
    let from_host = missed.specifier.strip_prefix(&host.package);
    missed.kind == Kind::MissingExport
        && missed.package != host.package
        && from_host.is_some_and(|path| path.is_empty() || path.starts_with('/'))
}

/// A module that nothing written out leads to may never be loaded. Without a running version to compare with only what
/// keeps the program from starting is certain to matter, and a plugin that does not fit.
fn finding(missed: &cutover_imports::Finding, hosts: &[Alias], is_compared: bool) -> Finding {
    let level = match (missed.weight, missed.reach) {
        // Nothing is known of it, and nothing is wrong with it.
        _ if missed.kind == Kind::OverLimit => return unread(missed),
        // Bundled code for a browser is full of names that are not there, and handles that.
        (_, Reach::Apart) if missed.kind == Kind::UndefinedName && !is_compared => Level::Note,
        (Weight::Hard, Reach::Start) => Level::Block,
        (_, Reach::Start | Reach::Later) if is_compared => Level::Block,
        _ if hosts.iter().any(|host| lacks(host, missed)) => Level::Block,
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

/// A file that is larger or deeper than what is read.
fn unread(missed: &cutover_imports::Finding) -> Finding {
    let level = if missed.reach == Reach::Apart { Level::Note } else { Level::Warn };
    Finding::new(level, KIND, format!("{}: what it imports is not known", missed.text))
        .advised("it is not looked at; the proof after the start decides")
}
