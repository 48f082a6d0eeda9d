//! When every byte of a generation was last read and was what was sealed: noted beside the tree, which is sealed. It must not
//! know what time it is, nor how often a tree is to be read.

use super::workspace::{create_dir_all, rename, sync_dir};
use super::{Error, Result, Store};
use cutover_core::Generation;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

impl Store {
    /// When it was read (ms of Unix time), as it was noted; `None` if it is not known.
    #[must_use]
    pub fn looked_at(&self, generation: Generation) -> Option<u64> {
        fs::read_to_string(self.note(generation)).ok()?.trim().parse().ok()
    }

    /// Notes that it was read and found whole, durably.
    ///
    /// # Errors
    /// If that cannot be written; what was noted before stays.
    pub fn note_looked(&self, generation: Generation, at_ms: u64) -> Result<()> {
        let (path, dir) = (self.note(generation), self.notes_dir());
        create_dir_all(&dir)?;
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new).map_err(Error::write(&new))?;
        file.write_all(at_ms.to_string().as_bytes()).map_err(Error::write(&new))?;
        file.sync_all().map_err(Error::sync(&new))?;
        rename(new, path)?;
        sync_dir(&dir)
    }

    /// Removes what was noted of a generation that is gone; its number means no other one.
    pub(super) fn forget_looked(&self, generation: Generation) {
        // A leftover harms nobody.
        let _ = fs::remove_file(self.note(generation));
    }

    fn note(&self, generation: Generation) -> PathBuf {
        self.notes_dir().join(generation.to_string())
    }

    fn notes_dir(&self) -> PathBuf {
        self.dir().join("looked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_and_nothing_else_is() {
        let ground = tempfile::tempdir().unwrap();
        let store = Store::open(ground.path());
        let (first, second) = (Generation(1), Generation(2));
        assert_eq!(store.looked_at(first), None);
        store.note_looked(first, 7).unwrap();
        store.note_looked(first, 9).unwrap();
        assert_eq!((store.looked_at(first), store.looked_at(second)), (Some(9), None));
        fs::write(store.note(second), "soon").unwrap();
        assert_eq!(store.looked_at(second), None);
        store.forget_looked(first);
        assert_eq!(store.looked_at(first), None);
    }
}
