//! Whether everything that an update writes will fit, file system by file system.
//!
//! Knows needs and what is free. Must not know how a need was measured.

use super::listed;
use crate::store::{self, Need, Size};
use cutover_core::{Finding, Level};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const KIND: &str = "space";

/// One place that an update writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What it is for people: `store`, `snapshots`, `npm cache`, `TMPDIR`.
    pub name: String,
    /// Where; it need not exist yet.
    pub path: PathBuf,
    /// How much will be written there.
    pub need: Need,
    /// How many files of it, as far as that is known.
    pub files: u64,
}

/// What one file system still takes.
struct Free {
    bytes: u64,
    /// As many as anybody needs where inodes are not counted.
    files: u64,
}

impl Free {
    fn on(path: &Path) -> io::Result<Free> {
        let found = rustix::fs::statvfs(path)?;
        let files = if found.f_files == 0 { u64::MAX } else { found.f_favail };
        Ok(Free { bytes: found.f_bavail * found.f_frsize, files })
    }
}

/// Holds the needs against what is free, those on one file system together.
pub(super) fn look(uses: &[Use]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut systems: BTreeMap<u64, Vec<&Use>> = BTreeMap::new();
    for one in uses {
        match fs::metadata(store::existing(&one.path)) {
            Ok(place) => systems.entry(place.dev()).or_default().push(one),
            Err(error) => findings.push(unknown(one, &error)),
        }
    }
    for together in systems.values() {
        match Free::on(&store::existing(&together[0].path)) {
            Ok(free) => findings.push(judged(together, &free)),
            Err(error) => findings.push(unknown(together[0], &error)),
        }
    }
    findings
}

fn judged(together: &[&Use], free: &Free) -> Finding {
    let known: Vec<u64> = together.iter().filter_map(|one| one.need.known_bytes()).collect();
    let bytes = known.iter().copied().fold(0, u64::saturating_add);
    let files = together.iter().map(|one| one.files).fold(0, u64::saturating_add);
    let is_exact = together.iter().all(|one| matches!(one.need, Need::Measured(_)));
    let need = match (known.is_empty(), is_exact) {
        (true, _) => Need::Unknown,
        (false, true) => Need::Measured(bytes),
        (false, false) => Need::AtLeast(bytes),
    };
    let places: Vec<String> =
        together.iter().map(|one| format!("{} {}", one.name, one.path.display())).collect();
    let text = format!("{}: {need} needed, {} free", listed(&places), Size(free.bytes));
    if bytes > free.bytes {
        let missing = Size(bytes - free.bytes);
        return Finding::new(Level::Block, KIND, text)
            .advised(format!("free at least {missing} there, or move one of them to another file system"));
    }
    if files > free.files {
        let text = format!("{}: {files} files needed, {} inodes free", listed(&places), free.files);
        return Finding::new(Level::Block, KIND, text)
            .advised("remove files there, or move one of them to another file system");
    }
    Finding::new(Level::Note, KIND, text)
}

fn unknown(one: &Use, error: &io::Error) -> Finding {
    let text = format!("{} {}: free space cannot be read: {error}", one.name, one.path.display());
    Finding::new(Level::Warn, KIND, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, need: Need) -> Use {
        Use { name: name.into(), path: format!("/{name}").into(), need, files: 10 }
    }

    fn free(bytes: u64) -> Free {
        Free { bytes, files: 20 }
    }

    #[test]
    fn what_each_needs_is_summed_before_it_is_judged() {
        let (store, cache) = (place("store", Need::Measured(60)), place("cache", Need::Measured(50)));
        let both = judged(&[&store, &cache], &free(100));
        assert_eq!(both.level, Level::Block);
        assert_eq!(both.text, "store /store, cache /cache: 110 bytes needed, 100 bytes free");
        assert!(both.advice.unwrap().contains("10 bytes"));
        assert_eq!(judged(&[&store, &cache], &free(110)).level, Level::Note);
    }

    #[test]
    fn files_are_counted_too() {
        let (store, cache) = (place("store", Need::Measured(60)), place("cache", Need::Measured(50)));
        let short = judged(&[&store, &cache], &Free { bytes: 110, files: 19 });
        assert_eq!(short.level, Level::Block);
        assert!(short.text.ends_with("20 files needed, 19 inodes free"), "{short}");
    }

    #[test]
    fn a_need_that_is_not_known_is_told_as_a_lower_bound_or_as_unknown() {
        let (store, cache) = (place("store", Need::Measured(60)), place("cache", Need::Unknown));
        assert!(judged(&[&store, &cache], &free(100)).text.contains("at least 60 bytes needed"));
        assert!(judged(&[&cache], &free(100)).text.contains("an unknown number of bytes needed"));
    }
}
