//! Whether a release will fit, in numbers, before the first byte.

use super::access::existing;
use super::source::{Resolved, Source};
use super::{Error, GenerationRecord, Result, SourceRecord, Store};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Every file ends in a partly used block, and has its line in the manifest.
const OVERHEAD_PER_FILE: u64 = 4096;

/// How many bytes a release will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of it was measured.
    Measured(u64),
    /// It takes at least this much: dependencies are known only once they are installed.
    AtLeast(u64),
    /// The source does not tell.
    Unknown,
}

impl Need {
    /// The known part, in bytes.
    #[must_use]
    pub fn known_bytes(self) -> Option<u64> {
        match self {
            Need::Measured(bytes) | Need::AtLeast(bytes) => Some(bytes),
            Need::Unknown => None,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Measured(bytes) => write!(f, "{}", Size(*bytes)),
            Need::AtLeast(bytes) => write!(f, "at least {}", Size(*bytes)),
            Need::Unknown => f.write_str("an unknown number of bytes"),
        }
    }
}

/// Some number of bytes, told as a person reads it: what is small exactly, anything else to a tenth of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXACT_MAX: u64 = 10 << 10;
        if self.0 < EXACT_MAX {
            return write!(f, "{} bytes", self.0);
        }
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let at = usize::try_from(self.0.ilog2() / 10).expect("six at most");
        let unit = 1u128 << (10 * at);
        let tenths = u128::from(self.0) * 10 / unit;
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, units[at - 1])
    }
}

/// What a staging needs and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the release will take.
    pub need: Need,
    /// Bytes free for the caller.
    pub free: u64,
    /// The directory they are needed in.
    pub path: PathBuf,
}

impl Space {
    /// Refuses what is known not to fit. An unknown need is not refused here; it is met as a full disk later.
    ///
    /// # Errors
    /// [`Error::NoSpace`] with the numbers.
    pub fn check(self) -> Result<()> {
        if self.need.known_bytes().is_some_and(|need| need > self.free) {
            return Err(Error::NoSpace { path: self.path, need: self.need, free: self.free });
        }
        Ok(())
    }
}

impl Store {
    /// Measures the space that staging a release needs, and what is free.
    ///
    /// # Errors
    /// If the file system or the store cannot be read.
    pub fn space(&self, source: &Source, resolved: &Resolved) -> Result<Space> {
        let path = self.staging_dir();
        let free = free_bytes(&path).map_err(Error::read(&path))?;
        Ok(Space { need: self.need(source, resolved)?, free, path })
    }

    pub(super) fn need(&self, source: &Source, resolved: &Resolved) -> Result<Need> {
        let own = resolved.unpacked_bytes.map(|bytes| with_overhead(bytes, resolved.files.unwrap_or(0)));
        Ok(match source {
            Source::Directory(_) => own.map_or(Need::Unknown, Need::Measured),
            // What the package took last time includes its dependencies, so it is the better guess.
            Source::Npm(npm) => {
                let same = |record: &GenerationRecord| matches!(&record.source, SourceRecord::Npm { package, .. } if *package == npm.package);
                let before = self.generations()?.into_iter().rev().find(same);
                let before = before.map(|record| with_overhead(record.bytes, record.files));
                own.max(before).map_or(Need::Unknown, Need::AtLeast)
            }
        })
    }
}

pub(super) fn with_overhead(bytes: u64, files: u64) -> u64 {
    bytes + files * OVERHEAD_PER_FILE
}

/// Bytes free for the caller on the file system of a path, or of its nearest existing ancestor.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(existing(path))?;
    Ok(space.f_bavail * space.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_read_them() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (1500, "1500 bytes"),
            (10 << 10, "10.0 KiB"),
            (39_112, "38.1 KiB"),
            (38_990_942_208, "36.3 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), told);
        }
    }
}
