//! A plugin that its host has installed itself, into an npm project.

use crate::store::{Error, Result, json_at};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedPlugin {
    /// Its name, with its scope.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The npm project that it is installed in.
    pub project: PathBuf,
}

impl ImportedPlugin {
    /// The plugin as it is installed in a project; `None` if it lies elsewhere, or nowhere.
    #[must_use]
    pub fn installed(project: &Path, package: &str) -> Option<Self> {
        let directory = modules(project).join(package);
        let is_here = std::fs::symlink_metadata(&directory).ok()?.is_dir();
        let version = version(&directory, package).filter(|_| is_here)?;
        Some(Self { package: package.to_owned(), version, project: project.to_owned() })
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        modules(&self.project).join(&self.package)
    }

    /// Links to its host that its host has laid, each to where it ran: in a generation there is one of ours.
    ///
    /// # Errors
    /// If the project cannot be read.
    pub(super) fn host_links(&self, host: &str) -> Result<Vec<PathBuf>> {
        let packages = packages(&modules(&self.project))?;
        let links = packages.into_iter().map(|package| modules(&package).join(host));
        Ok(links.filter(|link| link.is_symlink()).collect())
    }
}

fn modules(of: &Path) -> PathBuf {
    of.join("node_modules")
}

/// The version of the package in a directory, if it is the one that is asked for.
pub(super) fn version(directory: &Path, package: &str) -> Option<String> {
    let manifest = json_at(&directory.join("package.json"));
    (manifest["name"] == package).then(|| manifest["version"].as_str().map(ToOwned::to_owned))?
}

/// The packages in a `node_modules`. npm's own files there have hidden names.
fn packages(modules: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(modules)? {
        match path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")) {
            true => found.extend(entries(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::read(directory))? {
        let entry = entry.map_err(Error::read(directory))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    Ok(found)
}
