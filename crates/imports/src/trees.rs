//! What is checked: packages with their entry points, seen as one closure.
//!
//! Knows which files of a package somebody may load; must not know how they are read.

use crate::builtins::Builtins;
use crate::cache::Cache;
use crate::closure::{self, Closure, Content, Entry};
use crate::disk::{Directory, Disk, Found, Place};
use crate::finding::{Finding, Kind, Reach, Weight, Writer};
use crate::nesting::STACK_BYTES;
use crate::resolution::{Failure, Resolved, Resolver, Rule};
use crate::{Error, linking, package};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Packages that one process would load together.
#[derive(Clone, Debug, Default)]
pub struct Trees {
    /// The packages whose entry points are the beginning: the service's own, then its plugins.
    pub roots: Vec<Root>,
    /// Packages to be found elsewhere than node would look, such as the host that a plugin asks for.
    pub aliases: Vec<Alias>,
    /// Who will run it.
    pub interpreter: Interpreter,
    /// What it exports itself.
    pub builtins: Builtins,
    /// What may be spent.
    pub limits: Limits,
}

/// One package.
#[derive(Clone, Debug)]
pub struct Root {
    /// Where it lies. Without a `package.json` only `entries` and `scope` count.
    pub directory: PathBuf,
    /// Files to begin with beside those that its `package.json` names, relative to the directory.
    pub entries: Vec<PathBuf>,
    /// How much of it is read.
    pub scope: Scope,
}

/// How much of a package is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What its entry points lead to.
    Reachable,
    /// That, and every other JavaScript file in it that is not below a `node_modules`.
    Whole,
}

/// A package whose place is given.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Its name, as it is imported.
    pub package: String,
    /// Where it lies.
    pub directory: PathBuf,
}

/// The node that will run the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The first number of its version.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// What one check may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many threads read; at least one does.
    pub threads: usize,
    /// A file larger than this is not read, which is a finding. Parsing takes up to 50 bytes of memory for each of a
    /// file's, measured; of files beyond 2 MiB one at a time is parsed.
    pub file_bytes_max: u64,
}

/// What a check found, and how much it looked at.
#[derive(Clone, Debug, Default)]
#[must_use = "findings that nobody reads do not help"]
pub struct Checked {
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    /// Files that were read or at least found.
    pub modules: usize,
    /// The JavaScript files among them that are programs, links followed, in order.
    pub files: Vec<PathBuf>,
    /// Places that name another module.
    pub imports: usize,
    /// Names taken from other modules.
    pub names: usize,
}

impl Default for Interpreter {
    /// The eldest that is still maintained and knows all that is assumed here.
    fn default() -> Interpreter {
        Interpreter { major: 24, minor: 0 }
    }
}

impl Interpreter {
    /// Whether `require` takes an ECMAScript module: since 22.12, and 20.19.
    pub(crate) fn requires_modules(self) -> bool {
        match self.major {
            20 => self.minor >= 19,
            22 => self.minor >= 12,
            major => major > 22,
        }
    }

    /// Whether a file says by its text what it is: since 22.7, and 20.19.
    pub(crate) fn detects_modules(self) -> bool {
        match self.major {
            20 => self.minor >= 19,
            22 => self.minor >= 7,
            major => major > 22,
        }
    }

    /// Whether `import` takes an addon.
    pub(crate) fn imports_addons(self) -> bool {
        self.major >= 24
    }

    /// Whether a name in `imports` may begin with `#/`.
    pub(crate) fn imports_slash(self) -> bool {
        self.major >= 24
    }

    fn conditions(self, rule: Rule) -> Vec<&'static str> {
        let own = if rule == Rule::Import { "import" } else { "require" };
        let mut conditions = vec!["node", own, "node-addons"];
        if self.requires_modules() {
            conditions.push("module-sync");
        }
        conditions
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { threads: 1, file_bytes_max: 32 << 20 }
    }
}

/// Reads all that the roots lead to, and lists what node would not find or not link. What `cache` knows is not parsed
/// again; what it does not know is added.
///
/// # Errors
/// If a directory that is given is none, or the machine gives no thread.
pub fn check(trees: &Trees, cache: &mut Cache) -> Result<Checked, Error> {
    check_unless(trees, cache, &|| false)
}

/// As [`check`], until it is given up: that is asked before each module, and once it is so it must stay so.
///
/// # Errors
/// As [`check`], and [`Error::GivenUp`].
pub fn check_unless(
    trees: &Trees,
    cache: &mut Cache,
    is_given_up: &(dyn Fn() -> bool + Sync),
) -> Result<Checked, Error> {
    let disk = Disk::default();
    let aliases: Vec<(String, Arc<Directory>)> = trees
        .aliases
        .iter()
        .map(|alias| Ok((alias.package.clone(), directory(&disk, &alias.directory)?)))
        .collect::<Result<_, Error>>()?;
    let (import, require) =
        (trees.interpreter.conditions(Rule::Import), trees.interpreter.conditions(Rule::Require));
    let resolver = Resolver {
        disk: &disk,
        interpreter: trees.interpreter,
        builtins: &trees.builtins,
        import: &import,
        require: &require,
        aliases: &aliases,
    };
    let (mut entries, mut roots, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for root in &trees.roots {
        let directory = directory(&disk, &root.directory)?;
        let mut found =
            Entries { resolver: &resolver, directory: &directory, found: Vec::new(), lost: Vec::new() };
        found.collect(root);
        entries.append(&mut found.found);
        roots.push((directory.path.to_path_buf(), found.name()));
        lost.append(&mut found.lost);
    }
    let closure = closure::walk(&entries, &resolver, &trees.interpreter, &trees.limits, cache, is_given_up)?;
    let mut checked = link(&closure, &roots, trees)?;
    checked.findings.append(&mut lost);
    checked.findings.sort();
    Ok(checked)
}

/// Links on a stack that is as deep as any chain of modules.
fn link(closure: &Closure, roots: &[(PathBuf, String)], trees: &Trees) -> Result<Checked, Error> {
    let writer = Writer { closure, roots };
    let (findings, names) = thread::scope(|scope| {
        let thread = thread::Builder::new().name("linking".to_owned()).stack_size(STACK_BYTES);
        let linking =
            thread.spawn_scoped(scope, || linking::faults(&writer, &trees.interpreter, &trees.builtins));
        let linking = linking.map_err(|source| Error::StartThread { source })?;
        Ok(linking.join().expect("linking does not panic"))
    })?;
    let imports = closure.modules.iter().map(|module| module.targets.len()).sum();
    let is_program = |content: &Content| matches!(content, Content::Code(facts) if facts.trouble.is_none());
    let code = closure.modules.iter().filter(|module| is_program(&module.content));
    let mut files: Vec<PathBuf> = code.map(|module| module.path.to_path_buf()).collect();
    files.sort();
    Ok(Checked { findings, modules: closure.modules.len(), files, imports, names })
}

fn directory(disk: &Disk, path: &Path) -> Result<Arc<Directory>, Error> {
    let refused = || Error::NoDirectory { path: path.to_owned() };
    let real = path.canonicalize().map_err(|_| refused())?;
    disk.directory(&real).ok_or_else(refused)
}

/// The entry points of one package.
struct Entries<'e> {
    resolver: &'e Resolver<'e>,
    directory: &'e Arc<Directory>,
    found: Vec<Entry>,
    lost: Vec<Finding>,
}

impl Entries<'_> {
    fn name(&self) -> String {
        let name = match self.directory.manifest() {
            Found::Manifest(manifest) => manifest.name.clone(),
            Found::None | Found::Broken => None,
        };
        name.unwrap_or_else(|| {
            self.directory
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
    }

    fn collect(&mut self, root: &Root) {
        match self.directory.manifest() {
            Found::Manifest(manifest) => {
                let named = manifest.commands.iter().map(String::as_str);
                named.for_each(|path| self.file(path));
                match &manifest.exports {
                    Some(exports) => package::listed(exports).iter().for_each(|path| self.exported(path)),
                    None => {
                        let main = manifest.main.as_deref();
                        main.into_iter().for_each(|path| self.main(path));
                    }
                }
            }
            Found::Broken => self.lose(
                "package.json",
                Kind::InvalidManifest,
                &format!("Invalid package config {}.", self.directory.path.join("package.json").display()),
            ),
            Found::None => {}
        }
        for path in &root.entries {
            self.file(&path.to_string_lossy());
        }
        if root.scope == Scope::Whole {
            self.all(&self.directory.clone());
        }
    }

    fn file(&mut self, path: &str) {
        let full = self.directory.path.join(path.trim_start_matches("./"));
        match self.resolver.disk.place(&full) {
            Place::File(file) => self.found.push(Entry { path: file, reach: Reach::Start }),
            _ => self.lose_file(path),
        }
    }

    fn main(&mut self, path: &str) {
        let specifier = format!("./{}", path.trim_start_matches("./"));
        match self.resolver.resolve(self.directory, &specifier, Rule::Require) {
            Ok(Resolved::File(file)) => self.found.push(Entry { path: file, reach: Reach::Start }),
            Ok(Resolved::Builtin | Resolved::Elsewhere) => {}
            Err(_) => self.lose_file(path),
        }
    }

    fn exported(&mut self, subpath: &str) {
        if subpath.contains('*') {
            return;
        }
        for rule in [Rule::Import, Rule::Require] {
            match self.resolver.exported_by(self.directory, subpath, rule) {
                Ok(Resolved::File(file)) if is_code(&file) => {
                    self.found.push(Entry { path: file, reach: Reach::Start });
                }
                Err(Failure::NoFile(path)) => self.lose_file(&path.to_string_lossy()),
                _ => {}
            }
        }
    }

    fn all(&mut self, directory: &Arc<Directory>) {
        for name in directory.names() {
            if &*name == "node_modules" {
                continue;
            }
            match self.resolver.disk.inside(directory, &name) {
                Place::File(file) if is_code(&file) && file.starts_with(&directory.path) => {
                    self.found.push(Entry { path: file, reach: Reach::Apart });
                }
                // A link that leads elsewhere would be read there, or go in a circle.
                Place::Directory(inner) if *inner.path == directory.path.join(&*name) => self.all(&inner),
                _ => {}
            }
        }
    }

    fn lose_file(&mut self, path: &str) {
        let full = self.directory.path.join(path.trim_start_matches("./"));
        let text = format!("Error: Cannot find module '{}'", full.display());
        self.lose(path, Kind::ModuleNotFound, &text);
    }

    fn lose(&mut self, specifier: &str, kind: Kind, text: &str) {
        let finding = Finding {
            file: self.directory.path.join("package.json"),
            line: 0,
            package: self.name(),
            place: "package.json".to_owned(),
            specifier: specifier.to_owned(),
            name: None,
            kind,
            weight: Weight::Hard,
            reach: Reach::Start,
            is_expected: false,
            text: text.to_owned(),
        };
        if !self.lost.contains(&finding) {
            self.lost.push(finding);
        }
    }
}

fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|ending| matches!(ending.to_str(), Some("js" | "mjs" | "cjs")))
}
