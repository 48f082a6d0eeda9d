//! What must hold before anything is stopped: every declared path can be read, copied and renamed, and there is room.
//! Changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use super::layout::{self, Root, StateKind, StatePath};
use super::place::{Place, kind};
use super::{Error, database};

/// Why a declared path cannot be covered by a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "problem")]
pub enum Problem {
    /// Not an absolute path without `..`.
    NotAbsolute,
    /// The directory that should hold it does not exist.
    ParentMissing,
    /// It lies in, or is, another declared path.
    Overlaps {
        /// The other one.
        other: PathBuf,
    },
    /// It is a mount point: it cannot be renamed.
    MountPoint,
    /// Something is mounted in it: a restore would carry the mount away.
    MountInside {
        /// Where.
        at: PathBuf,
    },
    /// It is a symbolic link.
    Link {
        /// Where to.
        target: PathBuf,
    },
    /// It is of a kind that its declaration does not allow.
    WrongKind {
        /// What was expected.
        expected: String,
    },
    /// It cannot be renamed.
    CannotRename {
        /// Why not.
        reason: String,
    },
    /// It, or something in it, cannot be read.
    Unreadable {
        /// Why not.
        reason: String,
    },
    /// It belongs to another user, and a daemon without root could not restore that.
    ForeignOwner {
        /// That user.
        uid: u32,
    },
    /// Its name leaves no room for what a restore appends.
    NameTooLong {
        /// The longest name, in bytes.
        max: usize,
    },
    /// The snapshots themselves lie in it.
    HoldsSnapshots,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("is not an absolute path without .."),
            Self::ParentMissing => f.write_str("lies in a directory that does not exist"),
            Self::Overlaps { other } => write!(f, "overlaps with {}", other.display()),
            Self::MountPoint => f.write_str("is a mount point and cannot be renamed; declare what is in it"),
            Self::MountInside { at } => write!(f, "has something mounted at {}", at.display()),
            Self::Link { target } => write!(f, "is a link; declare {} instead", target.display()),
            Self::WrongKind { expected } => write!(f, "is not {expected}"),
            Self::CannotRename { reason } => write!(f, "cannot be renamed: {reason}"),
            Self::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
            Self::ForeignOwner { uid } => write!(f, "belongs to uid {uid}; only root could restore that"),
            Self::NameTooLong { max } => write!(f, "has a name of more than {max} bytes"),
            Self::HoldsSnapshots => f.write_str("holds the snapshots themselves"),
        }
    }
}

/// A path and what is wrong with it. Display is a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The declared path, or what in it is at fault.
    pub path: PathBuf,
    /// Why no snapshot could cover it.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.problem)
    }
}

/// More findings than this tell nobody more.
const FINDINGS_MAX: usize = 50;

/// Finds what stands in the way of a snapshot of `state` in `dir` and of its restore. Empty means nothing does, as far as
/// looking can tell.
#[must_use = "a finding refuses the update before anything is stopped"]
pub fn check(state: &[StatePath], dir: &Path) -> Vec<Finding> {
    let roots = match layout::roots(state) {
        Ok(roots) => roots,
        Err(findings) => return findings,
    };
    let mut findings = snapshots_inside(&roots, dir);
    for root in &roots {
        check_root(root, &mut findings);
    }
    findings.truncate(FINDINGS_MAX);
    findings
}

pub(super) fn snapshots_inside(roots: &[Root], dir: &Path) -> Vec<Finding> {
    let real = dir.ancestors().find_map(|ancestor| {
        let rest = dir.strip_prefix(ancestor).expect("an ancestor is a prefix");
        ancestor.canonicalize().ok().map(|ancestor| ancestor.join(rest))
    });
    let real = real.unwrap_or_else(|| dir.to_owned());
    let holds = roots.iter().filter(|root| real.starts_with(&root.path));
    holds.map(|root| Finding { path: root.path.clone(), problem: Problem::HoldsSnapshots }).collect()
}

fn check_root(root: &Root, findings: &mut Vec<Finding>) {
    let mut found = |path: &Path, problem| findings.push(Finding { path: path.to_owned(), problem });
    let parent = match Place::open(root.parent()) {
        Ok(parent) => parent,
        Err(error) => return found(root.parent(), unreadable(&error)),
    };
    if let Err(error) = rustix::fs::access(&parent.path, Access::WRITE_OK | Access::EXEC_OK) {
        found(&root.path, Problem::CannotRename { reason: format!("{}: {error}", parent.path.display()) });
    }
    let device = match rustix::fs::fstat(&parent.fd) {
        Ok(stat) if stat.st_mode & 0o1000 != 0 && !may_unstick(stat.st_uid) => match parent.stat(root.name())
        {
            Ok(Some(own)) if own.st_uid != euid() => {
                let reason =
                    format!("{} is sticky and it belongs to uid {}", parent.path.display(), own.st_uid);
                found(&root.path, Problem::CannotRename { reason });
                stat.st_dev
            }
            _ => stat.st_dev,
        },
        Ok(stat) => stat.st_dev,
        Err(error) => return found(&parent.path, Problem::Unreadable { reason: error.to_string() }),
    };
    let mut walk = Walk { device, root, findings };
    match root.kind {
        StateKind::Files => walk.visit(&parent, root.name()),
        StateKind::Sqlite => {
            for suffix in database::UNIT {
                walk.visit(&parent, database::member(Path::new(root.name()), suffix).as_os_str());
            }
        }
    }
}

fn unreadable(error: &Error) -> Problem {
    let reason = match error {
        Error::Denied { source, .. } | Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Problem::Unreadable { reason }
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn may_unstick(owner: u32) -> bool {
    euid() == 0 || euid() == owner
}

struct Walk<'a> {
    device: u64,
    root: &'a Root,
    findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    fn found(&mut self, path: &Path, problem: Problem) {
        self.findings.push(Finding { path: path.to_owned(), problem });
    }

    fn visit(&mut self, from: &Place, name: &OsStr) {
        if self.findings.len() >= FINDINGS_MAX {
            return;
        }
        let path = from.path.join(name);
        let stat = match from.stat(name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return,
            Err(error) => return self.found(&path, unreadable(&error)),
        };
        let is_root = path == self.root.path;
        let facts = rustix::fs::statx(&from.fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        let has = |attribute| facts.as_ref().is_ok_and(|facts| facts.stx_attributes.contains(attribute));
        // A file of an overlay is on the device of its layer, and nothing is mounted there: where mounts are told, they are
        // believed. A directory on another device may be a volume that is none, and cannot be moved across either.
        let tells_mounts =
            facts.as_ref().is_ok_and(|facts| facts.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT));
        let is_elsewhere =
            stat.st_dev != self.device && (kind(&stat) == FileType::Directory || !tells_mounts);
        if has(StatxAttributes::MOUNT_ROOT) || is_elsewhere {
            let problem =
                if is_root { Problem::MountPoint } else { Problem::MountInside { at: path.clone() } };
            let root = self.root.path.clone();
            return self.found(&root, problem);
        }
        if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
            self.found(
                &path,
                Problem::CannotRename { reason: "it is marked immutable or append-only".into() },
            );
        }
        if euid() != 0 && stat.st_uid != euid() {
            self.found(&path, Problem::ForeignOwner { uid: stat.st_uid });
        }
        let is_database =
            self.root.databases.iter().any(|database| self.root.parent().join(database) == path);
        match kind(&stat) {
            FileType::Symlink if is_root || is_database => {
                let target = from.read_link(name).unwrap_or_default();
                let target = from.path.join(target);
                self.found(&path, Problem::Link { target });
            }
            FileType::RegularFile => self.check_readable(from, name, Access::READ_OK),
            _ if is_database => self.found(&path, Problem::WrongKind { expected: "a database file".into() }),
            FileType::Directory => {
                self.check_readable(from, name, Access::READ_OK | Access::EXEC_OK);
                self.descend(from, name);
            }
            FileType::Symlink => {}
            _ if is_root => {
                self.found(&path, Problem::WrongKind { expected: "a directory or a file".into() })
            }
            _ => {}
        }
    }

    fn descend(&mut self, from: &Place, name: &OsStr) {
        // What cannot be entered was found already; what has gone meanwhile is no finding.
        let Ok(inner) = from.enter(name) else { return };
        match inner.names() {
            Ok(names) => names.iter().for_each(|name| self.visit(&inner, name)),
            Err(error) => self.found(&inner.path, unreadable(&error)),
        }
    }

    fn check_readable(&mut self, from: &Place, name: &OsStr, access: Access) {
        // Asked, not tried: opening and closing a file drops the locks that this very process may hold on it.
        match rustix::fs::accessat(&from.fd, name, access, AtFlags::EACCESS) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => {
                self.found(&from.path.join(name), Problem::Unreadable { reason: error.to_string() })
            }
        }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Files, or with directories and links where inodes are counted.
    pub files: u64,
    /// Bytes as they take room on disk: holes do not count.
    pub bytes: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// Measures declared state, every file of databases included. While the service runs this is a moment's estimate.
///
/// # Errors
/// If the declaration contradicts itself, or a directory cannot be read.
pub fn estimate(state: &[StatePath]) -> Result<Size, Error> {
    let mut total = Size::default();
    for root in layout::roots(state).map_err(Error::Refused)? {
        total += measure_root(&root)?;
    }
    Ok(total)
}

fn measure_root(root: &Root) -> Result<Size, Error> {
    let parent = Place::open(root.parent())?;
    let mut size = Size::default();
    match root.kind {
        StateKind::Files => measure(&parent, root.name(), &mut size)?,
        StateKind::Sqlite => {
            for suffix in database::MEMBERS {
                measure(&parent, database::member(Path::new(root.name()), suffix).as_os_str(), &mut size)?;
            }
        }
    }
    Ok(size)
}

fn measure(from: &Place, name: &OsStr, size: &mut Size) -> Result<(), Error> {
    let Some(stat) = from.stat(name)? else { return Ok(()) };
    size.files += 1;
    match kind(&stat) {
        FileType::Directory => {
            let inner = match from.enter(name) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(());
                }
                entered => entered?,
            };
            for child in inner.names()? {
                measure(&inner, &child, size)?;
            }
        }
        FileType::RegularFile => {
            let (length, held) = (stat.st_size.unsigned_abs(), stat.st_blocks.unsigned_abs() * 512);
            size.bytes += length.min(held);
        }
        _ => {}
    }
    Ok(())
}

/// Room on one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// A directory on that file system.
    pub path: PathBuf,
    /// What will be written there at most, a tenth added.
    pub needed: Size,
    /// What is free for this user now. A file system that does not count inodes has as many as anybody needs.
    pub free: Size,
}

impl Need {
    /// Is there room?
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.needed.bytes <= self.free.bytes && self.needed.files <= self.free.files
    }
}

/// Room on every file system that a snapshot and its restore will write to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// One for each file system.
    pub needs: Vec<Need>,
}

impl Space {
    /// Is there room everywhere?
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.needs.iter().all(Need::is_met)
    }
}

/// Measures room for the copy in `dir` (with the duplicate that the check of a database may need) and for the restore
/// candidates beside the state, and a tenth more.
///
/// # Errors
/// If the declaration contradicts itself, or something cannot be measured.
pub fn space(state: &[StatePath], dir: &Path) -> Result<Space, Error> {
    let roots = layout::roots(state).map_err(Error::Refused)?;
    let store = dir.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let mut needs: BTreeMap<u64, (PathBuf, Size)> = BTreeMap::new();
    let mut add = |path: &Path, size: Size| {
        let device = rustix::fs::stat(path).map_err(Error::io("examine", path))?.st_dev;
        needs.entry(device).or_insert_with(|| (path.to_owned(), Size::default())).1 += size;
        Ok::<_, Error>(())
    };
    let mut scratch = 0;
    for root in &roots {
        let size = measure_root(root)?;
        add(&store, size)?;
        add(root.parent(), size)?;
        for database in &root.databases {
            let lengths = database::MEMBERS.map(|suffix| {
                let member = root.parent().join(database::member(database, suffix));
                std::fs::symlink_metadata(member).map_or(0, |meta| meta.len())
            });
            scratch = scratch.max(lengths.iter().sum());
        }
    }
    add(&store, Size { files: 4, bytes: scratch })?;
    let needs = needs.into_values().map(|(path, size)| {
        let found = rustix::fs::statvfs(&path).map_err(Error::io("measure", &path))?;
        let files = if found.f_files == 0 { u64::MAX } else { found.f_favail };
        let free = Size { files, bytes: found.f_bavail * found.f_frsize };
        let needed = Size { files: size.files + size.files / 10, bytes: size.bytes + size.bytes / 10 };
        Ok(Need { path, needed, free })
    });
    Ok(Space { needs: needs.collect::<Result<_, Error>>()? })
}
