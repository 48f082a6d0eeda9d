//! How much is copied, counted where it is done and read where it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that were copied. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// Adds what was copied.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
