//! Removing generations that nobody needs. Who needs one is told by the caller.

use super::workspace::{Workspace, remove, rename, sync_dir};
use super::{Error, Result, Store};
use cutover_core::Generation;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

impl Store {
    /// Removes old generations, so that `keep` remain: the current one and the newest others. The current one and
    /// those in `protected` (live processes, rollback roles, open snapshots) are never removed and may exceed
    /// `keep`. Returns what was removed, oldest first.
    ///
    /// # Errors
    /// Nothing is removed if the pointer cannot be read. Otherwise at the first generation that cannot be moved
    /// away; those before it are gone.
    pub fn prune(&self, keep: usize, protected: &BTreeSet<Generation>) -> Result<Vec<Generation>> {
        let current = self.current()?;
        let others = keep.saturating_sub(usize::from(current.is_some()));
        let sealed = self.generations()?.into_iter().map(|record| record.generation);
        let mut kept: BTreeSet<Generation> =
            sealed.rev().filter(|generation| Some(*generation) != current).take(others).collect();
        kept.extend(current);
        kept.extend(protected);
        let mut pruned = Vec::new();
        for generation in self.numbers()?.into_iter().filter(|generation| !kept.contains(generation)) {
            self.remove_generation(generation)?;
            pruned.push(generation);
        }
        Ok(pruned)
    }

    /// Moves the generation away first: half a generation is never under a number.
    pub(super) fn remove_generation(&self, generation: Generation) -> Result<()> {
        let from = self.generation_dir(generation);
        let grave = Workspace::begin(self)?;
        let to = grave.dir.join("pruned");
        // Moving a directory elsewhere rewrites its `..`, which asks for write permission on itself.
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).map_err(Error::write(&from))?;
        rename(from, to)?;
        sync_dir(&self.generations_dir())?;
        self.forget_looked(generation);
        remove(&grave.dir)
    }
}
