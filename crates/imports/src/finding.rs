//! What is wrong with a tree, in node's own words, and what of it is new.
//!
//! Knows texts and identities; must not know how a fault was found.

use crate::closure::{Closure, Content, Module, Unreadable};
use crate::module::{Request, Trouble};
use crate::resolution::{Asker, Failure};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One fault: a place in a file, and what node would say there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The file, links followed.
    pub file: PathBuf,
    /// The line in it, from 1; 0 if the fault has no place in the text.
    pub line: u32,
    /// The name of the package that the file belongs to, or the name of the directory that was given.
    pub package: String,
    /// The file's path in that package.
    pub place: String,
    /// What is asked for. Empty if the file itself is at fault.
    pub specifier: String,
    /// The name that is not there.
    pub name: Option<String>,
    /// What kind of fault.
    pub kind: Kind,
    /// Where the fault would be felt.
    pub weight: Weight,
    /// How the file is reached.
    pub reach: Reach,
    /// Whether it is a `require` in a `try`, so that the code knows what to do without.
    pub is_expected: bool,
    /// The text that node prints.
    pub text: String,
}

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No such file or package.
    ModuleNotFound,
    /// The package has `exports`, and they do not list the path.
    PathNotExported,
    /// The package has no such name in `imports`.
    ImportNotDefined,
    /// A target of `exports` or `imports` that leads out of the package.
    InvalidTarget,
    /// A `package.json` that is none.
    InvalidManifest,
    /// A specifier that node refuses.
    InvalidSpecifier,
    /// `import` of a directory.
    DirectoryImport,
    /// `node:` and a name that node has not.
    UnknownBuiltin,
    /// `import` of a file whose ending node does not know.
    UnknownExtension,
    /// `import` of JSON without `with { type: "json" }`.
    MissingAttribute,
    /// `require` of an ECMAScript module by an interpreter that cannot do that.
    RequireOfModule,
    /// A name that the other module does not export: it is not even linked.
    MissingExport,
    /// A name that two `export *` give different meanings.
    AmbiguousExport,
    /// A name that leads back to itself.
    CircularExport,
    /// A name taken from `import()` that will be `undefined`.
    UndefinedName,
    /// The file is no program, or no JSON.
    Syntax,
    /// The file could not be read.
    Unreadable,
    /// The file is larger or deeper than what is read.
    OverLimit,
}

/// Where a fault would be felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// When some code runs, if it ever does, and if it does not expect it.
    Soft,
    /// When an entry point is loaded: it cannot be.
    Hard,
}

/// How a file is reached from the entry points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Nothing that is written out leads there: it is part of a package that is read as a whole.
    Apart,
    /// Through a dynamic import, or a `require` that may not run.
    Later,
    /// Loaded whenever an entry point is.
    Start,
}

/// What a fault is told by when two trees are compared. File names carry hashes that differ between builds, so that a
/// file counts only where the specifier is relative, and without its hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    package: String,
    kind: Kind,
    place: String,
    specifier: String,
    name: Option<String>,
}

impl Finding {
    /// Whether the package lacks something of its own, rather than another package.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.specifier.is_empty() || self.specifier.starts_with(['.', '/', '#'])
    }

    /// Whether healthy packages have such findings and work: code that may not run asks for another package or for a
    /// native addon, which another machine would have, or the code expects not to find it. An `import()` in a `try` of a
    /// file of its own is none of these: bundled code reports such failures, and goes on without what it needs.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.weight == Weight::Soft
            && self.kind == Kind::ModuleNotFound
            && (!self.is_internal() || self.is_expected || self.specifier.ends_with(".node"))
    }

    fn identity(&self) -> Identity {
        let place = if self.is_internal() { unhashed(&self.place) } else { String::new() };
        Identity {
            package: self.package.clone(),
            kind: self.kind,
            place,
            specifier: unhashed(&self.specifier),
            name: self.name.clone(),
        }
    }
}

/// The findings in `new` that `old` has not, or has with less weight.
///
/// A package that asks for an optional one which is not installed does so in both trees; that is not a regression.
#[must_use]
pub fn regressions<'n>(new: &'n [Finding], old: &[Finding]) -> Vec<&'n Finding> {
    let mut known: HashMap<Identity, Weight> = HashMap::new();
    for finding in old {
        let weight = known.entry(finding.identity()).or_insert(finding.weight);
        *weight = finding.weight.max(*weight);
    }
    new.iter()
        .filter(|finding| known.get(&finding.identity()).is_none_or(|weight| finding.weight > *weight))
        .collect()
}

/// Takes the hash out of the name of a file that a bundler named: `server-close-D4kZ_1aB.js` → `server-close.js`.
fn unhashed(path: &str) -> String {
    let (directory, file) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let (stem, ending) = file.rsplit_once('.').unwrap_or((file, ""));
    let Some(cut) = stem.len().checked_sub(9).filter(|cut| stem.is_char_boundary(*cut)) else {
        return path.to_owned();
    };
    let (head, hash) = stem.split_at(cut);
    let is_hash = hash.starts_with('-')
        && hash.bytes().skip(1).all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && hash.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    if is_hash && !head.is_empty() { format!("{directory}{head}.{ending}") } else { path.to_owned() }
}

/// Writes findings of one closure.
pub(crate) struct Writer<'c> {
    pub(crate) closure: &'c Closure,
    pub(crate) roots: &'c [(PathBuf, String)],
}

impl Writer<'_> {
    /// A fault of a request in a module.
    pub(crate) fn request(&self, module: &Module, request: &Request, kind: Kind, text: String) -> Finding {
        let weight = if request.how.is_needed() { self.weight(module) } else { Weight::Soft };
        let mut finding = self.blank(module, kind, text);
        (finding.line, finding.weight) = (request.line, weight);
        finding.is_expected = request.is_caught && request.how.is_require();
        finding.specifier = request.specifier.to_string();
        finding
    }

    /// A fault of a module itself, if it has one.
    pub(crate) fn module(&self, module: &Module) -> Option<Finding> {
        let file = module.path.display();
        let (kind, line, text) = match &module.content {
            Content::Code(facts) => match facts.trouble.as_ref()? {
                Trouble::Syntax { line, message } => (Kind::Syntax, *line, format!("SyntaxError: {message}")),
                Trouble::Nesting { line } => {
                    (Kind::OverLimit, *line, format!("{file} is nested too deeply to be read"))
                }
            },
            Content::Unreadable(Unreadable::Json) => {
                (Kind::Syntax, 1, format!("SyntaxError: {file}: this is not JSON"))
            }
            Content::Unreadable(Unreadable::Large { bytes, most }) => {
                (Kind::OverLimit, 0, format!("{file} has {bytes} bytes, and no more than {most} are read"))
            }
            Content::Unreadable(Unreadable::Io(cause)) => {
                (Kind::Unreadable, 0, format!("Error: {cause}, open '{file}'"))
            }
            Content::Unreadable(Unreadable::Empty) => {
                (Kind::Unreadable, 0, format!("Error: {file}: file too short"))
            }
            Content::Json | Content::Opaque => return None,
        };
        let mut finding = self.blank(module, kind, text);
        (finding.line, finding.weight) = (line, self.weight(module));
        Some(finding)
    }

    fn weight(&self, module: &Module) -> Weight {
        if module.reach == Reach::Start { Weight::Hard } else { Weight::Soft }
    }

    fn blank(&self, module: &Module, kind: Kind, text: String) -> Finding {
        let (package, place) = belonging(&module.path, self.roots);
        Finding {
            file: module.path.to_path_buf(),
            line: 0,
            package,
            place,
            specifier: String::new(),
            name: None,
            kind,
            weight: Weight::Soft,
            reach: module.reach,
            is_expected: false,
            text,
        }
    }
}

/// The package that a file is in, and its path there.
fn belonging(file: &Path, roots: &[(PathBuf, String)]) -> (String, String) {
    let mut inside: Vec<&str> = Vec::new();
    let mut directory = file;
    while let Some(parent) = directory.parent() {
        if parent.ends_with("node_modules") {
            let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with('@') || inside.is_empty() {
                inside.reverse();
                return (name.to_owned(), inside.join("/"));
            }
            let package = inside.pop().expect("it was looked at");
            inside.reverse();
            return (format!("{name}/{package}"), inside.join("/"));
        }
        if let Some((_, name)) = roots.iter().find(|(root, _)| root == directory) {
            inside.reverse();
            return (name.clone(), inside.join("/"));
        }
        inside.push(directory.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        directory = parent;
    }
    (String::new(), file.display().to_string())
}

/// What kind a failed look-up is, and what node prints.
pub(crate) fn failure(failure: &Failure, request: &Request, file: &Path) -> (Kind, String) {
    let specifier = &request.specifier;
    let from =
        if request.how.is_require() { String::new() } else { format!(" imported from {}", file.display()) };
    let not_found = |what: String| {
        if request.how.is_require() {
            format!("Error: Cannot find module '{what}'\nRequire stack:\n- {}", file.display())
        } else {
            format!("Error [ERR_MODULE_NOT_FOUND]: Cannot find module '{what}'{from}")
        }
    };
    match failure {
        Failure::NoFile(path) => (Kind::ModuleNotFound, not_found(path.display().to_string())),
        Failure::NoModule => (Kind::ModuleNotFound, not_found(specifier.to_string())),
        Failure::NoPackage(name) => (
            Kind::ModuleNotFound,
            format!("Error [ERR_MODULE_NOT_FOUND]: Cannot find package '{name}'{from}"),
        ),
        Failure::Directory(path) => {
            let path = path.display();
            let text = format!("Directory import '{path}' is not supported resolving ES modules{from}");
            (Kind::DirectoryImport, format!("Error [ERR_UNSUPPORTED_DIR_IMPORT]: {text}"))
        }
        Failure::NotExported { subpath, manifest, by } => {
            let from = if *by == Asker::Itself { format!(" imported from {}", file.display()) } else { from };
            let what = match subpath.as_str() {
                "." => "No \"exports\" main defined".to_owned(),
                subpath => format!("Package subpath '{subpath}' is not defined by \"exports\""),
            };
            let text = format!("{what} in {}{from}", manifest.display());
            (Kind::PathNotExported, format!("Error [ERR_PACKAGE_PATH_NOT_EXPORTED]: {text}"))
        }
        Failure::NotImported { manifest } => {
            let package =
                manifest.as_ref().map(|it| format!(" in package {}", it.display())).unwrap_or_default();
            let from = format!(" imported from {}", file.display());
            let text = format!("Package import specifier \"{specifier}\" is not defined{package}{from}");
            (Kind::ImportNotDefined, format!("TypeError [ERR_PACKAGE_IMPORT_NOT_DEFINED]: {text}"))
        }
        Failure::BadTarget { target, key, manifest } => {
            let (list, end) = match key.starts_with('#') {
                false if !target.is_empty() && !target.starts_with("./") => {
                    ("exports", "; targets must start with \"./\"")
                }
                is_internal => (if is_internal { "imports" } else { "exports" }, ""),
            };
            let what = match key.as_str() {
                "." => format!("Invalid \"{list}\" main target \"{target}\" defined"),
                key => format!("Invalid \"{list}\" target \"{target}\" defined for '{key}'"),
            };
            let text = format!("{what} in the package config {}{from}{end}", manifest.display());
            (Kind::InvalidTarget, format!("Error [ERR_INVALID_PACKAGE_TARGET]: {text}"))
        }
        Failure::BadManifest(path) => {
            let text = format!("Invalid package config {}.", path.display());
            (Kind::InvalidManifest, format!("Error [ERR_INVALID_PACKAGE_CONFIG]: {text}"))
        }
        Failure::BadSpecifier(what, why) => {
            let text = format!("Invalid module \"{what}\" {why}{from}");
            (Kind::InvalidSpecifier, format!("TypeError [ERR_INVALID_MODULE_SPECIFIER]: {text}"))
        }
        Failure::NoBuiltin => {
            let text = format!("Error [ERR_UNKNOWN_BUILTIN_MODULE]: No such built-in module: {specifier}");
            (Kind::UnknownBuiltin, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_bundlers_do_not_count() {
        assert_eq!(unhashed("dist/server-close-D4kZ_1aB.js"), "dist/server-close.js");
        assert_eq!(unhashed("./server-close-Cy6fUmEH.js"), "./server-close.js");
        assert_eq!(unhashed("./a.runtime-PesVGYhx.js"), "./a.runtime.js");
        assert_eq!(unhashed("./session-settings.js"), "./session-settings.js");
        assert_eq!(unhashed("matrix-js-sdk"), "matrix-js-sdk");
    }

    #[test]
    fn a_file_belongs_to_the_innermost_package() {
        let roots = [(PathBuf::from("/r/plugin"), "plugin".to_owned())];
        let at = |path: &str| belonging(Path::new(path), &roots);
        assert_eq!(at("/r/node_modules/a/b/c.js"), ("a".to_owned(), "b/c.js".to_owned()));
        assert_eq!(at("/r/node_modules/@s/a/c.js"), ("@s/a".to_owned(), "c.js".to_owned()));
        assert_eq!(at("/r/plugin/c.js"), ("plugin".to_owned(), "c.js".to_owned()));
        assert_eq!(at("/r/plugin/node_modules/x/c.js"), ("x".to_owned(), "c.js".to_owned()));
    }
}
