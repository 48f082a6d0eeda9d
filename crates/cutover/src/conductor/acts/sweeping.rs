//! Removing what nothing needs any more. Whatever a live process still runs from stays.

use super::{Executor, blocking, chain};
use crate::store::snapshot;
use crate::supervisor::{self, process};
use cutover_core::{Fault, Generation, RunId};
use std::collections::BTreeSet;

impl Executor {
    /// Removes generations and snapshots that are not `needed` nor in use.
    pub(in super::super) async fn sweep(
        &self,
        mut needed: BTreeSet<Generation>,
        snapshots: &BTreeSet<RunId>,
    ) -> Result<(), Fault> {
        let (executor, store) = (self.clone(), self.site.store.clone());
        let keep = self.site.settings.policy.keep as usize;
        needed.extend(blocking("sweep", move || executor.in_use()).await?);
        blocking("sweep", move || store.prune(keep, &needed)).await?;
        self.forget_snapshots(snapshots).await
    }

    /// The generations that some process of any instance runs from, children that outlived it included.
    fn in_use(&self) -> Result<BTreeSet<Generation>, supervisor::Error> {
        let generations = self.site.store.generations().unwrap_or_default();
        let mut found = BTreeSet::new();
        for directory in self.site.instance_directories() {
            let nonce = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for instance in supervisor::bearing(&nonce)? {
                let Some(links) = process::links(&instance)? else { continue };
                found.extend(generations.iter().map(|record| record.generation).filter(|generation| {
                    let tree = self.site.store.generation_dir(*generation);
                    let tree = std::fs::canonicalize(&tree).unwrap_or(tree);
                    links.exe.starts_with(&tree) || links.cwd.starts_with(&tree)
                }));
            }
        }
        Ok(found)
    }

    async fn forget_snapshots(&self, needed: &BTreeSet<RunId>) -> Result<(), Fault> {
        let Ok(entries) = std::fs::read_dir(self.site.snapshots()) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !needed.contains(&RunId(name)) {
                self.with_hands("sweep", move || snapshot::discard(&path)).await?;
            }
        }
        Ok(())
    }

    /// Removes what a killed daemon left half staged, or copied for a validator.
    pub(in super::super) async fn reclaim(&self) -> Result<u32, Fault> {
        self.forget_copies().await;
        let store = self.site.store.clone();
        tokio::task::spawn_blocking(move || store.reclaim())
            .await
            .expect("BUG: reclaiming panicked")
            .map_err(chain("reclaim"))
    }

    /// Waits for a sweep that began before this run: it may just remove what the run is about to look at.
    pub(super) async fn after_sweeping(&self) {
        drop(self.broom.lock().await);
    }
}
