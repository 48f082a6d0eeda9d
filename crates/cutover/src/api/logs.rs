//! The end of a service's log: the youngest instance's file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the file's end is read at most (bytes).
const TAIL: u64 = 512 * 1024;

/// The log of the youngest instance below a service's directory.
///
/// # Errors
/// If the directory cannot be read or holds no log yet.
pub(crate) fn youngest(directory: &Path) -> io::Result<PathBuf> {
    let logs = std::fs::read_dir(directory.join("logs"))?.flatten().map(|entry| entry.path());
    let youngest = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max();
    youngest.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the service never ran, so there is no log yet")
    })
}

/// The last `limit` lines.
///
/// # Errors
/// If there is no log or it cannot be read.
pub(crate) fn tail(directory: &Path, limit: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(youngest(directory)?)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(limit)..].iter().map(|line| (*line).to_owned()).collect())
}
