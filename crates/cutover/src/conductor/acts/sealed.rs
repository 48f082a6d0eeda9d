//! Whether a tree still is what was sealed. That every byte of it was read is noted, so that it is known over restarts.

use super::{Executor, TREE_CHANGED, chain, warn};
use crate::conductor::ledger::wall_ms;
use crate::store;
use cutover_core::{Fault, Generation};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Before a tree that could not be compared is looked at again; then twice as long.
const PAUSE: Duration = Duration::from_millis(300);

impl Executor {
    /// Whether a generation's tree still is what was sealed, by size, inode and times of every entry.
    pub(in super::super) async fn sealed(&self, generation: Generation) -> Result<(), Fault> {
        let store = self.site.store.clone();
        let compared = tokio::task::spawn_blocking(move || store.compare(generation)).await;
        compared.expect("BUG: comparing a tree panicked").map_err(untrue)
    }

    /// The same, where a tree that cannot be compared is looked at again for `limit`. Answers how many looks it took.
    pub(super) async fn sealed_within(&self, generation: Generation, limit: Duration) -> Result<u32, Fault> {
        let (begun, mut looks, mut pause) = (Instant::now(), 1, PAUSE);
        loop {
            match self.sealed(generation).await {
                Ok(()) => return Ok(looks),
                Err(fault) if fault.code == TREE_CHANGED || begun.elapsed() + pause > limit => {
                    return Err(fault);
                }
                Err(fault) => warn(self, "whether its tree is as it was sealed", &fault),
            }
            tokio::time::sleep(pause).await;
            (looks, pause) = (looks + 1, pause * 2);
        }
    }

    /// The same by the hash of every byte. It is read and noted to its end even if nobody waits for that any more, and by
    /// one at a time: whoever comes meanwhile waits and need not read it again.
    pub(in super::super) async fn read_whole(
        &self,
        generation: Generation,
        unless_since: Duration,
    ) -> Result<(), Fault> {
        let eyes = Arc::clone(&self.eyes).lock_owned().await;
        if self.read_whole_ago(generation).is_some_and(|ago| ago < unless_since) {
            return Ok(());
        }
        let (store, executor) = (self.site.store.clone(), self.clone());
        let read = tokio::task::spawn_blocking(move || {
            let _eyes = eyes;
            store.verify(generation)?;
            if let Err(error) = store.note_looked(generation, wall_ms()) {
                // Then it is read again by the next daemon.
                warn(&executor, "that a tree was read is not noted", &chain("store")(error));
            }
            Ok(())
        });
        read.await.expect("BUG: reading a tree panicked").map_err(untrue)
    }

    /// How long ago every byte of it was read; `None` if that is not known, as where the clock was set back since.
    pub(in super::super) fn read_whole_ago(&self, generation: Generation) -> Option<Duration> {
        let at = self.site.store.looked_at(generation)?;
        wall_ms().checked_sub(at).map(Duration::from_millis)
    }
}

/// A tree that cannot be read is a fault of another name: it says nothing about a foreign hand.
fn untrue(error: store::Error) -> Fault {
    match error {
        store::Error::Changed { .. } => chain(TREE_CHANGED)(error),
        other => chain("tree_unreadable")(other),
    }
}
