//! Sealed generations: their records, the pointer, and whether they are still what was sealed.

use super::manifest::{
    Fingerprint, Manifest, OWN_RECORDS, differing_by_hash, differing_by_stat, fingerprint,
};
use super::source::Source;
use super::workspace::{Workspace, create_dir_all, rename, sync_dir};
use super::{Changed, Error, Result, Store, changelog};
use cutover_core::{Generation, Release};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `generation.json`: what a generation is and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenerationRecord {
    /// Its number.
    pub generation: Generation,
    /// The release that it holds.
    pub release: Release,
    /// When the release was published, RFC 3339, where the source told.
    pub published: Option<String>,
    /// Where the release came from.
    pub source: SourceRecord,
    /// When it was sealed, RFC 3339, by the file system's clock.
    pub created_at: String,
    /// Directory of everything that belongs to the release, relative to the generation.
    pub root: PathBuf,
    /// Directory of the package itself, relative to the generation: what the service starts from.
    pub package_root: PathBuf,
    /// Number of files and links.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// SHA-256 of `manifest`, in hex.
    pub manifest_digest: String,
    /// Installed packages for whose bytes the source vouched with no integrity.
    pub without_integrity: Vec<String>,
}

/// A source as it is recorded: without secrets and without the way to call npm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum SourceRecord {
    /// See [`Source::Directory`].
    Directory {
        /// The directory of versions.
        dir: PathBuf,
    },
    /// See [`Source::Npm`].
    Npm {
        /// Package name.
        package: String,
        /// Registry, where one was given, without user and password.
        registry: Option<String>,
    },
    /// A copy of what was installed by others; see [`Store::import`].
    Imported {
        /// Package name.
        package: String,
        /// Where it was installed.
        from: PathBuf,
    },
}

impl SourceRecord {
    pub(super) fn of(source: &Source) -> SourceRecord {
        match source {
            Source::Directory(directory) => SourceRecord::Directory { dir: directory.dir.clone() },
            Source::Npm(npm) => SourceRecord::Npm {
                package: npm.package.clone(),
                registry: npm.registry.as_deref().map(without_user),
            },
        }
    }
}

/// An address without the user and the password in it.
pub(crate) fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..authority_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host..])
}

/// Where a plugin lies beside its package, whose directory is `root`: both in one `node_modules`.
#[must_use]
pub fn plugin_directory(root: &Path, package: &str, plugin: &str) -> PathBuf {
    let modules = root.ancestors().nth(package.split('/').count()).unwrap_or(root);
    modules.join(plugin)
}

impl Store {
    /// Directory of a generation, whether or not it is there.
    #[must_use]
    pub fn generation_dir(&self, generation: Generation) -> PathBuf {
        self.generations_dir().join(generation.to_string())
    }

    /// The same of one that is there, as the processes that are started from it name it: with every link on the way resolved.
    ///
    /// # Errors
    /// [`Error::Read`] if it is not there.
    pub fn tree(&self, generation: Generation) -> Result<PathBuf> {
        let path = self.generation_dir(generation);
        fs::canonicalize(&path).map_err(Error::read(&path))
    }

    /// What a sealed release says is new in it; none, if it says nothing.
    #[must_use]
    pub fn notes(&self, record: &GenerationRecord) -> Option<String> {
        let package = self.generation_dir(record.generation).join(&record.package_root);
        changelog::notes(&package, &record.release.version)
    }

    /// Reads a generation's record.
    ///
    /// # Errors
    /// [`Error::Unsealed`] if there is none, [`Error::Damaged`] if it makes no sense.
    pub fn record(&self, generation: Generation) -> Result<GenerationRecord> {
        let path = self.generation_dir(generation).join("generation.json");
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Unsealed { generation },
            _ => Error::read(&path)(error),
        })?;
        let record: GenerationRecord = serde_json::from_slice(&text)
            .map_err(|error| Error::Damaged { path: path.clone(), why: error.to_string() })?;
        if record.generation != generation {
            let why = format!("it is the record of generation {}", record.generation);
            return Err(Error::Damaged { path, why });
        }
        Ok(record)
    }

    /// The records of all sealed generations, oldest first. One whose record cannot be read is left out: it cannot
    /// be selected either, and [`Store::record`] says why.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn generations(&self) -> Result<Vec<GenerationRecord>> {
        Ok(self.numbers()?.into_iter().filter_map(|number| self.record(number).ok()).collect())
    }

    /// All numbers in use, sealed or damaged, oldest first.
    pub(super) fn numbers(&self) -> Result<Vec<Generation>> {
        let dir = self.generations_dir();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::read(&dir))?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::read(&dir))?;
            numbers.extend(entry.file_name().to_str().and_then(number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The directory that the service starts from: the package itself, with every link on the way resolved, so that
    /// a later switch cannot move a running process.
    ///
    /// # Errors
    /// As [`Store::record`]; [`Error::Read`] if the directory is not there.
    pub fn root(&self, generation: Generation) -> Result<PathBuf> {
        let record = self.record(generation)?;
        let path = self.generation_dir(generation).join(record.package_root);
        fs::canonicalize(&path).map_err(Error::read(&path))
    }

    /// The generation that the pointer names, or none if nothing was ever switched to.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the pointer names something else, [`Error::Unsealed`] if what it names is not there.
    pub fn current(&self) -> Result<Option<Generation>> {
        let pointer = self.pointer();
        let target = match fs::read_link(&pointer) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Error::Damaged { path: pointer, why: "it is no link".into() });
            }
            target => target.map_err(Error::read(&pointer))?,
        };
        let name = target.strip_prefix("generations").ok().and_then(Path::to_str);
        let Some(generation) = name.and_then(number) else {
            let why = format!("it names {}", target.display());
            return Err(Error::Damaged { path: pointer, why });
        };
        self.record(generation)?;
        Ok(Some(generation))
    }

    /// Lets the pointer name a generation, durably. Must be idempotent: it may run again after a crash. At every
    /// instant the pointer names the old generation or the new one.
    ///
    /// # Errors
    /// [`Error::Unsealed`] or [`Error::Damaged`] for anything but a sealed generation; then nothing happened.
    pub fn switch(&self, generation: Generation) -> Result<()> {
        self.record(generation)?;
        let manifest = self.generation_dir(generation).join("manifest");
        if !manifest.is_file() {
            return Err(Error::Damaged { path: manifest, why: "it is not there".into() });
        }
        let (pointer, target) = (self.pointer(), Path::new("generations").join(generation.to_string()));
        if !fs::read_link(&pointer).is_ok_and(|named| named == target) {
            let workspace = Workspace::begin(self)?;
            let new = workspace.dir.join("current");
            std::os::unix::fs::symlink(&target, &new).map_err(Error::write(&new))?;
            rename(new, pointer)?;
            workspace.discard();
        }
        sync_dir(&self.dir)
    }

    /// Whether a generation still looks as it was sealed: quick, by size, inode and times of every entry. Where
    /// they differ the bytes decide.
    ///
    /// # Errors
    /// [`Error::Changed`] names what differs; anything else means that it could not be told.
    pub fn compare(&self, generation: Generation) -> Result<()> {
        self.check(generation, differing_by_stat)
    }

    /// Whether a generation is what was sealed, by the hash and mode of every entry.
    ///
    /// # Errors
    /// [`Error::Changed`] names what differs; anything else means that it could not be told.
    pub fn verify(&self, generation: Generation) -> Result<()> {
        self.check(generation, differing_by_hash)
    }

    fn check(
        &self,
        generation: Generation,
        differing: fn(&Path, &[&str], &Manifest) -> Result<Option<Changed>>,
    ) -> Result<()> {
        let sealed = self.sealed_manifest(generation)?;
        match differing(&self.generation_dir(generation), &OWN_RECORDS, &sealed)? {
            None => Ok(()),
            Some(changed) => Err(Error::Changed { generation, changed }),
        }
    }

    fn sealed_manifest(&self, generation: Generation) -> Result<Manifest> {
        let record = self.record(generation)?;
        let dir = self.generation_dir(generation);
        let (path, marks) = (dir.join("manifest"), dir.join("inodes"));
        let entries = fs::read_to_string(&path).map_err(Error::read(&path))?;
        if hex::encode(Sha256::digest(&entries)) != record.manifest_digest {
            return Err(Error::Damaged { path, why: "it is not the one that was sealed".into() });
        }
        let marks = fs::read_to_string(&marks).map_err(Error::read(&marks))?;
        Manifest::parse(&entries, &marks).map_err(|why| Error::Damaged { path, why })
    }

    /// The state of a generation's tree as one number, by stat alone.
    ///
    /// # Errors
    /// If an entry cannot be read.
    pub fn fingerprint(&self, generation: Generation) -> Result<Fingerprint> {
        fingerprint(&self.generation_dir(generation))
    }

    /// The next number, made durable before it is used, so that a number never means two generations even if the
    /// newest one was pruned.
    pub(super) fn take_number(&self, workspace: &Workspace) -> Result<Generation> {
        let dir = self.generations_dir();
        create_dir_all(&dir)?;
        let path = dir.join(".last");
        let noted = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Error::read(&path)(error)),
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| Error::Damaged { path: path.clone(), why: "it is no number".into() })?,
        };
        let used = self.numbers()?.last().map_or(0, |generation| generation.0);
        let next = noted.max(used) + 1;
        let new = workspace.dir.join("last");
        fs::write(&new, format!("{next}\n")).map_err(Error::write(&new))?;
        fs::File::open(&new).and_then(|file| file.sync_all()).map_err(Error::sync(&new))?;
        rename(new, path)?;
        sync_dir(&dir)?;
        Ok(Generation(next))
    }
}

fn number(name: &str) -> Option<Generation> {
    let number = Generation(name.parse().ok()?);
    (number.to_string() == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_address_names_no_user() {
        assert_eq!(without_user("https://me:secret@host:1/a@b/"), "https://host:1/a@b/");
        assert_eq!(without_user("http://host/"), "http://host/");
        assert_eq!(without_user("https://me:se@cret@host"), "https://host");
    }

    #[test]
    fn only_a_canonical_number_names_a_generation() {
        assert_eq!(number("0007"), Some(Generation(7)));
        assert_eq!(number("12345"), Some(Generation(12345)));
        for other in ["7", "00007", "+007", "", "0007.partial", "core"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
