//! A copy of the declared state, for one command in a sandbox to write to. It is removed when it is dropped.
//!
//! Knows snapshots and covers. Must not know what the command is.

use super::secrets::Secrets;
use crate::causes::told;
use crate::sandbox::{Cover, Sandbox};
use crate::store::snapshot::{self, Content, Lying, Mended, Moment, Seating, StatePath};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use walkdir::WalkDir;

/// How long a database that is written to may keep the copy waiting.
const BUSY: Duration = Duration::from_secs(10);

/// One copy.
#[derive(Debug)]
pub struct Copied {
    covers: Vec<Cover>,
    directory: PathBuf,
    bytes: u64,
}

impl Copied {
    /// Copies the state while the service runs, databases by SQLite's own backup, into a new directory in `scratch`.
    ///
    /// # Errors
    /// Why there is none, in words for a person; nothing of it is left.
    pub fn of(state: &[StatePath], scratch: &Path, moment: &Moment) -> Result<Self, String> {
        let failed = |error| format!("making a place for a copy in {}: {error}", scratch.display());
        let directory = tempfile::Builder::new().prefix("copy-").tempdir_in(scratch);
        let mut copied = Self { covers: Vec::new(), directory: directory.map_err(failed)?.keep(), bytes: 0 };
        if !state.is_empty() {
            let (copies, bytes) = copies(state, &copied.directory, moment)?;
            copied.bytes = bytes;
            copied.covers = copies.into_iter().map(|(copy, live)| Cover { copy, live }).collect();
        }
        Ok(copied)
    }

    /// Bytes that were written for it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The house with the copy in place of the live state. A command may write its own files anew, and those may grow.
    #[must_use]
    pub fn furnish(&self, house: Sandbox) -> Sandbox {
        let file_max = house.file_max.max(self.largest().saturating_mul(2));
        Sandbox { covers: self.covers.clone(), file_max, ..house }
    }

    /// Where the copies lie.
    #[must_use]
    pub(super) fn lying(&self) -> Vec<Lying> {
        self.covers.iter().map(|cover| Lying { live: cover.live.clone(), at: cover.copy.clone() }).collect()
    }

    /// Gives the copy the mended contents, as the live state will have them.
    ///
    /// # Errors
    /// In words for a person, if it is not what was mended.
    pub fn mend(&self, files: &[Mended]) -> Result<(), String> {
        snapshot::exchange(files, &self.lying(), Content::After).map_err(|error| told(&error))
    }

    /// Gives seats in the copy, as the live state will have them. What is not there has no copy, and no seat in it.
    ///
    /// # Errors
    /// In words for a person.
    pub fn seat(&self, seating: &Seating) -> Result<(), String> {
        seating.within(&self.lying()).give(&self.lying()).map_err(|error| told(&error))
    }

    /// What must not be repeated of what a command says that has this environment and sees this copy.
    #[must_use]
    pub fn secrets(&self, env: &BTreeMap<String, String>) -> Secrets {
        Secrets::of(env, self.covers.iter().map(|cover| cover.copy.as_path()))
    }

    /// Bytes of the largest file.
    fn largest(&self) -> u64 {
        let entries = WalkDir::new(&self.directory).into_iter().flatten();
        let sizes = entries.filter_map(|entry| entry.metadata().ok()).filter(|found| found.is_file());
        sizes.map(|found| found.len()).max().unwrap_or(0)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Directories that nobody may write are removed too. What is left all the same is tried again the next time.
        let _ = snapshot::discard(&self.directory);
    }
}

/// Removes copies that were being made when the daemon was killed. Nobody may be making one.
pub fn forget_copies(scratch: &Path) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        // What cannot be removed now is tried again the next time.
        let _ = snapshot::discard(&entry.path());
    }
}

/// Which copy lies for which live path, and how many bytes were written for all of them.
fn copies(state: &[StatePath], to: &Path, moment: &Moment) -> Result<(Vec<(PathBuf, PathBuf)>, u64), String> {
    let failed = |error: snapshot::Error| format!("copying the state: {}", told(&error));
    let space = snapshot::space(state, to).map_err(failed)?;
    if let Some(need) = space.needs.iter().find(|need| !need.is_met()) {
        let (path, needed, free) = (need.path.display(), need.needed.bytes, need.free.bytes);
        return Err(format!("{path}: a copy of the state needs {needed} bytes, {free} are free"));
    }
    let warmed = snapshot::warm(state, to, moment, BUSY).map_err(failed)?;
    if let Some((path, why)) = warmed.cold.first() {
        return Err(format!("{} cannot be copied while it is in use: {why}", path.display()));
    }
    Ok((snapshot::copies(state, to).map_err(failed)?, warmed.bytes))
}
