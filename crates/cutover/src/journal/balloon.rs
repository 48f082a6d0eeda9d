//! Space kept back: a file beside the journal that is freed when an append finds no room.

use super::Error;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The reserve. A file under its final name is always whole: it is filled under another name first.
#[derive(Debug)]
pub(super) struct Balloon {
    path: PathBuf,
    bytes: u64,
}

impl Balloon {
    /// The balloon of the journal at `journal`, inflated where there is room for it.
    pub(super) fn beside(journal: &Path, bytes: u64) -> Result<Self, Error> {
        let balloon = Self { path: journal.with_extension("balloon"), bytes };
        match balloon.inflate() {
            Err(Error::Balloon { path, source }) if is_full(&source) => {
                tracing::warn!(path = %path.display(), "no room for the journal's reserve");
                Ok(balloon)
            }
            other => other.map(|()| balloon),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes)
    }

    pub(super) fn inflate(&self) -> Result<(), Error> {
        if self.is_whole() {
            return Ok(());
        }
        let partial = self.path.with_extension("balloon.partial");
        let filled = fill(&partial, self.bytes).and_then(|()| std::fs::rename(&partial, &self.path));
        filled.map_err(|source| {
            // What was written of it must not lack elsewhere; if it cannot be removed, the next attempt truncates it.
            let _ = std::fs::remove_file(&partial);
            self.error(source)
        })
    }

    /// Gives the space back; `false` if there was none.
    pub(super) fn free(&self) -> Result<bool, Error> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error(error)),
        }
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Balloon { path: self.path.clone(), source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if bytes > 0 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_noise(&mut file, bytes)?,
            other => other?,
        }
    }
    file.sync_all()
}

/// Fills by hand where blocks cannot be asked for; with noise, because zeros may be compressed away there.
fn write_noise(file: &mut File, bytes: u64) -> io::Result<()> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = bytes;
    while left > 0 {
        let mut block = [0_u8; 4096];
        for word in block.chunks_exact_mut(8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            word.copy_from_slice(&seed.to_ne_bytes());
        }
        let now = usize::try_from(left.min(4096)).expect("at most 4096");
        file.write_all(&block[..now])?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_reserve_occupies_blocks_however_it_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let (asked, by_hand) = (dir.path().join("a"), dir.path().join("b"));
        fill(&asked, 100_000).unwrap();
        let mut file = File::create(&by_hand).unwrap();
        write_noise(&mut file, 100_000).unwrap();
        file.sync_all().unwrap();
        for path in [asked, by_hand] {
            let found = std::fs::metadata(path).unwrap();
            assert_eq!(found.len(), 100_000);
            assert!(found.blocks() * 512 >= 100_000);
        }
    }
}
