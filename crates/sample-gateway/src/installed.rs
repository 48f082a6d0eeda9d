//! The own install directory as a running process sees it: its manifest, read once, and files that are opened when they
//! are needed, exactly as a program with lazy imports does.

use crate::release::{Manifest, hashed_name};
use crate::voice;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why something of the own tree could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find the own executable")]
    FindExecutable { source: io::Error },
    #[error("find an install root above {}", .path.display())]
    FindRoot { path: PathBuf },
    #[error("read {}", .path.display())]
    ReadManifest { path: PathBuf, source: io::Error },
    #[error("understand {}", .path.display())]
    ParseManifest { path: PathBuf, source: serde_json::Error },
    #[error("Cannot find module {name}")]
    FindModule { name: String, source: io::Error },
    #[error("module {name} is not the one that this process was built with")]
    RecogniseModule { name: String },
}

/// One install directory and what happened to the files in it.
#[derive(Debug)]
pub(crate) struct Installed {
    root: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) opened: AtomicU64,
    pub(crate) missing: AtomicU64,
}

impl Installed {
    /// The directory that holds `bin/<own executable>`.
    pub(crate) fn of_this_process() -> Result<Self, Error> {
        let executable = std::env::current_exe().map_err(|source| Error::FindExecutable { source })?;
        let Some(root) = executable.parent().and_then(Path::parent) else {
            return Err(Error::FindRoot { path: executable });
        };
        Self::at(root)
    }

    fn at(root: &Path) -> Result<Self, Error> {
        let path = root.join("release.json");
        let json =
            std::fs::read(&path).map_err(|source| Error::ReadManifest { path: path.clone(), source })?;
        let manifest =
            serde_json::from_slice(&json).map_err(|source| Error::ParseManifest { path, source })?;
        Ok(Self { root: root.to_owned(), manifest, opened: AtomicU64::new(0), missing: AtomicU64::new(0) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the `n`-th chunk; the count goes round, so every `n` names one.
    pub(crate) fn open_chunk(&self, n: usize) -> Result<(&str, Vec<u8>), Error> {
        let name = &self.manifest.chunks[n % self.manifest.chunks.len()];
        Ok((name, self.open_module(name)?))
    }

    /// Opens the chunk that belongs to stopping.
    pub(crate) fn open_shutdown_chunk(&self) -> Result<Vec<u8>, Error> {
        self.open_module(&self.manifest.shutdown_chunk)
    }

    /// Reads a page file; `name` must come from the manifest or the program, never from a request.
    pub(crate) fn open_page(&self, name: &str) -> Result<Vec<u8>, Error> {
        std::fs::read(self.root.join("page").join(name))
            .map_err(|source| Error::FindModule { name: name.to_owned(), source })
    }

    fn open_module(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.root.join("chunks").join(name);
        let content = std::fs::read(&path).map_err(|source| {
            self.missing.fetch_add(1, Ordering::Relaxed);
            voice::say_module_not_found(&path);
            Error::FindModule { name: name.to_owned(), source }
        })?;
        if hashed_name("chunk", &content, "txt") != name {
            self.missing.fetch_add(1, Ordering::Relaxed);
            return Err(Error::RecogniseModule { name: name.to_owned() });
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(content)
    }
}
