//! Release directories: what a package of the sample gateway looks like when it is unpacked.
//!
//! ```text
//! bin/gateway                   a real copy of an executable that can become the sample gateway
//! release.json                  version, build, knobs and the names of everything that is opened later
//! chunks/chunk-<hash>.txt       opened at request time; the name is the content's hash
//! page/index.html               the page; page/assets/<name>-<hash>.{js,css} what it needs
//! ```

use crate::{Knobs, page};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many chunks a release has, beside the one that a stop opens.
pub const CHUNKS: usize = 48;

/// What a release is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version it is published as.
    pub version: String,
    /// The build id; two builds of one version differ in every hashed name.
    pub build: String,
    /// How it behaves.
    pub knobs: Knobs,
}

impl Release {
    /// A well-behaved release whose build is named after its version.
    #[must_use]
    pub fn new(version: &str) -> Self {
        Self { version: version.to_owned(), build: format!("build-{version}"), knobs: Knobs::default() }
    }

    /// The same release with other knobs.
    #[must_use]
    pub fn with_knobs(self, knobs: Knobs) -> Self {
        Self { knobs, ..self }
    }
}

/// The content of `release.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// See [`Release::version`].
    pub version: String,
    /// See [`Release::build`].
    pub build: String,
    /// See [`Release::knobs`].
    pub knobs: Knobs,
    /// File names in `chunks/`, in the order of `/chunk/<n>`.
    pub chunks: Vec<String>,
    /// The file in `chunks/` that a stop opens.
    pub shutdown_chunk: String,
    /// File names in `page/assets/`.
    pub assets: Vec<String>,
}

/// Why a release directory could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory could not be made (or the release directory exists already).
    #[error("make directory {}", .path.display())]
    MakeDirectory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The executable could not be copied.
    #[error("copy executable {}", .path.display())]
    CopyExecutable {
        /// The executable that was to be copied.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Writes a release directory at `dir`, which must not exist yet; its parent must.
///
/// # Errors
/// If anything could not be made, written or copied; what was made until then stays.
pub fn write(dir: &Path, executable: &Path, release: &Release) -> Result<Manifest, Error> {
    for part in ["", "bin", "chunks", "page", "page/assets"] {
        let path = dir.join(part);
        fs::create_dir(&path).map_err(|source| Error::MakeDirectory { path, source })?;
    }
    let seed = format!("{}+{}", release.version, release.build);
    let chunks = (0..CHUNKS)
        .map(|n| write_chunk(dir, &chunk_text(&seed, &n.to_string())))
        .collect::<Result<_, _>>()?;
    let shutdown_chunk = write_chunk(dir, &chunk_text(&seed, "shutdown"))?;
    let assets = page::write(dir, release)?;
    let manifest = Manifest {
        version: release.version.clone(),
        build: release.build.clone(),
        knobs: release.knobs.clone(),
        chunks,
        shutdown_chunk,
        assets,
    };
    let json = serde_json::to_vec_pretty(&manifest).expect("a manifest has only string keys");
    write_file(&dir.join("release.json"), &json)?;
    copy_executable(executable, &dir.join("bin/gateway"))?;
    Ok(manifest)
}

/// The name under which content is filed: `<stem>-<first 16 hex digits of its SHA-256>.<extension>`.
pub(crate) fn hashed_name(stem: &str, content: &[u8], extension: &str) -> String {
    let digest = hex::encode(Sha256::digest(content));
    format!("{stem}-{}.{extension}", &digest[..16])
}

pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn chunk_text(seed: &str, name: &str) -> String {
    format!("chunk {name} of {seed}\n").repeat(64)
}

fn write_chunk(dir: &Path, text: &str) -> Result<String, Error> {
    let name = hashed_name("chunk", text.as_bytes(), "txt");
    write_file(&dir.join("chunks").join(&name), text.as_bytes())?;
    Ok(name)
}

/// Copies by reading and writing: `fs::copy` may share blocks with the original where the file system can.
fn copy_executable(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::CopyExecutable { path: from.to_owned(), source };
    let mut source = File::open(from).map_err(failed)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to).map_err(failed)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut piece).map_err(failed)?;
        if length == 0 {
            return Ok(());
        }
        copy.write_all(&piece[..length]).map_err(failed)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(files_below(&path)) } else { _ = found.insert(path) }
        }
        found
    }

    #[test]
    fn a_release_is_a_real_copy_with_names_of_its_own() {
        let area = tempfile::tempdir().unwrap();
        let executable = area.path().join("some-executable");
        fs::write(&executable, vec![7_u8; 3_000_000]).unwrap();
        let one = write(&area.path().join("one"), &executable, &Release::new("1.0.0")).unwrap();
        let two = write(&area.path().join("two"), &executable, &Release::new("2.0.0")).unwrap();

        let copied = fs::metadata(area.path().join("one/bin/gateway")).unwrap();
        assert_eq!((copied.len(), copied.nlink()), (3_000_000, 1));
        assert_eq!(copied.permissions().mode() & 0o111, 0o111 & copied.permissions().mode());
        assert_ne!(copied.permissions().mode() & 0o100, 0);
        assert_eq!(fs::read(area.path().join("one/bin/gateway")).unwrap(), fs::read(&executable).unwrap());
        let names: BTreeSet<_> = one.chunks.iter().chain(&two.chunks).collect();
        assert_eq!(names.len(), 2 * CHUNKS, "no chunk name is shared by two versions");
        assert!(one.assets.iter().all(|asset| !two.assets.contains(asset)));
        // chunks, shutdown chunk, assets, page, release.json, executable
        assert_eq!(files_below(&area.path().join("one")).len(), CHUNKS + 1 + one.assets.len() + 3);
        let read: Manifest =
            serde_json::from_slice(&fs::read(area.path().join("one/release.json")).unwrap()).unwrap();
        assert_eq!(read, one);
    }

    #[test]
    fn a_directory_that_exists_is_not_written_into() {
        let area = tempfile::tempdir().unwrap();
        let refusal = write(area.path(), Path::new("/proc/self/exe"), &Release::new("1.0.0")).unwrap_err();
        assert!(matches!(refusal, Error::MakeDirectory { .. }));
        assert_eq!(fs::read_dir(area.path()).unwrap().count(), 0);
    }
}
