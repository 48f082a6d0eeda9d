//! From a specifier to a module, by node's own two rules: one for `import`, one for `require`.
//!
//! Knows node's documents "Modules: ECMAScript modules, Resolution algorithm" and "Modules: CommonJS modules, All
//! together"; must not know what a module says.

use crate::Interpreter;
use crate::builtins::{self, Builtins};
use crate::disk::{Directory, Disk, Found, Place};
use crate::manifest::Manifest;
use crate::package::{self, Miss};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of the two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    Import,
    Require,
}

/// Where a specifier leads.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// A file, by its real path.
    File(Arc<Path>),
    /// A module of node's own.
    Builtin,
    /// Something that is not on this machine's disk, such as `data:`.
    Elsewhere,
}

/// Why a specifier leads nowhere; what node calls it is said by `finding.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// No file at the path.
    NoFile(PathBuf),
    /// No package of that name in any `node_modules` on the way up.
    NoPackage(String),
    /// `require` found nothing.
    NoModule,
    Directory(PathBuf),
    /// `exports` of this manifest has no such subpath; `.` is the package itself.
    NotExported {
        subpath: String,
        manifest: PathBuf,
        by: Asker,
    },
    /// `imports` of this manifest, if there is one, has no such name.
    NotImported {
        manifest: Option<PathBuf>,
    },
    /// `exports` or `imports` lead out of the package.
    BadTarget {
        target: String,
        key: String,
        manifest: PathBuf,
    },
    BadManifest(PathBuf),
    /// What is refused, and why.
    BadSpecifier(String, &'static str),
    NoBuiltin,
}

/// Who asks for a package's `exports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    Itself,
    Another,
}

/// Finds modules on one disk.
pub(crate) struct Resolver<'d> {
    pub(crate) disk: &'d Disk,
    pub(crate) interpreter: Interpreter,
    pub(crate) builtins: &'d Builtins,
    pub(crate) import: &'d [&'static str],
    pub(crate) require: &'d [&'static str],
    /// Packages that lie elsewhere than node would look: name and directory.
    pub(crate) aliases: &'d [(String, Arc<Directory>)],
}

impl Resolver<'_> {
    /// Finds what `specifier` means in a module of this directory.
    pub(crate) fn resolve(
        &self,
        from: &Arc<Directory>,
        specifier: &str,
        rule: Rule,
    ) -> Result<Resolved, Failure> {
        if let Some(name) = specifier.strip_prefix("node:") {
            return if builtins::has(name) || self.builtins.has(name) {
                Ok(Resolved::Builtin)
            } else {
                Err(Failure::NoBuiltin)
            };
        }
        if builtins::has_bare(specifier) {
            return Ok(Resolved::Builtin);
        }
        match rule {
            Rule::Import => self.import(from, specifier),
            Rule::Require => self.require(from, specifier),
        }
    }

    fn conditions(&self, rule: Rule) -> &[&'static str] {
        match rule {
            Rule::Import => self.import,
            Rule::Require => self.require,
        }
    }

    fn import(&self, from: &Arc<Directory>, specifier: &str) -> Result<Resolved, Failure> {
        if is_path(specifier) || specifier.starts_with("file:") {
            return self.import_path(from, specifier);
        }
        if specifier.starts_with('#') {
            return self.internal(from, specifier, Rule::Import);
        }
        if has_scheme(specifier) {
            return Ok(Resolved::Elsewhere);
        }
        self.import_package(from, specifier)
    }

    fn import_path(&self, from: &Arc<Directory>, specifier: &str) -> Result<Resolved, Failure> {
        let path = specifier.strip_prefix("file://").unwrap_or(specifier);
        let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
        let path = decoded(path).map_err(|why| {
            Failure::BadSpecifier(absolute(&from.path.join(path)).display().to_string(), why)
        })?;
        self.exact(&from.path.join(&*path), path.ends_with('/'))
    }

    /// `import` adds no ending and looks into no directory.
    fn exact(&self, path: &Path, is_directory: bool) -> Result<Resolved, Failure> {
        match self.disk.place(path) {
            Place::File(file) if !is_directory => Ok(Resolved::File(file)),
            Place::Directory(_) => Err(Failure::Directory(absolute(path))),
            _ => Err(Failure::NoFile(absolute(path))),
        }
    }

    fn import_package(&self, from: &Arc<Directory>, specifier: &str) -> Result<Resolved, Failure> {
        let (name, subpath) = package::split(specifier)
            .ok_or_else(|| Failure::BadSpecifier(specifier.to_owned(), "is not a valid package name"))?;
        if let Some(found) = self.own(from, name, &subpath, Rule::Import) {
            return found;
        }
        let Some(directory) = self.package(from, name) else {
            return Err(Failure::NoPackage(name.to_owned()));
        };
        match self.manifest(&directory)? {
            Some(manifest) if manifest.exports.is_some() => {
                self.exported(&directory, &manifest, &subpath, Rule::Import, Asker::Another)
            }
            manifest if subpath == "." => self.import_main(&directory, manifest.as_deref()),
            _ => {
                let path =
                    decoded(&subpath[2..]).map_err(|why| Failure::BadSpecifier(subpath.clone(), why))?;
                self.exact(&directory.path.join(&*path), path.ends_with('/'))
            }
        }
    }

    fn import_main(
        &self,
        directory: &Arc<Directory>,
        manifest: Option<&Manifest>,
    ) -> Result<Resolved, Failure> {
        let main = manifest.and_then(|manifest| manifest.main.as_deref());
        let of_main = main.into_iter().flat_map(|main| {
            ["", ".js", ".json", ".node", "/index.js", "/index.json", "/index.node"]
                .map(|end| format!("{main}{end}"))
        });
        let names = of_main.chain(["index.js", "index.json", "index.node"].map(str::to_owned));
        for name in names {
            if let Place::File(file) = self.disk.place(&directory.path.join(name.trim_start_matches("./"))) {
                return Ok(Resolved::File(file));
            }
        }
        let asked = directory.path.join(main.unwrap_or("index.js").trim_start_matches("./"));
        Err(Failure::NoPackage(asked.display().to_string()))
    }

    fn require(&self, from: &Arc<Directory>, specifier: &str) -> Result<Resolved, Failure> {
        if is_path(specifier) || matches!(specifier, "." | "..") {
            let path = from.path.join(specifier);
            let only_directory = specifier.ends_with('/')
                || specifier.ends_with("/.")
                || specifier.ends_with("/..")
                || matches!(specifier, "." | "..");
            return self.guessed(&path, only_directory);
        }
        if specifier.starts_with('#') {
            return self.internal(from, specifier, Rule::Require);
        }
        if specifier.is_empty() {
            return Err(Failure::BadSpecifier(String::new(), "is empty"));
        }
        if let Some((name, subpath)) = package::split(specifier)
            && let Some(found) = self.own(from, name, &subpath, Rule::Require)
        {
            return found;
        }
        self.require_package(from, specifier)
    }

    fn require_package(&self, from: &Arc<Directory>, specifier: &str) -> Result<Resolved, Failure> {
        let split = package::split(specifier);
        for modules in self.node_modules(from) {
            if let Some((name, subpath)) = &split
                && let Place::Directory(directory) = self.disk.place(&modules.path.join(name))
                && let Some(manifest) = self.manifest(&directory)?
                && manifest.exports.is_some()
            {
                return self.exported(&directory, &manifest, subpath, Rule::Require, Asker::Another);
            }
            match self.guessed(&modules.path.join(specifier), specifier.ends_with('/')) {
                Err(Failure::NoModule) => {}
                found => return found,
            }
        }
        Err(Failure::NoModule)
    }

    /// `require` tries endings, and looks into a directory for its main file.
    fn guessed(&self, path: &Path, only_directory: bool) -> Result<Resolved, Failure> {
        if !only_directory && let Some(file) = self.with_ending(path) {
            return Ok(Resolved::File(file));
        }
        let Place::Directory(directory) = self.disk.place(path) else { return Err(Failure::NoModule) };
        let manifest = self.manifest(&directory)?;
        if let Some(main) = manifest.as_ref().and_then(|manifest| manifest.main.as_deref()) {
            let main = directory.path.join(main);
            if let Some(file) = self.with_ending(&main).or_else(|| self.with_ending(&main.join("index"))) {
                return Ok(Resolved::File(file));
            }
        }
        self.with_ending(&directory.path.join("index")).map(Resolved::File).ok_or(Failure::NoModule)
    }

    fn with_ending(&self, path: &Path) -> Option<Arc<Path>> {
        ["", ".js", ".json", ".node"].into_iter().find_map(|end| {
            let mut path = path.as_os_str().to_owned();
            path.push(end);
            match self.disk.place(Path::new(&path)) {
                Place::File(file) => Some(file),
                _ => None,
            }
        })
    }

    /// A package that names itself, or one whose place the caller gave.
    fn own(
        &self,
        from: &Arc<Directory>,
        name: &str,
        subpath: &str,
        rule: Rule,
    ) -> Option<Result<Resolved, Failure>> {
        if let Some((_, directory)) = self.aliases.iter().find(|(alias, _)| alias == name) {
            return Some(self.aliased(directory, subpath, rule));
        }
        let (directory, Found::Manifest(manifest)) = self.disk.scope(from)? else { return None };
        if manifest.exports.is_none() || manifest.name.as_deref() != Some(name) {
            return None;
        }
        Some(self.exported(&directory, &manifest, subpath, rule, Asker::Itself))
    }

    fn aliased(&self, directory: &Arc<Directory>, subpath: &str, rule: Rule) -> Result<Resolved, Failure> {
        match (self.manifest(directory)?, rule) {
            (Some(manifest), _) if manifest.exports.is_some() => {
                self.exported(directory, &manifest, subpath, rule, Asker::Another)
            }
            (manifest, Rule::Import) if subpath == "." => self.import_main(directory, manifest.as_deref()),
            (_, Rule::Import) => self.exact(&directory.path.join(&subpath[2..]), false),
            (_, Rule::Require) => self.guessed(&directory.path.join(subpath), subpath == "."),
        }
    }

    /// What a package exports under a subpath; nothing if it has no `exports`.
    pub(crate) fn exported_by(
        &self,
        directory: &Arc<Directory>,
        subpath: &str,
        rule: Rule,
    ) -> Result<Resolved, Failure> {
        match self.manifest(directory)? {
            Some(manifest) if manifest.exports.is_some() => {
                self.exported(directory, &manifest, subpath, rule, Asker::Another)
            }
            _ => Err(Failure::NoModule),
        }
    }

    /// `#name`, from the `imports` of the package that the module is in.
    fn internal(&self, from: &Arc<Directory>, specifier: &str, rule: Rule) -> Result<Resolved, Failure> {
        if specifier == "#" || specifier.starts_with("#/") && !self.interpreter.imports_slash() {
            let why = "is not a valid internal imports specifier name";
            return Err(Failure::BadSpecifier(specifier.to_owned(), why));
        }
        let Some((directory, found)) = self.disk.scope(from) else {
            return Err(Failure::NotImported { manifest: None });
        };
        let path = directory.path.join("package.json");
        let Found::Manifest(manifest) = found else { return Err(Failure::BadManifest(path)) };
        let missing = || Failure::NotImported { manifest: Some(path.clone()) };
        let imports = manifest.imports.as_ref().ok_or_else(missing)?;
        match package::imported(imports, specifier, self.conditions(rule)) {
            Ok(package::Aim::Inside(target)) => self.targeted(&directory, &target, rule),
            Ok(package::Aim::Outside(target)) => self.resolve(&directory, &target, rule),
            Err(Miss::Undefined) => Err(missing()),
            Err(Miss::Invalid(target)) => {
                Err(Failure::BadTarget { target, key: specifier.to_owned(), manifest: path })
            }
        }
    }

    fn exported(
        &self,
        directory: &Arc<Directory>,
        manifest: &Manifest,
        subpath: &str,
        rule: Rule,
        by: Asker,
    ) -> Result<Resolved, Failure> {
        let exports = manifest.exports.as_ref().expect("the caller looked");
        let path = directory.path.join("package.json");
        match package::exported(exports, subpath, self.conditions(rule)) {
            Ok(target) => self.targeted(directory, &target, rule),
            Err(Miss::Undefined) => {
                Err(Failure::NotExported { subpath: subpath.to_owned(), manifest: path, by })
            }
            Err(Miss::Invalid(target)) => {
                Err(Failure::BadTarget { target, key: subpath.to_owned(), manifest: path })
            }
        }
    }

    fn targeted(&self, directory: &Arc<Directory>, target: &str, rule: Rule) -> Result<Resolved, Failure> {
        let path = decoded(&target[2..]).map_err(|why| Failure::BadSpecifier(target.to_owned(), why))?;
        let path = directory.path.join(&*path);
        match (self.exact(&path, target.ends_with('/')), rule) {
            (Err(_), Rule::Require) => Err(Failure::NoFile(absolute(&path))),
            (found, _) => found,
        }
    }

    fn manifest(&self, directory: &Arc<Directory>) -> Result<Option<Arc<Manifest>>, Failure> {
        match directory.manifest() {
            Found::None => Ok(None),
            Found::Manifest(manifest) => Ok(Some(manifest)),
            Found::Broken => Err(Failure::BadManifest(directory.path.join("package.json"))),
        }
    }

    fn package(&self, from: &Arc<Directory>, name: &str) -> Option<Arc<Directory>> {
        self.node_modules(from).find_map(|modules| match self.disk.place(&modules.path.join(name)) {
            Place::Directory(directory) => Some(directory),
            _ => None,
        })
    }

    fn node_modules(&self, from: &Arc<Directory>) -> impl Iterator<Item = Arc<Directory>> {
        let outward = std::iter::successors(Some(from.clone()), |at| self.disk.directory(at.path.parent()?));
        outward.filter(|at| at.path.file_name().is_none_or(|name| name != "node_modules")).filter_map(|at| {
            match self.disk.inside(&at, "node_modules") {
                Place::Directory(modules) => Some(modules),
                _ => None,
            }
        })
    }
}

fn is_path(specifier: &str) -> bool {
    specifier.starts_with("./")
        || specifier.starts_with("../")
        || specifier.starts_with('/')
        || matches!(specifier, "." | "..")
}

/// Whether it is an address such as `data:…`.
fn has_scheme(specifier: &str) -> bool {
    let Some((scheme, _)) = specifier.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Takes percent signs out of a path, as an address has them. An encoded separator is refused by node.
fn decoded(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(b'/' | b'\\') if first == b'%' => {
                return Err("must not include encoded \"/\" or \"\\\" characters");
            }
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Without `.` and `..`, but with a slash at the end if there was one, as node prints it.
fn absolute(path: &Path) -> PathBuf {
    let mut normal: PathBuf = crate::disk::normal(path).components().collect();
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        normal.push("");
    }
    normal
}
