//! A plugin that its host has installed itself, into an npm project: what of that project is the plugin, and where it lies in
//! a generation.

use crate::store::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let version = version_in(&directory).filter(|_| is_here)?;
        Some(Self { package: package.to_owned(), version, project: project.to_owned() })
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        modules(&self.project).join(&self.package)
    }

    /// What is copied to where below the `node_modules` of its host. What lies beside it in its project comes into its own
    /// `node_modules`: node looks there first, and finds what it found before.
    ///
    /// # Errors
    /// If the project cannot be read, or has another version of a package beside the plugin than in it.
    pub(super) fn pieces(&self, host: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let own = PathBuf::from(&self.package);
        let mut pieces = vec![(self.root(), own.clone())];
        for (name, beside) in packages(&modules(&self.project))? {
            if name == self.package || name == host {
                continue;
            }
            let nested = modules(&self.root()).join(&name);
            if !nested.exists() {
                pieces.push((beside, modules(&own).join(&name)));
            } else if version_in(&nested) != version_in(&beside) {
                return Err(Error::Doubled { path: beside, other: nested });
            }
        }
        Ok(pieces)
    }

    /// Links to its host that its host has laid, each to where it ran: in a generation there is one of ours.
    ///
    /// # Errors
    /// If the project cannot be read.
    pub(super) fn host_links(&self, host: &str) -> Result<Vec<PathBuf>> {
        let packages = packages(&modules(&self.project))?.into_values();
        let links = packages.map(|package| modules(&package).join(host));
        Ok(links.filter(|link| link.is_symlink()).collect())
    }
}

fn modules(of: &Path) -> PathBuf {
    of.join("node_modules")
}

/// The version that a package's manifest states.
fn version_in(package: &Path) -> Option<String> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(package.join("package.json")).ok()?).ok()?;
    Some(manifest["version"].as_str()?.to_owned())
}

/// The packages in a `node_modules`, by name. npm's own files there have hidden names.
fn packages(modules: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for (name, path) in entries(modules)? {
        if !name.starts_with('@') {
            found.insert(name, path);
            continue;
        }
        found.extend(entries(&path)?.into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)));
    }
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(Error::read(directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::read(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
