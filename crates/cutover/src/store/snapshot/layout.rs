//! From declared paths to roots: what is copied as a whole, which databases lie inside, and which declarations contradict
//! each other. Reads the file system only to resolve links in parents.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::database;
use super::{Finding, Problem};

/// What a declared path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// A directory or a single file.
    Files,
    /// A SQLite database, with its `-wal`, `-journal` and `-shm`. May lie inside a declared directory.
    Sqlite,
}

/// A path that a service declares as its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePath {
    /// Absolute. Need not exist: what is absent in the snapshot is absent after a restore.
    pub path: PathBuf,
    /// How it is copied.
    pub kind: StateKind,
}

/// What is moved as one: a tree, a file or a database unit, named in a parent directory that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// As resolved: a real parent and a name.
    pub(super) path: PathBuf,
    pub(super) kind: StateKind,
    /// Databases, relative to the parent: those inside a tree, or the one that this root is.
    pub(super) databases: Vec<PathBuf>,
}

impl Root {
    pub(super) fn parent(&self) -> &Path {
        parent_of(&self.path)
    }

    pub(super) fn name(&self) -> &OsStr {
        name_of(&self.path)
    }

    /// Every file of every database, relative to the parent: not copied by the tree walk.
    pub(super) fn unit_files(&self) -> BTreeSet<PathBuf> {
        self.databases
            .iter()
            .flat_map(|path| database::UNIT.map(|suffix| database::member(path, suffix)))
            .collect()
    }
}

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().expect("the layout admits no path without a parent")
}

pub(super) fn name_of(path: &Path) -> &OsStr {
    path.file_name().expect("the layout admits no path without a name")
}

/// Names up to this length leave room for what a restore appends.
const NAME_LENGTH_MAX: usize = 160;

/// Sorts declared paths into roots. All contradictions are found at once.
pub(super) fn roots(declared: &[StatePath]) -> Result<Vec<Root>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut trees: Vec<Root> = Vec::new();
    let mut databases: Vec<(PathBuf, PathBuf)> = Vec::new();
    for state in declared {
        match (resolve(&state.path), state.kind) {
            (Ok(path), StateKind::Files) => {
                trees.push(Root { path, kind: StateKind::Files, databases: Vec::new() });
            }
            (Ok(path), StateKind::Sqlite) => databases.push((state.path.clone(), path)),
            // A database in a directory that does not exist yet is simply absent, if that directory is declared.
            (Err(Problem::ParentMissing), StateKind::Sqlite) => {
                databases.push((state.path.clone(), state.path.clone()))
            }
            (Err(problem), _) => findings.push(Finding { path: state.path.clone(), problem }),
        }
    }
    trees.sort_by(|a, b| a.path.cmp(&b.path));
    let mut kept: Vec<Root> = Vec::new();
    for tree in trees {
        match kept.iter().find(|other| tree.path.starts_with(&other.path)) {
            Some(other) => findings.push(overlap(&tree.path, &other.path)),
            None => kept.push(tree),
        }
    }
    databases.sort_by(|a, b| a.1.cmp(&b.1));
    databases.dedup_by(|a, b| {
        let is_twice = a.1 == b.1;
        if is_twice {
            findings.push(overlap(&a.1, &b.1));
        }
        is_twice
    });
    let mut units: Vec<Root> = Vec::new();
    for (declared, path) in databases {
        let enclosing = kept.iter_mut().find(|tree| path.starts_with(&tree.path));
        match enclosing {
            Some(tree) if tree.path == path => findings.push(overlap(&path, &tree.path.clone())),
            Some(tree) => {
                let relative =
                    path.strip_prefix(tree.parent()).expect("a path in a tree is below the tree's parent");
                tree.databases.push(relative.to_owned());
            }
            None if path.parent().is_none_or(|parent| !parent.is_dir()) => {
                findings.push(Finding { path: declared, problem: Problem::ParentMissing });
            }
            None => {
                let name = PathBuf::from(name_of(&path));
                units.push(Root { path, kind: StateKind::Sqlite, databases: vec![name] });
            }
        }
    }
    findings.extend(sidecar_overlaps(&kept, &units));
    kept.extend(units);
    if findings.is_empty() { Ok(kept) } else { Err(findings) }
}

fn overlap(path: &Path, other: &Path) -> Finding {
    Finding { path: path.to_owned(), problem: Problem::Overlaps { other: other.to_owned() } }
}

/// A declared path that is another database's `-wal`, `-journal` or `-shm`.
fn sidecar_overlaps(trees: &[Root], units: &[Root]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for unit in trees.iter().chain(units) {
        for database in &unit.databases {
            for suffix in &database::UNIT[1..] {
                let sidecar = unit.parent().join(database::member(database, suffix));
                let is_declared = |root: &&Root| {
                    root.path == sidecar
                        || root.databases.iter().any(|inner| root.parent().join(inner) == sidecar)
                };
                if let Some(other) = trees.iter().chain(units).find(is_declared) {
                    findings.push(overlap(&sidecar, &other.path));
                }
            }
        }
    }
    findings
}

/// The real parent and the name.
fn resolve(path: &Path) -> Result<PathBuf, Problem> {
    let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if !path.is_absolute() || !is_plain {
        return Err(Problem::NotAbsolute);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(OsString::from)) else {
        return Err(Problem::MountPoint);
    };
    if name.len() > NAME_LENGTH_MAX {
        return Err(Problem::NameTooLong { max: NAME_LENGTH_MAX });
    }
    match fs::canonicalize(parent) {
        Ok(parent) if parent.is_dir() => Ok(parent.join(name)),
        Ok(_) => Err(Problem::ParentMissing),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Problem::ParentMissing),
        Err(error) => Err(Problem::Unreadable { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(paths: &[(&Path, StateKind)]) -> Vec<StatePath> {
        paths.iter().map(|(path, kind)| StatePath { path: (*path).to_owned(), kind: *kind }).collect()
    }

    #[test]
    fn a_database_inside_a_declared_directory_is_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let (web, db, late) = (real.join("web"), real.join("web/app.db"), real.join("web/not/yet.db"));
        fs::create_dir(&web).unwrap();
        let found = roots(&declared(&[
            (&db, StateKind::Sqlite),
            (&web, StateKind::Files),
            (&late, StateKind::Sqlite),
        ]))
        .unwrap();
        let databases = vec![PathBuf::from("web/app.db"), PathBuf::from("web/not/yet.db")];
        assert_eq!(found, [Root { path: web, kind: StateKind::Files, databases }]);
        assert_eq!(found[0].unit_files().len(), 8);
    }

    #[test]
    fn contradictions_are_all_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let web = real.join("web");
        fs::create_dir(&web).unwrap();
        let (inner, gone, db, wal) =
            (web.join("x"), real.join("no/db"), real.join("db"), real.join("db-wal"));
        let findings = roots(&declared(&[
            (&web, StateKind::Files),
            (&inner, StateKind::Files),
            (&gone, StateKind::Sqlite),
            (&db, StateKind::Sqlite),
            (&db, StateKind::Sqlite),
            (&wal, StateKind::Files),
            (Path::new("relative"), StateKind::Files),
        ]))
        .unwrap_err();
        let paths: BTreeSet<_> = findings.iter().map(|finding| finding.path.as_path()).collect();
        assert_eq!(paths, BTreeSet::from([&*inner, &*gone, &*db, &*wal, Path::new("relative")]));
    }
}
