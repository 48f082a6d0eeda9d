//! Generations and state on disk.

pub mod snapshot;
