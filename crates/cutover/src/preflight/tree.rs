//! One generation's tree, and what one walk of it finds.
//!
//! Knows files and links. Must not know which of them matter.

use super::stop::Stop;
use crate::store::{self, Store};
use cutover_core::Generation;
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Where node-gyp puts modules before they are what is loaded.
const INTERMEDIATE: &str = "obj.target";

/// Where a generation lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The directory that was sealed (`<generation>/core`); npm's `node_modules` is in it, where there is one.
    pub root: PathBuf,
    /// The release's own package: `root` itself, or `<root>/node_modules/<name>`.
    pub package: PathBuf,
}

/// What one walk noticed, relative to the tree's root, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// Files without a byte.
    pub empty: Vec<PathBuf>,
    /// Links that lead nowhere.
    pub broken: Vec<PathBuf>,
    /// Files that node would load as machine code.
    pub native: Vec<PathBuf>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl Tree {
    /// Finds where a sealed generation lies.
    ///
    /// # Errors
    /// As [`Store::record`] and [`Store::root`].
    pub fn sealed(store: &Store, generation: Generation) -> store::Result<Self> {
        let record = store.record(generation)?;
        let package = store.root(generation)?;
        Ok(Self::around(package, &record.root, &record.package_root))
    }

    /// The tree around a package, from where both lie in a generation.
    fn around(package: PathBuf, root: &Path, package_root: &Path) -> Self {
        let below = package_root.strip_prefix(root).map_or(0, |below| below.iter().count());
        let root = package.ancestors().nth(below).unwrap_or(&package).to_owned();
        Self { root, package }
    }

    /// Walks the whole tree once, unless it is given up; links are looked at and not followed.
    pub(super) fn walk(&self, stop: &Stop) -> Noticed {
        let mut noticed = Noticed::default();
        for entry in WalkDir::new(&self.root).sort_by_file_name() {
            if stop.is_asked() {
                noticed.unread.push("given up".to_owned());
                break;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    noticed.unread.push(error.to_string());
                    continue;
                }
            };
            let path = entry.path();
            let relative = || path.strip_prefix(&self.root).unwrap_or(path).to_owned();
            if entry.path_is_symlink() {
                if leads_nowhere(path) {
                    noticed.broken.push(relative());
                }
                continue;
            }
            if !entry.file_type().is_file() {
                continue;
            }
            match entry.metadata() {
                Ok(file) if file.len() == 0 => noticed.empty.push(relative()),
                Ok(_) => {}
                Err(error) => noticed.unread.push(error.to_string()),
            }
            if is_native(&relative()) {
                noticed.native.push(relative());
            }
        }
        noticed
    }

    /// The native modules alone.
    pub(super) fn native(&self, stop: &Stop) -> Vec<PathBuf> {
        self.walk(stop).native
    }

    /// Whether a relative path is a file with content here.
    pub(super) fn has_content(&self, relative: &Path) -> bool {
        fs::metadata(self.root.join(relative)).is_ok_and(|file| file.is_file() && file.len() > 0)
    }

    /// Whether a relative path is a link that leads nowhere here too.
    pub(super) fn is_broken(&self, relative: &Path) -> bool {
        leads_nowhere(&self.root.join(relative))
    }
}

/// Whether node would load a file as machine code. What a build left on its way is none of it.
fn is_native(path: &Path) -> bool {
    let is_module = path.extension().is_some_and(|extension| extension == "node");
    is_module && path.iter().all(|part| part != INTERMEDIATE)
}

fn leads_nowhere(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink());
    is_link && fs::metadata(path).is_err()
}

/// The place of a file in its own package: the package's name, and the path below it. The name is empty outside
/// `node_modules`.
pub(super) fn in_package(relative: &Path) -> (String, PathBuf) {
    let parts: Vec<&std::ffi::OsStr> = relative.iter().collect();
    let Some(at) = parts.iter().rposition(|part| *part == "node_modules") else {
        return (String::new(), relative.to_owned());
    };
    let mut rest = parts[at + 1..].iter();
    let mut name = rest.next().map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    if name.starts_with('@')
        && let Some(second) = rest.next()
    {
        name = format!("{name}/{}", second.to_string_lossy());
    }
    (name, rest.collect())
}

/// The directory of the package that a file is in, relative as the file is.
pub(super) fn package_directory(relative: &Path) -> &Path {
    let (_, inner) = in_package(relative);
    relative.ancestors().nth(inner.iter().count()).unwrap_or(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_what_was_sealed_around_the_package() {
        let around = |package: &str, below: &str| {
            Tree::around(package.into(), Path::new("core"), Path::new(below)).root
        };
        assert_eq!(around("/g/1/core/node_modules/@s/a", "core/node_modules/@s/a"), Path::new("/g/1/core"));
        assert_eq!(around("/g/1/core", "core"), Path::new("/g/1/core"));
    }

    #[test]
    fn a_file_is_placed_in_its_innermost_package() {
        let placed = |path: &str| in_package(Path::new(path));
        assert_eq!(placed("node_modules/a/node_modules/@s/b/c/d.js"), ("@s/b".into(), "c/d.js".into()));
        assert_eq!(placed("node_modules/a/index.js"), ("a".into(), "index.js".into()));
        assert_eq!(placed("lib/a.js"), (String::new(), "lib/a.js".into()));
        assert_eq!(package_directory(Path::new("node_modules/@s/b/c/d.js")), Path::new("node_modules/@s/b"));
        assert_eq!(package_directory(Path::new("lib/a.js")), Path::new(""));
    }

    #[test]
    fn what_a_build_left_on_its_way_is_no_module() {
        assert!(is_native(Path::new("node_modules/a/build/Release/a.node")));
        assert!(!is_native(Path::new("node_modules/a/build/Release/obj.target/a.node")));
        assert!(!is_native(Path::new("node_modules/a/node.js")));
    }
}
