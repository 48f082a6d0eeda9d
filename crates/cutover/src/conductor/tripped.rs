//! What stands in an instance's log against the release that it runs. For showing; what counts is what the proof saw.

use crate::probe::TripwireScanner;
use crate::supervisor;
use cutover_core::{Generation, Seen};
use std::path::Path;

/// The generation that the instance recorded in `directory` was started from; `None` if that is not on record.
pub(crate) fn generation_of(directory: &Path) -> Option<Generation> {
    supervisor::executed(directory).ok().flatten().map(|record| record.generation)
}

/// The lines of `log` from `offset` (bytes) on which say that a module or an export below `tree` is gone, trimmed. What
/// cannot be read has none.
pub(crate) fn tripped(log: &Path, tree: &Path, offset: u64) -> Vec<String> {
    let Ok(tree) = tree.canonicalize() else { return Vec::new() };
    let Ok(mut scanner) = TripwireScanner::from_offset(log.to_owned(), &tree, offset) else {
        return Vec::new();
    };
    match scanner.look(0) {
        Seen::Yes { value, .. } => value,
        Seen::Missing { .. } | Seen::NotApplicable { .. } => Vec::new(),
    }
}
