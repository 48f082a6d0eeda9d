//! What npm says it installed: the format, and whether it is what was asked for.

use super::{Error, Result};
use cutover_core::Release;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A lockfile of npm's, the visible or the hidden one. Fields that older versions do not write are as if they said no.
#[derive(Deserialize)]
pub(crate) struct Lockfile {
    /// By the path below the lockfile's root; the root itself is empty.
    pub(crate) packages: BTreeMap<String, Locked>,
}

/// One package as it was locked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Locked {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) integrity: Option<String>,
    #[serde(default)]
    pub(crate) in_bundle: bool,
    #[serde(default)]
    pub(crate) link: bool,
    #[serde(default)]
    pub(crate) extraneous: bool,
    #[serde(default)]
    pub(crate) optional: bool,
    #[serde(default)]
    pub(crate) dev: bool,
    #[serde(default)]
    pub(crate) dev_optional: bool,
    /// npm copies these lists as it finds them.
    #[serde(default)]
    pub(crate) os: Value,
    #[serde(default)]
    pub(crate) cpu: Value,
    #[serde(default)]
    pub(crate) libc: Value,
}

impl Locked {
    /// Whether anybody vouches for its bytes: by an integrity, or as a part of another package. A link has none of its own.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.integrity.is_some() || self.in_bundle || self.link
    }
}

#[derive(Deserialize)]
struct Installed {
    name: String,
    version: String,
}

/// Requires that the release itself and its plugins were installed with exactly their versions and integrities. Returns
/// the other packages whose bytes nobody vouched for, sorted; what is bundled inside another package is vouched for by
/// that one.
pub(super) fn check(core: &Path, release: &Release) -> Result<Vec<String>> {
    let lock: Lockfile = read(&core.join("package-lock.json"))?;
    lock.holds(core, &release.package, &release.version, &release.digest)?;
    for plugin in &release.plugins {
        lock.holds(core, &plugin.package, &plugin.version, &plugin.digest)?;
    }
    let unvouched = |(path, locked): (String, Locked)| {
        let vouched = path.is_empty() || locked.is_vouched_for();
        (!vouched).then(|| path.rsplit("node_modules/").next().unwrap_or(&path).to_owned())
    };
    Ok(lock.packages.into_iter().filter_map(unvouched).collect())
}

/// What npm laid down below `core`, by the path that tells one copy of a package from another, with its version; `None`
/// where npm did not install anything.
///
/// # Errors
/// [`Error::Read`] or [`Error::Damaged`] if npm's own record cannot be read.
pub(super) fn installed(core: &Path) -> Result<Option<BTreeMap<String, String>>> {
    let path = core.join("node_modules/.package-lock.json");
    if !path.exists() {
        return Ok(None);
    }
    let lock: Lockfile = read(&path)?;
    let version = |(path, locked): (String, Locked)| {
        let name = path.strip_prefix("node_modules/")?.replace("/node_modules/", " > ");
        Some((name, locked.version.unwrap_or_else(|| "unknown".into())))
    };
    Ok(Some(lock.packages.into_iter().filter_map(version).collect()))
}

impl Lockfile {
    fn holds(&self, core: &Path, package: &str, version: &str, digest: &str) -> Result<()> {
        let key = format!("node_modules/{package}");
        let bad = |said: String| Error::BadIntegrity { package: format!("{package}@{version}"), said };
        let Some(locked) = self.packages.get(&key) else { return Err(bad("npm did not install it".into())) };
        if locked.version.as_deref() != Some(version) {
            let installed = locked.version.as_deref().unwrap_or("unknown");
            return Err(bad(format!("npm installed version {installed}")));
        }
        match &locked.integrity {
            Some(integrity) if integrity.split_whitespace().any(|one| one == digest) => (),
            Some(other) => return Err(bad(format!("resolved as {digest}, installed as {other}"))),
            None => return Err(bad("npm recorded no integrity for it".into())),
        }
        let installed: Installed = read(&core.join(&key).join("package.json"))?;
        if (installed.name.as_str(), installed.version.as_str()) != (package, version) {
            return Err(bad(format!("its package.json says {}@{}", installed.name, installed.version)));
        }
        Ok(())
    }
}

pub(super) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Damaged { path: path.to_owned(), why: error.to_string() })
}
