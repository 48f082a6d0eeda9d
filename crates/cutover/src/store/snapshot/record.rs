//! What is written down about a copy, and how it becomes durable. Plain data only: knows nothing of how a copy is made.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cutover_core::BootId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::content::Digest;
use super::database::{Fingerprint, UNIT};
use super::layout::StateKind;

/// When something was done: the boot, and wall time as the caller read it *before* the work began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The boot in which page cache and copies are one.
    pub boot_id: BootId,
    /// Wall time. Compared with inode change times, so it must come from this machine's clock.
    pub at: jiff::Timestamp,
}

/// A file system time in nanoseconds since 1970, exact (unlike a float).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileTime {
    pub(super) sec: i64,
    pub(super) nsec: i64,
}

impl FileTime {
    pub(super) fn of(at: jiff::Timestamp) -> Self {
        Self { sec: at.as_second(), nsec: i64::from(at.subsec_nanosecond()) }
    }
}

/// Which version of a file was read: if all of it is the same later, the bytes are too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub(super) enum Node {
    Directory,
    File {
        size: u64,
        digest: Digest,
    },
    Link {
        #[serde(with = "path_text")]
        target: PathBuf,
    },
}

/// One thing in a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Relative to the parent of the declared path, so it begins with the declared name.
    #[serde(with = "path_text")]
    pub(super) path: PathBuf,
    #[serde(flatten)]
    pub(super) node: Node,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: FileTime,
    /// The source's identity when it was read; absent if it must be read again to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<Identity>,
}

impl Entry {
    pub(super) fn size(&self) -> u64 {
        match self.node {
            Node::File { size, .. } => size,
            Node::Directory | Node::Link { .. } => 0,
        }
    }

    /// The first way in which `other` is not the same state: kind, bytes, target, mode or owner. Times are not state.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        match (&self.node, &other.node) {
            (Node::Directory, Node::Directory) | (Node::File { .. }, Node::File { .. })
                if self.node == other.node => {}
            (Node::File { .. }, Node::File { .. }) => return Some("other bytes"),
            (Node::Link { .. }, Node::Link { .. }) if self.node == other.node => {}
            (Node::Link { .. }, Node::Link { .. }) => return Some("another link target"),
            _ => return Some("another kind of file"),
        }
        if self.mode != other.mode {
            return Some("another mode");
        }
        ((self.uid, self.gid) != (other.uid, other.gid)).then_some("another owner")
    }
}

/// One SQLite database of a root: the four files as bytes, and what they mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DatabaseRecord {
    /// The database file, relative to the parent of the root's declared path.
    #[serde(with = "path_text")]
    pub(super) path: PathBuf,
    /// Those of the database, `-wal` and `-journal` that existed. `-shm` is never copied: SQLite builds it anew.
    pub(super) members: Vec<Entry>,
    /// Of the recovered copy; absent if there is no database file.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// One declared path, or a directory together with the databases declared inside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RootRecord {
    #[serde(with = "path_text")]
    pub(super) path: PathBuf,
    pub(super) kind: StateKind,
    /// Empty if nothing was there, or if the root is a database.
    pub(super) entries: Vec<Entry>,
    pub(super) databases: Vec<DatabaseRecord>,
    /// Sockets, pipes and devices: not copied.
    #[serde(with = "path_texts")]
    pub(super) skipped: Vec<PathBuf>,
}

impl RootRecord {
    /// Every entry, those of databases included.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(self.databases.iter().flat_map(|database| &database.members))
    }

    /// What follows the declared name in the names that make up this root.
    pub(super) fn suffixes(&self) -> &'static [&'static str] {
        match self.kind {
            StateKind::Files => &[""],
            StateKind::Sqlite => &UNIT,
        }
    }
}

/// `snapshot.json` and `warm.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) format: u32,
    pub(super) moment: Moment,
    pub(super) roots: Vec<RootRecord>,
}

pub(super) const FORMAT: u32 = 1;

impl Record {
    /// Every entry, those of databases included.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.roots.iter().flat_map(RootRecord::entries)
    }
}

/// Writes `value` to `dir/name` so that after a crash there is either the old record or the whole new one.
pub(super) fn write_durably<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), Error> {
    let path = dir.join(name);
    let bytes = serde_json::to_vec(value).expect("records are plain data with text keys");
    write_bytes_durably(dir, name, &bytes)?;
    tracing::debug!(path = %path.display(), bytes = bytes.len(), "record written");
    Ok(())
}

/// The same for bytes that are already there.
pub(super) fn write_bytes_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let partial = dir.join(format!("{name}.partial"));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(Error::io("create", &partial))?;
    file.write_all(bytes).map_err(Error::io("write", &partial))?;
    file.sync_all().map_err(Error::io("sync", &partial))?;
    crate::crash_point!("record written");
    fs::rename(&partial, dir.join(name)).map_err(Error::io("rename", &partial))?;
    sync_dir(dir)
}

/// Reads a record; `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, Error> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Record { path, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Removes `dir/name` durably; nothing if it is not there.
pub(super) fn remove_durably(dir: &Path, name: &str) -> Result<(), Error> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(Error::io("sync", dir))
}

/// Paths are bytes, JSON is text: a backslash and every byte that is not UTF-8 are escaped, so that no name is lost.
pub(super) mod path_text {
    use super::{OsStrExt, OsString, OsStringExt, Path, PathBuf};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in super::super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&escape(path))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        unescape(&text).ok_or_else(|| de::Error::custom("a path with a broken escape"))
    }

    pub(super) fn escape(path: &Path) -> String {
        let mut text = String::new();
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }

    pub(super) fn unescape(text: &str) -> Option<PathBuf> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first != b'\\' {
                bytes.push(*first);
                rest = tail;
            } else if let Some(after) = tail.strip_prefix(b"\\") {
                bytes.push(b'\\');
                rest = after;
            } else {
                let [b'x', high, low, after @ ..] = tail else { return None };
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = after;
            }
        }
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }
}

/// The same for lists of paths.
pub(super) mod path_texts {
    use super::{PathBuf, path_text};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in super::super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| path_text::escape(path)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|text| {
                path_text::unescape(text).ok_or_else(|| de::Error::custom("a path with a broken escape"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_lost_in_a_record() {
        for name in [&b"plain"[..], b"back\\slash \\x41", b"caf\xc3\xa9", b"\xff\xfe raw", b"new\nline"] {
            let path = PathBuf::from(OsString::from_vec(name.to_vec()));
            let text = path_text::escape(&path);
            assert_eq!(path_text::unescape(&text), Some(path), "{text}");
        }
        assert_eq!(path_text::unescape("\\x4"), None);
        assert_eq!(path_text::unescape("\\q"), None);
    }
}
