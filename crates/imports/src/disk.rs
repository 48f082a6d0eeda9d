//! The file system as a resolver sees it: each directory is listed once, each manifest read once, each link followed
//! once.
//!
//! Knows names, links and manifests; must not know what a specifier is. What it has seen it remembers, so that one of
//! these must not outlive the check of a tree that does not change meanwhile.

use crate::manifest::Manifest;
use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

/// The largest manifests that are published have some hundred KiB.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What a path leads to, links followed.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A file, by its real path.
    File(Arc<Path>),
    Directory(Arc<Directory>),
    /// There is something, and it is neither.
    Other,
    Nothing,
}

/// A directory that is there.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Without links.
    pub(crate) path: Arc<Path>,
    entries: OnceLock<Option<HashMap<Box<str>, Entry>>>,
    manifest: OnceLock<Found>,
}

/// What `package.json` of a directory holds.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    None,
    Manifest(Arc<Manifest>),
    /// It is there, and it cannot be read or is no manifest.
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    File,
    Directory,
    Link,
    Other,
}

#[derive(Default)]
pub(crate) struct Disk {
    /// By the path that was asked for, which may lead through links. `None`: no directory.
    directories: RwLock<HashMap<Box<Path>, Option<Arc<Directory>>>>,
}

impl Disk {
    /// What an absolute path leads to.
    pub(crate) fn place(&self, path: &Path) -> Place {
        let path = normal(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.directory(&path).map_or(Place::Nothing, Place::Directory);
        };
        let Some(parent) = self.directory(parent) else { return Place::Nothing };
        let Some(name) = name.to_str() else { return Place::Nothing };
        self.inside(&parent, name)
    }

    /// What a name in a directory leads to.
    pub(crate) fn inside(&self, parent: &Directory, name: &str) -> Place {
        let path = parent.path.join(name);
        match parent.entry(name) {
            None => Place::Nothing,
            Some(Entry::File) => Place::File(path.into()),
            Some(Entry::Other) => Place::Other,
            Some(Entry::Directory) => self.directory(&path).map_or(Place::Nothing, Place::Directory),
            Some(Entry::Link) => self.follow(&path),
        }
    }

    /// The directory at an absolute path.
    pub(crate) fn directory(&self, path: &Path) -> Option<Arc<Directory>> {
        if let Some(known) = self.directories.read().expect("no reader panics").get(path) {
            return known.clone();
        }
        let found = self.find_directory(path);
        self.directories.write().expect("no writer panics").insert(path.into(), found.clone());
        found
    }

    /// The nearest directory upwards, this one included, that has a manifest.
    pub(crate) fn scope(&self, directory: &Arc<Directory>) -> Option<(Arc<Directory>, Found)> {
        let mut at = directory.clone();
        loop {
            if at.path.file_name().is_some_and(|name| name == "node_modules") {
                return None;
            }
            match at.manifest() {
                Found::None => at = self.directory(at.path.parent()?)?,
                found => return Some((at, found)),
            }
        }
    }

    fn find_directory(&self, path: &Path) -> Option<Arc<Directory>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Some(Arc::new(Directory::at(path.into())));
        };
        let parent = self.directory(parent)?;
        let real = parent.path.join(name);
        match parent.entry(name.to_str()?)? {
            Entry::Directory if *real == *path => Some(Arc::new(Directory::at(real.into()))),
            Entry::Directory => self.directory(&real),
            Entry::Link => match self.follow(&real) {
                Place::Directory(directory) => Some(directory),
                _ => None,
            },
            Entry::File | Entry::Other => None,
        }
    }

    fn follow(&self, link: &Path) -> Place {
        let Ok(real) = fs::canonicalize(link) else { return Place::Nothing };
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_file() => Place::File(real.into()),
            Ok(metadata) if metadata.is_dir() => {
                self.directory(&real).map_or(Place::Nothing, Place::Directory)
            }
            Ok(_) => Place::Other,
            Err(_) => Place::Nothing,
        }
    }
}

impl Directory {
    fn at(path: Arc<Path>) -> Directory {
        Directory { path, entries: OnceLock::new(), manifest: OnceLock::new() }
    }

    /// Its `package.json`.
    pub(crate) fn manifest(&self) -> Found {
        self.manifest.get_or_init(|| self.read_manifest()).clone()
    }

    /// The names of all that is in it, in no order.
    pub(crate) fn names(&self) -> Vec<Box<str>> {
        self.entries().map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    fn read_manifest(&self) -> Found {
        if self.entry("package.json").is_none() {
            return Found::None;
        }
        let path = self.path.join("package.json");
        // A pipe would never end.
        let is_readable = fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() <= MANIFEST_BYTES_MAX);
        let bytes = if is_readable { fs::read(&path).ok() } else { None };
        let manifest = bytes.and_then(|bytes| Manifest::parse(&bytes));
        manifest.map_or(Found::Broken, |manifest| Found::Manifest(Arc::new(manifest)))
    }

    fn entries(&self) -> Option<&HashMap<Box<str>, Entry>> {
        self.entries.get_or_init(|| list(&self.path)).as_ref()
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        match self.entries() {
            Some(entries) => entries.get(name).copied(),
            // A directory that may be passed but not listed.
            None => fs::symlink_metadata(self.path.join(name))
                .ok()
                .map(|metadata| Entry::of(metadata.file_type())),
        }
    }
}

impl Entry {
    fn of(kind: fs::FileType) -> Entry {
        if kind.is_file() {
            Entry::File
        } else if kind.is_dir() {
            Entry::Directory
        } else if kind.is_symlink() {
            Entry::Link
        } else {
            Entry::Other
        }
    }
}

fn list(path: &Path) -> Option<HashMap<Box<str>, Entry>> {
    let mut entries = HashMap::new();
    for entry in fs::read_dir(path).ok()? {
        let entry = entry.ok()?;
        // A specifier cannot spell a name that is not Unicode.
        if let Some(name) = entry.file_name().to_str() {
            entries.insert(name.into(), Entry::of(entry.file_type().ok()?));
        }
    }
    Some(entries)
}

/// Takes `.` and `..` out, as node does before it looks: a link's `..` is where the link stands.
pub(crate) fn normal(path: &Path) -> PathBuf {
    if path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return path.to_owned();
    }
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
