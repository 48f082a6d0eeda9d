//! Manifests in places that may belong to somebody else: no link is followed to one, a pipe in its place hangs nobody, and only
//! so much is read.

use rustix::fs::{CWD, Mode, OFlags};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;

/// Bytes that are read.
const MAX: u64 = 4 << 20;

/// The manifest of the package in a directory. One that makes no sense is null.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(super) fn of_package(directory: impl AsFd) -> io::Result<Value> {
    read(directory, Path::new("package.json"))
}

/// What a JSON file says; null if it is not there, cannot be read, or makes no sense.
#[must_use]
pub(crate) fn at(path: &Path) -> Value {
    read(CWD, path).unwrap_or_default()
}

fn read(directory: impl AsFd, name: &Path) -> io::Result<Value> {
    // NONBLOCK: a pipe in its place must not hang whoever opens it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(Value::Null);
    }
    let mut text = Vec::new();
    file.take(MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_or_makes_no_sense_says_nothing_and_hangs_nobody() {
        let ground = tempfile::tempdir().unwrap();
        let path = |name: &str| ground.path().join(name);
        std::fs::write(path("good"), r#"{"name": "a"}"#).unwrap();
        assert_eq!(at(&path("good"))["name"], "a");
        std::fs::write(path("torn"), "{").unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        symlink(path("good"), path("link")).unwrap();
        rustix::fs::mknodat(CWD, path("pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in ["torn", "directory", "link", "pipe", "nothing"] {
            assert_eq!(at(&path(name)), Value::Null, "{name}");
        }
    }
}
