//! What was read before, by the hash of what was read.
//!
//! Knows bytes and facts; must not know paths. A cache that is lost, torn or of another version costs time only.

use crate::Error;
use crate::module::{Facts, Goal};
use crate::record::{Record, Recorder};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a file begins with. The number changes whenever the facts of the same text would, or their form.
const HEAD: &[u8] = b"cutover imports 2\n";

/// The length of a hash.
const HASH_BYTES: usize = 32;

/// Facts of modules that were read before. Kept in memory; [`Cache::save`] and [`Cache::load`] carry it over.
#[derive(Debug, Default)]
pub struct Cache {
    known: HashMap<Key, Known>,
}

#[derive(Debug)]
struct Known {
    facts: Arc<Facts>,
    /// Whether it was of use since the cache was loaded.
    is_used: AtomicBool,
}

/// The hash of a text, and how it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    hash: [u8; HASH_BYTES],
    goal: Goal,
}

impl Key {
    pub(crate) fn of(bytes: &[u8], goal: Goal) -> Key {
        Key { hash: Sha256::digest(bytes).into(), goal }
    }

    fn write(&self, recorder: &mut Recorder) {
        recorder.number(match self.goal {
            Goal::Module => 0,
            Goal::Script => 1,
            Goal::Either => 2,
        });
        recorder.0.extend_from_slice(&self.hash);
    }

    fn read(record: &mut Record<'_>) -> Option<Key> {
        let goal = match record.number()? {
            0 => Goal::Module,
            1 => Goal::Script,
            2 => Goal::Either,
            _ => return None,
        };
        Some(Key { hash: record.bytes(HASH_BYTES)?.try_into().ok()?, goal })
    }
}

impl Cache {
    /// What [`Cache::save`] wrote to `path`; empty if there is no such file or it is not of this version.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn load(path: &Path) -> Result<Cache, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Cache::default()),
            Err(source) => return Err(Error::LoadCache { path: path.to_owned(), source }),
        };
        Ok(Cache { known: known(&bytes).unwrap_or_default() })
    }

    /// Writes what was of use since [`Cache::load`], so that it does not grow with every version. `path` is replaced as
    /// a whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let used = self.known.iter().filter(|(_, known)| known.is_used.load(Ordering::Relaxed));
        let mut used: Vec<(&Key, &Known)> = used.collect();
        used.sort_by_key(|(key, _)| *key);
        let mut recorder = Recorder(HEAD.to_vec());
        for (key, known) in used {
            key.write(&mut recorder);
            recorder.facts(&known.facts);
        }
        let mut bytes = recorder.0;
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        replace(path, &bytes).map_err(|source| Error::SaveCache { path: path.to_owned(), source })
    }

    /// How many modules it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(crate) fn recall(&self, key: &Key) -> Option<Arc<Facts>> {
        let known = self.known.get(key)?;
        known.is_used.store(true, Ordering::Relaxed);
        Some(known.facts.clone())
    }

    pub(crate) fn learn(&mut self, key: Key, facts: Arc<Facts>) {
        self.known.insert(key, Known { facts, is_used: AtomicBool::new(true) });
    }
}

/// What [`Cache::save`] wrote, if it is all there and of this version.
fn known(bytes: &[u8]) -> Option<HashMap<Key, Known>> {
    let (written, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    let mut record = Record(written.strip_prefix(HEAD)?);
    if *hash != *Sha256::digest(written) {
        return None;
    }
    let mut known = HashMap::new();
    while !record.0.is_empty() {
        let (key, facts) = (Key::read(&mut record)?, Arc::new(record.facts()?));
        known.insert(key, Known { facts, is_used: AtomicBool::new(false) });
    }
    Some(known)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Export;

    /// What a file would hold that somebody else wrote, with its checksum.
    fn written(facts: &Facts, more: &[u8]) -> Vec<u8> {
        let mut recorder = Recorder(HEAD.to_vec());
        Key::of(b"text", Goal::Module).write(&mut recorder);
        recorder.facts(facts);
        recorder.0.extend_from_slice(more);
        let hash = Sha256::digest(&recorder.0);
        recorder.0.extend_from_slice(&hash);
        recorder.0
    }

    #[test]
    fn what_nobody_here_wrote_is_not_known_though_its_checksum_is_right() {
        let good = Facts {
            exports: vec![Export::Local { name: "a".into(), local: "a".into() }],
            ..Facts::default()
        };
        assert_eq!(known(&written(&good, b"")).map(|known| known.len()), Some(1));
        assert!(known(&written(&good, b"\x00")).is_none(), "a key that is cut off");
        let mut endless = Recorder::default();
        Key::of(b"other", Goal::Module).write(&mut endless);
        endless.number(1);
        endless.number(u32::MAX);
        assert!(known(&written(&good, &endless.0)).is_none(), "a count of requests that are not there");
        let (name, imported) = ("a".into(), "b".into());
        for export in [
            Export::From { name, request: 0, imported },
            Export::Namespace { name: "a".into(), request: 1 },
            Export::Star { request: u32::MAX },
        ] {
            let facts = Facts { exports: vec![export.clone()], ..Facts::default() };
            assert!(known(&written(&facts, b"")).is_none(), "{export:?} of no request");
        }
    }
}
