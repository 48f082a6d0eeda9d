//! Whether native modules really load in the service's interpreter.
//!
//! Each is loaded in a child of its own, the file itself and never the script around it: a module that takes its
//! process with it takes nobody else's verdict. Must not know what a module is for.

use super::child::{Children, Ran};
use super::platform::{Platform, called};
use super::tree::{in_package, package_directory};
use super::{Tree, counted, listed, lock};
use crate::causes::told;
use cutover_core::{Finding, Level};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
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

/// What the loader says of a module that is made for another node, processor or C library.
const MISFIT: [&str; 4] = ["NODE_MODULE_VERSION", "wrong ELF class", "ld-musl", "libc.musl"];

/// How the modules of Windows and macOS begin.
const FOREIGN: [&[u8]; 4] = [b"MZ", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe"];

/// What became of a module in a child.
#[derive(Debug)]
enum Verdict {
    Loads,
    Fails(String),
    /// Made for another machine or node.
    Misfits(String),
    /// Whoever tried may not read it.
    Closed(String),
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

/// The modules of one tree, relative to its root.
pub(super) struct Modules<'a> {
    tree: &'a Tree,
    /// Those that are made for the interpreter's platform, or do not say for which.
    paths: Vec<PathBuf>,
    /// Those that say that they are made for another.
    others: Vec<PathBuf>,
}

impl<'a> Modules<'a> {
    pub(super) fn new(tree: &'a Tree, all: Vec<PathBuf>, platform: &Platform) -> Self {
        let (others, paths) = all.into_iter().partition(|path| platform.is_for_another(path));
        Self { tree, paths, others }
    }

    /// The same module here: at the same place, else in the same place of the same package.
    fn like(&self, path: &Path) -> Option<&PathBuf> {
        let placed = in_package(path);
        let same = self.paths.iter().find(|other| *other == path);
        same.or_else(|| self.paths.iter().find(|other| in_package(other) == placed))
    }

    /// Whether a package has modules, and all of them say that they are made for another platform.
    fn has_only_others(&self, package: &str) -> bool {
        let is_of_it = |path: &PathBuf| in_package(path).0 == package;
        self.others.iter().any(is_of_it) && !self.paths.iter().any(is_of_it)
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
    let verdicts: Vec<(&Path, Verdict)> =
        target.paths.iter().map(|path| (path.as_path(), bench.load(&target.tree.root.join(path)))).collect();
    let loaded: Vec<&Path> = verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Loads))
        .map(|(path, _)| *path)
        .collect();
    let before = |path: &Path| {
        let like = running.and_then(|running| Some(running.tree.root.join(running.like(path)?)));
        like.map(|like| bench.load(&like))
    };
    let (mut untried, mut findings) = (Vec::new(), Vec::new());
    for (path, verdict) in &verdicts {
        match verdict {
            Verdict::Loads => {}
            Verdict::Untried(why) => untried.push(format!("{}: {why}", path.display())),
            Verdict::Closed(why) => match before(path) {
                Some(Verdict::Loads) => findings.push(judged(path, why, Some(&Verdict::Loads))),
                _ => untried.push(format!("{}: {why}", path.display())),
            },
            Verdict::Misfits(why) => {
                let instead = loaded.iter().find(|other| is_variant(other, path));
                let finding = judged(path, why, before(path).as_ref());
                findings.push(match instead {
                    Some(other) => replaced(finding, other),
                    None => finding,
                });
            }
            Verdict::Fails(why) => findings.push(judged(path, why, before(path).as_ref())),
        }
    }
    findings.extend(running.into_iter().flat_map(|running| lost(target, running, &bench)));
    if !untried.is_empty() {
        let count = counted(untried.len(), "native module was", "native modules were");
        findings.push(Finding::new(Level::Warn, KIND, format!("{count} not tried: {}", listed(&untried))));
    }
    if !loaded.is_empty() {
        let count = counted(loaded.len(), "native module loads", "native modules load");
        let text = format!("{count} in the service's {}", program.display());
        findings.push(Finding::new(Level::Note, KIND, text));
    }
    findings
}

/// Whether two modules of one package are the same for different machines. A name that says of nothing but the machine
/// may be any module's.
fn is_variant(one: &Path, other: &Path) -> bool {
    let (a, b) = (called(one), called(other));
    package_directory(one) == package_directory(other) && (a == b || a.is_empty() || b.is_empty())
}

/// A package that has the module for this machine as well works without the one that does not fit, unless it takes that
/// one first: the running version's fitted there, which is worth a look.
fn replaced(finding: Finding, other: &Path) -> Finding {
    let level = match finding.level {
        Level::Block => Level::Warn,
        Level::Warn | Level::Note => Level::Note,
    };
    let advice = format!("the package has {} for this machine, which loads", other.display());
    Finding { level, ..finding }.advised(advice)
}

/// Modules that the running version has and the target has not. A package of the same version has the same files, so
/// one is missing; one that has nothing but modules for other machines has been installed for another; a package that is
/// gone altogether may be meant to be, or npm has left an optional one out.
fn lost(target: &Modules<'_>, running: &Modules<'_>, bench: &Bench<'_>) -> Vec<Finding> {
    let (now, before) = (by_name(target.tree), by_name(running.tree));
    let (mut missing, mut gone, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for path in running.paths.iter().filter(|path| target.like(path).is_none()) {
        let (package, _) = in_package(path);
        let (now, before) = (now.get(&package), before.get(&package));
        let is_same = now.zip(before).is_some_and(|(now, before)| !now.is_disjoint(before));
        if is_same {
            missing.push(path.display().to_string());
        } else if target.has_only_others(&package) {
            if matches!(bench.load(&running.tree.root.join(path)), Verdict::Loads) {
                elsewhere.push(path.display().to_string());
            }
        } else if now.is_none() && before.is_some() {
            gone.push(path.display().to_string());
        }
    }
    let mut findings = Vec::new();
    let mut told = |level, paths: &[String], what: &str, advice: &str| {
        if !paths.is_empty() {
            let count = counted(paths.len(), "native module is", "native modules are");
            let text = format!("{count} {what}: {}", listed(paths));
            findings.push(Finding::new(level, KIND, text).advised(advice));
        }
    };
    let again = "stage the release again";
    told(Level::Block, &missing, "missing, the same version of the package has it", again);
    let what = "missing for this machine's node, the package has only some for others";
    let advice = "the running version's loads: the release has none for this machine, or was installed by another node";
    told(Level::Block, &elsewhere, what, advice);
    let advice = "fine if the release does not use it any more; npm leaves out optional packages silently";
    told(Level::Warn, &gone, "gone with the whole package", advice);
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
        Some(Verdict::Fails(_) | Verdict::Misfits(_)) => {
            Finding::new(Level::Note, KIND, text).advised("the running version's does not load either")
        }
        Some(Verdict::Untried(why) | Verdict::Closed(why)) => Finding::new(Level::Warn, KIND, text)
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
        if let Err(error) = self.children.may_read(file) {
            return Verdict::Closed(format!("uid {} may not read it: {error}", self.children.uid()));
        }
        let mark = mark();
        let args = ["-e".as_ref(), LOAD.as_ref(), mark.as_ref(), file.as_os_str()];
        let ran = match self.children.run(self.program, &args) {
            Ok(ran) => ran,
            Err(error) => return Verdict::Untried(told(&error)),
        };
        match marked(&ran, &mark) {
            Some("loaded") => Verdict::Loads,
            Some(line) => {
                let why = line.strip_prefix("failed ").unwrap_or(line).to_owned();
                let is_misfit = MISFIT.iter().any(|words| why.contains(words)) || is_foreign(file);
                if is_misfit { Verdict::Misfits(why) } else { Verdict::Fails(why) }
            }
            // Whether it would have loaded, with more time or memory, nobody knows.
            None if ran.was_cut_off() => Verdict::Untried(ran.how(self.children.limit)),
            None => Verdict::Fails(ran.how(self.children.limit)),
        }
    }

    fn left(&self) -> Duration {
        self.children.limit_all.saturating_sub(self.begun.elapsed())
    }
}

fn is_foreign(file: &Path) -> bool {
    let mut head = [0; 4];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && FOREIGN.iter().any(|magic| head.starts_with(magic))
}

/// A word that no module prints by chance.
fn mark() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn marked<'a>(ran: &'a Ran, mark: &str) -> Option<&'a str> {
    ran.stdout.lines().find_map(|line| line.strip_prefix(mark)?.strip_prefix(' '))
}
