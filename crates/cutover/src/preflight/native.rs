//! Whether native modules really load in the service's interpreter.
//!
//! Each is loaded in a child of its own, the file itself and never the script around it: a module that takes its
//! process with it takes nobody else's verdict. Must not know what a module is for.

use super::child::{Children, Ran};
use super::platform::Platform;
use super::tree::in_package;
use super::{Tree, counted, listed, lock};
use crate::causes::told;
use cutover_core::{Finding, Level};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const KIND: &str = "native";

/// Says on what the interpreter runs. Arguments: the mark.
const TELL: &str = "if (process.report) process.report.excludeNetwork = true;
const libc = process.report && process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
const words = [process.platform, process.arch, libc, process.versions.modules];
require('fs').writeSync(1, `\\n${process.argv[1]} ${words.join(' ')}\\n`);
process.exit(0);";

/// Loads one file. Arguments: the mark, the file. Leaves at once: what the module has started is not waited for.
const LOAD: &str = "const say = (text) => require('fs').writeSync(1, `\\n${process.argv[1]} ${text}\\n`);
try { process.dlopen({ exports: {} }, process.argv[2]); say('loaded'); }
catch (error) { say('failed ' + String(error && error.message).replace(/\\s+/g, ' ')); }
process.exit(0);";

/// What became of a module in a child.
enum Verdict {
    Loads,
    Fails(String),
    Untried(String),
}

/// The interpreter's own words for what it runs on.
pub(super) fn platform(children: &Children, program: &Path) -> Result<Platform, String> {
    let mark = mark();
    let ran = children.run(program, &["-e", TELL, &mark]).map_err(|error| told(&error))?;
    let words: Vec<&str> = marked(&ran, &mark).map(|line| line.split(' ').collect()).unwrap_or_default();
    let [os, cpu, libc, abi] = words[..] else { return Err(ran.how(children.limit)) };
    Ok(Platform { os: os.into(), cpu: cpu.into(), libc: libc.into(), abi: Some(abi.into()) })
}

/// The modules of one tree that are made for the interpreter's platform, relative to its root.
pub(super) struct Modules<'a> {
    tree: &'a Tree,
    paths: Vec<PathBuf>,
}

impl<'a> Modules<'a> {
    pub(super) fn new(tree: &'a Tree, all: Vec<PathBuf>, platform: &Platform) -> Self {
        Self { tree, paths: all.into_iter().filter(|path| !platform.is_for_another(path)).collect() }
    }

    /// The same module here: at the same place, else in the same place of the same package.
    fn like(&self, path: &Path) -> Option<&PathBuf> {
        let placed = in_package(path);
        let same = self.paths.iter().find(|other| *other == path);
        same.or_else(|| self.paths.iter().find(|other| in_package(other) == placed))
    }
}

/// Loads all modules of the target, and where one fails, its like in the running one.
pub(super) fn look(
    target: &Modules<'_>,
    running: Option<&Modules<'_>>,
    children: &Children,
    program: &Path,
) -> Vec<Finding> {
    let bench = Bench { children, program, begun: Instant::now() };
    let (mut loaded, mut untried, mut findings) = (0_usize, Vec::new(), Vec::new());
    for path in &target.paths {
        match bench.load(&target.tree.root.join(path)) {
            Verdict::Loads => loaded += 1,
            Verdict::Untried(why) => untried.push(format!("{}: {why}", path.display())),
            Verdict::Fails(why) => {
                let like = running.and_then(|running| Some(running.tree.root.join(running.like(path)?)));
                let before = like.map(|like| bench.load(&like));
                findings.push(judged(path, &why, before.as_ref()));
            }
        }
    }
    findings.extend(running.into_iter().flat_map(|running| lost(target, running)));
    if !untried.is_empty() {
        let count = counted(untried.len(), "native module was", "native modules were");
        findings.push(Finding::new(Level::Warn, KIND, format!("{count} not tried: {}", listed(&untried))));
    }
    if loaded > 0 {
        let count = counted(loaded, "native module loads", "native modules load");
        let text = format!("{count} in the service's {}", program.display());
        findings.push(Finding::new(Level::Note, KIND, text));
    }
    findings
}

/// Modules that the running version has and the target has not. A package of the same version has the same files, so
/// one is missing; a package that is gone altogether may be meant to be, or npm has left an optional one out.
fn lost(target: &Modules<'_>, running: &Modules<'_>) -> Vec<Finding> {
    let (now, before) = (by_name(target.tree), by_name(running.tree));
    let (mut missing, mut gone) = (Vec::new(), Vec::new());
    for path in running.paths.iter().filter(|path| target.like(path).is_none()) {
        let (package, _) = in_package(path);
        match (now.get(&package), before.get(&package)) {
            (Some(now), Some(before)) if now.is_disjoint(before) => {}
            (Some(_), Some(_)) => missing.push(path.display().to_string()),
            (None, Some(_)) => gone.push(path.display().to_string()),
            (_, None) => {}
        }
    }
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let count = counted(missing.len(), "native module is", "native modules are");
        let text = format!("{count} missing, the same version of the package has it: {}", listed(&missing));
        findings.push(Finding::new(Level::Block, KIND, text).advised("stage the release again"));
    }
    if !gone.is_empty() {
        let count = counted(gone.len(), "native module is", "native modules are");
        let text = format!("{count} gone with the whole package: {}", listed(&gone));
        let advice =
            "fine if the release does not use it any more; npm leaves out optional packages silently";
        findings.push(Finding::new(Level::Warn, KIND, text).advised(advice));
    }
    findings
}

/// The versions of each package by its name, as locked.
fn by_name(tree: &Tree) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, version) in lock::versions(tree) {
        found.entry(in_package(Path::new(&path)).0).or_default().insert(version);
    }
    found
}

fn judged(path: &Path, why: &str, before: Option<&Verdict>) -> Finding {
    let text = format!("{} does not load: {why}", path.display());
    match before {
        Some(Verdict::Loads) => Finding::new(Level::Block, KIND, text).advised(
            "the running version's loads in the same interpreter: this release has none for this machine",
        ),
        Some(Verdict::Fails(_)) => {
            Finding::new(Level::Note, KIND, text).advised("the running version's does not load either")
        }
        Some(Verdict::Untried(why)) => Finding::new(Level::Warn, KIND, text)
            .advised(format!("the running version's was not tried: {why}")),
        None => Finding::new(Level::Warn, KIND, text)
            .advised("nothing tells whether it is needed: there is no running version that has it"),
    }
}

struct Bench<'a> {
    children: &'a Children,
    program: &'a Path,
    begun: Instant,
}

impl Bench<'_> {
    fn load(&self, file: &Path) -> Verdict {
        if self.left().is_zero() {
            return Verdict::Untried(format!("the time for all, {:?}, is over", self.children.limit_all));
        }
        let mark = mark();
        let args = ["-e".as_ref(), LOAD.as_ref(), mark.as_ref(), file.as_os_str()];
        let ran = match self.children.run(self.program, &args) {
            Ok(ran) => ran,
            Err(error) => return Verdict::Untried(told(&error)),
        };
        match marked(&ran, &mark) {
            Some("loaded") => Verdict::Loads,
            Some(line) => Verdict::Fails(line.strip_prefix("failed ").unwrap_or(line).to_owned()),
            None => Verdict::Fails(ran.how(self.children.limit)),
        }
    }

    fn left(&self) -> Duration {
        self.children.limit_all.saturating_sub(self.begun.elapsed())
    }
}

/// A word that no module prints by chance.
fn mark() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn marked<'a>(ran: &'a Ran, mark: &str) -> Option<&'a str> {
    ran.stdout.lines().find_map(|line| line.strip_prefix(mark)?.strip_prefix(' '))
}
