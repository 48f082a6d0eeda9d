//! What was read before, by the hash of what was read.
//!
//! Knows bytes and facts; must not know paths. A cache that is lost, torn or of another version costs time only.

use crate::Error;
use crate::module::{Facts, Goal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Changes whenever the facts of the same text would.
const VERSION: u32 = 1;

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
    hash: [u8; 32],
    goal: Goal,
}

#[derive(Serialize, Deserialize)]
struct Saved<M> {
    version: u32,
    modules: Vec<(String, M)>,
}

impl Key {
    pub(crate) fn of(bytes: &[u8], goal: Goal) -> Key {
        Key { hash: Sha256::digest(bytes).into(), goal }
    }

    fn written(&self) -> String {
        let goal = match self.goal {
            Goal::Module => 'm',
            Goal::Script => 's',
            Goal::Either => 'e',
        };
        let digits = self.hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        std::iter::once(goal)
            .chain(digits.map(|digit| char::from_digit(digit.into(), 16).expect("below 16")))
            .collect()
    }

    fn read(written: &str) -> Option<Key> {
        let (goal, digits) = written.split_at_checked(1)?;
        let goal = match goal {
            "m" => Goal::Module,
            "s" => Goal::Script,
            "e" => Goal::Either,
            _ => return None,
        };
        let digits: Vec<u8> =
            digits.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<_>>()?;
        let hash: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        Some(Key { hash: hash.try_into().ok()?, goal })
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
        let saved =
            serde_json::from_slice::<Saved<Facts>>(&bytes).ok().filter(|saved| saved.version == VERSION);
        let modules = saved.map(|saved| saved.modules).unwrap_or_default();
        let known = modules.into_iter().filter_map(|(key, facts)| {
            Some((Key::read(&key)?, Known { facts: Arc::new(facts), is_used: AtomicBool::new(false) }))
        });
        Ok(Cache { known: known.collect() })
    }

    /// Writes what was of use since [`Cache::load`], so that it does not grow with every version. `path` is replaced as
    /// a whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let used = self.known.iter().filter(|(_, known)| known.is_used.load(Ordering::Relaxed));
        let mut modules: Vec<(String, &Facts)> =
            used.map(|(key, known)| (key.written(), &*known.facts)).collect();
        modules.sort_by(|a, b| a.0.cmp(&b.0));
        self.write(path, &Saved { version: VERSION, modules })
            .map_err(|source| Error::SaveCache { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path, saved: &Saved<&Facts>) -> std::io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let mut file = BufWriter::new(fs::File::create(&partial)?);
        serde_json::to_writer(&mut file, saved)?;
        file.flush()?;
        fs::rename(&partial, path)
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
