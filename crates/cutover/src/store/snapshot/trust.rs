//! When a file that looks unchanged may be believed to be unchanged.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rustix::fs::Stat;

use super::record::{Entry, FileTime, Identity, Node};

pub(super) fn identity(stat: &Stat) -> Identity {
    Identity {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).expect("the kernel reports no negative sizes"),
        mtime: FileTime { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as i64 },
        ctime: FileTime { sec: stat.st_ctime, nsec: stat.st_ctime_nsec as i64 },
    }
}

pub(super) fn entry(path: &Path, node: Node, stat: &Stat, seen: Option<Identity>) -> Entry {
    let identity = identity(stat);
    let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    Entry { path: path.to_owned(), node, mode, uid, gid, mtime: identity.mtime, seen }
}

/// What is known of an earlier copy: which versions of the source it holds.
pub(super) struct Known<'a> {
    entries: HashMap<&'a Path, &'a Entry>,
}

impl<'a> Known<'a> {
    pub(super) fn new(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        Self { entries: entries.into_iter().map(|entry| (entry.path.as_path(), entry)).collect() }
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&'a Entry> {
        self.entries.get(path).copied()
    }

    /// The entry of `path`, if its bytes are still those of a source with this identity.
    pub(super) fn same_version(&self, path: &Path, now: Identity) -> Option<&'a Entry> {
        self.entry(path).filter(|entry| entry.seen == Some(now))
    }
}

/// When an unchanged identity may be believed.
pub(super) struct Trust {
    /// Files changed at or after this may change again without a new time.
    pub(super) changed_before: FileTime,
    /// Files (device, inode) that somebody has open for writing.
    pub(super) written: HashSet<(u64, u64)>,
}

impl Trust {
    /// File systems keep times in ticks, and network ones in seconds.
    const MARGIN_SECONDS: i64 = 2;

    /// Trust for a walk that begins at `start`.
    pub(super) fn since(start: jiff::Timestamp, written: HashSet<(u64, u64)>) -> Self {
        let start = FileTime::of(start);
        Self { changed_before: FileTime { sec: start.sec - Self::MARGIN_SECONDS, ..start }, written }
    }

    pub(super) fn believe(&self, identity: Identity) -> Option<Identity> {
        let is_settled =
            identity.ctime < self.changed_before && !self.written.contains(&(identity.dev, identity.ino));
        is_settled.then_some(identity)
    }
}
