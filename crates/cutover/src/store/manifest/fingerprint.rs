//! One number for the state of a tree, by stat alone: cheap enough to poll.

use super::super::Result;
use super::{Mark, walk};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Two equal fingerprints of one tree mean that nothing happened to it in between. They differ also after harmless
/// things (a `chmod`, a hard link); then [`compare`](crate::store::Store::compare) decides. Only comparable within
/// one run of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a fingerprint says something only beside an earlier one"]
pub struct Fingerprint(u64);

/// Combines the entries without sorting them: their order on disk may change by itself.
pub(in crate::store) fn fingerprint(root: &Path) -> Result<Fingerprint> {
    let sum = walk(root, &[])?.iter().fold(0_u64, |sum, found| {
        let mut hasher = DefaultHasher::new();
        (&found.path, found.metadata.size(), Mark::of(&found.metadata)).hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    });
    Ok(Fingerprint(sum))
}
