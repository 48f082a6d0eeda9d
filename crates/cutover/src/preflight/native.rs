//! Whether native modules really load in the service's interpreter.
//!
//! Each is loaded in a child of its own, the file itself and never the script around it: a module that takes its
//! process with it takes nobody else's verdict. Must not know what a module is for.

use super::child::{Children, Ran};
use super::platform::Platform;
use super::tree::in_package;
use super::{Tree, counted, listed};
use crate::causes::told;
use cutover_core::{Finding, Level};
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

/// Loads all modules of the target that are made for this platform, and where one fails, its like in the running one.
pub(super) fn look(
    target: &Tree,
    native: &[PathBuf],
    running: Option<&Tree>,
    children: &Children,
    program: &Path,
    platform: &Platform,
) -> Vec<Finding> {
    let ours: Vec<&PathBuf> = native.iter().filter(|path| !platform.is_for_another(path)).collect();
    let bench = Bench { children, program, begun: Instant::now() };
    let (mut loaded, mut untried, mut findings) = (0_usize, Vec::new(), Vec::new());
    let mut counterparts: Option<Vec<PathBuf>> = None;
    for path in ours {
        match bench.load(&target.root.join(path)) {
            Verdict::Loads => loaded += 1,
            Verdict::Untried(why) => untried.push(format!("{}: {why}", path.display())),
            Verdict::Fails(why) => {
                let like = running.and_then(|running| {
                    let known = counterparts.get_or_insert_with(|| running.native());
                    Some(running.root.join(counterpart(path, known)?))
                });
                let before = like.map(|like| bench.load(&like));
                findings.push(judged(path, &why, before.as_ref()));
            }
        }
    }
    if !untried.is_empty() {
        let count = counted(untried.len(), "native module was", "native modules were");
        findings.push(Finding::new(Level::Warn, KIND, format!("{count} not tried: {}", listed(&untried))));
    }
    if loaded > 0 {
        let count = counted(loaded, "native module loads", "native modules load");
        findings.push(Finding::new(
            Level::Note,
            KIND,
            format!("{count} in the service's {}", program.display()),
        ));
    }
    findings
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

/// The same module in another tree: at the same place, else in the same place of the same package.
fn counterpart<'a>(path: &Path, known: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let placed = in_package(path);
    known
        .iter()
        .find(|other| *other == path)
        .or_else(|| known.iter().find(|other| in_package(other) == placed))
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
