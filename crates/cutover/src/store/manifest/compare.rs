//! A tree against what was sealed: by stat, which is quick, or by hash, which is certain.

use super::super::{Error, Result};
use super::{Content, Entry, Found, Manifest, Mark, contents, walk};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How many paths of each kind are named.
const NAMED_MAX: usize = 20;

/// Some paths by name and all by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first 20 in path order, relative to the generation.
    pub first: Vec<PathBuf>,
}

impl Named {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(OsString::from_vec(path.to_vec()).into());
        }
    }

    fn words(&self, f: &mut fmt::Formatter<'_>, kind: &str, separator: &str) -> fmt::Result {
        let Some(first) = self.first.first() else { return Ok(()) };
        write!(f, "{separator}{} {kind} ({}", self.count, first.display())?;
        for path in self.first.iter().skip(1).take(2) {
            write!(f, ", {}", path.display())?;
        }
        f.write_str(if self.count > 3 { ", …)" } else { ")" })
    }
}

/// In what a tree differs from what was sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Entries with other content, kind or mode.
    pub changed: Named,
    /// Entries that are gone.
    pub missing: Named,
    /// Entries that were never sealed.
    pub extra: Named,
}

impl Changed {
    fn is_empty(&self) -> bool {
        self.changed.count + self.missing.count + self.extra.count == 0
    }

    fn or_intact(self) -> Option<Changed> {
        if self.is_empty() { None } else { Some(self) }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changed.words(f, "changed", "")?;
        self.missing.words(f, "missing", if self.changed.count > 0 { ", " } else { "" })?;
        self.extra.words(f, "extra", if self.changed.count + self.missing.count > 0 { ", " } else { "" })
    }
}

/// Compares size, inode and both times. Where one of them differs the bytes decide, so that a tree that was copied
/// back from a backup, or had its owner changed, is intact.
pub(in crate::store) fn differing_by_stat(
    root: &Path,
    besides: &[&str],
    sealed: &Manifest,
) -> Result<Option<Changed>> {
    differing(root, walk(root, besides)?, sealed, |found| !looks_sealed(found, sealed), |_, _| true)
}

fn looks_sealed(found: &Found, sealed: &Manifest) -> bool {
    let same_size = match sealed.entries.get(&found.path).map(|entry| &entry.content) {
        Some(Content::File { size, .. }) => found.metadata.is_file() && found.metadata.size() == *size,
        Some(Content::Directory) => return found.metadata.is_dir(),
        Some(Content::Link { target }) => {
            found.metadata.is_symlink() && found.metadata.size() == target.len() as u64
        }
        None => false,
    };
    same_size && sealed.marks.get(&found.path) == Some(&Mark::of(&found.metadata))
}

/// Compares mode and bytes of everything.
pub(in crate::store) fn differing_by_hash(
    root: &Path,
    besides: &[&str],
    sealed: &Manifest,
) -> Result<Option<Changed>> {
    let same_mode = |found: &Found, entry: &Entry| found.metadata.mode() & 0o7777 == entry.mode;
    differing(root, walk(root, besides)?, sealed, |_| true, same_mode)
}

fn differing(
    root: &Path,
    found: Vec<Found>,
    sealed: &Manifest,
    doubts: impl Fn(&Found) -> bool,
    same_mode: impl Fn(&Found, &Entry) -> bool,
) -> Result<Option<Changed>> {
    let mut changed = Changed::default();
    let present: BTreeSet<Vec<u8>> = found.iter().map(|found| found.path.clone()).collect();
    for path in sealed.entries.keys().filter(|path| !present.contains(*path)) {
        changed.missing.add(path);
    }
    let (known, mut extra): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| sealed.entries.contains_key(&found.path));
    extra.sort_by(|one, other| one.path.cmp(&other.path));
    extra.iter().for_each(|found| changed.extra.add(&found.path));

    let mut doubtful: Vec<Found> = known.into_iter().filter(doubts).collect();
    doubtful.sort_by(|one, other| one.path.cmp(&other.path));
    let contents = contents(root, &doubtful, &AtomicBool::new(false), &|_| ());
    for (found, content) in doubtful.iter().zip(contents) {
        let entry = &sealed.entries[&found.path];
        match content {
            Ok(content) if content == entry.content && same_mode(found, entry) => (),
            Ok(_) => changed.changed.add(&found.path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => changed.missing.add(&found.path),
            // A special file in place of a sealed one is a change, not a failure to look.
            Err(_) if !(found.metadata.is_file() || found.metadata.is_symlink()) => {
                changed.changed.add(&found.path);
            }
            Err(source) => return Err(Error::Read { path: found.under(root), source }),
        }
    }
    Ok(changed.or_intact())
}
