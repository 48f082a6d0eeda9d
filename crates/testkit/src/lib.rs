//! Skeleton.

pub mod registry;
