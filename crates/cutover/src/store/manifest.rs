//! What is in a tree: one line per entry, sorted by path. It knows bytes, modes and inodes; not what a tree is for.

mod compare;
mod fingerprint;
mod line;

pub use compare::{Changed, Named};
pub use fingerprint::Fingerprint;

pub(super) use compare::{differing_by_hash, differing_by_stat};
pub(super) use fingerprint::fingerprint;

use super::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256, Sha512};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Files at the top of a generation that describe it and so cannot describe themselves.
pub(super) const OWN_RECORDS: [&str; 3] = ["generation.json", "manifest", "inodes"];

/// What an entry is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Directory,
    File { size: u64, sha256: String },
    Link { target: Vec<u8> },
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub mode: u32,
    pub content: Content,
}

/// Inode and times at the time of sealing. The change time is what a writer cannot set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub inode: u64,
    pub modified_ns: i128,
    pub changed_ns: i128,
}

impl Mark {
    fn of(metadata: &Metadata) -> Mark {
        let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Mark {
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// All entries of a tree by path relative to its root, the root itself left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub entries: BTreeMap<Vec<u8>, Entry>,
    pub marks: BTreeMap<Vec<u8>, Mark>,
}

/// A walked entry before its content is known.
struct Found {
    path: Vec<u8>,
    metadata: Metadata,
}

impl Found {
    fn under(&self, root: &Path) -> PathBuf {
        root.join(std::ffi::OsStr::from_bytes(&self.path))
    }
}

/// Walks a tree without following links; `besides` names entries at its top to leave out.
fn walk(root: &Path, besides: &[&str]) -> Result<Vec<Found>> {
    let kept = |entry: &walkdir::DirEntry| {
        entry.depth() != 1 || !besides.iter().any(|name| entry.file_name() == *name)
    };
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1).into_iter().filter_entry(kept) {
        let failed = |error: walkdir::Error| {
            let path = error.path().unwrap_or(root).to_owned();
            Error::Read { path, source: error.into() }
        };
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let path = entry.path().strip_prefix(root).expect("walkdir yields paths below its root");
        found.push(Found { path: path.as_os_str().as_bytes().to_vec(), metadata });
    }
    Ok(found)
}

impl Manifest {
    /// Reads a whole tree. `advance` is told bytes as they are hashed; `stop` ends the work early.
    pub(super) fn of_tree(
        root: &Path,
        besides: &[&str],
        stop: &AtomicBool,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Manifest> {
        let found = walk(root, besides)?;
        let contents = contents(root, &found, stop, advance);
        let mut manifest = Manifest::default();
        for (found, content) in found.into_iter().zip(contents) {
            let content = content.map_err(Error::read(&found.under(root)))?;
            manifest.marks.insert(found.path.clone(), Mark::of(&found.metadata));
            manifest.entries.insert(found.path, Entry { mode: found.metadata.mode() & 0o7777, content });
        }
        if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(manifest) }
    }

    /// Number of files and links, and bytes of files.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.values().fold((0, 0), |(files, bytes), entry| match &entry.content {
            Content::Directory => (files, bytes),
            Content::Link { .. } => (files + 1, bytes),
            Content::File { size, .. } => (files + 1, bytes + size),
        })
    }

    /// The entries below a directory, by path relative to it.
    pub(super) fn below(&self, dir: &str) -> Manifest {
        let prefix = format!("{dir}/").into_bytes();
        let inside = |path: &Vec<u8>| path.strip_prefix(prefix.as_slice()).map(<[u8]>::to_vec);
        Manifest {
            entries: self
                .entries
                .iter()
                .filter_map(|(path, entry)| Some((inside(path)?, entry.clone())))
                .collect(),
            marks: self.marks.iter().filter_map(|(path, mark)| Some((inside(path)?, *mark))).collect(),
        }
    }

    /// `sha512-…` over the sorted entries. Of the modes only the executable bit counts, so that a sealed copy has
    /// the digest of its source.
    pub(super) fn tree_digest(&self) -> String {
        let mut hash = Sha512::new();
        for (path, entry) in &self.entries {
            let mode = match &entry.content {
                Content::File { .. } if entry.mode & 0o111 == 0 => 0o644,
                Content::File { .. } | Content::Directory => 0o755,
                Content::Link { .. } => 0o777,
            };
            hash.update(line::of_entry(path, &Entry { mode, content: entry.content.clone() }));
        }
        format!("sha512-{}", BASE64.encode(hash.finalize()))
    }
}

/// Hashes all files on as many threads as there are processors, at most 4: beyond that a disk does not follow.
fn contents(
    root: &Path,
    found: &[Found],
    stop: &AtomicBool,
    advance: &(dyn Fn(u64) + Sync),
) -> Vec<io::Result<Content>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(4);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut buffer = vec![0; 128 * 1024];
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = found.get(index) else { break };
            let content = content(&entry.under(root), &entry.metadata, &mut buffer);
            if let Ok(Content::File { size, .. }) = &content {
                advance(*size);
            }
            done.push((index, content));
        }
        done
    };
    let mut contents: Vec<io::Result<Content>> =
        found.iter().map(|_| Err(io::ErrorKind::Interrupted.into())).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (index, content) in worker.join().expect("hashing never panics") {
                contents[index] = content;
            }
        }
    });
    contents
}

fn content(path: &Path, metadata: &Metadata, buffer: &mut [u8]) -> io::Result<Content> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(Content::Directory);
    }
    if kind.is_symlink() {
        return Ok(Content::Link { target: std::fs::read_link(path)?.into_os_string().into_vec() });
    }
    if !kind.is_file() {
        return Err(io::Error::other("not a file, directory or link"));
    }
    // Between the walk and now the entry may have become a link or a pipe: follow none, wait for none.
    let mut file = File::options()
        .read(true)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    loop {
        let read = file.read(buffer)?;
        if read == 0 {
            return Ok(Content::File { size, sha256: hex::encode(hash.finalize()) });
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}
